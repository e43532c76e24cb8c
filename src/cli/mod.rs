//! What was typed -> a [`Command`].
//!
//! Says nothing itself: help, notes and refusals are handed back for `report` to print. The last of two equal options
//! counts, and unique beginnings of long options are taken, as pdiffcopy's users know it. What one end of a copy may
//! look like is in `place`, sizes are in `size`.

pub mod fuzz;
mod place;
mod size;

use crate::completion::DirectPolicy;
use crate::control::access::{Access, Served};
use crate::control::benchmark::BenchmarkConfig;
use crate::control::{CopyConfig, Listen, Place, ServeConfig, Summary, WorkersConfig};
use crate::extent::BlockSize;
use crate::failure::{Failure, Kind};
use crate::limits::{BENCHMARK_LEVELS_MAX, BLOCK_BYTES_MAX, CONNECTIONS_MAX, CPUS_MAX, WORKERS_MAX};
use crate::method::Method;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser, error::ErrorKind};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// One run of the program, as asked for.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// Times `-v` less times `-q`: above 0 details are wanted, below 0 neither progress nor closing lines.
    pub verbosity: i32,
    /// `--json`.
    pub json: bool,
    /// What was made of the options where that is not what was typed; for `-v`.
    pub notes: Vec<String>,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Make one copy.
    Copy(Box<CopyConfig>),
    /// Measure one copy.
    Benchmark(Box<BenchmarkConfig>),
    /// Run a server.
    Serve(Box<ServeConfig>),
    /// Say what a server would serve, and to whom.
    Check(Box<ServeConfig>),
    /// Make the key file; or, with `public`, say the public key.
    Keygen {
        /// `--key-file`.
        key_file: Option<PathBuf>,
        /// `--public`.
        public: bool,
    },
    /// Help or version: print it, done.
    Say(String),
    /// Nothing: what was typed makes no sense.
    Refuse {
        /// With the one failure, and what could be understood all the same.
        summary: Box<Summary>,
        /// Lines for people that come after it; may be empty.
        hint: &'static str,
    },
}

const FORMS: &str = "\
usage: pdcp [OPTIONS] SOURCE TARGET     one of the two may be HOST:PORT:PATH
       pdcp [OPTIONS] --serve :PORT     a server, for the other host
       pdcp --help                      all options";

const SEE_HELP: &str = "Try 'pdcp --help'.";

const HELP: &str = "\
{about}

  pdcp --serve :9000                           on the other host: a server
  pdcp --connections 16 file host:9000:/path   push file to the server's /path
  pdcp host:9000:/path file                    pull: the other way round
  pdcp disk.img copy.img                       both here, without a server

{usage-heading} pdcp [OPTIONS] SOURCE TARGET
       pdcp [OPTIONS] --serve ADDRESS
       pdcp --keygen [--public]

A remote is HOST:PORT:PATH, [IPV6]:PORT:PATH or pdcp://HOST:PORT/PATH.
./ before a name makes it local.

{all-args}";

/// Brings a large file up to date with another, here or on another host, and proves that it did.
#[derive(Debug, Parser)]
#[command(name = "pdcp", version, help_template = HELP, max_term_width = 96, no_binary_name = true)]
#[command(disable_help_flag = true, disable_version_flag = true, args_override_self = true, infer_long_args = true)]
struct Typed {
    // In `paths`, all of them: how many make sense is told in our own words.
    #[arg(value_name = "PATH", hide = true)]
    paths: Vec<OsString>,

    /// Serve on :PORT (all addresses), IPV4:PORT, [IPV6]:PORT or PORT; port 0: any free one; systemd: on the sockets that
    /// systemd hands over
    #[arg(short = 'l', long, visible_alias = "listen", value_name = "ADDRESS", value_parser = listen_address)]
    #[arg(help_heading = "Serving")]
    serve: Option<Listen>,
    /// Serve only what is in DIR, from where paths begin and which they cannot leave; several, each with a NAME, are told
    /// apart by the first name of a path [default: every file that this user can reach]
    #[arg(long, value_name = "[NAME=]DIR", help_heading = "Serving", requires = "serve")]
    #[arg(value_parser = OsStringValueParser::new().try_map(root))]
    root: Vec<(Option<Vec<u8>>, PathBuf)>,
    /// Let clients pull, but not push
    #[arg(long, help_heading = "Serving", requires = "serve")]
    read_only: bool,
    /// Let clients remove nothing; no copy of a single file does
    #[arg(long, help_heading = "Serving", requires = "serve")]
    no_delete: bool,
    /// Take the port as root, then become USER, by name or number
    #[arg(long, value_name = "USER", help_heading = "Serving", requires = "serve")]
    run_as: Option<String>,

