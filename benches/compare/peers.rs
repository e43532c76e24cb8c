//! The programs that are measured: where they are, how each is asked for a copy, and what its answer says.

use crate::arguments::Arguments;
use crate::process::{Error, Result};
use crate::rows::Row;
use crate::scene::Pair;
use crate::subject::Pdcp;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In the order of columns.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Program {
    PdcpPush,
    PdcpPull,
    PdcpLocal,
    RsyncDelta,
    RsyncWhole,
    RsyncLocal,
    Cp,
    Pdiffcopy,
    Yardstick,
    /// Copies nothing: reads and hashes both files.
    B3sum,
}

/// What `Yardstick` is told: KiB read at a time, and connections.
const YARDSTICK_SHAPE: [&str; 2] = ["64", "2"];
/// pdiffcopy tells how many blocks it moved. It has 1 MiB ones unless asked.
const PDIFFCOPY_BLOCK_BYTES: u64 = 1 << 20;

impl Program {
    pub(crate) const ALL: [Self; 10] = [
        Self::PdcpPush,
        Self::PdcpPull,
        Self::PdcpLocal,
        Self::RsyncDelta,
        Self::RsyncWhole,
        Self::RsyncLocal,
        Self::Cp,
        Self::Pdiffcopy,
        Self::Yardstick,
        Self::B3sum,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PdcpPush => "pdcp push",
            Self::PdcpPull => "pdcp pull",
            Self::PdcpLocal => "pdcp local",
            Self::RsyncDelta => "rsync delta",
            Self::RsyncWhole => "rsync whole",
            Self::RsyncLocal => "rsync local",
            Self::Cp => "cp",
            Self::Pdiffcopy => "pdiffcopy",
            Self::Yardstick => "yardstick",
            Self::B3sum => "b3sum",
        }
    }

    /// File bytes that it moved, by what it printed; `None` where it never tells.
    ///
    /// # Errors
    /// [`Error::Program`] where it should have told: it was not at work, though all may be equal.
    pub(crate) fn moved_bytes(self, printed: &str) -> Result<Option<u64>> {
        let moved = match self {
            Self::PdcpPush | Self::PdcpPull | Self::PdcpLocal => proven_bytes(printed),
            Self::RsyncDelta | Self::RsyncWhole | Self::RsyncLocal => number_behind(printed, "Literal data: "),
            Self::Pdiffcopy if printed.contains("Nothing to do") => Some(0),
            Self::Pdiffcopy => number_behind(printed, "Will upload ").map(|blocks| blocks * PDIFFCOPY_BLOCK_BYTES),
            Self::Cp | Self::Yardstick | Self::B3sum => return Ok(None),
        };
        moved.map(Some).ok_or_else(|| Error::Program("did not say what it moved".into()))
    }
}

/// What pdcp moved, if it says that it has proven all of it.
fn proven_bytes(printed: &str) -> Option<u64> {
    let summary = printed.lines().find(|line| line.starts_with('{'))?;
    let summary: serde_json::Value = serde_json::from_str(summary).ok()?;
    summary["changed_bytes"].as_u64().filter(|_| summary["verified"] == true)
}

/// A number with commas between its digits.
fn number_behind(text: &str, words: &str) -> Option<u64> {
    let (_, behind) = text.split_once(words)?;
    let digits = behind.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit);
    digits.collect::<String>().parse().ok()
}

/// Where each program is, and what pdcp is always told.
#[derive(Debug)]
pub(crate) struct Peers {
    pdcp: Pdcp,
    pdcp_options: Vec<OsString>,
    pdcp_server_options: Vec<OsString>,
    rsync: Option<PathBuf>,
    pdiffcopy: Option<PathBuf>,
    yardstick: Option<PathBuf>,
    b3sum: Option<PathBuf>,
    /// Where a disk is measured: says what that can do.
    fio: Option<PathBuf>,
}

