//! What is measured: sections of rows, each row a state to begin with and the programs that start from it.
//!
//! Names of rows are what goals, the report and `--rows` know them by. Those of the sweeps over a number begin with the
//! option that sets it: `--block-size 4096`, `--connections 16`.

use crate::arguments::{Arguments, Sweep};
use crate::peers::{Peers, Program};
use crate::scene::{Basis, Texture};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeSet;
use std::path::PathBuf;

pub(crate) const BLOCK_SIZE_ROW: &str = "--block-size ";
pub(crate) const CONNECTIONS_ROW: &str = "--connections ";
pub(crate) const OWN_FILES_ROW: &str = "own files";
pub(crate) const TABLE_ROW: &str = "table";

const NETWORKED: [Program; 2] = [Program::PdcpPush, Program::PdcpPull];

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) basis: Basis,
    pub(crate) programs: Vec<Program>,
    /// Beside those that all rows have.
    pub(crate) pdcp_options: Vec<String>,
    pub(crate) pdcp_server_options: Vec<String>,
    /// Beside those that all rows have.
    pub(crate) rsync_options: &'static [&'static str],
    /// Words of pdcp's that prove that the row was what it is called: without them the run does not count.
    pub(crate) pdcp_says: Option<&'static str>,
    /// The ends are on two hosts, as far as they can tell; else they have one loopback interface.
    pub(crate) is_between_hosts: bool,
    /// How many cores both ends have together; `None`: all.
    pub(crate) cores: Option<usize>,
}

/// Rows that are measured in turn.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Of `--size`, as a divisor.
    pub(crate) part: u64,
    /// Of its file.
    pub(crate) texture: Texture,
    /// Whether the machine's least times are measured with it.
    pub(crate) is_bounded: bool,
    pub(crate) rows: Vec<Row>,
}

impl Section {
    /// Over a whole file of data, without bounds.
    fn new(title: &'static str, rows: Vec<Row>) -> Self {
        Self { title, part: 1, texture: Texture::Data, is_bounded: false, rows }
    }

    /// Only what is wanted and there.
    fn retain(&mut self, arguments: &Arguments, peers: &Peers) {
        for row in &mut self.rows {
            row.programs.retain(|program| peers.has(*program) && is_wanted(arguments, *program));
        }
        self.rows.retain(|row| !row.programs.is_empty());
        let is_named = |row: &Row| arguments.rows.iter().any(|name| row.name.starts_with(name.as_str()));
        self.rows.retain(|row| arguments.rows.is_empty() || is_named(row));
    }
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, basis: Basis, programs: &[Program]) -> Self {
        Self {
            name: name.into(),
            basis,
            programs: programs.into(),
            pdcp_options: Vec::new(),
            pdcp_server_options: Vec::new(),
            rsync_options: &[],
            pdcp_says: None,
            is_between_hosts: false,
            cores: None,
        }
    }

    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.pdcp_options.extend(options.iter().map(|option| String::from(*option)));
        self
    }

    /// Also the server's.
    fn with_both(mut self, options: &[&str]) -> Self {
        self.pdcp_server_options.extend(options.iter().map(|option| String::from(*option)));
        self.with(options)
    }

    fn saying(mut self, words: &'static str) -> Self {
        self.pdcp_says = Some(words);
        self
    }

    fn between_hosts(mut self) -> Self {
        self.is_between_hosts = true;
        self
    }

    fn on(mut self, cores: usize) -> Self {
        self.cores = Some(cores);
        self
    }

    pub(crate) fn begins_without_target(&self) -> bool {
        self.basis == Basis::Missing
    }
}

/// All that was asked for, without rows and programs that are not wanted or not there.
pub(crate) fn sections(arguments: &Arguments, peers: &Peers, has_hosts: bool) -> Vec<Section> {
    let mut sections = all(arguments, has_hosts);
    for section in &mut sections {
        section.retain(arguments, peers);
    }
    sections.retain(|section| !section.rows.is_empty());
    sections
}

