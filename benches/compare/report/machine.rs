//! The machine and the programs of a run: what somebody has to know who wants to believe its figures, or to repeat them.
//!
//! Looked at before anything is measured: somebody may go on working on this repository meanwhile.

use procfs::process::Process;
use procfs::{CpuInfo, Current, Meminfo};
use rustix::system::uname;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::{env, fs, thread};

/// What could not be found out is `unknown`: a missing word is no reason to lose a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    /// As typed behind the script's name, quoted where a shell needs it.
    pub(crate) command: String,
    /// Of this repository; `-dirty` where it had changes. Where another pdcp was named, nobody knows its: that one's version.
    pub(crate) commit: String,
    pub(crate) cpu: String,
    /// That this process may use.
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Of the directory that files were copied in.
    pub(crate) file_system: String,
    /// Of the file that was copied, where a section says nothing else.
    pub(crate) file_bytes: u64,
    /// What each program calls itself, or a hash of it.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Machine {
    /// `directory` is where files are copied; `programs` are those that may take part, by name and path.
    pub(crate) fn look<'a>(
        directory: &Path,
        file_bytes: u64,
        other_pdcp: Option<&Path>,
        programs: impl Iterator<Item = (&'static str, &'a Path)>,
    ) -> Self {
        let arguments = env::args_os().skip(1).filter(|argument| argument != "--bench");
        let words: Vec<Vec<u8>> = arguments.map(OsString::into_encoded_bytes).collect();
        let words = shlex::bytes::try_join(words.iter().map(Vec::as_slice)).expect("no argument holds a NUL");
        let top = env!("CARGO_MANIFEST_DIR");
        let memory = Meminfo::current().map(|memory| memory.mem_total);
        Self {
            date: first_line("date", &["+%F %R %z"]),
            command: format!("scripts/bench.sh {}", String::from_utf8_lossy(&words)).trim_end().into(),
            commit: match other_pdcp {
                Some(pdcp) => format!("{} ({})", version(pdcp).trim_start_matches("pdcp "), hash(pdcp)),
                None => {
                    first_line("git", &["-C", top, "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"])
                }
            },
            cpu: cpu().unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.unwrap_or(0),
            kernel: uname().release().to_string_lossy().into(),
            file_system: file_system(directory).unwrap_or_else(unknown),
            file_bytes,
            versions: programs.map(|(name, program)| (name.into(), version(program))).collect(),
        }
    }

    /// Leaves out the programs that took no part.
    pub(crate) fn with(mut self, took_part: impl Fn(&str) -> bool) -> Self {
        self.versions.retain(|name, _| took_part(name));
        self
    }
}

/// pdiffcopy has no option for it: the Python beside it knows. What is no package there has a hash, at least.
fn version(program: &Path) -> String {
    let of_package = || {
        let ask = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))";
        let name = program.file_name()?.to_str()?;
        known_line(program.with_file_name("python3"), &["-c", ask, name])
    };
    known_line(program, &["--version"]).or_else(of_package).unwrap_or_else(|| hash(program))
}

/// Short, as Git's are.
fn hash(program: &Path) -> String {
    let bytes = fs::read(program).unwrap_or_default();
    format!("BLAKE3 {:.12}", blake3::hash(&bytes).to_hex())
}

fn first_line(program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
    known_line(program, arguments).unwrap_or_else(unknown)
}

fn known_line(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    let line = String::from_utf8_lossy(&output).lines().next().map(|line| line.trim().to_owned());
    line.filter(|line| !line.is_empty())
}

fn cpu() -> Option<String> {
    CpuInfo::current().ok()?.model_name(0).map(String::from)
}

/// That of the longest mount point above `directory`, the last where one covers another.
fn file_system(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = Process::myself().ok()?.mountinfo().ok()?.0.into_iter();
    let above = mounts.filter(|mount| directory.starts_with(&mount.mount_point));
    above.max_by_key(|mount| mount.mount_point.components().count()).map(|mount| mount.fs_type)
}

fn unknown() -> String {
    "unknown".into()
}
