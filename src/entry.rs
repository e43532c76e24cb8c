//! What we keep of a file besides its bytes.
//!
//! It crosses the wire, so nothing here can be made from a peer's numbers that a system call would take for something
//! else.

use serde::{Deserialize, Serialize};

/// A moment as the kernel keeps it, also before 1970: `nanos` nanoseconds *after* `seconds`, always below a second.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "(i64, u32)", try_from = "(i64, u32)")]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// `None` for a second or more of nanoseconds. The kernel gives some such numbers a meaning of their own (`UTIME_NOW`,
    /// `UTIME_OMIT`).
    pub fn checked(seconds: i64, nanos: u32) -> Option<Self> {
        (nanos < 1_000_000_000).then_some(Self { seconds, nanos })
    }

    /// A whole second.
    pub const fn whole(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// What comes on top of them.
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}

impl From<Timestamp> for (i64, u32) {
    fn from(time: Timestamp) -> Self {
        (time.seconds, time.nanos)
    }
}

impl TryFrom<(i64, u32)> for Timestamp {
    type Error = &'static str;

    fn try_from((seconds, nanos): (i64, u32)) -> Result<Self, Self::Error> {
        Self::checked(seconds, nanos).ok_or("a timestamp has less than a second of nanoseconds")
    }
}

/// What a source tells of itself, and a target takes over.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Metadata {
    /// Length.
    pub bytes: u64,
    /// Permission bits. A target never takes setuid, setgid and sticky from them.
    pub mode: u32,
    /// When its content was last modified.
    pub mtime: Timestamp,
    /// A block device: its mode and times say nothing about what it holds.
    pub device_node: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_less_than_a_second_past_its_seconds() {
        #[track_caller]
        fn check(seconds: i64, nanos: u32, allowed: bool) {
            let made = Timestamp::checked(seconds, nanos);
            assert_eq!(made.is_some(), allowed);
            assert_eq!(Timestamp::try_from((seconds, nanos)).ok(), made);
            let read = serde_json::from_str(&format!("[{seconds},{nanos}]")).ok();
            assert_eq!(read, made);
        }
        check(0, 0, true);
        check(-1, 999_999_999, true);
        check(i64::MAX, 999_999_999, true);
        check(i64::MIN, 0, true);
        check(0, 1_000_000_000, false);
        check(0, (1 << 30) - 1, false); // UTIME_NOW
        check(0, (1 << 30) - 2, false); // UTIME_OMIT
        check(0, u32::MAX, false);
    }

    #[test]
    fn metadata_survives_the_wire() {
        let sent =
            Metadata { bytes: 7, mode: 0o640, mtime: Timestamp { seconds: -86_400, nanos: 1 }, device_node: false };
        let text = serde_json::to_string(&sent).unwrap();
        assert_eq!(serde_json::from_str::<Metadata>(&text).unwrap(), sent);
    }
}
