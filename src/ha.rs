//! High availability: two servers that serve clients together, as Kea's do.
//!
//! * [`Config`]: the relationship, from Kea's map `high-availability`.
//! * [`Machine`]: what a server does and may do, as a state machine without I/O and clock: it takes
//!   [`Event`]s and gives [`Action`]s. [`Machine::may_answer`] tells whether a client is answered,
//!   [`Machine::replicate`] when its change may be acknowledged.
//! * [`ClientHash`]: which of two servers answers a client.
//! * [`decide`]: which of two leases of an address remains.
//! * [`copy_leases`]: copies the partner's leases into a lease manager.
//! * [`Request`], [`Response`]: what the servers send to each other, in Kea's form.
//! * [`Service`]: all of this for a server that runs, over HTTP.
//!
//! `docs/ha.md` has what is promised.

mod communication;
mod config;
mod conflict;
mod copy;
mod date;
mod hash;
mod kept;
mod machine;
mod message;
mod names;
mod service;
mod status;

pub use communication::{Communication, waited_secs};
pub use config::{Config, ConfigError, Password, Pause, Peer, Tls, Url};
pub use conflict::{Conflicts, Decision, Via, decide, next_cltt};
pub use copy::{Copied, CopyError, Copying, Partner, copy_leases, store};
pub use date::{http_date, parse_http_date};
pub use hash::ClientHash;
pub use kept::{Kept, KeptChange};
pub use machine::{Action, Event, Heartbeat, Machine, MaintenanceAnswer, Notice, Replication, Reply, Time};
pub use message::{Dialect, Leases, MessageError, PageLease, Request, Response};
pub use names::{Mode, Role, State};
pub use service::{Service, ServiceError};
