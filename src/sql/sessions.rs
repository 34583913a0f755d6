//! The sessions of a database: at most as many as configured, opened when they are needed, and
//! opened again by a thread when the database was lost.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use super::driver::{DbError, DbErrorKind, Driver, Listener, Schema, Session};
use super::options::SqlOptions;
use crate::lease_mgr::{Availability, LeaseMgrError, ManagedLease};
use crate::with_sources::with_sources;

/// The first time between two attempts to reach a lost database, if it is not configured.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Maximum time between two attempts, if it is not configured.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The sessions of a database.
pub(super) struct Sessions<L: ManagedLease, D: Driver<L>> {
    driver: D,
    options: SqlOptions,
    place: String,
    schema: Schema,
    state: Mutex<State<D::Session>>,
    /// A session was given back, or the state changed.
    changed: Condvar,
    on_change: Box<dyn Fn(Availability) + Send + Sync>,
    own: Weak<Self>,
    _lease: PhantomData<L>,
}

struct State<S> {
    /// Sessions that are not in use, and since when.
    idle: Vec<(S, Instant)>,
    /// Number of sessions that are in use or idle.
    open: usize,
    availability: Availability,
    /// Why the database cannot be reached.
    failure: Option<Arc<DbError>>,
    /// Whether the manager is being dropped.
    is_ending: bool,
}

/// Gives up the place of a session whose user has panicked.
struct Slot<'a, L: ManagedLease, D: Driver<L>>(&'a Sessions<L, D>);

impl<L: ManagedLease, D: Driver<L>> Drop for Slot<'_, L, D> {
    fn drop(&mut self) {
        self.0.lose_one();
    }
}

