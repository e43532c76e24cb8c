//! The key file: where it is, whom it may belong to, how it is made.
//!
//! It is found in the first of: `--key-file`, `PDCP_KEY_FILE`, `$CREDENTIALS_DIRECTORY/pdcp-key` if it exists (systemd),
//! `$XDG_CONFIG_HOME/pdcp/key`, `$HOME/.config/pdcp/key`. One key a line, behind `#` comments; the first is presented, all
//! are accepted.
//! It appears whole under its name or not at all: of two that make it at once, both read the same key.

use super::error::{IdentityError, LineError, Problem};
use super::key::Secret;
use crate::control::own::{Flaw, OwnError, Rights, directory_of, judge_directory, open, own_user};
use crate::limits::{KEY_FILE_BYTES_MAX, KEYS_MAX};
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What systemd's `LoadCredential=` is to call the key: a name of its own, since a service may be handed other keys too.
const CREDENTIAL: &str = "pdcp-key";

/// What a key file says to whoever opens it.
const INTRODUCTION: &str = "\
# The key of pdcp. Whoever has this file may do what its owner may, at every server that has the same file: keep it secret.
# Copy it to a host to be known there; or put the line that 'pdcp --keygen --public' prints into authorized_keys there.
# The first key is presented, all are accepted.
";

/// Where the key file is, or would be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyPlace {
    path: PathBuf,
    /// systemd put it there.
    credential: bool,
}

impl KeyPlace {
    /// # Errors
    /// Where nothing says where it is.
    pub(super) fn find(asked: Option<&Path>) -> Result<Self, IdentityError> {
        Self::find_in(asked, &|name| std::env::var_os(name))
    }

    pub(super) fn find_in(
        asked: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, IdentityError> {
        let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Relative ones would mean another file in every directory.
        let directory = |name| set(name).filter(|path| path.is_absolute());
        let credentials = directory("CREDENTIALS_DIRECTORY");
        let handed = || credentials.as_ref().map(|directory| directory.join(CREDENTIAL)).filter(|path| may_exist(path));
        let home = || directory("HOME").map(|home| home.join(".config"));
        let config = || directory("XDG_CONFIG_HOME").or_else(home).map(|config| config.join("pdcp/key"));
        let named = asked.map(Path::to_path_buf).or_else(|| set("PDCP_KEY_FILE"));
        let path = named.or_else(handed).or_else(config).ok_or_else(|| Problem::NoPlace.about(Path::new("")))?;
        let credential = credentials.is_some_and(|directory| path.parent() == Some(&directory));
        Ok(Self { path, credential })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Another file in the same directory.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// The keys, the presented one first; at least one.
    ///
    /// # Errors
    /// Where there is no file, where others could have had their hands on it, and where it is not understood.
    pub(super) fn load(&self) -> Result<Vec<Secret>, IdentityError> {
        let rights = if self.credential { Rights::Credential } else { Rights::Secret };
        let bytes = read(&self.path, rights, KEY_FILE_BYTES_MAX)?;
        parse(&bytes).map_err(|problem| problem.about(&self.path))
    }

    /// The same, made first if there is none; and whether this call made it.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::make`].
    pub(super) fn load_or_make(&self) -> Result<(Vec<Secret>, bool), IdentityError> {
        match self.load() {
            Err(IdentityError { problem: Problem::Flaw(Flaw::Missing), .. }) => {}
            found => return found.map(|secrets| (secrets, false)),
        }
        let made = match self.make() {
            Ok(()) => true,
            // Somebody was faster: theirs is the key.
            Err(IdentityError { problem: Problem::Exists, .. }) => false,
            Err(error) => return Err(error),
        };
        Ok((self.load()?, made))
    }

    /// Makes the file, with a new key, and its directory if need be.
    ///
    /// # Errors
    /// Where there is one already, or the directory is another user's or cannot be written.
    pub(super) fn make(&self) -> Result<(), IdentityError> {
        let directory = directory_of(&self.path);
        prepare(directory)?;
        let made = || {
            let mut file = tempfile::Builder::new().prefix(".key-").tempfile_in(directory)?;
            file.write_all(INTRODUCTION.as_bytes())?;
            file.write_all(Secret::random().text().as_bytes())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&self.path)?;
            File::open(directory)?.sync_all()
        };
        made().map_err(|error| Problem::from(error).about(&self.path))
    }
}

/// Whatever is there, it must not be passed over silently.
fn may_exist(path: &Path) -> bool {
    path.symlink_metadata().map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
}

/// Makes the directory of a key file. Not under another user's: `sudo` with that user's HOME would leave a key there that
/// its owner cannot read.
fn prepare(directory: &Path) -> Result<(), IdentityError> {
    let own = own_user();
    let owner_of = |path: &Path| path.metadata().ok().map(|found| found.uid());
    match directory.ancestors().find_map(|path| owner_of(path).map(|owner| (path, owner))) {
        Some((path, owner)) if owner != own && owner != 0 => {
            return Err(Problem::Flaw(Flaw::Foreign { owner, own }).about(path));
        }
        _ => {}
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory).and_then(|()| directory.metadata());
    made.map_err(Problem::from)
        .and_then(|found| judge_directory(&found).map_err(Problem::Flaw))
        .map_err(|problem| problem.about(directory))
}

/// A whole file, if `rights` are in order.
///
/// # Errors
/// About it or its directory.
pub(super) fn read(path: &Path, rights: Rights, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    match open(path, rights, OFlags::RDONLY) {
        Ok(file) => read_all(file, bytes_max).map_err(|problem| problem.about(path)),
        // Also where it is the directory that is missing.
        Err(OwnError { flaw: Flaw::Missing, .. }) => Err(Problem::Flaw(Flaw::Missing).about(path)),
        Err(OwnError { path, flaw }) => Err(Problem::Flaw(flaw).about(&path)),
    }
}

fn read_all(file: File, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // All room at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    file.take(u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(Problem::TooLong { bytes_max }) } else { Ok(bytes) }
}

/// A key file's text.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Secret>, Problem> {
    let mut secrets: Vec<Secret> = Vec::new();
    for line in lines(bytes) {
        let (number, words) = line?;
        let wrong = |error| Problem::Line(number, error);
        let [text] = words[..] else { return Err(wrong(LineError::Beside)) };
        let secret = Secret::parse(text).map_err(|error| wrong(LineError::Key(error)))?;
        if secrets.iter().any(|other| other.public() == secret.public()) {
            return Err(wrong(LineError::KeyTwice));
        }
        if secrets.len() == KEYS_MAX {
            return Err(wrong(LineError::TooManyKeys));
        }
        secrets.push(secret);
    }
    if secrets.is_empty() { Err(Problem::Empty) } else { Ok(secrets) }
}

/// The lines of a file of keys that say something: their numbers, from 1, and their words. A word that begins with `#`
/// begins a comment. Control characters, also in comments, are refused: they could hide what a line says.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<(usize, Vec<&str>), Problem>> {
    let understood = |(number, line)| {
        let text = str::from_utf8(line).map_err(|_| Problem::Line(number, LineError::NotText))?;
        if text.contains(|character: char| character.is_control() && character != '\t') {
            return Err(Problem::Line(number, LineError::Control));
        }
        let words = text.split([' ', '\t']).filter(|word| !word.is_empty());
        Ok((number, words.take_while(|word| !word.starts_with('#')).collect::<Vec<_>>()))
    };
    let numbered = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    numbered.map(understood).filter(|line| !matches!(line, Ok((_, words)) if words.is_empty()))
}