impl Peers {
    /// Says on standard error what is missing, and how to get it. Files will be copied in `directory`.
    pub(crate) fn find(arguments: &Arguments, pdcp: Pdcp, directory: &Path) -> Self {
        let mut options = Vec::new();
        let mut server_options = Vec::new();
        if let Some(connections) = arguments.connections {
            options.extend(["--connections".into(), connections.to_string().into()]);
        }
        if let Some(workers) = arguments.workers {
            let workers = ["--concurrency".into(), workers.to_string().into()];
            options.extend(workers.clone());
            server_options.extend(workers);
        }
        if let Some(size) = &arguments.block_size {
            options.extend(["--block-size".into(), size.into()]);
        }
        if arguments.no_fsync {
            options.push("--no-fsync".into());
        }
        let measures_a_disk = arguments.cold && arguments.remote.is_none() && !arguments.no_ceiling;
        Self {
            pdcp,
            pdcp_options: options,
            pdcp_server_options: server_options,
            rsync: find("rsync".as_ref(), "apt-get install rsync"),
            pdiffcopy: if fits_a_url(directory) {
                find(&arguments.pdiffcopy, "pip install 'pdiffcopy[client,server]==1.0.1', before Python 3.13")
            } else {
                tell!("without pdiffcopy, which would write to another path than {}", directory.display());
                None
            },
            yardstick: arguments.yardstick.as_deref().and_then(|path| find(path, "see --yardstick")),
            b3sum: find("b3sum".as_ref(), "apt-get install b3sum, or cargo install b3sum"),
            fio: if measures_a_disk { find("fio".as_ref(), "apt-get install fio") } else { None },
        }
    }

    pub(crate) fn has(&self, program: Program) -> bool {
        match program {
            Program::PdcpPush | Program::PdcpPull | Program::PdcpLocal | Program::Cp => true,
            Program::RsyncDelta | Program::RsyncWhole | Program::RsyncLocal => self.rsync.is_some(),
            Program::Pdiffcopy => self.pdiffcopy.is_some(),
            Program::Yardstick => self.yardstick.is_some(),
            Program::B3sum => self.b3sum.is_some(),
        }
    }

    pub(crate) fn fio(&self) -> Option<&Path> {
        self.fio.as_deref()
    }