/// The first word of `--rows` or `--programs` that begins none, with those that there are.
pub(crate) fn unknown(arguments: &Arguments) -> Option<String> {
    let programs = Program::ALL.map(Program::name);
    if let Some(unknown) = arguments.programs.iter().find(|word| !programs.iter().any(|name| name.starts_with(*word))) {
        return Some(format!("no program begins with '{unknown}'; there are: {}", programs.join(", ")));
    }
    let sections = all(arguments, arguments.wants(Sweep::Sealed)).into_iter();
    let mut rows: Vec<String> = sections.flat_map(|section| section.rows).map(|row| row.name).collect();
    rows.extend((!arguments.files.is_empty()).then(|| OWN_FILES_ROW.into()));
    rows.extend(arguments.innodb.is_some().then(|| TABLE_ROW.into()));
    let unknown = arguments.rows.iter().find(|name| !rows.iter().any(|row| row.starts_with(name.as_str())))?;
    Some(format!("no row begins with '{unknown}'; with these options there are: {}", rows.join(", ")))
}

fn all(arguments: &Arguments, has_hosts: bool) -> Vec<Section> {
    let mut sections = vec![between_two_ends(arguments)];
    if arguments.remote.is_none() {
        sections.push(both_local());
    }
    if arguments.wants(Sweep::BlockSize) {
        sections.push(block_sizes());
    }
    if arguments.wants(Sweep::Connections) {
        sections.push(connections());
    }
    if arguments.wants(Sweep::Cores) && arguments.remote.is_none() {
        sections.push(cores());
    }
    if has_hosts {
        sections.push(sealed());
    }
    if arguments.wants(Sweep::Size) {
        sections.push(quarter());
    }
    if arguments.wants(Sweep::Holes) {
        sections.push(holes());
    }
    sections
}

pub(crate) fn is_wanted(arguments: &Arguments, program: Program) -> bool {
    let is_named = arguments.programs.iter().any(|name| program.name().starts_with(name.as_str()));
    let is_wanted_way = match program {
        Program::PdcpPush => arguments.wants_push(),
        Program::PdcpPull => arguments.wants_pull(),
        // With a host at the other end these have nothing to be asked for.
        Program::Pdiffcopy | Program::Yardstick | Program::B3sum => arguments.remote.is_none(),
        Program::RsyncDelta | Program::RsyncWhole => arguments.remote.is_none() || arguments.rsync.is_some(),
        Program::PdcpLocal | Program::RsyncLocal | Program::Cp => true,
    };
    is_wanted_way && (is_named || arguments.programs.is_empty())
}

fn between_two_ends(arguments: &Arguments) -> Section {
    use Program::{B3sum, PdcpPull, PdcpPush, Pdiffcopy, RsyncDelta, RsyncWhole, Yardstick};
    let deltas = [PdcpPush, PdcpPull, RsyncDelta, Pdiffcopy, Yardstick];
    let wholes = [PdcpPush, PdcpPull, RsyncWhole];
    let shares = BTreeSet::from_iter(&arguments.changed); // one that is named twice is one row
    let mut rows: Vec<Row> = shares.into_iter().map(|percent| changed(*percent, &deltas)).collect();
    for row in &mut rows {
        match row.basis {
            Basis::Changed { percent: 0 } => row.programs.push(B3sum),
            Basis::Changed { percent: 100 } => row.programs.push(RsyncWhole),
            _ => (),
        }
    }
    rows.push(Row::new("100 % -W", Basis::Changed { percent: 100 }, &wholes).with(&["--whole-file"]));
    rows.push(Row::new("first copy", Basis::Missing, &[&wholes[..], &[Pdiffcopy, Yardstick]].concat()));
    Section { is_bounded: true, ..Section::new("from one end to the other", rows) }
}

fn changed(percent: u8, programs: &[Program]) -> Row {
    let name = if percent == 0 { "identical".into() } else { format!("{percent} %") };
    Row::new(name, Basis::Changed { percent }, programs)
}

/// One row: `before` is to become the source of the pair that the section is measured with. `None`: it is not wanted.
pub(crate) fn pair_of_files(
    name: &'static str,
    before: PathBuf,
    arguments: &Arguments,
    peers: &Peers,
) -> Option<Section> {
    use Program::{PdcpPull, PdcpPush, Pdiffcopy, RsyncDelta};
    let rows = vec![Row::new(name, Basis::Copied(before), &[PdcpPush, PdcpPull, RsyncDelta, Pdiffcopy])];
    let mut section = Section { is_bounded: true, ..Section::new("two states of a file", rows) };
    section.retain(arguments, peers);
    (!section.rows.is_empty()).then_some(section)
}