    /// Append a line of JSON to FILE for each session, and for each caller who is not let in
    #[arg(long, value_name = "FILE", help_heading = "Serving", requires = "serve")]
    audit_log: Option<PathBuf>,

    /// With --serve: say what would be served, and to whom; serve nothing
    #[arg(long, help_heading = "Serving", requires = "serve")]
    check: bool,

    /// Make a key in FILE, which is not overwritten; the first --serve does it too
    #[arg(long, help_heading = "Keys", conflicts_with = "serve")]
    keygen: bool,
    /// With --keygen: make nothing, print the line of the key in FILE for a server's authorized_keys
    #[arg(long, help_heading = "Keys", requires = "keygen")]
    public: bool,
    /// The key [default: $PDCP_KEY_FILE, or pdcp/key in $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    key_file: Option<PathBuf>,
    /// Send bytes unsealed, for networks that nobody else is on; must be given at both ends
    #[arg(long, help_heading = "Keys")]
    plaintext: bool,

    /// Compare in blocks of SIZE, such as 64KiB or 1M, rounded up to a power of two from 4 KiB to 1 MiB [default: 16KiB]
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true, help_heading = "Comparing", conflicts_with = "serve", value_parser = block_bytes)]
    block_size: Option<u64>,
    /// Compare blocks by METHOD; the proof is BLAKE3 in any case [default: blake3]
    #[arg(short = 'm', long, value_name = "METHOD", help_heading = "Comparing", conflicts_with = "serve")]
    #[arg(value_parser = PossibleValuesParser::new(Method::NAMES.iter().copied()).try_map(method))]
    hash_method: Option<Method>,
    /// Do not compare: send everything
    #[arg(short = 'W', long, help_heading = "Comparing", conflicts_with = "serve")]
    whole_file: bool,
    /// Compare, and say what would move; write and create nothing
    #[arg(short = 'n', long, help_heading = "Comparing", conflicts_with = "serve")]
    dry_run: bool,

    /// Read back from the disk what was written, and compare
    #[arg(long, help_heading = "Writing", conflicts_with = "serve")]
    verify: bool,
    /// Update also a target that has several hard links
    #[arg(long, help_heading = "Writing", conflicts_with = "serve")]
    inplace: bool,
    /// Do not wait until the target is on disk
    #[arg(long, help_heading = "Writing", conflicts_with = "serve")]
    no_fsync: bool,

    /// TCP connections, 1 to 128 [default: as many as workers, at most 32]; with --serve: most of one session [default: 128]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Speed")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: Option<u32>,
    /// Workers on this side [default: the cores this process may use, at most 16]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, help_heading = "Speed")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)))]
    concurrency: Option<u32>,
    /// Use only these cores, such as 0-3,8
    #[arg(long, value_name = "LIST", help_heading = "Speed", value_parser = cpu_list)]
    cpus: Option<Cpus>,
    /// Do not pin workers to cores
    #[arg(long, help_heading = "Speed")]
    no_pin: bool,
    /// Read and write past the page cache; auto: if most of the file is not in it [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Speed")]
    #[arg(value_parser = PossibleValuesParser::new(["auto", "always", "never"]).map(direct_policy))]
    direct: Option<DirectPolicy>,

    /// Overwrite the local TARGET at COUNT levels, 1 to 100, bring it back from SOURCE each time, and print what that took
    #[arg(short = 'B', long, value_name = "COUNT", allow_negative_numbers = true, help_heading = "Measuring")]
    #[arg(conflicts_with_all = ["serve", "dry_run"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCHMARK_LEVELS_MAX)))]
    benchmark: Option<u32>,
    /// Do not ask before TARGET is overwritten
    #[arg(long, help_heading = "Measuring", requires = "benchmark")]
    yes: bool,
    /// Measure also rsync, which knows the same SOURCE as URL
    #[arg(long, value_name = "URL", help_heading = "Measuring", requires = "benchmark")]
    #[arg(value_parser = OsStringValueParser::new().try_map(rsync_source))]
    rsync_source: Option<OsString>,

    /// Say more
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,
    /// Say less: no progress, no closing lines
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    quiet: u8,
    /// End with one line of JSON on standard output instead of words
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Without paths: print this help. With paths: rsync's human-readable, does nothing
    #[arg(short = 'h', help_heading = "Output")]
    h: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "Output")]
    version: Option<bool>,
}

/// Cores, ascending, each once. A type of its own: clap takes a bare `Vec` for an option given several times.
#[derive(Clone, Debug)]
struct Cpus(Vec<usize>);

