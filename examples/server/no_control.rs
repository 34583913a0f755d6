//! A server without the features of commands: it serves clients until a signal ends it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use leasemgr::ManagedLease;

use super::{Outcome, Served};

/// What commands do to a server.
pub(crate) struct Control {
    stop: Arc<AtomicBool>,
}

impl Control {
    /// # Errors
    /// Returns an error if commands are to be answered.
    pub(crate) fn start<L: ManagedLease>(served: &Served<'_, L>) -> Outcome<Self> {
        let Served { options, leases, prefixes, preferred_lifetime } = served;
        // Only commands show these.
        let _ = (leases, prefixes, preferred_lifetime);
        if !options.channels.is_empty() {
            return Err(
                "--control-socket and --control-http need a build with --features commands,control".into()
            );
        }
        Ok(Self { stop: Arc::default() })
    }

    /// Returns whether the server is to end.
    pub(crate) fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Returns the permission to serve a client.
    pub(crate) fn serve(&self) -> Option<()> {
        Some(())
    }
}
