//! Identifiers of clients, relay agents, subnets and pools in a lease, each with its own type.

mod bytes;
mod clients;
mod error;
mod names;
mod numbers;
pub(crate) mod octets;
mod relays;
#[cfg(feature = "serde")]
pub(crate) mod serde;
mod short_bytes;

pub use clients::{ClientId, Duid, HwAddr};
pub use error::{IdentifierError, IdentifierKind};
pub use names::{ClientClass, Hostname};
pub use numbers::{HwSource, HwType, Iaid, PoolId, SubnetId};
pub(crate) use numbers::{number, shown_as_number};
pub use relays::{RelayId, RemoteId};