/// What `arguments`, without the program's name, ask for.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Typed::try_parse_from(&arguments) {
        Ok(typed) => Invocation {
            verbosity: i32::from(typed.verbose) - i32::from(typed.quiet),
            json: typed.json,
            notes: notes(&typed),
            command: command(typed),
        },
        Err(error) => {
            let command = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Command::Say(error.to_string()),
                _ => refuse(Failure::new(Kind::Usage, one_line(&error)), Summary::default(), SEE_HELP),
            };
            // Who asked for JSON gets it also when the rest could not be understood.
            let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
            Invocation { command, verbosity: 0, json, notes: Vec::new() }
        }
    }
}

fn command(typed: Typed) -> Command {
    let shown = |name: &OsString| name.to_string_lossy().into_owned();
    let wrong = |text: String| {
        let summary = Summary { dry_run: Some(typed.dry_run), ..Summary::default() };
        refuse(Failure::new(Kind::Usage, text), summary, FORMS)
    };
    match (typed.serve, &typed.paths[..]) {
        (_, []) if typed.h => Command::Say(<Typed as clap::CommandFactory>::command().render_help().to_string()),
        (_, [path, ..]) if typed.keygen => wrong(format!("{}: a key is made of no paths; see --key-file", shown(path))),
        (None, []) if typed.keygen => Command::Keygen { key_file: typed.key_file, public: typed.public },
        (Some(listen), []) => match served(&typed.root) {
            Ok(served) => {
                let config = Box::new(ServeConfig {
                    listen,
                    audit_log: typed.audit_log.clone(),
                    key_file: typed.key_file.clone(),
                    plaintext: typed.plaintext,
                    served,
                    access: Access { read_only: typed.read_only, no_delete: typed.no_delete, ..Access::default() },
                    direct: typed.direct.unwrap_or_default(),
                    connections_max: typed.connections.unwrap_or(CONNECTIONS_MAX),
                    workers: workers(&typed),
                    run_as: typed.run_as,
                });
                if typed.check { Command::Check(config) } else { Command::Serve(config) }
            }
            Err(text) => refuse(Failure::new(Kind::Usage, text), Summary::default(), SEE_HELP),
        },
        (Some(_), [path, ..]) => wrong(format!("{}: a server is given no paths; its clients name them", shown(path))),
        (None, []) => wrong("nothing to do: SOURCE and TARGET are missing".into()),
        (None, [path]) => wrong(format!("{}: only one path is given; a copy needs SOURCE and TARGET", shown(path))),
        (None, [source, target]) => match (copy(&typed, source, target), typed.benchmark) {
            (Ok(copy), None) => Command::Copy(Box::new(copy)),
            (Ok(copy), Some(levels)) => benchmark(&typed, copy, levels),
            (Err(refusal), _) => refusal,
        },
        (None, [_, _, third, ..]) => wrong(format!("{}: more than two paths; pdcp copies one file", shown(third))),
    }
}

fn copy(typed: &Typed, source_typed: &OsString, target_typed: &OsString) -> Result<CopyConfig, Command> {
    let (source_bytes, target_bytes) = (source_typed.as_bytes().to_vec(), target_typed.as_bytes().to_vec());
    match place::pair(source_typed, target_typed) {
        Ok((source, target)) => Ok(CopyConfig {
            source,
            source_typed: source_bytes,
            target,
            target_typed: target_bytes,
            block_size: typed.block_size.and_then(BlockSize::nearest).unwrap_or_default(),
            method: typed.hash_method.unwrap_or_default(),
            whole_file: typed.whole_file,
            dry_run: typed.dry_run,
            verify: typed.verify,
            inplace: typed.inplace,
            fsync: !typed.no_fsync,
            direct: typed.direct.unwrap_or_default(),
            key_file: typed.key_file.clone(),
            plaintext: typed.plaintext,
            connections: typed.connections,
            workers: workers(typed),
        }),
        Err(failure) => {
            let dry_run = Some(typed.dry_run);
            let summary = Summary { dry_run, source: source_bytes, target: target_bytes, ..Summary::default() };
            Err(refuse(failure, summary, ""))
        }
    }
}

fn benchmark(typed: &Typed, copy: CopyConfig, levels: u32) -> Command {
    if matches!(copy.target, Place::Remote(_)) {
        let text = "is remote, but a benchmark overwrites its target: run it on that host, and name the source here";
        let failure = Failure::about(Kind::Usage, &copy.target_typed, text);
        let (source, target) = (copy.source_typed, copy.target_typed);
        return refuse(failure, Summary { dry_run: Some(false), source, target, ..Summary::default() }, "");
    }
    let (agreed, rsync_source) = (typed.yes, typed.rsync_source.clone());
    Command::Benchmark(Box::new(BenchmarkConfig { copy, levels, agreed, rsync_source }))
}

fn workers(typed: &Typed) -> WorkersConfig {
    let cpus = typed.cpus.as_ref().map(|cpus| cpus.0.clone());
    WorkersConfig { count: typed.concurrency, cpus, pin: !typed.no_pin }
}

