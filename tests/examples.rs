//! The tests of the examples.
//!
//! They are included here, because cargo would build an example that it tests itself only as a
//! test, and not as the program that other tests run.

#![allow(dead_code, reason = "the programs are not run here")]
#![allow(clippy::duplicate_mod, reason = "each server has its own copy of what they share")]

#[path = "../examples/dhcp4_server.rs"]
mod dhcp4_server;
#[path = "../examples/dhcp6_server.rs"]
mod dhcp6_server;
#[path = "../examples/list_leases.rs"]
mod list_leases;
