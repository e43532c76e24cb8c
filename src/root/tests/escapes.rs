//! Paths without number, in trees without number, against a model of them in memory: a jail, whichever way it walks, finds
//! what the model finds, as source, as target and as a parent that is to be made, and refuses what it refuses, with the
//! same reason.
//!
//! The model knows nothing of directories that are held: it has names, and a rule for each.

use super::*;
use crate::root::Source;
use crate::root::place::{Parents, Place};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};

/// Trees, and paths compared in each, by both ways: a million in all. In a debug build fewer, as each takes its time there.
const TREES: usize = if cfg!(debug_assertions) { 50 } else { 1_000 };
const PATHS: usize = 1_000;
/// Names of a tree beside its root.
const NODES: usize = 30;

#[derive(Clone, Debug, Eq, PartialEq)]
enum Node {
    File,
    Directory,
    /// Where it leads; `/JAIL` at its beginning stands for the jail's own absolute path.
    Link(String),
}

use Node::{Directory, File, Link};

const NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "missing", "..", "..", "..", ".", "", "JAIL", "OUTSIDE"];
/// Of them, those that something can have.
const MADE: usize = 7;

/// Where a target is: the directory, the name in it, and what has that name.
type Placed = Option<(u64, String, Option<u64>)>;

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
                    let found = child(&here, name);
                    match self.nodes.get(&found).cloned() {
                        None => return Err(Errno::NOENT),
                        Some(Link(_)) if self.links == 40 => return Err(Errno::LOOP),
                        Some(Link(leads_to)) => {
                            self.links += 1;
                            self.from(here, &leads_to)?
                        }
                        Some(File | Directory) => found,
                    }
                }
            };
        }
        Ok(here)
    }

    /// As of a directory.
    fn directory(&mut self, path: &str) -> Result<String, Errno> {
        let found = self.resolve(path)?;
        if self.nodes[&found] == Directory { Ok(found) } else { Err(Errno::NOTDIR) }
    }

    /// Where the directories of a path lead, and how many names of them would have to be made there.
    fn parents(&mut self, path: &str) -> Result<(String, usize), RootError> {
        match self.directory(path) {
            Err(Errno::NOENT) => {}
            found => return Ok((found?, 0)),
        }
        let (mut here, mut missing) = (String::new(), 0);
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." if missing > 0 => missing -= 1,
                _ if missing > 0 => missing += 1,
                name => match self.directory(&child(&here, name)) {
                    Err(Errno::NOENT) if self.nodes.contains_key(&child(&here, name)) => {
                        return Err(RootError::DanglingLink);
                    }
                    Err(Errno::NOENT) => missing = 1,
                    found => here = found?,
                },
            }
        }
        Ok((here, missing))
    }

    /// Where a target of this path is, in names. `None`: a parent is missing.
    fn place(&mut self, path: &str) -> Result<Option<(String, String)>, RootError> {
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        let (above, last) = if ["", ".", ".."].contains(&last) { (path, "source") } else { (above, last) };
        let (here, 0) = self.parents(above)? else { return Ok(None) };
        let found = child(&here, last);
        match self.resolve(&found) {
            Err(Errno::NOENT) if self.nodes.contains_key(&found) => Err(RootError::DanglingLink),
            Err(Errno::NOENT) => Ok(Some((here, last.into()))),
            Err(errno) => Err(errno.into()),
            Ok(leads_to) if self.nodes[&leads_to] == Directory => match self.nodes.get(&child(&leads_to, "source")) {
                None => Ok(Some((leads_to, "source".into()))),
                Some(_) => unreachable!("no tree has that name"),
            },
            Ok(leads_to) => {
                let (above, name) = leads_to.rsplit_once('/').unwrap_or(("", &leads_to));
                Ok(Some((above.into(), name.into())))
            }
        }
    }
}

fn child(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.into() } else { format!("{directory}/{name}") }
}

/// So many names, a slash between each two.
fn path(random: &mut fastrand::Rng, names_max: usize) -> String {
    let names: Vec<&str> = (0..random.usize(1..=names_max)).map(|_| NAMES[random.usize(..NAMES.len())]).collect();
    names.join("/")
}

