//! The client of a DHCPv4 lease.

use super::{ClientId, HwAddr, LeaseError, LeaseState};

/// A DHCPv4 client: its hardware address, its client id, or both.
///
/// ```
/// use leasemgr::lease::{Client4, ClientId, HwAddr};
///
/// let hwaddr = HwAddr::from([2, 0, 0, 0, 0, 1]);
/// let client = Client4::from((hwaddr.clone(), ClientId::new(&[1, 2, 0, 0, 0, 0, 1])?));
/// assert_eq!(client.hwaddr(), Some(&hwaddr));
/// assert!(Client4::try_from((None, None)).is_err());
/// # Ok::<(), leasemgr::lease::IdentifierError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Client4 {
    /// A client that sent no client id.
    HwAddr(HwAddr),
    /// A client whose hardware address is not known.
    ClientId(ClientId),
    /// A client with both.
    Both(HwAddr, ClientId),
}

impl Client4 {
    /// Returns the hardware address, if known.
    #[must_use]
    pub fn hwaddr(&self) -> Option<&HwAddr> {
        match self {
            Self::HwAddr(hwaddr) | Self::Both(hwaddr, _) => Some(hwaddr),
            Self::ClientId(_) => None,
        }
    }

    /// Returns the client id, if the client sent one.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        match self {
            Self::ClientId(client_id) | Self::Both(_, client_id) => Some(client_id),
            Self::HwAddr(_) => None,
        }
    }

    pub(super) fn into_parts(self) -> (Option<HwAddr>, Option<ClientId>) {
        match self {
            Self::HwAddr(hwaddr) => (Some(hwaddr), None),
            Self::ClientId(client_id) => (None, Some(client_id)),
            Self::Both(hwaddr, client_id) => (Some(hwaddr), Some(client_id)),
        }
    }
}

impl From<HwAddr> for Client4 {
    fn from(hwaddr: HwAddr) -> Self {
        Self::HwAddr(hwaddr)
    }
}

impl From<ClientId> for Client4 {
    fn from(client_id: ClientId) -> Self {
        Self::ClientId(client_id)
    }
}

impl From<(HwAddr, ClientId)> for Client4 {
    fn from((hwaddr, client_id): (HwAddr, ClientId)) -> Self {
        Self::Both(hwaddr, client_id)
    }
}

impl From<(HwAddr, Option<ClientId>)> for Client4 {
    fn from((hwaddr, client_id): (HwAddr, Option<ClientId>)) -> Self {
        match client_id {
            Some(client_id) => Self::Both(hwaddr, client_id),
            None => Self::HwAddr(hwaddr),
        }
    }
}

/// Returns [`LeaseError::NoIdentity`] if both are `None`.
impl TryFrom<(Option<HwAddr>, Option<ClientId>)> for Client4 {
    type Error = LeaseError;

    fn try_from(client: (Option<HwAddr>, Option<ClientId>)) -> Result<Self, LeaseError> {
        match client {
            (Some(hwaddr), client_id) => Ok((hwaddr, client_id).into()),
            (None, Some(client_id)) => Ok(client_id.into()),
            (None, None) => Err(LeaseError::NoIdentity { state: LeaseState::DEFAULT }),
        }
    }
}