fn both_local() -> Section {
    let programs = [Program::PdcpLocal, Program::RsyncLocal, Program::Cp];
    let rows = vec![
        Row::new("local identical", Basis::Changed { percent: 0 }, &programs),
        Row::new("local first copy", Basis::Missing, &programs).with(&["--no-fsync"]), // cp does not wait for the disk
    ];
    Section { is_bounded: true, ..Section::new("both ends local", rows) }
}

fn block_sizes() -> Section {
    let sizes = (12..=20).map(|bits| (1_u32 << bits).to_string());
    let row = |size: String| {
        let row = Row::new(format!("{BLOCK_SIZE_ROW}{size}"), Basis::Scattered, &NETWORKED);
        row.with(&["--block-size", &size])
    };
    Section::new("4 KiB changed in every MiB, by the size of a block", sizes.map(row).collect())
}

fn connections() -> Section {
    let counts = (0..=5).map(|bits| (1_u32 << bits).to_string());
    let row = |count: String| {
        let row = Row::new(format!("{CONNECTIONS_ROW}{count}"), Basis::Changed { percent: 100 }, &NETWORKED);
        row.with(&["--whole-file", "--connections", &count])
    };
    Section::new("everything sent, by the number of connections", counts.map(row).collect())
}

/// Hashing is the bill where nothing moves.
fn cores() -> Section {
    let row = |name, count| Row::new(name, Basis::Changed { percent: 0 }, &NETWORKED).on(count);
    Section::new("identical, both ends on the same cores", vec![row("one core", 1), row("two cores", 2)])
}

/// What sealing costs where the core is the bill: both ends on one, everything sent. Between hosts pdcp seals unless told.
fn sealed() -> Section {
    let pair = |name: &str, basis: &Basis, options: &[&str]| {
        let row = |kind: &str| {
            let row = Row::new(format!("{kind} {name}"), basis.clone(), &NETWORKED).with(options).between_hosts();
            row.with(&["--verbose"]).on(1)
        };
        [
            row("sealed").saying("pdcp: sealed with "),
            row("clear").with_both(&["--plaintext"]).saying("pdcp: not sealed"),
        ]
    };
    let whole = pair("-W", &Basis::Changed { percent: 100 }, &["--whole-file"]);
    let first = pair("first copy", &Basis::Missing, &[]);
    let rows = whole.into_iter().chain(first).collect();
    Section { part: 2, ..Section::new("sealed and in the clear, both ends on one core", rows) }
}

fn quarter() -> Section {
    let rows = vec![Row::new("a quarter", Basis::Changed { percent: 100 }, &NETWORKED)];
    Section { part: 4, ..Section::new("100 % of a quarter of the file", rows) }
}

/// Neither carries the zeros, but both have to know that they are some.
fn holes() -> Section {
    use Program::{PdcpPull, PdcpPush, RsyncDelta, RsyncWhole};
    let row = |name, basis, rsync| {
        let row = Row::new(name, basis, &[PdcpPush, PdcpPull, rsync]);
        Row { rsync_options: &["--sparse"], ..row }
    };
    let rows = vec![
        row("holes identical", Basis::Changed { percent: 0 }, RsyncDelta),
        row("holes first copy", Basis::Missing, RsyncWhole),
    ];
    Section { texture: Texture::Holes, ..Section::new("mostly holes", rows) }
}

/// While it lives, this thread and what it starts have only some of the cores.
#[derive(Debug)]
pub(crate) struct Confined {
    before: CpuSet,
}

impl Confined {
    /// To the first `count` that we may use.
    pub(crate) fn to(count: usize) -> rustix::io::Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut cores = CpuSet::new();
        for core in (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core)).take(count) {
            cores.set(core);
        }
        sched_setaffinity(None, &cores)?;
        Ok(Self { before })
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        _ = sched_setaffinity(None, &self.before); // what we had, we may have again
    }
}
