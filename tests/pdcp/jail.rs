//! What is served and to what extent, by the real program: `--root`, `--read-only`, `--run-as`.

use crate::rig::sandbox::{ENOSYS, EPERM, LANDLOCK, OPENAT2, RING_RESTRICTIONS, refusing};
use crate::rig::{MIB, Part, Run, Server, assert_equal, is_root, make, run, state};
use pdcp::root::{Jail, Root, Wall, raise_wall};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::PathBuf;

const OLD: [Part; 1] = [Part::Data(1, MIB)];
const NEW: [Part; 1] = [Part::Data(2, MIB)];
/// Somebody else than root.
const NOBODY: u32 = 65_534;

/// A directory that is served, `inside`, and what is beside it.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(scene.path("inside/dir")).unwrap();
        fs::create_dir(scene.path("outside")).unwrap();
        make(&scene.path("inside/file"), &OLD);
        make(&scene.path("outside/file"), &OLD);
        make(&scene.path("new"), &NEW);
        symlink("../file", scene.path("inside/dir/link")).unwrap();
        symlink("../../outside/file", scene.path("inside/dir/out")).unwrap();
        symlink("../outside", scene.path("inside/out-dir")).unwrap();
        symlink(scene.path("inside/file"), scene.path("inside/absolute")).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn root(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn push(&self, server: &Server, path: &str) -> Run {
        run(&["--json".into(), self.path("new").into_os_string(), remote(server, path)])
    }

    /// To `back`.
    fn pull(&self, server: &Server, path: &str) -> Run {
        run(&["--json".into(), remote(server, path), self.path("back").into_os_string()])
    }

    /// Whatever is asked of this server, what is outside stays as it is.
    #[track_caller]
    fn check_that_nothing_leads_out(&self, server: &Server) {
        let before = (state(&self.path("outside")), state(&self.path("outside/file")));
        for path in
            ["../outside/file", "/../outside/file", "dir/out", "out-dir/file", "out-dir/new", "absolute", "../new"]
        {
            for ran in [self.push(server, path), self.pull(server, path)] {
                ran.ends_with(5);
                ran.tells("leads out of the directory that is served");
            }
        }
        let after = (state(&self.path("outside")), state(&self.path("outside/file")));
        assert_eq!(after, before);
        assert!(!self.path("back").exists());
    }

    /// Push and pull, made and updated, by links that stay inside.
    #[track_caller]
    fn check_that_what_is_inside_is_served(&self, server: &Server) {
        for (path, made) in [("file", "file"), ("/new/deep/file", "new/deep/file"), ("dir", "dir/new")] {
            self.push(server, path).ends_with(0);
            assert_equal(&self.path("new"), &self.path("inside").join(made));
        }
        make(&self.path("inside/file"), &OLD);
        self.push(server, "dir/../dir/link").ends_with(0);
        assert_equal(&self.path("new"), &self.path("inside/file"));
        assert!(self.path("inside/dir/link").is_symlink());
        self.pull(server, "dir/link").ends_with(0);
        assert_equal(&self.path("new"), &self.path("back"));
        fs::remove_file(self.path("back")).unwrap();
    }
}

fn remote(server: &Server, path: &str) -> OsString {
    format!("127.0.0.1:{}:{path}", server.port).into()
}

fn serve(arguments: &[&str]) -> Server {
    Server::start(&[&["127.0.0.1:0", "-c", "1"], arguments].concat())
}

/// A server that is asked to stop, and what it has said.
fn stop(server: Server) -> Run {
    server.process.signal(rustix::process::Signal::TERM);
    server.process.wait()
}

#[test]
fn without_a_root_everything_is_served_and_that_is_said() {
    let scene = Scene::new();
    let server = serve(&[]);
    scene.push(&server, &scene.root("inside/absolute")).ends_with(0);
    assert_equal(&scene.path("new"), &scene.path("inside/file"));
    stop(server).tells("serving every file that this user can reach; --root DIR serves less");
}