/// A tree, the root's name is empty.
fn sow(random: &mut fastrand::Rng) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::from([(String::new(), Directory)]);
    for _ in 0..NODES {
        let directories: Vec<String> =
            nodes.iter().filter(|(_, node)| **node == Directory).map(|(path, _)| path.clone()).collect();
        let above = &directories[random.usize(..directories.len())];
        let node = match random.u8(..10) {
            0..3 => Directory,
            3..5 => File,
            5 => Link(format!("/{}", path(random, 3))),
            _ => match path(random, 5) {
                nothing if nothing.is_empty() => continue,
                leads_to => Link(leads_to),
            },
        };
        nodes.entry(child(above, NAMES[random.usize(..MADE)])).or_insert(node);
    }
    nodes
}

/// The tree on a disk, with `OUTSIDE` beside it, and each of its nodes by inode.
fn grow(scratch: &Scratch, nodes: &BTreeMap<String, Node>) -> BTreeMap<String, u64> {
    fs::create_dir(scratch.path("OUTSIDE")).unwrap();
    scratch.write("OUTSIDE/f", "outside");
    let top = scratch.path("JAIL");
    for (path, node) in nodes {
        let path = top.join(path);
        match node {
            File => fs::write(path, "inside").unwrap(),
            Directory => fs::create_dir(path).unwrap(),
            Link(to) => {
                let absolute = format!("{}/JAIL", scratch.0.path().display());
                symlink(to.strip_prefix("/JAIL").map_or(to.clone(), |rest| absolute + rest), path).unwrap();
            }
        }
    }
    nodes.keys().map(|path| (path.clone(), top.join(path).symlink_metadata().unwrap().ino())).collect()
}

#[test]
fn a_million_paths_lead_where_the_model_says_and_never_out() {
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let (mut found, mut outside, mut missing) = (0, 0, 0);
    for _ in 0..TREES {
        let scratch = Scratch::new();
        let nodes = sow(&mut random);
        let inodes = grow(&scratch, &nodes);
        let mut model = Model { nodes, links: 0 };
        let roots = WAYS.map(|way| (way, jail(&scratch.path("JAIL"), way)));
        for round in 0..PATHS {
            let path = path(&mut random, 9);
            let relative = path.trim_start_matches('/');
            let want = model.resolve(relative).map(|path| inodes[&path]);
            found += usize::from(want.is_ok());
            outside += usize::from(want == Err(Errno::XDEV));
            missing += usize::from(want == Err(Errno::NOENT));
            for (way, root) in &roots {
                let about = || format!("{path:?} {way:?}, seed {seed}, {:?}", model.nodes);
                let (start, below) = root.start(path.as_bytes()).unwrap();
                let got = start.open(below, OFlags::PATH).map(|held| rustix::fs::fstat(held).unwrap().st_ino);
                assert_eq!(got, want, "{}", about());
            }
            if round % 8 == 0 && !path.is_empty() {
                let placed = placed(&mut model, if relative.is_empty() { "." } else { relative }, &inodes);
                for (way, root) in &roots {
                    let about = format!("{path:?} {way:?}, seed {seed}, {:?}", model.nodes);
                    assert_source(root, &path, want, &about);
                    assert_eq!(place(root, &path), placed, "{about}");
                }
            }
        }
        assert_eq!(fs::read_dir(scratch.path("OUTSIDE")).unwrap().count(), 1);
        assert_eq!(scratch.read("OUTSIDE/f"), "outside");
    }
    let (all, share) = (TREES * PATHS, TREES * PATHS / 20);
    assert!(found > share && outside > share && missing > share, "{found}, {outside} and {missing} of {all}");
}

fn assert_source(root: &Root, path: &str, want: Result<u64, Errno>, about: &str) {
    match Source::open(root.clone(), path.as_bytes(), &NOTHING_WITHHELD) {
        Ok(source) => assert_eq!(Ok(source.facts().inode.number), want, "{about}"),
        Err(RootError::IsDirectory) => assert!(want.is_ok(), "{about}"),
        Err(error) => assert_eq!(want.map_err(RootError::from), Err(error), "{about}"),
    }
}

fn placed(model: &mut Model, path: &str, inodes: &BTreeMap<String, u64>) -> Result<Placed, RootError> {
    let placed = model.place(path)?;
    Ok(placed.map(|(above, name)| (inodes[&above], name.clone(), inodes.get(&child(&above, &name)).copied())))
}

fn place(root: &Root, path: &str) -> Result<Placed, RootError> {
    let resolved = Place::resolve(root, path.as_bytes(), b"source", Parents::Leave)?;
    Ok(resolved.place.map(|place| {
        let directory = rustix::fs::fstat(&place.directory).unwrap().st_ino;
        (directory, String::from_utf8(place.name).unwrap(), place.found.map(|found| found.inode.number))
    }))
}
