//! Two peers, two mounts: what the product promises, through its real command line and real files.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod absent;
mod attributes;
mod bad_input;
mod calls;
mod commands;
mod conflicts;
mod content;
mod control_socket;
mod crash;
mod cursors;
mod cuts;
mod damaged_files;
mod damaged_home;
mod git_apart;
mod git_large;
mod git_small;
mod killed_inside;
mod latency;
mod lfs;
mod local_rules;
mod merging;
mod moved_below;
mod names;
mod ordinary_user;
mod passed;
mod posix;
mod power_cut;
mod reader;
mod residency;
mod restarts;
mod reuse;
mod seed_bugs;
mod special;
mod state_away;
mod state_lost;
mod storm;
mod trash;
mod verify;
