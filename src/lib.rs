//! pdcp brings a large file on one host up to date with another, and proves that it did. This is the map of the house.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may end at the first surprise"))]

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
pub mod session;
#[cfg(test)]
mod sim;
pub mod wire;
pub mod worker;