/// An error that several operations share.
#[derive(Clone, Debug)]
pub(super) struct SharedError(pub(super) Arc<DbError>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl<L: ManagedLease, D: Driver<L>> Sessions<L, D> {
    /// Opens the first session.
    pub(super) fn open(
        driver: D,
        options: SqlOptions,
        on_change: impl Fn(Availability) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, DbError> {
        let first = Self::first(&driver, &options)?;
        let state = State {
            open: 1,
            availability: Availability::Up,
            failure: None,
            is_ending: false,
            idle: Vec::new(),
        };
        let schema = first.schema().clone();
        let sessions = Arc::new_cyclic(|own| Self {
            driver,
            place: options.place(),
            options,
            schema,
            state: Mutex::new(state),
            changed: Condvar::new(),
            on_change: Box::new(on_change),
            own: own.clone(),
            _lease: PhantomData,
        });
        sessions.state.lock().idle.push((first, Instant::now()));
        Ok(sessions)
    }

    /// Opens a session, with further attempts if they are configured for the start.
    fn first(driver: &D, options: &SqlOptions) -> Result<D::Session, DbError> {
        let tries =
            if options.retry_on_startup { options.max_reconnect_tries.unwrap_or(u32::MAX) } else { 0 };
        let mut wait = Waits::new(options);
        let mut tried = 0;
        loop {
            match driver.connect(options) {
                Err(error) if error.kind == DbErrorKind::NotConnected && tried < tries => {
                    tried += 1;
                    let place = options.place();
                    warn!(
                        id = "DHCPSRV_SQL_OPEN_RETRY",
                        "{place}: cannot be reached, attempt {tried}: {}",
                        with_sources(&error)
                    );
                    thread::sleep(wait.next());
                }
                result => return result,
            }
        }
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(super) fn options(&self) -> &SqlOptions {
        &self.options
    }

    /// Listens for the changes of others, as [`Driver::listen`] does.
    pub(super) fn listen(&self) -> Result<Option<Box<dyn Listener<L>>>, DbError> {
        self.driver.listen(&self.options)
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Returns the availability, without waiting for more than other threads that look at it.
    pub(super) fn availability(&self) -> Availability {
        self.state.lock().availability
    }

    /// Calls `work` with a session. If the session has ended, opens another one and calls `work`
    /// again, once, unless it may have changed leases.
    pub(super) fn with<R>(
        &self,
        may_repeat: bool,
        mut work: impl FnMut(&mut D::Session) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        let mut is_repeated = false;
        loop {
            let mut session = self.take(may_repeat)?;
            let slot = Slot(self);
            let result = work(&mut session);
            mem::forget(slot);
            match result {
                Err(error) if matches!(error.kind, DbErrorKind::Lost | DbErrorKind::Ended) => {
                    drop(session);
                    self.forget_idle();
                    if is_repeated || (error.kind == DbErrorKind::Lost && !may_repeat) {
                        return Err(error);
                    }
                    is_repeated = true;
                }
                result => {
                    self.give_back(session);
                    return result;
                }
            }
        }
    }

    /// Takes an idle session, or opens one. Unless what it is for may be repeated, a session that
    /// has ended is not taken.
    fn take(&self, may_repeat: bool) -> Result<D::Session, DbError> {
        let mut state = self.state.lock();
        loop {
            if let Some(error) = &state.failure {
                return Err(DbError::new(DbErrorKind::NotConnected, SharedError(Arc::clone(error))));
            }
            if let Some((mut session, since)) = state.idle.pop() {
                drop(state);
                if may_repeat || !session.has_ended(since.elapsed()) {
                    return Ok(session);
                }
                drop(session);
                self.lose_one();
                state = self.state.lock();
                continue;
            }
            if state.open < self.options.pool_size {
                break;
            }
            self.changed.wait(&mut state);
        }
        state.open += 1;
        drop(state);
        self.connect().inspect_err(|_| self.lose_one())
    }

    /// Opens a session. If the database cannot be reached, a thread tries again.
    fn connect(&self) -> Result<D::Session, DbError> {
        match self.driver.connect(&self.options) {
            Ok(session) if *session.schema() == self.schema => Ok(session),
            Ok(session) => {
                let (found, had) = (session.schema().version, self.schema.version);
                Err(DbError::new(DbErrorKind::Other, SchemaChanged { found, had }))
            }
            Err(error) if error.kind == DbErrorKind::NotConnected => {
                let error = Arc::new(error);
                self.lost(&error);
                Err(DbError::new(DbErrorKind::NotConnected, SharedError(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn give_back(&self, session: D::Session) {
        self.state.lock().idle.push((session, Instant::now()));
        self.changed.notify_one();
    }

    fn lose_one(&self) {
        self.state.lock().open -= 1;
        self.changed.notify_one();
    }

    /// Counts a session that has ended, and closes the idle ones, which have probably ended, too.
    fn forget_idle(&self) {
        let mut state = self.state.lock();
        let idle = mem::take(&mut state.idle);
        state.open -= 1 + idle.len();
        drop(state);
        self.changed.notify_all();
        drop(idle);
    }

    /// Notes that the database cannot be reached, and starts the thread that tries again.
    fn lost(&self, error: &Arc<DbError>) {
        let since = SystemTime::now();
        let mut state = self.state.lock();
        if state.failure.is_some() || state.is_ending {
            return;
        }
        state.failure = Some(Arc::clone(error));
        let gives_up = self.options.max_reconnect_tries == Some(0);
        let next_try = Some(since).filter(|_| !gives_up);
        let availability = match next_try {
            Some(_) => Availability::Lost { since, tries: 0, next_try },
            None => Availability::GivenUp { since },
        };
        state.availability = availability;
        drop(state);
        self.changed.notify_all();
        error!(id = "DHCPSRV_SQL_LOST", "{}: cannot be reached: {}", self.place, with_sources(&**error));
        (self.on_change)(availability);
        if gives_up {
            return;
        }
        let own = self.own.clone();
        let started = thread::Builder::new().name("lease-reconnect".to_owned()).spawn(move || {
            Self::reconnect(&own, since);
        });
        if let Err(error) = started {
            self.set(Availability::GivenUp { since }, |_| {});
            error!(id = "DHCPSRV_SQL_NO_RECONNECT", "cannot start the thread that reconnects: {error}");
        }
    }

    fn set(&self, availability: Availability, change: impl FnOnce(&mut State<D::Session>)) {
        let mut state = self.state.lock();
        state.availability = availability;
        change(&mut state);
        drop(state);
        self.changed.notify_all();
        (self.on_change)(availability);
    }

    /// Tries to reach the database again, until it succeeds, gives up, or the manager is dropped.
    fn reconnect(own: &Weak<Self>, since: SystemTime) {
        let Some((mut waits, max)) =
            own.upgrade().map(|own| (Waits::new(&own.options), own.options.max_reconnect_tries))
        else {
            return;
        };
        let mut tries = 0;
        loop {
            let Some(sessions) = own.upgrade() else {
                return;
            };
            tries += 1;
            match sessions.driver.connect(&sessions.options) {
                Ok(session) if *session.schema() == sessions.schema => {
                    info!(
                        id = "DHCPSRV_SQL_BACK",
                        "{}: can be reached again, attempt {tries}", sessions.place
                    );
                    sessions.set(Availability::Up, |state| {
                        state.failure = None;
                        state.open += 1;
                        state.idle.push((session, Instant::now()));
                    });
                    return;
                }
                Ok(session) => {
                    let (found, had) = (session.schema().version, sessions.schema.version);
                    warn!(id = "DHCPSRV_SQL_SCHEMA", "{}: {}", sessions.place, SchemaChanged { found, had });
                }
                Err(error) => {
                    let place = &sessions.place;
                    let error = with_sources(&error);
                    warn!(id = "DHCPSRV_SQL_RETRY", "{place}: cannot be reached, attempt {tries}: {error}");
                }
            }
            if max.is_some_and(|max| tries >= max) {
                error!(id = "DHCPSRV_SQL_GIVEN_UP", "{}: gives up after {tries} attempts", sessions.place);
                sessions.set(Availability::GivenUp { since }, |_| {});
                return;
            }
            let wait = waits.next();
            let next_try = Some(SystemTime::now() + wait);
            sessions.set(Availability::Lost { since, tries, next_try }, |_| {});
            let until = Instant::now() + wait;
            drop(sessions);
            // The manager may be dropped meanwhile.
            while Instant::now() < until && own.strong_count() > 0 {
                thread::sleep(
                    until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)),
                );
            }
        }
    }

    /// Returns the error of an operation that has changed nothing.
    pub(super) fn failed(&self, error: DbError) -> LeaseMgrError {
        let place = self.place.clone();
        match error.kind {
            DbErrorKind::NotConnected | DbErrorKind::Lost | DbErrorKind::Ended | DbErrorKind::Conflict => {
                let since = match self.availability() {
                    Availability::Lost { since, .. } | Availability::GivenUp { since } => since,
                    _ => SystemTime::now(),
                };
                LeaseMgrError::Unavailable { place, since, source: Some(Box::new(error)) }
            }
            DbErrorKind::ReadOnly => LeaseMgrError::ReadOnly { place },
            DbErrorKind::NoSpace => {
                let source = std::io::Error::new(std::io::ErrorKind::StorageFull, error);
                LeaseMgrError::Write { place, action: "write", source: Arc::new(source) }
            }
            DbErrorKind::Refused | DbErrorKind::Other => LeaseMgrError::Backend(Box::new(error)),
        }
    }
}

/// The schema is another one since the database was reached again.
#[derive(Debug, thiserror::Error)]
#[error(
    "the schema of the database has version {}.{}, and had {}.{} or other columns; reopen the lease manager",
    found.0, found.1, had.0, had.1
)]
struct SchemaChanged {
    found: (u32, u32),
    had: (u32, u32),
}

/// The times between attempts to reach a database.
struct Waits {
    fixed: Option<Duration>,
    next: Duration,
}

impl Waits {
    fn new(options: &SqlOptions) -> Self {
        Self { fixed: options.reconnect_wait_time, next: FIRST_WAIT }
    }

    fn next(&mut self) -> Duration {
        let next = self.fixed.unwrap_or(self.next);
        self.next = (self.next * 2).min(MAX_WAIT);
        next
    }
}
