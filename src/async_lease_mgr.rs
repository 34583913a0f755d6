//! A lease manager for async servers, under any runtime.
//!
//! `docs/async.md` describes which calls an async task may make directly, and their cost.

mod answer;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use answer::Answer;
use answer::Sender;

use crate::lease::{HwAddr, SubnetId};
use crate::lease_mgr::{
    Added, Borrowed, ClientKey, CountedAs, Deleted, Done, LeaseMgr, LeaseMgrError, LookUp, ManagedLease,
    Operation, Then, ThenFound, is_reclaimed, reclaimed_form,
};
use crate::sync::Mutex;

/// Work that may block.
pub type Work = Box<dyn FnOnce() + Send>;

/// Passes work to another thread.
type Pool = Arc<dyn Fn(Work) + Send + Sync>;

/// A lease manager whose changes are awaited. Its clones are handles of the same manager.
///
/// Leases are read synchronously from [`AsyncLeaseMgr::leases`]: a memfile reads from memory in
/// about a microsecond. Each method that changes leases starts the change at once, before its
/// future is polled, and changes of one address are made in that order. If a change waits neither
/// for a disk nor for a network, its future is ready at once. A future can be awaited under any
/// runtime, sent to other threads, and dropped. **A change continues if its future is dropped**, as
/// by a timeout; read the lease before you answer the client then.
///
/// # Backends that block
/// A backend that makes changes in threads of its own ([`LeaseMgr::submits`], such as a memfile
/// with `durability=synced`) blocks no task. Any other backend that may block is called in a pool
/// of threads: with the feature `tokio`, by `spawn_blocking` of the runtime of the calling task; or
/// in the pool of [`AsyncLeaseMgr::with_pool`]. Without either, it blocks the caller. In a pool,
/// changes of one address are made in any order, unless each is awaited before the next.
///
/// The look-ups that a server makes for each packet, [`AsyncLeaseMgr::get`] and
/// [`AsyncLeaseMgr::by_client_in_subnet`], are made in the same ways as changes
/// ([`LeaseMgr::submits_look_ups`]); other reads of a backend on a network go through
/// [`AsyncLeaseMgr::run`].
///
/// # End
/// Dropping the last handle of a manager may wait for the disk: [`AsyncLeaseMgr::close`] does it in
/// the pool.
///
/// ```
/// use leasemgr::lease::{HwAddr, Lease, Lease4, LeaseState, Lifetime};
/// use leasemgr::{Added, AsyncLeaseMgr, LeaseMgrFactory};
///
/// # fn block_on<T>(future: impl Future<Output = T>) -> T {
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// #         if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) { break value; }
/// #     }
/// # }
/// # block_on(async {
/// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
/// let leases = AsyncLeaseMgr::new(leases);
/// let client = HwAddr::new(&[2, 0, 0, 0, 0, 1])?;
/// let mut lease = Lease4::new([192, 0, 2, 1].into(), Some(client), None, LeaseState::DEFAULT)?;
/// lease.data_mut().valid_lifetime = Lifetime(3600);
/// assert_eq!(leases.add(&lease).await?, Added::Added);
/// assert_eq!(leases.leases().get([192, 0, 2, 1].into())?, Some(lease));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct AsyncLeaseMgr<L: ManagedLease> {
    leases: Arc<dyn LeaseMgr<L>>,
    pool: Pool,
}

impl<L: ManagedLease> Clone for AsyncLeaseMgr<L> {
    fn clone(&self) -> Self {
        Self { leases: Arc::clone(&self.leases), pool: Arc::clone(&self.pool) }
    }
}

impl<L: ManagedLease> fmt::Debug for AsyncLeaseMgr<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncLeaseMgr").field(&self.leases).finish()
    }
}

/// The future of one change or query.
type Pending<T> = Answer<Result<T, LeaseMgrError>>;

/// The result of work is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the work was dropped before it had a result")]
struct GivenUp;

