//! The channels that commands come by: UNIX sockets and HTTP. A server listens in a thread of its
//! own, and passes requests to a [`Handler`](crate::request::Handler).

mod auth;
mod client;
mod commands;
mod connections;
mod head;
mod http;
mod input;
mod limits;
mod scan;
mod server;
#[cfg(feature = "control-tls")]
mod tls;
mod unix;

pub use auth::{AuthError, BasicAuth};
pub use client::{Client, ClientError};
pub use http::{HA_COMMANDS, Http};
pub use limits::Limits;
pub use server::{ControlError, Server, ServerBuilder};
#[cfg(feature = "control-tls")]
pub use tls::{ClientTls, ServerTls, TlsError};
pub use unix::UnixSocket;
