//! Modes, roles and states, with the names that Kea gives them.

use std::fmt;

macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$variant_meta:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $type {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the name in Kea's configuration and commands.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns the value of this name, in lower case; `None` if the name is unknown.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// How the servers of a relationship divide the clients.
    Mode {
        /// The primary serves all clients; the standby takes over if the primary is down.
        HotStandby = "hot-standby",
        /// The primary and the secondary serve about half of the clients each.
        LoadBalancing = "load-balancing",
        /// The primary serves all clients; backups only receive its changes.
        PassiveBackup = "passive-backup",
    }
}

named! {
    /// What a server is in a relationship.
    Role {
        /// The server that serves all clients, or the first half of them.
        Primary = "primary",
        /// The other server of [`Mode::LoadBalancing`].
        Secondary = "secondary",
        /// The other server of [`Mode::HotStandby`].
        Standby = "standby",
        /// A server that receives changes and never serves clients.
        Backup = "backup",
    }
}

named! {
    /// The state of a server.
    State {
        /// A backup: receives changes, serves no client.
        Backup = "backup",
        /// Cut off from the partner in [`Mode::LoadBalancing`]: serves its own clients, and keeps
        /// the changes that the partner does not know.
        CommunicationRecovery = "communication-recovery",
        /// The normal state in [`Mode::HotStandby`].
        HotStandby = "hot-standby",
        /// An administrator is about to stop this server: serves no client.
        InMaintenance = "in-maintenance",
        /// The normal state in [`Mode::LoadBalancing`].
        LoadBalancing = "load-balancing",
        /// The partner is down: serves all clients.
        PartnerDown = "partner-down",
        /// An administrator is about to stop the partner: serves all clients.
        PartnerInMaintenance = "partner-in-maintenance",
        /// The primary in [`Mode::PassiveBackup`].
        PassiveBackup = "passive-backup",
        /// Has the partner's leases, and waits for the partner to go on together.
        Ready = "ready",
        /// Copies the partner's leases.
        Syncing = "syncing",
        /// Works on alone because the servers cannot work together, until a restart.
        Terminated = "terminated",
        /// After a start: waits to hear from the partner.
        Waiting = "waiting",
    }
}

impl Mode {
    /// Returns the state in which two servers of this mode work together.
    #[must_use]
    pub fn normal(self) -> State {
        match self {
            Self::HotStandby => State::HotStandby,
            Self::LoadBalancing => State::LoadBalancing,
            Self::PassiveBackup => State::PassiveBackup,
        }
    }

    /// Returns whether a partner in this state is configured for another mode.
    pub(super) fn excludes(self, state: State) -> bool {
        match self {
            Self::HotStandby => matches!(state, State::LoadBalancing | State::CommunicationRecovery),
            Self::LoadBalancing => state == State::HotStandby,
            Self::PassiveBackup => false,
        }
    }
}

impl State {
    /// Returns whether a server in this state answers clients.
    #[must_use]
    pub fn serves(self) -> bool {
        match self {
            Self::CommunicationRecovery
            | Self::HotStandby
            | Self::LoadBalancing
            | Self::PartnerDown
            | Self::PartnerInMaintenance
            | Self::PassiveBackup
            | Self::Terminated => true,
            Self::Backup | Self::InMaintenance | Self::Ready | Self::Syncing | Self::Waiting => false,
        }
    }

    /// Returns whether a server in this state sends heartbeats.
    pub(super) fn sends_heartbeats(self) -> bool {
        !matches!(self, Self::Backup | Self::PassiveBackup | Self::Terminated)
    }
}