fn given_up<T>() -> Result<T, LeaseMgrError> {
    Err(LeaseMgrError::Backend(Box::new(GivenUp)))
}

fn unknown<T>(address: IpAddr) -> Result<T, LeaseMgrError> {
    Err(LeaseMgrError::OutcomeUnknown { address, source: Some(Box::new(GivenUp)) })
}

impl<L: ManagedLease> AsyncLeaseMgr<L> {
    /// Creates a handle of a manager. [`AsyncLeaseMgr`] describes where blocking calls are made.
    #[must_use]
    pub fn new(leases: Arc<dyn LeaseMgr<L>>) -> Self {
        Self::with_pool(leases, run_blocking)
    }

    /// Creates a handle of a manager. Blocking calls are passed to `pool`, which must run them in
    /// another thread.
    #[must_use]
    pub fn with_pool(leases: Arc<dyn LeaseMgr<L>>, pool: impl Fn(Work) + Send + Sync + 'static) -> Self {
        Self { leases, pool: Arc::new(pool) }
    }

    /// Returns the manager, to read leases. Its methods that change leases block if
    /// [`LeaseMgr::may_block`] returns true.
    #[must_use]
    pub fn leases(&self) -> &Arc<dyn LeaseMgr<L>> {
        &self.leases
    }

    /// Returns the lease of an address. Look-ups of a backend that submits them, such as a database,
    /// go out together, and wait in no thread of the pool ([`LeaseMgr::submit_look_up`]).
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::get`], and another one if the pool does not run
    /// the look-up.
    pub fn get(&self, address: L::Address) -> Pending<Option<L>> {
        if !self.leases.may_block() {
            return Answer::known(self.leases.get(address));
        }
        self.look_up(LookUp::Address(address), |mut found| found.pop())
    }

    /// Returns the leases of a client in a subnet, as [`LeaseMgr::by_client_in_subnet`] does. They are
    /// looked up as in [`AsyncLeaseMgr::get`].
    ///
    /// ```
    /// # use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
    /// # use leasemgr::{AsyncLeaseMgr, ClientKey, LeaseMgrError};
    /// /// Returns a lease of a client.
    /// async fn known(
    ///     leases: &AsyncLeaseMgr<Lease4>,
    ///     card: &HwAddr,
    ///     id: Option<&ClientId>,
    /// ) -> Result<Option<Lease4>, LeaseMgrError> {
    ///     let id = id.map(ClientKey::from);
    ///     Ok(leases.by_client_in_subnet(Some(card), id, SubnetId(1)).await?.pop())
    /// }
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of that method, and another one if the pool does not run the
    /// look-up.
    pub fn by_client_in_subnet(
        &self,
        hwaddr: Option<&HwAddr>,
        client: Option<ClientKey<'_>>,
        subnet: SubnetId,
    ) -> Pending<Vec<L>> {
        if !self.leases.may_block() {
            return Answer::known(self.leases.by_client_in_subnet(hwaddr, client, subnet));
        }
        self.look_up(LookUp::client(hwaddr, client, subnet), |found| found)
    }

