//! Identity as an operator meets it: files that are refused, lists and their lines, handshakes.

mod files;
mod handshake;
mod lists;

use super::*;
use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A directory with a key file and lists, as one user has it.
struct Home(TempDir);

impl Home {
    /// With these secrets in its key file.
    fn new(secrets: &[&Secret]) -> Self {
        let home = Self::empty();
        let text: String = secrets.iter().map(|secret| format!("{}\n", *secret.text())).collect();
        home.write("key", &text);
        home
    }

    fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file that only its owner reads and writes.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write(&path, text).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn server(&self) -> ServerIdentity {
        ServerIdentity::load(Some(&self.path("key"))).unwrap()
    }

    fn client(&self) -> ClientIdentity {
        ClientIdentity::load(Some(&self.path("key"))).unwrap()
    }
}