#[test]
fn a_root_is_where_paths_begin_and_what_they_do_not_leave() {
    let scene = Scene::new();
    let server = serve(&["--root", &scene.root("inside")]);
    scene.check_that_nothing_leads_out(&server);
    scene.check_that_what_is_inside_is_served(&server);
    scene.check_that_nothing_leads_out(&server);
    let threads = threads(&server);
    let said = stop(server);
    said.tells(&format!("pdcp: serving {}\n", scene.root("inside")));
    if said.stderr.contains("Landlock keeps this process to what is served\n") {
        // Who is behind the wall has given up this too.
        assert!(threads.iter().all(|thread| thread.contains("NoNewPrivs:\t1\n")), "{threads:?}");
    } else {
        eprintln!("SKIPPED: a server behind Landlock: this kernel has none, or an old one");
        said.tells("Landlock");
    }
    if !said.stderr.contains("the workers' rings are restricted to the operations used\n") {
        eprintln!("SKIPPED: rings that are restricted: this kernel restricts none");
        said.tells("the workers' rings cannot be restricted here");
    }
}

#[test]
fn where_the_walls_behind_it_cannot_stand_a_root_holds_alone_and_that_is_said() {
    for errno in [ENOSYS, EPERM] {
        let scene = Scene::new();
        let root = scene.root("inside");
        let server = refusing(&[LANDLOCK, RING_RESTRICTIONS], errno, || serve(&["--root", &root]));
        scene.check_that_nothing_leads_out(&server);
        scene.check_that_what_is_inside_is_served(&server);
        let said = stop(server);
        said.tells("there is no Landlock here");
        said.tells("the workers' rings cannot be restricted here");
    }
}

/// Landlock is asked by whoever opens a file, and a ring opens in the name of the thread that made it. Control's own ring is
/// not restricted to certain operations.
#[test]
fn what_a_ring_opens_is_behind_the_wall_as_well() {
    let scene = Scene::new();
    let opens = |name: &str| tokio_uring::fs::File::open(scene.path(name));
    let behind = || {
        let mut jail = Jail::default();
        jail.add(b"", &scene.path("inside")).unwrap();
        let wall = raise_wall(&Root::Jail(jail.into()), false);
        if wall != Wall::Whole {
            return eprintln!("SKIPPED: what a ring opens behind Landlock: {wall}");
        }
        tokio_uring::start(async {
            opens("inside/file").await.unwrap();
            for name in ["outside/file", "inside/dir/out", "new"] {
                assert_eq!(
                    opens(name).await.err().map(|error| error.kind()),
                    Some(ErrorKind::PermissionDenied),
                    "{name}"
                );
            }
        });
    };
    // For that thread, for ever.
    std::thread::scope(|scope| scope.spawn(behind).join()).unwrap();
    tokio_uring::start(async { opens("outside/file").await.unwrap() });
}

#[test]
fn a_root_may_be_a_link_and_what_is_no_directory_is_no_root() {
    let scene = Scene::new();
    symlink(scene.path("inside"), scene.path("link")).unwrap();
    let server = serve(&["--root", &scene.root("link")]);
    scene.check_that_what_is_inside_is_served(&server);
    scene.check_that_nothing_leads_out(&server);
    for name in ["missing", "new"] {
        let refused = run(&["--json", "--serve", "127.0.0.1:0", "--root", &scene.root(name)]);
        refused.ends_with(2);
        refused.tells("cannot be served");
        refused.tells(&scene.root(name));
    }
}

