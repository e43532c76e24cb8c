//! The measured pdcp, and whose key it has: one of our own, made in the scratch directory by the first server that wants
//! one, so that a measurement makes and uses none of the user's. Only where the other end is a host that knows the user
//! is it the user's.

use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug)]
pub(crate) struct Pdcp {
    program: PathBuf,
    /// `None`: the user's.
    key: Option<PathBuf>,
}

impl Pdcp {
    pub(crate) fn with_own_key(program: &Path, directory: &Path) -> Self {
        Self { program: program.into(), key: Some(directory.join("key")) }
    }

    pub(crate) fn with_the_users_key(program: &Path) -> Self {
        Self { program: program.into(), key: None }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.key.iter().map(|key| ("PDCP_KEY_FILE", key)));
        command
    }
}
