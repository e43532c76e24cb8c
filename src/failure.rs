//! What can go wrong with a copy, as its user is told: one kind, one exit code, one sentence.
//!
//! This is the form in which a failure crosses the wire and reaches the command line. Every floor has its own small error
//! enum; control turns them into this.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of failure, fixed: their names are in `--json`, their exit codes in README.md.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was typed makes no sense.
    Usage,
    /// The source is missing or cannot be read.
    Source,
    /// The server, or a rule of ours that protects the target, said no.
    Refused,
    /// The session was cut.
    ConnectionLost,
    /// The target cannot be written, or its disk is full.
    Target,
    /// The peer broke the protocol, or speaks another.
    Protocol,
    /// The source changed while it was read.
    SourceChanged,
    /// Nothing moved for a minute.
    NoProgress,
    /// The server cannot be reached.
    Unreachable,
    /// The two ends do not agree on what was copied.
    Verification,
    /// Source or target is in use, or the server is full.
    Busy,
    /// Somebody asked us to stop.
    Interrupted,
    /// Anything else.
    Other,
}

impl Kind {
    /// The exit code; rsync's number where rsync has the meaning. `Interrupted` is 130 here; the signal may make it 129 or 143.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Other => 1,
            Kind::Usage => 2,
            Kind::Source => 3,
            Kind::Refused => 5,
            Kind::ConnectionLost => 10,
            Kind::Target => 11,
            Kind::Protocol => 12,
            Kind::SourceChanged => 24,
            Kind::NoProgress => 30,
            Kind::Unreachable => 35,
            Kind::Verification => 40,
            Kind::Busy => 43,
            Kind::Interrupted => 130,
        }
    }

    /// The same in a word, for programs.
    pub fn status(self) -> &'static str {
        if self == Kind::Interrupted { "interrupted" } else { "failed" }
    }
}

/// One failure: what kind, about which path or peer, and a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The kind.
    pub kind: Kind,
    /// The path or `host:port` it is about, as its owner knows it; any bytes. Empty if there is none.
    pub subject: Vec<u8>,
    /// What happened and what to do, without the subject.
    pub text: String,
}

impl Failure {
    /// A failure about nothing in particular.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, subject: Vec::new(), text: text.into() }
    }

    /// A failure about a path or a peer.
    pub fn about(kind: Kind, subject: &[u8], text: impl Into<String>) -> Self {
        Self { kind, subject: subject.to_vec(), text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.subject.is_empty() {
            write!(f, "{}: ", printable(&self.subject))?;
        }
        // The text may be a peer's: it must not steer the terminal it is shown on.
        write!(f, "{}", printable(self.text.as_bytes()))
    }
}

impl std::error::Error for Failure {}

/// Whether a character steers what shows it, or is not seen there: control characters, what ends a line, what turns the
/// direction of writing, what has no width. Unicode's categories Cc, Zl and Zp, and of Cf what no script needs in a name.
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes as a person may see them: invalid UTF-8 becomes U+FFFD, characters that steer are escaped.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A line of JSON that means the same, and steers nothing: JSON allows characters as they are that terminals take orders from,
/// or that end or turn a line.
pub fn harmless_json(line: &str) -> String {
    let mut harmless = String::with_capacity(line.len());
    for character in line.chars() {
        match steers(character) {
            false => harmless.push(character),
            true => {
                let units = &mut [0; 2];
                character.encode_utf16(units).iter().for_each(|unit| harmless.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
    harmless
}

/// Exact bytes in hex, where text cannot give them: where they are no UTF-8.
pub fn raw(bytes: &[u8]) -> Option<String> {
    let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    str::from_utf8(bytes).is_err().then(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        #[track_caller]
        fn check(bytes: &[u8], want: &str) {
            assert_eq!(printable(bytes), want);
        }
        check(b"plain", "plain");
        check(b"a\nb", "a\\nb");
        check(b"\x1b[2J", "\\u{1b}[2J");
        check(b"\xff", "\u{fffd}");
        check("gr\u{fc}n, gru\u{308}n, \u{1f44d}".as_bytes(), "gr\u{fc}n, gru\u{308}n, \u{1f44d}");
        check("a\u{2028}b".as_bytes(), "a\\u{2028}b");
        check("\u{202e}gpj.exe".as_bytes(), "\\u{202e}gpj.exe");
        check("\u{feff}a\u{200b}".as_bytes(), "\\u{feff}a\\u{200b}");
    }
}
