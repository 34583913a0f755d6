//! Ports for servers that cannot have the system choose one.

use std::net::{Ipv4Addr, TcpListener};

/// Returns a port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
