//! Identifiers that are integers.

/// Defines an integer type with a meaning of its own.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

/// Implements the conversions from and to decimal text.
macro_rules! shown_as_number {
    ($($name:ident),*) => {
        $(impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        })*
    };
}

pub(crate) use {number, shown_as_number};

number!(
    /// The id of a subnet, from the configuration of the server.
    SubnetId(u32)
);
number!(
    /// The id of a pool within its subnet; 0 if pools have no ids.
    PoolId(u32)
);
number!(
    /// Identity association identifier of a DHCPv6 client (RFC 8415 section 4.2).
    Iaid(u32)
);
number!(
    /// Hardware type, the `htype` of RFC 2131; 1 is Ethernet.
    HwType(u16)
);
number!(
    /// The source from which a DHCPv6 server learned a hardware address, as a bit mask; 0 is
    /// unknown.
    HwSource(u32)
);

impl HwType {
    /// Ethernet, 1.
    pub const ETHERNET: Self = Self(1);
}

shown_as_number!(SubnetId, PoolId, Iaid, HwType, HwSource);