#[test]
fn several_roots_are_told_apart_by_the_first_name_of_a_path() {
    let scene = Scene::new();
    fs::create_dir(scene.path("second")).unwrap();
    let (first, second) = (format!("one={}", scene.root("inside")), format!("two={}", scene.root("second")));
    let server = serve(&["--root", &first, "--root", &second]);
    scene.push(&server, "/one/file").ends_with(0);
    assert_equal(&scene.path("new"), &scene.path("inside/file"));
    let taken = scene.push(&server, "two").ends_with(0);
    assert_eq!(taken.text("target"), remote(&server, "two/new").to_str().unwrap());
    assert_equal(&scene.path("new"), &scene.path("second/new"));
    scene.pull(&server, "two/new").ends_with(0);
    for (path, text) in [
        ("file", "the first name of a path"),
        ("/", "the first name of a path"),
        ("one/../two/new", "leads out"),
        ("one/dir/out", "leads out"),
    ] {
        let refused = scene.push(&server, path);
        refused.ends_with(5);
        refused.tells(text);
    }
    stop(server).tells(&format!("serving {first}, {second}\n"));
}

#[test]
fn what_is_served_read_only_is_pulled_and_not_pushed() {
    let scene = Scene::new();
    let server = serve(&["--root", &scene.root("inside"), "--read-only", "--no-delete"]);
    let before = (state(&scene.path("inside")), state(&scene.path("inside/file")));
    for path in ["file", "missing", "new/deep/file", "dir"] {
        let refused = scene.push(&server, path);
        refused.ends_with(5);
        refused.tells("is served read-only");
    }
    scene.pull(&server, "dir/link").ends_with(0);
    assert_equal(&scene.path("inside/file"), &scene.path("back"));
    assert_eq!((state(&scene.path("inside")), state(&scene.path("inside/file"))), before);
    stop(server).tells("(read-only)");

    let server = serve(&["--read-only"]);
    scene.push(&server, &scene.root("inside/file")).ends_with(5);
    scene.pull(&server, &scene.root("inside/file")).ends_with(0);
    assert_eq!(state(&scene.path("inside/file")), before.1);
}

/// As under systemd's `RestrictSUIDSGID=`, which answers ENOSYS, and in containers, which answer EPERM.
#[test]
fn a_root_holds_also_where_openat2_is_refused() {
    for errno in [ENOSYS, EPERM] {
        let scene = Scene::new();
        let root = scene.root("inside");
        let server = refusing(&[OPENAT2], errno, || serve(&["--root", &root]));
        scene.check_that_nothing_leads_out(&server);
        scene.check_that_what_is_inside_is_served(&server);
        stop(server).tells("paths are walked by hand");
    }
}

#[test]
fn a_server_becomes_somebody_else_before_it_opens_anything() {
    let refused = run(&["--json", "--serve", "127.0.0.1:0", "--run-as", "nobody-of-this-name"]);
    refused.ends_with(2);
    refused.tells("there is no such user");
    if !is_root() {
        let refused = run(&["--json", "--serve", "127.0.0.1:0", "--run-as", "root"]);
        refused.ends_with(2);
        refused.tells("only root can become another user");
        return eprintln!("SKIPPED: a server that becomes another user: needs root");
    }
    let scene = Scene::new();
    let own = |path: &&str| chown(scene.path(path), Some(NOBODY), None).unwrap();
    ["inside", "inside/file"].iter().for_each(own);
    fs::set_permissions(scene.path("inside/dir"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Where it is, only root can go: it was held before.
    fs::set_permissions(scene.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let server = serve(&["--root", &scene.root("inside"), "--run-as", "nobody"]);
    for thread in threads(&server) {
        for line in ["Uid:", "Gid:"] {
            assert!(thread.contains(&format!("{line}\t65534\t65534\t65534\t65534\n")), "{thread}");
        }
        for line in ["Groups:\t65534 \n", "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n"] {
            assert!(thread.contains(line), "{thread}");
        }
    }
    scene.push(&server, "file").ends_with(0);
    scene.push(&server, "made/here").ends_with(0);
    assert_eq!(fs::metadata(scene.path("inside/made/here")).unwrap().uid(), NOBODY);
    let refused = scene.push(&server, "dir/new"); // root's
    refused.ends_with(11);
    refused.tells("permission denied");
    stop(server).tells(" as nobody");
}

/// What the kernel says of each thread of a server.
fn threads(server: &Server) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap();
    tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect()
}
