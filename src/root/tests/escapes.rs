//! Paths without number against a model of a small tree, in memory: a jail, whichever way it walks, finds what the model
//! finds, and refuses what it refuses, with the same reason.

use super::*;
use crate::root::Source;
use crate::root::place::{Parents, Place};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};

/// What is compared: in a debug build fewer, as each takes its time there.
const PATHS: usize = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    File,
    Directory,
    /// Where it leads; `/JAIL` stands for the jail's own absolute path.
    Link(&'static str),
}

use Node::{Directory, File, Link};

/// The jail, from its root; `OUTSIDE` is beside it.
const TREE: &[(&str, Node)] = &[
    ("", Directory),
    ("a", Directory),
    ("a/a", Directory),
    ("a/a/a", Directory),
    ("a/a/f", File),
    ("a/f", File),
    ("b", Directory),
    ("b/f", File),
    ("f", File),
    ("a/l", Link("../b")),
    ("a/a/l", Link("../../f")),
    ("a/m", Link("a/../l/f")),
    ("b/l", Link("../a/a")),
    ("b/m", Link("..")),
    ("l", Link("a/a/../l")),
    ("m", Link("b/m/a/")),
    ("n", Link("f/")),
    ("x", Link("../OUTSIDE")),
    ("a/x", Link("../../OUTSIDE/f")),
    ("b/x", Link("../../JAIL/f")),
    ("y", Link("/JAIL/f")),
    ("a/y", Link("/")),
    ("b/y", Link("../b/../../JAIL")),
    ("o", Link("o")),
    ("a/o", Link("../b/o")),
    ("b/o", Link("../a/o")),
    ("d", Link("nowhere")),
    ("a/d", Link("../b/nowhere/f")),
];

const NAMES: &[&str] =
    &["a", "b", "f", "l", "m", "n", "x", "y", "o", "d", "nowhere", "..", "..", "..", ".", "", "JAIL", "OUTSIDE"];

/// The model: where a path leads, from `here`.
struct Model {
    nodes: BTreeMap<String, Node>,
    links: usize,
}

impl Model {
    fn resolve(&mut self, path: &str) -> Result<String, Errno> {
        self.links = 0;
        self.from(String::new(), path)
    }

    fn from(&mut self, mut here: String, path: &str) -> Result<String, Errno> {
        if path.starts_with('/') {
            return Err(Errno::XDEV);
        }
        for name in path.split('/') {
            if self.nodes[&here] != Directory {
                return Err(Errno::NOTDIR);
            }
            here = match name {
                "" | "." => here,
                ".." if here.is_empty() => return Err(Errno::XDEV),
                ".." => here.rsplit_once('/').map_or(String::new(), |(above, _)| above.into()),
                name => {
                    let slash = if here.is_empty() { "" } else { "/" };
                    let found = format!("{here}{slash}{name}");
                    match self.nodes.get(&found) {
                        None => return Err(Errno::NOENT),
                        Some(Link(_)) if self.links == 40 => return Err(Errno::LOOP),
                        Some(Link(leads_to)) => {
                            self.links += 1;
                            let leads_to = *leads_to;
                            self.from(here, leads_to)?
                        }
                        Some(File | Directory) => found,
                    }
                }
            };
        }
        Ok(here)
    }
}

/// The tree on a disk, and each of its nodes by inode.
fn grow(scratch: &Scratch) -> BTreeMap<String, u64> {
    fs::create_dir(scratch.path("OUTSIDE")).unwrap();
    scratch.write("OUTSIDE/f", "outside");
    let top = scratch.path("JAIL");
    let absolute = format!("{}/", scratch.0.path().display());
    for (path, node) in TREE {
        let path = top.join(path);
        match node {
            File => fs::write(path, "inside").unwrap(),
            Directory => fs::create_dir(path).unwrap(),
            Link(to) => {
                symlink(to.replacen("/JAIL", &format!("{absolute}JAIL"), usize::from(to.starts_with('/'))), path)
                    .unwrap()
            }
        }
    }
    TREE.iter().map(|(path, _)| ((*path).to_owned(), top.join(path).symlink_metadata().unwrap().ino())).collect()
}

#[test]
fn a_million_paths_lead_where_the_model_says_and_never_out() {
    let scratch = Scratch::new();
    let inodes = grow(&scratch);
    let mut model = Model { nodes: TREE.iter().map(|(path, node)| ((*path).to_owned(), *node)).collect(), links: 0 };
    let roots = WAYS.map(|way| (way, jail(&scratch.path("JAIL"), way)));
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let (mut found, mut outside) = (0, 0);
    for round in 0..PATHS {
        let names: Vec<&str> = (0..random.usize(1..10)).map(|_| NAMES[random.usize(..NAMES.len())]).collect();
        let path = names.join("/");
        let want = model.resolve(path.trim_start_matches('/')).map(|path| inodes[&path]);
        found += usize::from(want.is_ok());
        outside += usize::from(want == Err(Errno::XDEV));
        for (way, root) in &roots {
            let (start, relative) = match root.start(path.as_bytes()) {
                Ok(begun) => begun,
                Err(error) => panic!("{path:?}: {error}"),
            };
            let got = start.open(relative, OFlags::PATH).map(|held| rustix::fs::fstat(held).unwrap().st_ino);
            assert_eq!(got, want, "{path:?} {way:?}, seed {seed}");
            if round % 16 == 0 && !path.is_empty() {
                as_source_and_target(root, &path, want, &inodes);
            }
        }
    }
    assert!(found > PATHS / 20 && outside > PATHS / 20, "{found} found and {outside} outside, of {PATHS}");
    assert_eq!(fs::read_dir(scratch.path("OUTSIDE")).unwrap().count(), 1);
    assert_eq!(scratch.read("OUTSIDE/f"), "outside");
}

/// The same by what is made of it.
fn as_source_and_target(root: &Root, path: &str, want: Result<u64, Errno>, inodes: &BTreeMap<String, u64>) {
    let inside = |inode: u64| inodes.values().any(|known| *known == inode);
    match Source::open(root.clone(), path.as_bytes()) {
        Ok(source) => assert_eq!(Ok(source.facts().inode.number), want, "{path}"),
        Err(RootError::IsDirectory) => assert!(want.is_ok(), "{path}"),
        Err(error) => assert_eq!(want.map_err(RootError::from), Err(error), "{path}"),
    }
    if let Ok(resolved) = Place::resolve(root, path.as_bytes(), b"source", Parents::Leave)
        && let Some(place) = resolved.place
    {
        assert!(inside(rustix::fs::fstat(&place.directory).unwrap().st_ino), "{path}");
        assert!(!place.name.contains(&b'/') && place.name != b"..", "{path}");
        assert!(place.found.is_none_or(|found| inside(found.inode.number)), "{path}");
    }
}
