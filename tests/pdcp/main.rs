//! The one integration test binary: what a user or a peer can see of the program, and the rules of the house.

#![allow(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod benchmark;
mod cli;
mod content;
mod corpus;
mod crowd;
mod defects;
mod failures;
mod file_systems;
mod holes;
mod hostile;
mod jail;
mod keys;
mod metadata;
mod names;
mod network;
mod operation;
mod races;
mod rig;
mod sealed;
mod security;
mod spec;
mod stopping;
mod telling;
mod terminal;
mod tidy;
