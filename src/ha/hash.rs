//! The hash that divides clients between two servers (RFC 3074).

use crate::lease::{ClientId, Duid, HwAddr};

/// The table of RFC 3074, section 6.
const TABLE: [u8; 256] = [
    251, 175, 119, 215, 81, 14, 79, 191, 103, 49, 181, 143, 186, 157, 0, 232, 31, 32, 55, 60, 152, 58, 17,
    237, 174, 70, 160, 144, 220, 90, 57, 223, 59, 3, 18, 140, 111, 166, 203, 196, 134, 243, 124, 95, 222,
    179, 197, 65, 180, 48, 36, 15, 107, 46, 233, 130, 165, 30, 123, 161, 209, 23, 97, 16, 40, 91, 219, 61,
    100, 10, 210, 109, 250, 127, 22, 138, 29, 108, 244, 67, 207, 9, 178, 204, 74, 98, 126, 249, 167, 116, 34,
    77, 193, 200, 121, 5, 20, 113, 71, 35, 128, 13, 182, 94, 25, 226, 227, 199, 75, 27, 41, 245, 230, 224,
    43, 225, 177, 26, 155, 150, 212, 142, 218, 115, 241, 73, 88, 105, 39, 114, 62, 255, 192, 201, 145, 214,
    168, 158, 221, 148, 154, 122, 12, 84, 82, 163, 44, 139, 228, 236, 205, 242, 217, 11, 187, 146, 159, 64,
    86, 239, 195, 42, 106, 198, 118, 112, 184, 172, 87, 2, 173, 117, 176, 229, 247, 253, 137, 185, 99, 164,
    102, 147, 45, 66, 231, 52, 141, 211, 194, 206, 246, 238, 56, 110, 78, 248, 63, 240, 189, 93, 92, 51, 53,
    183, 19, 171, 72, 50, 33, 104, 101, 69, 8, 252, 83, 120, 76, 135, 85, 54, 202, 125, 188, 213, 96, 235,
    136, 208, 162, 129, 190, 132, 156, 38, 47, 1, 7, 254, 24, 4, 216, 131, 89, 21, 28, 133, 37, 153, 149, 80,
    170, 68, 6, 169, 234, 151,
];

/// The identifier of a client that decides which server answers it.
///
/// ```
/// use leasemgr::ha::ClientHash;
/// use leasemgr::lease::HwAddr;
///
/// let first = HwAddr::from([8, 0, 0x27, 0, 0, 1]);
/// assert!(!ClientHash::of_client4(None, Some(&first)).is_primary());
/// let second = HwAddr::from([8, 0, 0x27, 0, 0, 2]);
/// assert!(ClientHash::of_client4(None, Some(&second)).is_primary());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHash(u8);

impl ClientHash {
    /// Returns the hash of a DHCPv4 client: of its client id, or of its hardware address, without
    /// the type, if it sent no client id.
    #[must_use]
    pub fn of_client4(client_id: Option<&ClientId>, hwaddr: Option<&HwAddr>) -> Self {
        match (client_id, hwaddr) {
            (Some(client_id), _) => Self::of(client_id.as_option()),
            (None, Some(hwaddr)) => Self::of(hwaddr.as_bytes()),
            (None, None) => Self::of(&[]),
        }
    }

    /// Returns the hash of a DHCPv6 client.
    #[must_use]
    pub fn of_client6(duid: &Duid) -> Self {
        Self::of(duid.as_bytes())
    }

    /// Returns the hash of the octets of an identifier. It starts with their number, modulo 256,
    /// and takes them from the last to the first.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let length = key.len().to_le_bytes().first().copied().unwrap_or(0);
        let step = |hash: u8, octet: &u8| TABLE.get(usize::from(hash ^ octet)).copied().unwrap_or(0);
        Self(key.iter().rev().fold(length, step))
    }

    /// Returns the hash, 0 to 255.
    #[must_use]
    pub fn value(self) -> u8 {
        self.0
    }

    /// Returns whether the primary answers the client, not the secondary, in
    /// [`Mode::LoadBalancing`](super::Mode::LoadBalancing).
    #[must_use]
    pub fn is_primary(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

#[cfg(test)]
mod tests {
    use super::TABLE;

    #[test]
    fn the_table_has_each_octet_once() {
        let mut octets = TABLE;
        octets.sort_unstable();
        assert!(octets.iter().enumerate().all(|(i, octet)| i == usize::from(*octet)));
    }
}