    /// Those that are there, with what each is called.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let found = [
            ("pdcp", Some(self.pdcp.program())),
            ("rsync", self.rsync.as_deref()),
            ("pdiffcopy", self.pdiffcopy.as_deref()),
            ("yardstick", self.yardstick.as_deref()),
            ("b3sum", self.b3sum.as_deref()),
            ("fio", self.fio()),
        ];
        found.into_iter().filter_map(|(name, path)| Some((name, path?)))
    }

    /// What listens there while `program` asks; `None` where nothing does.
    pub(crate) fn server(
        &self,
        program: Program,
        row: &Row,
        pair: &Pair,
        address: SocketAddrV4,
    ) -> Result<Option<Command>> {
        Ok(match program {
            Program::PdcpPush | Program::PdcpPull => {
                let mut command = self.pdcp.command();
                command.args(["--quiet", "--serve", &address.to_string()]);
                command.args(&self.pdcp_server_options).args(&row.pdcp_server_options);
                Some(command)
            }
            Program::RsyncDelta | Program::RsyncWhole => Some(self.rsync_daemon(pair, address)?),
            Program::Pdiffcopy => {
                let mut command = self.pdiffcopy();
                command.args(["--listen", &address.to_string()]);
                Some(command)
            }
            Program::Yardstick => {
                let mut command = self.yardstick(address);
                command.arg("source").args(YARDSTICK_SHAPE).arg(&pair.source);
                Some(command)
            }
            Program::PdcpLocal | Program::RsyncLocal | Program::Cp | Program::B3sum => None,
        })
    }

    /// With the directory of the target as its module.
    fn rsync_daemon(&self, pair: &Pair, address: SocketAddrV4) -> Result<Command> {
        let directory = pair.target.parent().expect("in a scratch directory");
        let configuration = directory.join("rsyncd.conf");
        let path = directory.display();
        // As ourselves: root would else become nobody.
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let identity = if user == 0 { format!("uid = {user}\ngid = {group}\n") } else { String::new() };
        std::fs::write(&configuration, format!("use chroot = no\n{identity}[bench]\npath = {path}\nread only = no\n"))?;
        let mut command = Command::new(known(&self.rsync));
        command.args(["--daemon", "--no-detach"]);
        command.args([format!("--address={}", address.ip()), format!("--port={}", address.port())]);
        command.arg(with_prefix("--config=", &configuration));
        Ok(command)
    }

    /// `program` asks the server there for what `row` is about.
    pub(crate) fn client(&self, program: Program, row: &Row, pair: &Pair, address: SocketAddrV4) -> Command {
        let (source, target) = (pair.source.as_os_str(), pair.target.as_os_str());
        let remote = |path: &OsStr| with_prefix(&format!("{address}:"), path);
        match program {
            Program::PdcpPush => self.pdcp(row, source, &remote(target)),
            Program::PdcpPull => self.pdcp(row, &remote(source), target),
            Program::PdcpLocal => self.pdcp(row, source, target),
            Program::RsyncDelta | Program::RsyncWhole => {
                let name = pair.target.file_name().expect("in a scratch directory");
                self.rsync(program, row, source, &with_prefix(&format!("rsync://{address}/bench/"), name))
            }
            Program::RsyncLocal => self.rsync(program, row, source, target),
            Program::Cp => of("cp", [source, target]),
            Program::B3sum => of(known(&self.b3sum), [source, target]),
            Program::Pdiffcopy => {
                let mut command = self.pdiffcopy();
                command.arg(source).arg(with_prefix(&format!("http://{address}"), target));
                command
            }
            Program::Yardstick => {
                let mut command = self.yardstick(address);
                command.arg("target").args(YARDSTICK_SHAPE).arg(target);
                command.args(row.begins_without_target().then_some("whole"));
                command
            }
        }
    }

    pub(crate) fn pdcp(&self, row: &Row, source: &OsStr, target: &OsStr) -> Command {
        let mut command = self.pdcp.command();
        command.arg("--json").args(&self.pdcp_options).args(&row.pdcp_options).args([source, target]);
        command
    }

    /// One that was found, in the way that `program` stands for.
    pub(crate) fn rsync(&self, program: Program, row: &Row, source: &OsStr, target: &OsStr) -> Command {
        let way = if program == Program::RsyncWhole { "--whole-file" } else { "--no-whole-file" };
        let mut command = Command::new(known(&self.rsync));
        command.args(["--inplace", way, "--ignore-times", "--stats"]).args(row.rsync_options).args([source, target]);
        command
    }

    /// It starts others of its own directory, by PATH.
    fn pdiffcopy(&self) -> Command {
        let program = known(&self.pdiffcopy);
        let own = program.parent().map(Path::to_path_buf);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)));
        let mut command = Command::new(program);
        command.env("PATH", path.expect("parts of a PATH"));
        command
    }

    /// It knows no address but the loopback's.
    fn yardstick(&self, address: SocketAddrV4) -> Command {
        let mut command = Command::new(known(&self.yardstick));
        command.env("YARDSTICK_PORT", address.port().to_string());
        command
    }
}

/// pdiffcopy takes a path for a URL, which ends at these, and does not decode it.
fn fits_a_url(path: &Path) -> bool {
    path.to_str().is_some_and(|path| !path.contains(['?', '#', ';']))
}

fn of<'a>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = &'a OsStr>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn known(path: &Option<PathBuf>) -> &Path {
    path.as_deref().expect("a row has only programs that were found")
}

fn with_prefix(prefix: &str, rest: impl AsRef<OsStr>) -> OsString {
    let mut joined = OsString::from(prefix);
    joined.push(rest);
    joined
}

/// `program` itself where it is a path, else the first of that name in PATH.
fn find(program: &Path, how_to_install: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
    let directories = std::env::split_paths(&path); // joined to a whole path, a directory gives way
    let found = if program.components().count() > 1 {
        std::path::absolute(program).ok().filter(is_program)
    } else {
        directories.map(|directory| directory.join(program)).find(is_program)
    };
    if found.is_none() {
        tell!("without {}, which is not installed: {how_to_install}", program.display());
    }
    found
}
