//! A second wall around what is served: Landlock, where the kernel has it.
//!
//! It holds for the calling thread and all that it starts later, for ever. Workers raise it themselves, after they have opened
//! what lies outside. The jail is the first wall, and does not lean on this one: should a path get out of it, there is
//! nothing to open.

use super::Root;
use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, make_bitflags,
};
use std::fmt;

/// How much of the wall stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wall {
    /// Files outside can be neither opened, made, renamed nor removed.
    Whole,
    /// The kernel knows only a part of that.
    Part,
    /// The kernel has no Landlock, or may not use it.
    Missing,
    /// Everything is served.
    NotWanted,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wall::Whole => "Landlock keeps this process to what is served",
            Wall::Part => "Landlock keeps this process to what is served, as far as this kernel knows how",
            Wall::Missing => "there is no Landlock here",
            Wall::NotWanted => "everything is served, so Landlock keeps nothing away",
        })
    }
}

/// What `Source` and `Target` do with files.
const READING: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const WRITING: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile});

/// Confines this thread, and all that it starts from now on, to what is served.
pub fn raise_wall(root: &Root, read_only: bool) -> Wall {
    match restrict(root, if read_only { READING } else { WRITING }) {
        Ok(None) => Wall::NotWanted,
        Ok(Some(RulesetStatus::FullyEnforced)) => Wall::Whole,
        Ok(Some(RulesetStatus::PartiallyEnforced)) => Wall::Part,
        Ok(Some(RulesetStatus::NotEnforced)) | Err(_) => Wall::Missing,
    }
}

fn restrict(root: &Root, allowed: BitFlags<AccessFs>) -> Result<Option<RulesetStatus>, RulesetError> {
    let Root::Jail(jail) = root else { return Ok(None) };
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(ABI::V5))?.create()?;
    for directory in jail.directories() {
        rules = rules.add_rule(PathBeneath::new(directory, allowed))?;
    }
    Ok(Some(rules.restrict_self()?.ruleset))
}