    /// Adds a lease, unless its address already has one.
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::add`], and, as for the other changes,
    /// [`LeaseMgrError::OutcomeUnknown`] if the pool does not run the change.
    pub fn add(&self, lease: &L) -> Pending<Added> {
        self.change(Borrowed::Add(lease), |result| {
            result.map(|done| if done == Done::Added { Added::Added } else { Added::AddressTaken })
        })
    }

    /// Replaces the lease of an address, whichever it is.
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::update_expecting`].
    pub fn update(&self, lease: &L) -> Pending<()> {
        self.change(Borrowed::Update(lease, None), |result| result.map(drop))
    }

    /// Replaces a lease that the caller has read, unless it was modified since.
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::update_expecting`].
    pub fn update_if_unchanged(&self, read: &L, lease: &L) -> Pending<()> {
        self.change(Borrowed::Update(lease, Some(read)), |result| result.map(drop))
    }

    /// Deletes the lease of an address, whichever it is.
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::delete_expecting`].
    pub fn delete(&self, address: L::Address) -> Pending<Deleted> {
        self.change(Borrowed::Delete(address, None), deleted)
    }

    /// Deletes a lease that the caller has read, unless it was modified since.
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::delete_expecting`].
    pub fn delete_if_unchanged(&self, read: &L) -> Pending<Deleted> {
        self.change(Borrowed::Delete(read.address(), Some(read)), deleted)
    }

    /// Reclaims an expired lease that the caller has read, as
    /// [`LeaseMgrExt::reclaim`](crate::LeaseMgrExt::reclaim) does. The future returns whether the
    /// lease was reclaimed, which is not so if it was modified since.
    ///
    /// # Errors
    /// The future returns the errors of that method.
    pub fn reclaim(&self, expired: &L) -> Pending<bool> {
        let reclaimed = reclaimed_form(expired);
        let operation = match &reclaimed {
            Some(reclaimed) => Borrowed::Update(reclaimed, Some(expired)),
            None => Borrowed::Delete(expired.address(), Some(expired)),
        };
        let (leases, expired) = (Arc::clone(&self.leases), CountedAs::of(expired));
        self.change(operation, move |result| is_reclaimed(leases.tracking(), expired, result))
    }

    /// Makes several changes, as [`LeaseMgr::apply`] does. The future returns the result of each.
    pub fn apply(&self, operations: Vec<Operation<L>>) -> Answer<Vec<Result<Done, LeaseMgrError>>> {
        if !self.leases.may_block() {
            return Answer::known(self.leases.apply(&operations));
        }
        let (sender, answer) = Answer::awaited(Vec::new);
        let unknown_of = |operation: &Operation<L>| unknown(operation.address().into());
        let results = operations.iter().map(unknown_of).collect();
        let results = Arc::new(Results { results: Mutex::new(results), sender: Some(sender) });
        if self.leases.submits() {
            for (number, operation) in operations.into_iter().enumerate() {
                let results = Arc::clone(&results);
                let then = move |result| results.results.lock()[number] = result;
                self.leases.submit(operation, Box::new(then));
            }
        } else {
            let leases = Arc::clone(&self.leases);
            let work = move || {
                let made = leases.apply(&operations);
                *results.results.lock() = made;
            };
            (self.pool)(Box::new(work));
        }
        answer
    }

    /// Calls `work` with the manager. For work that may block, such as a query of a database, or
    /// [`LeaseMgr::delete_reclaimed`]: runs at once if the manager never blocks, otherwise in the
    /// pool.
    ///
    /// ```
    /// # use leasemgr::lease::{Lease4, SubnetId};
    /// # use leasemgr::{AsyncLeaseMgr, LeaseMgrError};
    /// # async fn wipe(leases: AsyncLeaseMgr<Lease4>) -> Result<(), LeaseMgrError> {
    /// let count = leases.run(|leases| leases.wipe_subnet(SubnetId(7))).await?;
    /// # let _ = count;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future returns the error of `work`, and another one if it panics or the pool does not
    /// run it.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn LeaseMgr<L>) -> Result<T, LeaseMgrError> + Send + 'static,
    ) -> Pending<T> {
        if !self.leases.may_block() {
            return Answer::known(work(&*self.leases));
        }
        let (sender, answer) = Answer::awaited(given_up);
        let leases = Arc::clone(&self.leases);
        (self.pool)(Box::new(move || sender.send(work(&*leases))));
        answer
    }

    /// Makes all acknowledged changes durable, in the pool.
    ///
    /// # Errors
    /// The future returns the errors of [`LeaseMgr::flush`].
    pub fn flush(&self) -> Pending<()> {
        let (sender, answer) = Answer::awaited(given_up);
        let leases = Arc::clone(&self.leases);
        (self.pool)(Box::new(move || sender.send(leases.flush())));
        answer
    }

    /// Drops this handle in the pool. If it is the last one, the manager ends there, after all
    /// submitted changes.
    pub fn close(self) -> Answer<()> {
        let (sender, answer) = Answer::awaited(|| ());
        let Self { leases, pool } = self;
        pool(Box::new(move || {
            drop(leases);
            sender.send(());
        }));
        answer
    }

    /// Starts a look-up of a manager that may block. The future returns what `convert` makes of the
    /// leases.
    fn look_up<T: Send + 'static>(
        &self,
        look_up: LookUp<L>,
        convert: impl FnOnce(Vec<L>) -> T + Send + 'static,
    ) -> Pending<T> {
        let (sender, answer) = Answer::awaited(given_up);
        let then: ThenFound<L> = Box::new(move |found| sender.send(found.map(convert)));
        if self.leases.submits_look_ups() {
            self.leases.submit_look_up(look_up, then);
        } else {
            let leases = Arc::clone(&self.leases);
            (self.pool)(Box::new(move || leases.submit_look_up(look_up, then)));
        }
        answer
    }

    /// Starts a change. The future returns its result, converted by `convert`.
    fn change<T: Send + 'static>(
        &self,
        operation: Borrowed<'_, L>,
        convert: impl FnOnce(Result<Done, LeaseMgrError>) -> Result<T, LeaseMgrError> + Send + 'static,
    ) -> Pending<T> {
        if !self.leases.may_block() {
            return Answer::known(convert(operation.run(&*self.leases)));
        }
        let address = operation.address().into();
        let (sender, answer) = Answer::awaited(move || unknown(address));
        let then: Then = Box::new(move |result| sender.send(convert(result)));
        let operation = operation.to_operation();
        if self.leases.submits() {
            self.leases.submit(operation, then);
        } else {
            let leases = Arc::clone(&self.leases);
            (self.pool)(Box::new(move || leases.submit(operation, then)));
        }
        answer
    }
}

