//! The channels that commands come by: UNIX sockets and HTTP. A server listens in a thread of its
//! own, and passes requests to a [`Handler`](crate::request::Handler).

mod commands;
mod connections;
mod input;
mod limits;
mod scan;
mod server;
mod unix;

pub use limits::Limits;
pub use server::{ControlError, Server, ServerBuilder};
pub use unix::UnixSocket;