fn refuse(failure: Failure, summary: Summary, hint: &'static str) -> Command {
    Command::Refuse { summary: Box::new(Summary { failures: vec![failure], ..summary }), hint }
}

fn notes(typed: &Typed) -> Vec<String> {
    let Some(asked_bytes) = typed.block_size else { return Vec::new() };
    let block_bytes = BlockSize::nearest(asked_bytes).unwrap_or_default().bytes();
    let note = match asked_bytes {
        asked if asked == u64::from(block_bytes) => return Vec::new(),
        asked if asked > u64::from(BLOCK_BYTES_MAX) => "that is the largest block",
        _ => "a block is a power of two from 4 KiB to 1 MiB",
    };
    vec![format!("block size {asked_bytes} is taken as {} KiB: {note}", block_bytes >> 10)]
}

/// clap's message and its tips, without its decoration and its usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    let until = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| message.find(end)).min();
    let lines = message[..until.unwrap_or(message.len())].lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ").replace(":; ", ": ")
}

fn block_bytes(text: &str) -> Result<u64, String> {
    match size::parse(text) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("a size is like 4096, 64KiB or 1.5M, and above 0".into()),
    }
}

fn method(name: String) -> Result<Method, String> {
    Method::parse(&name).ok_or(format!("{name} is no method"))
}

/// Anything that rsync may know; it will say so itself if it does not.
fn rsync_source(url: OsString) -> Result<OsString, &'static str> {
    if url.is_empty() { Err("an rsync source is like rsync://HOST/MODULE/PATH or HOST:/PATH") } else { Ok(url) }
}

fn direct_policy(when: String) -> DirectPolicy {
    match when.as_str() {
        "always" => DirectPolicy::Always,
        "never" => DirectPolicy::Never,
        _ => DirectPolicy::Auto,
    }
}

/// `:9000`, `9000`, `127.0.0.1:9000`, `[::1]:9000`, `systemd`.
fn listen_address(text: &str) -> Result<Listen, String> {
    if text == "systemd" {
        return Ok(Listen::Systemd);
    }
    let (address, port) = text.rsplit_once(':').unwrap_or(("", text));
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match (address, bracketed) {
        ("", _) => Some(None),
        (_, Some(inner)) => inner.parse::<Ipv6Addr>().ok().map(|address| Some(IpAddr::V6(address))),
        (plain, None) => plain.parse::<Ipv4Addr>().ok().map(|address| Some(IpAddr::V4(address))),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit()); // parse() would take "+9000"
    match (address, port.parse()) {
        (Some(address), Ok(port)) if digits => Ok(Listen::At { address, port }),
        _ => Err("listen on :PORT, IPV4:PORT, [IPV6]:PORT or PORT, such as :9000 or 127.0.0.1:9000".into()),
    }
}

/// `/srv`, `images=/srv/images`. A `/` before the `=` makes it one of DIR: `./a=b`.
fn root(text: OsString) -> Result<(Option<Vec<u8>>, PathBuf), &'static str> {
    let bytes = text.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').filter(|at| !bytes[..*at].contains(&b'/'));
    let (name, directory) = equals.map_or((None, bytes), |at| (Some(&bytes[..at]), &bytes[at + 1..]));
    match (name, directory) {
        (_, b"") => Err("a directory to serve is like /srv or NAME=/srv"),
        (Some(b"" | b"." | b".."), _) => Err("the NAME of a directory to serve is a name as a file has it"),
        (name, directory) => Ok((name.map(<[u8]>::to_vec), PathBuf::from(OsStr::from_bytes(directory)))),
    }
}

/// What all the `--root` come to.
fn served(roots: &[(Option<Vec<u8>>, PathBuf)]) -> Result<Served, String> {
    let mut named: Vec<(Vec<u8>, PathBuf)> = Vec::new();
    for (name, directory) in roots {
        match name {
            None if roots.len() == 1 => return Ok(Served::Directory(directory.clone())),
            None => return Err("of several --root each needs a name: --root NAME=DIR".into()),
            Some(name) if named.iter().any(|(other, _)| other == name) => {
                return Err(format!("two --root have the name {}", String::from_utf8_lossy(name)));
            }
            Some(name) => named.push((name.clone(), directory.clone())),
        }
    }
    Ok(if named.is_empty() { Served::Everything } else { Served::Named(named) })
}

/// `0-3,8`.
fn cpu_list(text: &str) -> Result<Cpus, String> {
    let wrong = || format!("cores are listed like 0-3,8, each below {CPUS_MAX}");
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok())?;
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && last < CPUS_MAX => cpus.extend(first..=last),
            _ => return Err(wrong()),
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(Cpus(cpus))
}

#[cfg(test)]
mod tests;