fn deleted(result: Result<Done, LeaseMgrError>) -> Result<Deleted, LeaseMgrError> {
    result.map(|done| if done == Done::Deleted { Deleted::Deleted } else { Deleted::NoSuchLease })
}

/// The results of several changes, which are sent when the last operation is done or dropped.
struct Results {
    /// The result of a pending change is unknown.
    results: Mutex<Vec<Result<Done, LeaseMgrError>>>,
    sender: Option<Sender<Vec<Result<Done, LeaseMgrError>>>>,
}

impl Drop for Results {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.send(std::mem::take(&mut *self.results.lock()));
        }
    }
}

/// Runs work in a blocking thread of the runtime of the calling task.
#[cfg(feature = "tokio")]
fn run_blocking(work: Work) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

#[cfg(not(feature = "tokio"))]
fn run_blocking(work: Work) {
    work();
}

#[cfg(feature = "tokio")]
impl<L: ManagedLease> crate::LeaseMgrFactory<L> {
    /// Opens a lease manager in a blocking thread of the tokio runtime of the calling task, as
    /// loading leases from files takes a while.
    ///
    /// # Errors
    /// Returns the errors of [`open`](Self::open), and
    /// [`FactoryError::Open`](crate::factory::FactoryError::Open) if the backend panics or the
    /// runtime is shut down.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub async fn open_async(
        &self,
        connection: &str,
    ) -> Result<AsyncLeaseMgr<L>, crate::factory::FactoryError> {
        let opening = self.opening(connection)?;
        let backend = opening.backend().to_owned();
        match tokio::task::spawn_blocking(move || opening.open()).await {
            Ok(opened) => opened.map(AsyncLeaseMgr::new),
            Err(error) => Err(crate::factory::FactoryError::Open { backend, source: Box::new(error) }),
        }
    }
}
