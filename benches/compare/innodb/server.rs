//! A MariaDB server that nobody but us can reach, and that ends with us, also by Ctrl-C.
//!
//! It stands on an empty directory: without grants it needs no tables of its own. It writes its data as lazily as it can,
//! since nobody will miss them, and is killed rather than stopped: what was exported is on the disk already.

use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, fmt, thread};

const SERVER_NAMES: [&str; 2] = ["mariadbd", "mysqld"];
const CLIENT_NAMES: [&str; 2] = ["mariadb", "mysql"];
/// Where packages put servers, and a user's PATH may not look.
const SERVER_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/usr/libexec"];
/// Below the data, and named so: the whole path could be longer than a socket's may be.
const SOCKET: &str = "--socket=./socket";
const OPTIONS: [&str; 8] = [
    "--no-defaults", // must be the first
    "--datadir=.",
    SOCKET,
    "--skip-networking",
    "--skip-grant-tables",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=1G", // the whole table
];
/// A server on a slow disk takes some seconds until it listens; this is for ever.
const START_TRIES: u32 = 300;
const START_PAUSE: Duration = Duration::from_millis(200);
/// What a client is made to say behind each statement, so that we know where its answer ends.
const DONE: &str = "statement-done";

/// Why there is no table.
#[derive(Debug)]
pub(crate) enum ServerError {
    /// Neither of these is installed.
    Missing([&'static str; 2]),
    /// Making the table takes more than this.
    NoRoom {
        free_bytes: u64,
    },
    /// This is in the place of the table, and was not made by these statements.
    Other(PathBuf),
    /// It ended, or did not answer; this is its log.
    NotStarted(String),
    /// It refused this; its reason is on our standard error.
    Refused(String),
    Io(io::Error),
}

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    scratch: PathBuf,
    data: PathBuf,
    process: Child,
    session: Option<Session>,
}

/// One client: FOR EXPORT lasts as long as the connection that asked for it.
#[derive(Debug)]
struct Session {
    process: Child,
    statements: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// That it can be started, as far as programs are concerned.
    pub(crate) fn check() -> Result<(), ServerError> {
        find(SERVER_NAMES).and(find(CLIENT_NAMES)).map(|_| ())
    }

    /// Makes `scratch`, which is removed at the end.
    pub(crate) fn start(scratch: &Path) -> Result<Self, ServerError> {
        let (program, client) = (find(SERVER_NAMES)?, find(CLIENT_NAMES)?);
        let data = scratch.join("data");
        let log = scratch.join("log");
        // Closed to others: whoever reaches the socket may do all.
        let mut closed = DirBuilder::new();
        closed.mode(0o700).create(scratch)?;
        closed.recursive(true).create(data.join("mysql"))?;
        let mut command = Command::new("setpriv"); // of util-linux; the server itself does not heed Ctrl-C
        command.args(["--pdeathsig", "KILL"]).arg(program).args(OPTIONS);
        if geteuid().is_root() {
            command.arg("--user=root"); // it will not be root unless told to
        }
        command.current_dir(&data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut server = Self { scratch: scratch.into(), process: command.spawn()?, session: None, data };
        if !server.answers(&client)? {
            return Err(ServerError::NotStarted(fs::read_to_string(log)?));
        }
        server.session = Some(Session::open(&client, &server.data)?);
        Ok(server)
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Comes back when all `statements` are done. The first one refused is the last.
    pub(crate) fn run(&mut self, statements: &str) -> Result<(), ServerError> {
        let session = self.session.as_mut().expect("opened at the start");
        writeln!(session.statements, "{statements}\nSELECT '{DONE}';")?;
        let mut answer = String::new();
        while session.answers.read_line(&mut answer)? > 0 {
            if answer.trim_end() == DONE {
                return Ok(());
            }
            answer.clear();
        }
        Err(ServerError::Refused(statements.to_owned()))
    }

    fn answers(&mut self, client: &Path) -> io::Result<bool> {
        for _ in 0..START_TRIES {
            if self.process.try_wait()?.is_some() {
                return Ok(false);
            }
            let mut ping = ask(client, &self.data);
            if ping.args(["--execute", "DO 0"]).stderr(Stdio::null()).status()?.success() {
                return Ok(true);
            }
            thread::sleep(START_PAUSE);
        }
        Ok(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(Session { mut process, statements, .. }) = self.session.take() {
            drop(statements); // the client ends at the end of its input
            let _ = process.wait();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.scratch); // it lies in a scratch directory, which will try again
    }
}

impl Session {
    fn open(client: &Path, data: &Path) -> io::Result<Self> {
        let mut process = ask(client, data)
            .args(["--batch", "--skip-column-names", "--unbuffered"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let statements = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Ok(Self { process, statements, answers })
    }
}

fn ask(client: &Path, data: &Path) -> Command {
    let mut command = Command::new(client);
    command.args(["--no-defaults", SOCKET]).current_dir(data);
    command
}

/// The first that is there, by its newer name if possible.
fn find(names: [&'static str; 2]) -> Result<PathBuf, ServerError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = env::split_paths(&path).chain(SERVER_DIRECTORIES.map(PathBuf::from)).collect();
    let candidates = names.iter().flat_map(|name| places.iter().map(move |place| place.join(OsStr::new(name))));
    candidates.into_iter().find(|candidate| candidate.is_file()).ok_or(ServerError::Missing(names))
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing([name, _]) => {
                write!(f, "no {name}: the row of a real table needs MariaDB (apt-get install mariadb-server)")
            }
            Self::NoRoom { free_bytes } => {
                write!(f, "making the table takes 4 GB for a while, and {:.2} GB are free", *free_bytes as f64 / 1e9)
            }
            Self::Other(path) => write!(f, "{}: is not this table; remove it to have it made anew", path.display()),
            Self::NotStarted(log) => write!(f, "MariaDB did not start:\n{log}"),
            Self::Refused(statements) => write!(f, "MariaDB refused one of: {statements}"),
            Self::Io(error) => write!(f, "making the table: {error}"),
        }
    }
}

impl std::error::Error for ServerError {}
