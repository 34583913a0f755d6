//! Numbers in leases: states, types and lifetimes.

use std::ops::RangeInclusive;

use super::LeaseError;
use crate::identifiers::{number, shown_as_number};

number!(
    /// A lifetime in seconds.
    ///
    /// [`Lifetime::INFINITE`] stands for infinity (RFC 2131 section 3.3, RFC 8415 section 7.7).
    Lifetime(u32)
);
shown_as_number!(Lifetime);

impl Lifetime {
    /// The lifetime of a lease that never expires, 0xffffffff.
    pub const INFINITE: Self = Self(u32::MAX);

    /// Returns whether the lease never expires.
    #[must_use]
    pub fn is_infinite(self) -> bool {
        self == Self::INFINITE
    }
}

/// Defines numbers of which some have words as their text; the others share a word.
macro_rules! shown_as_word {
    ($name:ident, $other:literal, $expected:literal, [$($word:literal = $value:ident),* $(,)?]) => {
        #[doc = concat!("Formats the number as its word, otherwise as `", $other, "` and the number. `{:#}` adds the number to a word.")]
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $(Self::$value if f.alternate() => write!(f, "{} ({})", $word, self.0),
                    Self::$value => f.write_str($word),)*
                    Self(number) => write!(f, "{} {number}", $other),
                }
            }
        }

        /// Parses a word, or a number.
        impl std::str::FromStr for $name {
            type Err = LeaseError;

            fn from_str(text: &str) -> Result<Self, LeaseError> {
                match text {
                    $($word => Ok(Self::$value),)*
                    _ => {
                        let number = text.strip_prefix(concat!($other, " ")).unwrap_or(text);
                        number.parse().map(Self).map_err(|_| LeaseError::Word { expected: $expected })
                    }
                }
            }
        }
    };
}

number!(
    /// The state of a lease.
    ///
    /// | number | state | in Kea |
    /// |---|---|---|
    /// | 0 | [`DEFAULT`](Self::DEFAULT) | the same |
    /// | 1 | [`DECLINED`](Self::DECLINED) | the same |
    /// | 2 | [`EXPIRED_RECLAIMED`](Self::EXPIRED_RECLAIMED) | the same |
    /// | 3 | [`RELEASED`](Self::RELEASED) | the same |
    /// | 4 | [`REGISTERED`](Self::REGISTERED), DHCPv6 only | the same |
    /// | 128 | [`OFFERED`](Self::OFFERED) | not known |
    /// | 192 to 255 | free for applications, [`APPLICATION`](Self::APPLICATION) | not known |
    ///
    /// All other numbers are kept unchanged.
    ///
    /// # States that Kea does not know
    /// Kea numbers its states from 0 and has five. Its servers load a lease in another state from a
    /// lease file, show the state as a number, and reclaim the lease when it has expired, like an
    /// assigned one; statistics do not count it. `kea-lfc` keeps it unchanged. Kea's lease commands
    /// do not accept such a state, and its SQL backends only if their table `lease_state` contains
    /// it.
    LeaseState(u32)
);
shown_as_word!(
    LeaseState,
    "state",
    "a state of a lease such as assigned, or a number",
    [
        "assigned" = DEFAULT,
        "declined" = DECLINED,
        "reclaimed" = EXPIRED_RECLAIMED,
        "released" = RELEASED,
        "registered" = REGISTERED,
        "offered" = OFFERED,
    ]
);

impl LeaseState {
    /// Assigned to a client.
    pub const DEFAULT: Self = Self(0);
    /// In use by a host to which it was not assigned, and out of use for a probation period.
    pub const DECLINED: Self = Self(1);
    /// Expired, with its cleanup (DNS, statistics) done.
    pub const EXPIRED_RECLAIMED: Self = Self(2);
    /// Released by its client.
    pub const RELEASED: Self = Self(3);
    /// An address that its client registered (DHCPv6, RFC 9686).
    pub const REGISTERED: Self = Self(4);
    /// Offered to a client that has not requested it yet (DHCPOFFER, Advertise). Kea does not store
    /// its offers; see [above](Self#states-that-kea-does-not-know) for how it treats this state.
    pub const OFFERED: Self = Self(128);
    /// The states that applications may use for themselves, 192 to 255. Neither this crate nor Kea
    /// uses them.
    pub const APPLICATION: RangeInclusive<Self> = Self(192)..=Self(255);

    /// Returns whether a lease in this state may have no client: if it is declined or reclaimed.
    #[must_use]
    pub fn may_lack_client(self) -> bool {
        matches!(self, Self::DECLINED | Self::EXPIRED_RECLAIMED)
    }
}

number!(
    /// The type of a DHCPv6 lease: 0 IA_NA, 1 IA_TA, 2 IA_PD (RFC 8415). Other numbers are kept
    /// unchanged.
    LeaseType(u16)
);
shown_as_word!(
    LeaseType,
    "type",
    "IA_NA, IA_TA, IA_PD or a number from 0 to 65535",
    ["IA_NA" = NA, "IA_TA" = TA, "IA_PD" = PD,]
);

impl LeaseType {
    /// A non-temporary address.
    pub const NA: Self = Self(0);
    /// A temporary address.
    pub const TA: Self = Self(1);
    /// A delegated prefix.
    pub const PD: Self = Self(2);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(LeaseState(0), "assigned", "assigned (0)")]
    #[case(LeaseState(2), "reclaimed", "reclaimed (2)")]
    #[case(LeaseState(128), "offered", "offered (128)")]
    #[case(LeaseState(193), "state 193", "state 193")]
    #[case(LeaseState(u32::MAX), "state 4294967295", "state 4294967295")]
    fn a_state_is_shown_as_a_word(#[case] state: LeaseState, #[case] word: &str, #[case] both: &str) {
        assert_eq!((state.to_string(), format!("{state:#}")), (word.to_owned(), both.to_owned()));
        assert_eq!(word.parse(), Ok(state));
        assert_eq!(state.0.to_string().parse(), Ok(state));
    }

    #[rstest]
    #[case(LeaseType::PD, "IA_PD", "IA_PD (2)")]
    #[case(LeaseType(9), "type 9", "type 9")]
    fn a_type_is_shown_as_a_word(#[case] kind: LeaseType, #[case] word: &str, #[case] both: &str) {
        assert_eq!((kind.to_string(), format!("{kind:#}")), (word.to_owned(), both.to_owned()));
        assert_eq!(word.parse(), Ok(kind));
    }

    #[rstest]
    #[case("Assigned")]
    #[case("")]
    #[case("state")]
    #[case("-1")]
    #[case("4294967296")]
    fn another_word_is_not_a_state(#[case] text: &str) {
        let expected = "a state of a lease such as assigned, or a number";
        assert_eq!(text.parse::<LeaseState>(), Err(LeaseError::Word { expected }));
    }

    #[test]
    fn states_of_applications_are_not_those_of_kea() {
        let known = [0, 1, 2, 3, 4, 128].map(LeaseState);
        assert!(known.iter().all(|state| !LeaseState::APPLICATION.contains(state)));
    }
}
