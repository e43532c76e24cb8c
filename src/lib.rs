//! pdcp brings a large file on one host up to date with another, and proves that it did. This is the map of the house.
//!
//! README.md is for its users, proto-spec.md has every byte on the wire. Each file begins with what it is and what always
//! holds in it; read those first.
//!
//! # Floors
//!
//! A file names lower floors only, never a neighbour. `tests/pdcp/tidy.rs` checks it, because one crate cannot.
//!
//! | floor | modules | what for |
//! |---|---|---|
//! | mouth | [`cli`] [`report`] `main` | what was typed; the only printer |
//! | control plane | [`control`] | client and server, the control connection, how a session is driven and ends |
//! | data plane | [`worker`] | one core's loop, and the hub that turns actions into operations and completions into events |
//! | rules | [`session`] | pure machines of handshake, source, target, and a session's course |
//! | edges | [`wire`] / [`ring`] / [`root`] | bytes and frames / io_uring, all `unsafe` / names, locks, commit |
//! | words | [`limits`] [`extent`] [`method`] [`digest`] [`delta`] [`entry`] [`failure`] [`counters`] [`bottleneck`] [`completion`] [`seal`] | values, and the trait of completions; no I/O |
//!
//! The simulator (`sim`, tests only) stands above `worker`. It is a second backend of [`completion`]: the real hub and
//! both machines run in it by seed, through short, late, failed and cut.
//!
//! # What always holds
//!
//! - Below `control` there are sources and targets, no clients and servers. Push and pull differ nowhere else.
//! - The target asks, the source answers. All that has to be known to go on, to retry or to move work is at the target.
//! - A block is read once on each side, and sent from the buffer that it was read into.
//! - A worker owns its ring, its buffers, its connections and its descriptions of the files. Workers of a session share
//!   a cursor over stripes, counters, and the pen that one of them at a time writes with through the page cache; no data.
//! - Machines hold block numbers and digests, never bytes, buffers or descriptors; they read no clock and do no I/O.
//! - Every queue, loop, wait and buffer has its bound in [`limits`]. No number of a peer's makes us allocate, index or panic.
//! - A stripe is done when its digest is equal on both ends and its writes have completed in full. A target is committed
//!   when all stripes are, the source has not changed, and the roots are equal. The first error is the last.
//! - A path of a peer is resolved to a held descriptor, in a jail if one is served; what comes after goes by that and one name.
//! - What the kernel may touch is owned by the ring until its own completion.
//!
//! # Where to look
//!
//! | question | file |
//! |---|---|
//! | how a block goes from disk to disk | `worker/connection/mod.rs`, then `session/source.rs` and `session/target.rs` |
//! | how a copy goes from its first step to its last | `control/client.rs`, then `session/course.rs` |
//! | what a benchmark does to its target | `control/benchmark.rs`, then `root/mutation.rs` |
//! | who may come in, and whom a client trusts | `control/identity/mod.rs` |
//! | how a server serves one client | `control/server/visit.rs` |
//! | how many may come, and who makes room | `control/door.rs` before they are known, `control/room.rs` then, `limits.rs` |
//! | what a server tells of a caller, and whom | `control/record.rs`, then `report/session.rs` and `control/audit.rs` |
//! | what systemd hands over, and is told | `control/listen.rs`, `control/notify.rs`; its units are in `contrib/` |
//! | what is sent, in which frame | `proto-spec.md`, then `wire/frame.rs` (data), `wire/message.rs` (control) |
//! | how a file is cut into stripes and blocks | `extent.rs` |
//! | what exit 0 promises | `root/commit.rs` |
//! | why a number is what it is | `limits.rs` |
//! | what limits a copy, and how that is known | `bottleneck.rs`, then `worker/timesheet.rs` |
//! | what is seen while a copy runs | `report/meter.rs`, then `report/row.rs` and `report/pace.rs` |
//! | which exit code, which words | `failure.rs`, `root/error.rs`, `report/closing.rs` |
//! | how a peer's path is kept inside | `root/jail.rs`, then `root/place.rs`; what a peer may do: `control/access.rs` |
//! | why `unsafe` is sound | `ring/mod.rs` |
//! | how fast it is, and what was tried | `benches/NOTES.md`; `benches/compare/` measures |
//!
//! # Deliberately absent
//!
//! Trees. A second backend for kernels without io_uring (the trait is there). Matching of data that moved. Compression.
//! On the way of the data: memory taken for its bytes (a frame's list of parts and a stripe's of digests are), log lines, and
//! locks but for the pen, where the kernel has one of its own.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may end at the first surprise"))]

pub mod bottleneck;
pub mod cli;
pub mod completion;
pub mod control;
pub mod counters;
pub mod delta;
pub mod digest;
pub mod entry;
pub mod extent;
pub mod failure;
pub mod limits;
pub mod method;
pub mod report;
pub mod ring;
pub mod root;
pub mod seal;
pub mod session;
#[cfg(test)]
mod sim;
pub mod wire;
pub mod worker;
