//! What is kept of a file besides its bytes, and what of it goes over the wire.

use serde::{Deserialize, Serialize};

/// A moment as file systems keep it: seconds since 1970, which may be negative, and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after them, below 10^9.
    pub nanoseconds: u32,
}

/// What a source says of its file.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Metadata {
    /// Length.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// It is a block device: `mode` and `mtime` are the node's and mean nothing to a file made from it.
    pub device_node: bool,
}
