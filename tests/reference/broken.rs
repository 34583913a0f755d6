//! The reference manager with one defect that a backend might have.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use leasemgr::LeaseMgrExt;
use leasemgr::conformance::{Fixture, TestedLease};
use leasemgr::lease::{
    ClientClass, Duid, Fields, Hostname, HwAddr, Iaid, Lease4, Lease6, LeaseKind, LeaseState, LeaseType,
    Lifetime, PoolId, SubnetId, UserContext, client_classes, seconds_since_epoch,
};
use leasemgr::{
    Added, AddedWithin, Change, Claimed, CleanupStart, ClientKey, Cursor, Deleted, Done, FreeRange, Key,
    LeaseMgr, LeaseMgrError, LookUp, ManagedLease, Operation, Query, StatisticsQuery, StatisticsRow, Status,
    Subnets, Then, ThenFound, Tracking,
};

use super::{Leases, Reference, class_kind, count, is_removable, is_within, names_class};

/// The index that keeps a lease under the values that it had when it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    Subnet,
    HwAddr,
    Client,
    Hostname,
    State,
    Relay,
}

/// The changes that statistics miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    Additions,
    Updates,
    Deletions,
    BulkDeletions,
}

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// No defect.
    None,

    AddForgets,
    AddOverwrites,
    AddRaces,
    AddressesAreUsedOnce,
    ZeroLifetimeIsTaken,
    ZeroLifetimeIsAlwaysRefused,
    NamesAreCutAt255,
    NamesAreLowerCased,
    TypesHaveSeparateAddresses,
    TheLastAddressIsUnknown,
    TemporaryLeasesAreHidden,
    UpdateInserts,
    UpdateKeepsThePool,
    UpdateIsTorn,
    UpdateRaces,
    ConditionalChangesFail,
    ContextsAreNotCompared,
    SourcesAreNotCompared,
    OnlyEndsAreCompared,
    AddressesAreNotCompared,
    PrefixLengthsAreNotCompared,
    UpdateKeepsThePrefixLength,
    UpdateDeletesAndAdds,
    RefusedUpdateIsWritten,
    DeleteForgets,
    DeleteAlwaysSucceeds,
    DeleteIgnoresTheExpected,
    DeleteRaces,
    StatusCountsOneMore,
    FlushForgetsALease,
    CleanupForgetsALease,

    OrderIsThatOfStrings,
    HostnamesAreIgnored,
    UnknownKeysFindAll,
    SubnetIsIgnoredWithStates,
    SubnetZeroIsAll,
    AfterIsIncluded,
    AfterSkipsOneMore,
    LimitIsIgnored,
    LimitGivesTheLast,
    LimitZeroIsAll,
    BoundsAreNotChecked,
    LimitCountsOtherSubnets,
    WindowIsOpenAtItsEnd,
    WindowIsForAllLeasesOnly,
    RangeEndsAreLeftOut,
    RangeIsForAllLeasesOnly,
    RangesAreNotChecked,
    ReverseIsIgnored,
    ReverseGoesOnForward,
    ExpiryBoundIsIgnored,
    HostnamesHaveCase,
    StatesAreFoundInAFewSubnets,
    ClientHasOneLease,
    ClientsLastLeaseComesFirst,
    HardwareTypesAreCompared,
    IdentifiersAreCutAt14,
    IdentifiersAreCutAt100,
    NamesEndAtNul,
    EmptyNamesAreFound,
    NamelessLeasesAreHidden,
    StatesBeyondFourAreUnknown,
    AtMost1000AreFound,
    IaidIsIgnored,
    Stale(Index),
    PoolsAreStale,
    RenewalLosesTheHostname,
    DeletedAreFoundByHostname,
    UpdateUnindexesOthersOfTheHardwareAddress,
    FindIsStale,
    RelaysAreNotFound,
    RelaysAndRemotesAreMixed,
    OptionsOfRelaysAreIgnored,
    OnlyOneRelayIsFound,

    ExpiredOneSecondLater,
    ExpiredByAddress,
    ExpiredTogetherBackwards,
    ExpiredLimitBeforeOrder,
    ExpiredZeroIsNone,
    InfiniteExpires,
    ReclaimedExpires,
    OnlyLeasesInUseExpire,
    ExpiresAsFirstAdded,
    ReclaimedForEver,
    DeletedExpires,
    ExpiresIn32Bits,
    ExpiresInUnsigned,
    ExpiredAreTaken,

    RemovesAllExpired,
    RemovesOneSecondLater,
    RemovesInfinite,
    RemovesInfiniteAtTheEndOfTime,
    RemovesOnceReclaimed,
    RemovesAtMost1000,
    RemovesWithoutLooking,
    RemovalSaysZero,
    WipesAllSubnets,
    WipesAtMost1000,

    ReclaimedAreCounted,
    RangesEndEarly,
    PoolsAreNotCounted,
    RowsAreNotInOrder,
    StatisticsMiss(Missed),
    RenewalsAreCounted,
    RefusedAreCounted,
    RecountDoubles,
    TemporaryAreCounted,
    ClassesCountAllStates,
    ClassesCountAllKinds,
    ClassesCountNames,
    ClassesAreLookedForInText,

    NotifiesOfNothing,
    NotifiesOfNewAsOld,
    NotifiesOfSubnetOne,
    NotifiesOfRefused,
    NotifiesOfNoBulkDeletions,
    NotifiesLate,
    TracksTwice,
    NotifiesBeforeTheChange,
    NotifiesBeforeItIsFound,
    CallbacksChangeLeases,

    BatchStopsAtAnError,
    BatchDecidesAtOnce,
    BatchIsCutAt1000,
    BatchNotifiesInReverse,
    SubmitAlwaysSucceeds,
    SubmitReorders,
    SubmitAnswersEarly,
    SubmitIsRefusedInAnswers,
    SubmitEndsWithAPanic,
    SubmitLosesTheLast,
    LookUpsIgnoreTheSubnet,
    LookUpsAreCached,

    KeptLosesTheHostname,
    KeepsAnything,
    GetManyReordersLeases,
    CountIgnoresTheLimit,
    ScanSkipsALease,
    ScanTakesAnyCursor,
    ReclaimedComeBackAsTheyWere,
    ReclaimsByAddress,
    ReclaimsForEveryone,
    LimitsAreIgnored,
    LimitsAreCheckedBefore,
    FirstFreeIgnoresGaps,
    FirstFreeIgnoresEnds,
    FirstFreeIgnoresReclaimed,
    FirstFreeIgnoresExclusions,
    FirstFreeIsAlwaysSomething,
    FirstFreeIsOneMore,
    FirstFreeIsAsFirstAdded,
    FirstFreeLooksAt1000,
    ClaimForgets,
    ClaimForgetsTheReplaced,
    ClaimTakesAnyAddress,
    ClaimRaces,
    ClaimsInCallbacks,
    ForgetsAll,
    ForgetsAtTheThirdTime,
    FindsMore,
    SavesOneChangeLate,
    SavesNoDeletions,
    SavesNoBulkDeletions,
    SavesRefused,
    SavesOnlyAtFirst,
    Saves1000,
    SavesOutOfOrder,
    SavesNothingAfterACleanup,
    SavesWhenItEnds,

    SharedIsCached,
    SharedRaces,
}

/// What defects need of either family.
pub(crate) trait DefectLease: ManagedLease {
    /// Returns the bytes of the client's identifier.
    fn client_bytes(&self) -> &[u8];

    /// Returns the number of relay agents.
    fn relay_count(&self) -> usize;

    /// Returns a lease that was never added.
    fn never_added() -> Self;
}

impl DefectLease for Lease4 {
    fn client_bytes(&self) -> &[u8] {
        self.client_id().map_or(&[], |id| id.as_bytes())
    }

    fn relay_count(&self) -> usize {
        usize::from(self.relay_id().is_some())
    }

    fn never_added() -> Self {
        let hwaddr = HwAddr::new(&[9; 6]).unwrap();
        let mut lease = Self::new([10, 9, 9, 9].into(), Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
        lease.data_mut().valid_lifetime = Lifetime(1);
        lease
    }
}

impl DefectLease for Lease6 {
    fn client_bytes(&self) -> &[u8] {
        self.duid().as_bytes()
    }

    fn relay_count(&self) -> usize {
        self.relay_infos().count()
    }

    fn never_added() -> Self {
        let (address, duid) = ("2001:db8:9::9".parse().unwrap(), Duid::new(&[9; 9]).unwrap());
        let mut lease = Self::new(LeaseType::NA, address, duid, Iaid(9), LeaseState::DEFAULT).unwrap();
        lease.data_mut().valid_lifetime = Lifetime(1);
        lease
    }
}

/// Sleeps for a varying time, so that other threads run in between.
fn pause() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    thread::sleep(Duration::from_micros(calls % 4 * 50));
}

/// Returns the lease with some of its fields changed.
fn with_fields<L: DefectLease>(lease: &L, change: impl FnOnce(&mut Fields<'_>)) -> L {
    let mut fields = lease.fields();
    change(&mut fields);
    L::from_fields(fields).unwrap()
}

fn cut(bytes: &[u8], len: usize) -> &[u8] {
    &bytes[..bytes.len().min(len)]
}

thread_local! {
    /// Whether this thread runs the completion of a submitted change.
    static ANSWERS: Cell<bool> = const { Cell::new(false) };
}

/// A submitted change.
struct Submitted<L: DefectLease>(Operation<L>, Then);

impl<L: DefectLease> fmt::Debug for Submitted<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// State shared by managers of the same leases.
#[derive(Debug)]
struct Shared<L: DefectLease> {
    leases: Arc<Mutex<Leases<L>>>,
    /// Serializes changes, unless their race is the defect.
    turn: Mutex<()>,
    /// Leases that statistics are counted from.
    counted: Mutex<Leases<L>>,
}

impl<L: DefectLease> Shared<L> {
    fn new(leases: Leases<L>) -> Arc<Self> {
        let counted = Mutex::new(leases.clone());
        Arc::new(Self { leases: Arc::new(Mutex::new(leases)), turn: Mutex::default(), counted })
    }
}

/// A manager with a defect.
#[derive(Debug)]
pub(crate) struct Broken<L: DefectLease> {
    defect: Defect,
    inner: Reference<L>,
    shared: Arc<Shared<L>>,
    limits: Mutex<()>,
    /// Leases as they were when they were added.
    first: Mutex<Leases<L>>,
    /// Deleted leases.
    deleted: Mutex<Leases<L>>,
    /// Addresses of leases that were reclaimed at some time.
    reclaimed: Mutex<BTreeSet<L::Address>>,
    /// Addresses of leases that are no longer found by their hardware address.
    lost: Mutex<BTreeSet<L::Address>>,
    /// An earlier state of the leases.
    late: Mutex<Leases<L>>,
    /// Leases that are found while callbacks run.
    not_found_yet: Mutex<Option<Leases<L>>>,
    disk: Arc<Mutex<Leases<L>>>,
    /// A change that is saved with the next one.
    unsaved: Mutex<Option<L::Address>>,
    saves: Mutex<bool>,
    calls: AtomicU64,
    renewals: AtomicU64,
    refused: AtomicU64,
    recounts: AtomicU64,
    submits: AtomicU64,
    /// A submitted change that is not made yet.
    held: Mutex<Option<Submitted<L>>>,
    /// Whether a completion has panicked.
    panicked: Mutex<bool>,
    /// The results of look-ups.
    looked_up: Mutex<Vec<(LookUp<L>, Vec<L>)>>,
    tracking: [Tracking<L>; 2],
}

impl<L: DefectLease> Broken<L> {
    pub(crate) fn new(defect: Defect) -> Self {
        Self::open(defect, Arc::default())
    }

    fn open(defect: Defect, disk: Arc<Mutex<Leases<L>>>) -> Self {
        let shared = Shared::new(disk.lock().unwrap().clone());
        Self::open_shared(defect, disk, shared)
    }

    fn open_shared(defect: Defect, disk: Arc<Mutex<Leases<L>>>, shared: Arc<Shared<L>>) -> Self {
        let leases = shared.leases.lock().unwrap().clone();
        Self {
            defect,
            inner: Reference::with_leases(Arc::clone(&shared.leases)),
            shared,
            limits: Mutex::default(),
            first: Mutex::new(leases.clone()),
            deleted: Mutex::default(),
            reclaimed: Mutex::default(),
            lost: Mutex::default(),
            late: Mutex::default(),
            not_found_yet: Mutex::default(),
            unsaved: Mutex::default(),
            saves: Mutex::new(defect != Defect::SavesOnlyAtFirst || leases.is_empty()),
            disk,
            calls: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            recounts: AtomicU64::new(0),
            submits: AtomicU64::new(0),
            held: Mutex::default(),
            panicked: Mutex::default(),
            looked_up: Mutex::default(),
            tracking: Default::default(),
        }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let races = matches!(
            self.defect,
            Defect::AddRaces
                | Defect::UpdateRaces
                | Defect::DeleteRaces
                | Defect::UpdateIsTorn
                | Defect::RemovesWithoutLooking
                | Defect::NotifiesLate
                | Defect::SavesOutOfOrder
                | Defect::CallbacksChangeLeases
        );
        (!races).then(|| self.shared.turn.lock().unwrap())
    }

    /// Refuses a change in a callback, and waits for other changes.
    fn change(&self) -> Result<Option<MutexGuard<'_, ()>>, LeaseMgrError> {
        if !self.is(Defect::CallbacksChangeLeases) {
            self.tracking[0].refuse_in_callback()?;
        }
        if self.is(Defect::SubmitIsRefusedInAnswers) && ANSWERS.get() {
            return Err(LeaseMgrError::InCallback);
        }
        Ok(self.turn())
    }

    fn changed(address: L::Address) -> LeaseMgrError {
        LeaseMgrError::ChangedMeanwhile { address: address.into() }
    }

    /// Does what follows a change: statistics, saving, callbacks.
    fn follow(&self, old: Option<&L>, new: Option<&L>, many: bool) {
        let Some(lease) = new.or(old) else {
            return;
        };
        let address = lease.address();
        if old.is_none() {
            self.first.lock().unwrap().insert(address, lease.clone());
        }
        if let (Some(old), None) = (old, new) {
            self.deleted.lock().unwrap().insert(address, old.clone());
        }
        if lease.is_reclaimed() {
            self.reclaimed.lock().unwrap().insert(address);
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.hwaddr() != new.hwaddr()
        {
            let leases = self.inner.lock();
            let neighbours = leases.values().filter(|lease| lease.hwaddr() == old.hwaddr());
            self.lost.lock().unwrap().extend(neighbours.map(L::address));
        }
        self.recount_one(old, new, many);
        self.save(address, new, many);
        self.notify(old, new, many);
    }

    fn recount_one(&self, old: Option<&L>, new: Option<&L>, many: bool) {
        let missed = match (old, new) {
            (None, _) => Missed::Additions,
            (_, Some(_)) => Missed::Updates,
            _ if many => Missed::BulkDeletions,
            _ => Missed::Deletions,
        };
        let mut counted = self.shared.counted.lock().unwrap();
        match (old.or(new), new) {
            _ if self.is(Defect::StatisticsMiss(missed)) => {}
            (_, Some(new)) => {
                counted.insert(new.address(), new.clone());
            }
            (Some(old), None) => {
                counted.remove(&old.address());
            }
            (None, None) => {}
        }
        if missed == Missed::Updates {
            self.renewals.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn save(&self, address: L::Address, new: Option<&L>, many: bool) {
        let is_missed = match self.defect {
            Defect::SavesNoDeletions => new.is_none(),
            Defect::SavesWhenItEnds => true,
            Defect::SavesNoBulkDeletions => new.is_none() && many,
            _ => !*self.saves.lock().unwrap(),
        };
        if is_missed {
            return;
        }
        if self.is(Defect::SavesOutOfOrder) {
            pause();
        }
        let unsaved = self.unsaved.lock().unwrap().replace(address);
        let mut disk = self.disk.lock().unwrap();
        if self.is(Defect::SavesOneChangeLate) {
            if let Some(address) = unsaved.filter(|unsaved| *unsaved != address) {
                match self.inner.lock().get(&address) {
                    Some(lease) => disk.insert(address, lease.clone()),
                    None => disk.remove(&address),
                };
            }
            return;
        }
        match new {
            Some(_) if self.is(Defect::Saves1000) && disk.len() >= 1000 => None,
            Some(new) => disk.insert(address, new.clone()),
            None => disk.remove(&address),
        };
    }

    fn notify(&self, old: Option<&L>, new: Option<&L>, many: bool) {
        if self.is(Defect::NotifiesOfNothing) || (many && self.is(Defect::NotifiesOfNoBulkDeletions)) {
            return;
        }
        if self.is(Defect::NotifiesLate) {
            pause();
        }
        let spoil = |lease: &L| {
            let mut lease = lease.clone();
            if self.is(Defect::NotifiesOfSubnetOne) {
                lease.data_mut().subnet_id = SubnetId(1);
            }
            lease
        };
        let (old, new) = (old.map(spoil), new.map(spoil));
        let change = match (&old, &new) {
            (None, Some(new)) => Change::added(new),
            (Some(_), Some(new)) if self.is(Defect::NotifiesOfNewAsOld) => Change::updated(new, new),
            (Some(old), Some(new)) => Change::updated(old, new),
            (Some(old), None) => Change::deleted(old),
            (None, None) => return,
        };
        if self.is(Defect::NotifiesBeforeItIsFound) {
            let mut before = self.inner.lock().clone();
            match &old {
                Some(old) => before.insert(old.address(), old.clone()),
                None => before.remove(&change.address()),
            };
            *self.not_found_yet.lock().unwrap() = Some(before);
        }
        if !self.is(Defect::NotifiesBeforeTheChange) {
            self.tracking[0].notify(&change);
            *self.not_found_yet.lock().unwrap() = None;
            return;
        }
        let put = |lease: Option<&L>| match lease {
            Some(lease) => self.inner.lock().insert(lease.address(), lease.clone()),
            None => self.inner.lock().remove(&change.address()),
        };
        put(old.as_ref());
        self.tracking[0].notify(&change);
        put(new.as_ref());
    }

    fn refuse(&self, lease: &L) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.is(Defect::NotifiesOfRefused) {
            self.tracking[0].notify(&Change::added(lease));
        }
        if self.is(Defect::SavesRefused) {
            self.disk.lock().unwrap().insert(lease.address(), lease.clone());
        }
    }

    /// Returns the lease as it is stored.
    fn stored(&self, lease: &L) -> L {
        let mut lease = lease.clone();
        let name = lease.data().hostname.as_bytes().to_vec();
        match self.defect {
            Defect::NamesAreCutAt255 => lease.data_mut().hostname = Hostname::new(cut(&name, 255)),
            Defect::NamesAreLowerCased => {
                lease.data_mut().hostname = Hostname::new(&name.to_ascii_lowercase());
            }
            _ => {}
        }
        lease
    }

    /// Returns whether the stored lease counts as the expected one.
    fn is_expected(&self, there: &L, expected: Option<&L>) -> bool {
        let Some(expected) = expected else {
            return true;
        };
        let mut expected = expected.clone();
        match self.defect {
            Defect::ConditionalChangesFail => return false,
            Defect::ContextsAreNotCompared => {
                expected.data_mut().user_context.clone_from(&there.data().user_context);
            }
            Defect::SourcesAreNotCompared => {
                let source = |lease: &L| lease.hwaddr().map(|hwaddr| (hwaddr.htype, hwaddr.source));
                let bytes = |lease: &L| lease.hwaddr().map(|hwaddr| hwaddr.as_bytes().to_vec());
                if source(&expected) != source(there) && bytes(&expected) == bytes(there) {
                    return expected.data() == there.data();
                }
            }
            Defect::OnlyEndsAreCompared => return expected.expires_at() == there.expires_at(),
            Defect::AddressesAreNotCompared => {
                expected = with_fields(&expected, |fields| fields.address = there.address().into());
            }
            Defect::PrefixLengthsAreNotCompared => {
                expected = with_fields(&expected, |fields| fields.prefix_len = there.fields().prefix_len);
            }
            _ => {}
        }
        *there == expected
    }

    fn has_key(&self, lease: &L, key: &Key<'_>) -> bool {
        let right = key.matches(lease);
        match (self.defect, key) {
            (Defect::Stale(Index::HwAddr), Key::HwAddr(_))
            | (Defect::Stale(Index::Client), Key::Client(_))
            | (Defect::Stale(Index::Hostname), Key::Hostname(_))
            | (Defect::Stale(Index::State), Key::State(_))
            | (Defect::Stale(Index::Relay), Key::RelayId(_) | Key::RemoteId(_)) => {
                key.matches(&self.first(lease))
            }
            (Defect::HostnamesHaveCase, Key::Hostname(name)) => right && lease.data().hostname == **name,
            (Defect::HostnamesAreIgnored, Key::Hostname(_)) => !lease.data().hostname.is_empty(),
            (Defect::HardwareTypesAreCompared, Key::HwAddr(hwaddr)) => lease.hwaddr() == Some(hwaddr),
            (Defect::IdentifiersAreCutAt14, Key::Client(client)) => {
                cut(lease.client_bytes(), 14) == cut(client.id, 14)
            }
            (Defect::IdentifiersAreCutAt100, Key::Client(client)) => {
                cut(lease.client_bytes(), 100) == cut(client.id, 100)
            }
            (Defect::IaidIsIgnored, Key::Client(client)) => {
                let mut client = *client;
                client.iaid = None;
                client.matches(lease)
            }
            (Defect::NamesEndAtNul, Key::Hostname(name)) => {
                let end =
                    |name: &Hostname| name.as_bytes().split(|&byte| byte == 0).next().map(<[u8]>::to_vec);
                !name.is_empty() && end(&lease.data().hostname) == end(name)
            }
            (Defect::EmptyNamesAreFound, Key::Hostname(name)) => lease.data().hostname == **name,
            (Defect::NamelessLeasesAreHidden, Key::Client(_)) => right && !lease.data().hostname.is_empty(),
            (Defect::StatesBeyondFourAreUnknown, Key::State(state)) => right && state.0 <= 4,
            (Defect::RenewalLosesTheHostname, Key::Hostname(_)) => {
                right && lease.data().cltt == self.first(lease).data().cltt
            }
            (Defect::UpdateUnindexesOthersOfTheHardwareAddress, Key::HwAddr(_)) => {
                right && !self.lost.lock().unwrap().contains(&lease.address())
            }
            (Defect::RelaysAreNotFound, Key::RelayId(_) | Key::RemoteId(_)) => false,
            (Defect::RelaysAndRemotesAreMixed, Key::RelayId(relay)) => {
                right
                    || leasemgr::lease::RemoteId::new(relay.as_bytes())
                        .is_ok_and(|id| lease.has_remote_id(&id))
            }
            (Defect::OptionsOfRelaysAreIgnored, Key::RelayId(_)) => {
                let context = lease.data().user_context.as_ref();
                right && context.is_some_and(|context| context.as_str().contains("relay-id"))
            }
            (Defect::OnlyOneRelayIsFound, Key::RelayId(_)) => right && lease.relay_count() < 2,
            _ => right,
        }
    }

    fn is_within(&self, lease: &L, query: &Query<'_, L>) -> bool {
        let (mut without_subnet, mut without_window) = (*query, *query);
        without_subnet.subnet = None;
        (without_window.heard_since, without_window.heard_until) = (None, None);
        let (mut without_range, mut without_end) = (*query, *query);
        (without_range.first, without_range.last) = (None, None);
        without_end.ended_by = None;
        match self.defect {
            Defect::Stale(Index::Subnet) => {
                let subnet = self.first(lease).data().subnet_id;
                query.subnet.is_none_or(|wanted| wanted == subnet) && is_within(lease, &without_subnet)
            }
            Defect::SubnetIsIgnoredWithStates if matches!(query.key, Key::State(_)) => {
                is_within(lease, &without_subnet)
            }
            Defect::SubnetZeroIsAll if query.subnet == Some(SubnetId(0)) => is_within(lease, &without_subnet),
            Defect::WindowIsOpenAtItsEnd => {
                is_within(lease, query) && query.heard_until.is_none_or(|until| lease.data().cltt < until)
            }
            Defect::RangeEndsAreLeftOut => {
                is_within(lease, query) && query.last.is_none_or(|last| lease.address() < last)
            }
            Defect::RangeIsForAllLeasesOnly if query.key != Key::All => is_within(lease, &without_range),
            Defect::ExpiryBoundIsIgnored => is_within(lease, &without_end),
            Defect::StatesAreFoundInAFewSubnets if matches!(query.key, Key::State(_)) => {
                is_within(lease, query) && lease.data().subnet_id != SubnetId(50)
            }
            Defect::WindowIsForAllLeasesOnly if query.key != Key::All => is_within(lease, &without_window),
            _ => is_within(lease, query),
        }
    }

    fn is_known(&self, address: L::Address) -> bool {
        let last = match address.into() {
            IpAddr::V4(address) => address.to_bits() == u32::MAX,
            IpAddr::V6(address) => address.to_bits() == u128::MAX,
        };
        !(last && self.is(Defect::TheLastAddressIsUnknown))
    }

    /// Returns the leases that a query sees, if these are not the current ones.
    fn other_leases(&self, query: &Query<'_, L>) -> Option<Leases<L>> {
        match (self.defect, query.key) {
            (Defect::FindIsStale, _) => {
                let mut late = self.late.lock().unwrap();
                if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
                    late.clone_from(&self.inner.lock());
                }
                Some(late.clone())
            }
            (Defect::NotifiesBeforeItIsFound, _) => self.not_found_yet.lock().unwrap().clone(),
            (Defect::DeletedAreFoundByHostname, Key::Hostname(_)) => {
                let mut leases = self.deleted.lock().unwrap().clone();
                leases.extend(self.inner.lock().clone());
                Some(leases)
            }
            _ => None,
        }
    }

    /// Returns a lease as it was when it was added.
    fn first(&self, lease: &L) -> L {
        self.first.lock().unwrap().get(&lease.address()).unwrap_or(lease).clone()
    }

    fn ends(&self, lease: &L, time: SystemTime) -> bool {
        let now = seconds_since_epoch(time).cast_unsigned();
        let infinite = lease.data().valid_lifetime.is_infinite();
        match self.defect {
            Defect::ExpiredOneSecondLater => !infinite && lease.expires_at() < now,
            Defect::InfiniteExpires => lease.expires_at() <= now,
            Defect::ExpiresInUnsigned => !infinite && lease.expires_at() <= now,
            Defect::ExpiresAsFirstAdded => self.first(lease).is_expired(time),
            Defect::ExpiresIn32Bits => !infinite && lease.expires_at() & u64::from(u32::MAX) <= now,
            _ => lease.is_expired(time),
        }
    }

    fn counts(&self, lease: &L) -> bool {
        let was_reclaimed = self.reclaimed.lock().unwrap().contains(&lease.address());
        match self.defect {
            Defect::ReclaimedExpires => true,
            Defect::OnlyLeasesInUseExpire => lease.state() == LeaseState::DEFAULT,
            Defect::ReclaimedForEver => !was_reclaimed,
            _ => !lease.is_reclaimed(),
        }
    }

    fn is_removed(&self, lease: &L, until: SystemTime) -> bool {
        let second = seconds_since_epoch(until);
        match self.defect {
            Defect::RemovesAllExpired => lease.is_expired(until),
            Defect::ExpiresInUnsigned => {
                is_removable(lease, until) && lease.expires_at() <= second.cast_unsigned()
            }
            Defect::RemovesOneSecondLater => {
                is_removable(lease, until) && lease.expires_at() < second.cast_unsigned()
            }
            Defect::RemovesInfinite => {
                is_removable(lease, until)
                    || (lease.is_reclaimed() && lease.data().valid_lifetime == Lifetime::INFINITE)
            }
            Defect::RemovesInfiniteAtTheEndOfTime => {
                is_removable(lease, until) || (lease.is_reclaimed() && second == i64::MAX)
            }
            Defect::RemovesOnceReclaimed => {
                lease.is_expired(until) && self.reclaimed.lock().unwrap().contains(&lease.address())
            }
            _ => is_removable(lease, until),
        }
    }

    /// Deletes all leases that match.
    fn remove_many(&self, matches: impl Fn(&L) -> bool) -> u64 {
        let at_most = match self.defect {
            Defect::RemovesAtMost1000 | Defect::WipesAtMost1000 => 1000,
            _ => usize::MAX,
        };
        let matching: Vec<_> =
            self.inner.lock().values().filter(|lease| matches(lease)).take(at_most).cloned().collect();
        if self.is(Defect::RemovesWithoutLooking) {
            pause();
        }
        let mut removed = 0;
        for lease in &matching {
            let there = self.inner.lock().remove(&lease.address());
            if there.is_some() {
                self.follow(there.as_ref(), None, true);
                removed += 1;
            }
        }
        removed
    }
}

impl<L: DefectLease> Drop for Broken<L> {
    fn drop(&mut self) {
        if self.is(Defect::SavesWhenItEnds) {
            self.disk.lock().unwrap().clone_from(&self.inner.lock());
        }
    }
}

impl<L: DefectLease> LeaseMgr<L> for Broken<L> {
    fn status(&self) -> Status {
        let mut status = self.inner.status();
        if self.is(Defect::StatusCountsOneMore) {
            status.leases = status.leases.map(|leases| leases + 1);
        }
        status
    }

    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        let _turn = self.change()?;
        let address = lease.address();
        if self.is(Defect::ZeroLifetimeIsAlwaysRefused) && lease.data().valid_lifetime.0 == 0 {
            return Err(LeaseMgrError::ZeroLifetime { address: address.into() });
        }
        let there = self.inner.lock().get(&address).cloned();
        let kept = self.stored(lease);
        let overwrites = match (self.defect, &there) {
            (Defect::AddForgets, None) => return Ok(Added::Added),
            (Defect::AddressesAreUsedOnce, None) if self.deleted.lock().unwrap().contains_key(&address) => {
                return Ok(Added::AddressTaken);
            }
            (Defect::AddOverwrites, _) | (Defect::AddRaces, None) => true,
            (Defect::ZeroLifetimeIsTaken, None) => true,
            (Defect::TypesHaveSeparateAddresses, Some(there)) => there.kind() != lease.kind(),
            _ => false,
        };
        if overwrites {
            pause();
            self.inner.lock().insert(address, kept.clone());
            self.follow(there.as_ref(), Some(&kept), false);
            return Ok(Added::Added);
        }
        let added = self.inner.add(&kept)?;
        match added {
            Added::Added => self.follow(None, Some(&kept), false),
            Added::AddressTaken => self.refuse(lease),
        }
        Ok(added)
    }

    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        let lease = self.inner.get(address)?.filter(|_| self.is_known(address));
        let hidden = self.is(Defect::TemporaryLeasesAreHidden);
        Ok(lease.filter(|lease| !(hidden && lease.kind() == Some(LeaseType::TA))))
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        let is_checked = match self.defect {
            Defect::LimitZeroIsAll | Defect::BoundsAreNotChecked => false,
            Defect::RangesAreNotChecked => query.first.is_none(),
            _ => true,
        };
        if is_checked {
            query.check()?;
        }
        let others = self.other_leases(query);
        let there = self.inner.lock();
        let leases = others.as_ref().unwrap_or(&there);
        let unknown =
            self.is(Defect::UnknownKeysFindAll) && !leases.values().any(|lease| query.key.matches(lease));
        let mut found: Vec<_> = leases
            .values()
            .filter(|lease| self.is_known(lease.address()))
            .filter(|lease| unknown || self.has_key(lease, &query.key))
            .filter(|lease| self.is(Defect::LimitCountsOtherSubnets) || self.is_within(lease, query))
            .filter(|lease| match query.after {
                Some(after) if self.is(Defect::AfterIsIncluded) => lease.address() >= after,
                Some(after) if query.reversed && !self.is(Defect::ReverseGoesOnForward) => {
                    lease.address() < after
                }
                Some(after) => lease.address() > after,
                None => true,
            })
            .collect();
        if query.reversed && !self.is(Defect::ReverseIsIgnored) {
            found.reverse();
        }
        let limit = query.limit.unwrap_or(match self.defect {
            Defect::AtMost1000AreFound => 1000,
            _ => usize::MAX,
        });
        match self.defect {
            Defect::AfterSkipsOneMore if query.after.is_some() && !found.is_empty() => {
                found.remove(0);
            }
            Defect::OrderIsThatOfStrings => found.sort_by_key(|lease| lease.address().to_string()),
            Defect::LimitIsIgnored => return Ok(found.into_iter().cloned().collect()),
            Defect::LimitGivesTheLast => {
                found.drain(..found.len().saturating_sub(limit));
            }
            Defect::LimitZeroIsAll if limit == 0 => return Ok(found.into_iter().cloned().collect()),
            Defect::LimitCountsOtherSubnets => {
                found.truncate(limit);
                found.retain(|lease| is_within(*lease, query));
            }
            Defect::ClientHasOneLease if matches!(query.key, Key::HwAddr(_) | Key::Client(_)) => {
                found.truncate(1);
            }
            Defect::ClientsLastLeaseComesFirst if matches!(query.key, Key::HwAddr(_)) => found.reverse(),
            _ => {}
        }
        Ok(found.into_iter().take(limit).cloned().collect())
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let mut leases = self.inner.lock().clone();
        if self.is(Defect::DeletedExpires) {
            leases.extend(self.deleted.lock().unwrap().clone());
        }
        let mut expired: Vec<_> =
            leases.into_values().filter(|lease| self.counts(lease) && self.ends(lease, now)).collect();
        let limit = match limit {
            0 if self.is(Defect::ExpiredZeroIsNone) => 0,
            0 => usize::MAX,
            limit => limit,
        };
        match self.defect {
            Defect::ExpiredByAddress => {}
            Defect::ExpiredLimitBeforeOrder => {
                expired.truncate(limit);
                expired.sort_by_key(L::end);
            }
            Defect::ExpiredTogetherBackwards => {
                expired.reverse();
                expired.sort_by_key(L::end);
            }
            Defect::ExpiresIn32Bits => expired.sort_by_key(|lease| lease.expires_at() & u64::from(u32::MAX)),
            _ => expired.sort_by_key(L::end),
        }
        expired.truncate(limit);
        if self.is(Defect::ExpiredAreTaken) {
            self.inner.lock().retain(|_, lease| !expired.contains(lease));
        }
        Ok(expired)
    }

    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        let _turn = self.change()?;
        let address = lease.address();
        let Some(old) = self.inner.lock().get(&address).cloned() else {
            if self.is(Defect::UpdateInserts) {
                self.inner.lock().insert(address, lease.clone());
                return Ok(());
            }
            self.refuse(lease);
            return Err(LeaseMgrError::NoSuchLease { address: address.into() });
        };
        super::check_lifetime(lease)?;
        if !self.is_expected(&old, expected) {
            self.refuse(lease);
            if self.is(Defect::RefusedUpdateIsWritten) {
                self.inner.lock().insert(address, lease.clone());
            }
            return Err(Self::changed(address));
        }
        let mut new = self.stored(lease);
        match self.defect {
            Defect::UpdateKeepsThePool => new.data_mut().pool_id = old.data().pool_id,
            Defect::UpdateKeepsThePrefixLength => {
                new = with_fields(&new, |fields| fields.prefix_len = old.fields().prefix_len);
            }
            Defect::UpdateDeletesAndAdds => {
                self.inner.lock().remove(&address);
                pause();
                self.inner.lock().insert(address, new.clone());
                self.follow(Some(&old), Some(&new), false);
                return Ok(());
            }
            Defect::UpdateRaces => {
                pause();
                self.inner.lock().insert(address, new);
                return Ok(());
            }
            Defect::UpdateIsTorn => {
                let mut torn = old.clone();
                torn.data_mut().subnet_id = new.data().subnet_id;
                self.inner.update_expecting(&torn, None)?;
                pause();
                return self.inner.update_expecting(&new, None);
            }
            Defect::SavesOutOfOrder | Defect::NotifiesLate => {
                self.inner.update_expecting(&new, None)?;
                self.follow(Some(&old), Some(&new), false);
                return Ok(());
            }
            _ => {}
        }
        let is_there = self.inner.lock().contains_key(&address);
        if !is_there {
            return Err(LeaseMgrError::NoSuchLease { address: address.into() });
        }
        self.inner.lock().insert(address, new.clone());
        self.follow(Some(&old), Some(&new), false);
        Ok(())
    }

    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        let _turn = self.change()?;
        let there = self.inner.lock().get(&address).cloned();
        let Some(old) = there else {
            if self.is(Defect::DeleteAlwaysSucceeds) {
                return Ok(Deleted::Deleted);
            }
            if let Some(lease) = expected {
                self.refuse(lease);
            }
            return Ok(Deleted::NoSuchLease);
        };
        if !self.is(Defect::DeleteIgnoresTheExpected) && !self.is_expected(&old, expected) {
            self.refuse(&old);
            return Err(Self::changed(address));
        }
        match self.defect {
            Defect::DeleteForgets => return Ok(Deleted::Deleted),
            Defect::DeleteRaces | Defect::UpdateRaces => pause(),
            _ => {}
        }
        let removed = self.inner.lock().remove(&address);
        if removed.is_some() {
            self.follow(removed.as_ref(), None, false);
        }
        Ok(Deleted::Deleted)
    }

    fn kept(&self, lease: &L) -> Result<L, LeaseMgrError> {
        let mut kept = lease.clone();
        match self.defect {
            Defect::KeptLosesTheHostname => kept.data_mut().hostname = Hostname::default(),
            Defect::KeepsAnything => {}
            _ => leasemgr::check(lease)?,
        }
        Ok(kept)
    }

    fn get_many(&self, addresses: &[L::Address]) -> Result<Vec<Option<L>>, LeaseMgrError> {
        let mut addresses = addresses.to_vec();
        if self.is(Defect::GetManyReordersLeases) {
            addresses.sort_unstable();
        }
        addresses.into_iter().map(|address| self.get(address)).collect()
    }

    fn count(&self, query: &Query<'_, L>) -> Result<u64, LeaseMgrError> {
        query.check()?;
        let mut query = *query;
        if self.is(Defect::CountIgnoresTheLimit) {
            query.limit = None;
        }
        Ok(self.find(&query)?.len() as u64)
    }

    fn scan(&self, cursor: Option<&Cursor>, limit: usize) -> Result<(Vec<L>, Option<Cursor>), LeaseMgrError> {
        let (mut leases, next) = match self.inner.scan(cursor, limit) {
            Err(_) if self.is(Defect::ScanTakesAnyCursor) => self.inner.scan(None, limit)?,
            scanned => scanned?,
        };
        if self.is(Defect::ScanSkipsALease) && next.is_none() {
            leases.pop();
        }
        Ok((leases, next))
    }

    fn reclaim_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let mut expired = self.list_expired(now, limit)?;
        if self.is(Defect::ReclaimsByAddress) {
            expired = self.list_expired(now, 0)?;
            expired.sort_by_key(L::address);
            expired.truncate(if limit == 0 { usize::MAX } else { limit });
        }
        let mut reclaimed = Vec::new();
        pause();
        for mut lease in expired {
            let is_mine = self.reclaim(&lease)?;
            if lease.state() != LeaseState::DECLINED && !self.is(Defect::ReclaimedComeBackAsTheyWere) {
                lease.reclaim();
            }
            if is_mine || self.is(Defect::ReclaimsForEveryone) {
                reclaimed.push(lease);
            }
        }
        Ok(reclaimed)
    }

    fn add_within(&self, lease: &L, context: &UserContext) -> Result<AddedWithin, LeaseMgrError> {
        let _turn = (!self.is(Defect::LimitsAreCheckedBefore)).then(|| self.limits.lock().unwrap());
        let reached = self.check_limits(context)?.filter(|_| !self.is(Defect::LimitsAreIgnored));
        pause();
        Ok(match reached {
            Some(exceeded) => AddedWithin::LimitReached(exceeded),
            None if self.add(lease)? == Added::Added => AddedWithin::Added,
            None => AddedWithin::AddressTaken,
        })
    }

    fn first_free(&self, range: &FreeRange<L>, now: SystemTime) -> Result<Option<L::Address>, LeaseMgrError> {
        let leases = self.inner.lock().clone();
        let is_free = |address: &L::Address| {
            leases.get(address).is_none_or(|lease| match self.defect {
                Defect::FirstFreeIgnoresEnds => lease.is_reclaimed(),
                Defect::FirstFreeIgnoresReclaimed => lease.is_expired(now),
                Defect::FirstFreeIsAsFirstAdded => lease.is_reclaimed() || self.first(lease).is_expired(now),
                _ => lease.is_reclaimed() || lease.is_expired(now),
            })
        };
        let mut free = match self.defect {
            Defect::FirstFreeIgnoresExclusions => {
                FreeRange::<L>::new(range.first()..=range.last()).iter().take(10_000).find(&is_free)
            }
            Defect::FirstFreeLooksAt1000 => range.iter().take(1000).find(&is_free),
            Defect::FirstFreeIgnoresGaps => {
                let last = leases.keys().copied().filter(|&address| range.contains(address)).max();
                last.map_or(Some(range.first()), |last| range.after(last))
            }
            _ => range.iter().find(&is_free),
        };
        match self.defect {
            Defect::FirstFreeIsOneMore => free = free.and_then(|address| range.after(address)),
            Defect::FirstFreeIsAlwaysSomething => free = free.or(Some(range.first())),
            _ => {}
        }
        Ok(free)
    }

    fn claim_first(
        &self,
        range: &FreeRange<L>,
        now: SystemTime,
        make: &mut dyn FnMut(L::Address) -> L,
    ) -> Result<Option<Claimed<L>>, LeaseMgrError> {
        if !self.is(Defect::ClaimsInCallbacks) {
            self.tracking().refuse_in_callback()?;
        }
        while let Some(address) = self.first_free(range, now)? {
            let replaced = self.get(address)?;
            let is_taken = |lease: &L| !lease.is_reclaimed() && !lease.is_expired(now);
            if replaced.as_ref().is_some_and(is_taken) && !self.is(Defect::ClaimRaces) {
                continue;
            }
            let lease = make(address);
            if lease.address() != address && !self.is(Defect::ClaimTakesAnyAddress) {
                let (argument, value) = ("the address of the lease", lease.address().to_string());
                return Err(LeaseMgrError::BadArgument {
                    argument,
                    value,
                    expected: "the address asked for",
                });
            }
            pause();
            let done = match &replaced {
                _ if matches!(self.defect, Defect::ClaimForgets | Defect::ClaimsInCallbacks) => true,
                Some(_) if self.is(Defect::ClaimRaces) => self.update_expecting(&lease, None).is_ok(),
                Some(old) => self.update_expecting(&lease, Some(old)).is_ok(),
                None => {
                    let races = matches!(self.defect, Defect::ClaimRaces | Defect::SharedRaces);
                    self.add(&lease)? == Added::Added || races
                }
            };
            if done {
                let replaced = replaced.filter(|_| !self.is(Defect::ClaimForgetsTheReplaced));
                return Ok(Some(Claimed::new(lease, replaced)));
            }
        }
        Ok(None)
    }

    fn delete_reclaimed(&self, until: SystemTime) -> Result<u64, LeaseMgrError> {
        let _turn = self.change()?;
        let removed = self.remove_many(|lease| self.is_removed(lease, until));
        Ok(if self.is(Defect::RemovalSaysZero) { 0 } else { removed })
    }

    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        let _turn = self.change()?;
        let all = self.is(Defect::WipesAllSubnets);
        Ok(self.remove_many(|lease| all || lease.data().subnet_id == subnet))
    }

    fn apply(&self, operations: &[Operation<L>]) -> Vec<Result<Done, LeaseMgrError>> {
        let mut results: Vec<_> = match self.defect {
            Defect::BatchDecidesAtOnce => {
                let there: Vec<_> =
                    operations.iter().map(|operation| self.get(operation.address()).unwrap()).collect();
                let decide = |(operation, there): (&Operation<L>, Option<L>)| match operation {
                    Operation::Add(_) if there.is_some() => Ok(Done::AddressTaken),
                    Operation::Delete { .. } if there.is_none() => Ok(Done::NoSuchLease),
                    operation => operation.run(self),
                };
                operations.iter().zip(there).map(decide).collect()
            }
            Defect::BatchNotifiesInReverse => {
                let made = Broken::open(Defect::None, Arc::new(Mutex::new(self.inner.lock().clone())));
                let result = made.apply(operations);
                for operation in operations.iter().rev() {
                    let (old, new) = (self.get(operation.address()), made.get(operation.address()));
                    *self.inner.lock() = made.inner.lock().clone();
                    self.follow(old.unwrap().as_ref(), new.unwrap().as_ref(), false);
                }
                result
            }
            _ => operations.iter().map(|operation| operation.run(self)).collect(),
        };
        match self.defect {
            Defect::BatchStopsAtAnError => {
                let end = results.iter().position(Result::is_err).map_or(results.len(), |at| at + 1);
                results.truncate(end);
            }
            Defect::BatchIsCutAt1000 => results.truncate(1000),
            _ => {}
        }
        results
    }

    fn submit(&self, operation: Operation<L>, then: Then) {
        let number = self.submits.fetch_add(1, Ordering::Relaxed);
        let is_held = match self.defect {
            Defect::SubmitReorders => number % 10 == 5,
            Defect::SubmitLosesTheLast => true,
            _ => false,
        };
        let new = Submitted(operation, then);
        let (new, before) = if is_held {
            (self.held.lock().unwrap().replace(new), None)
        } else {
            (Some(new), self.held.lock().unwrap().take())
        };
        for Submitted(operation, then) in new.into_iter().chain(before) {
            if self.is(Defect::SubmitAnswersEarly) {
                then(Ok(Done::Added));
                let _ = operation.run(self);
                continue;
            }
            let result = match operation.run(self) {
                _ if self.is(Defect::SubmitEndsWithAPanic) && *self.panicked.lock().unwrap() => {
                    Err(LeaseMgrError::Full { what: "its patience" })
                }
                Ok(_) if self.is(Defect::SubmitAlwaysSucceeds) => Ok(Done::Added),
                result => result,
            };
            ANSWERS.set(true);
            if catch_unwind(AssertUnwindSafe(|| then(result))).is_err() {
                *self.panicked.lock().unwrap() = true;
            }
            ANSWERS.set(false);
        }
    }

    fn submit_look_up(&self, look_up: LookUp<L>, then: ThenFound<L>) {
        then(match (self.defect, &look_up) {
            (Defect::LookUpsIgnoreTheSubnet, LookUp::Client { id: Some(id), .. }) => {
                self.find(&Query::client(ClientKey::new(id)))
            }
            (Defect::LookUpsAreCached, _) => {
                let mut known = self.looked_up.lock().unwrap();
                if known.iter().all(|(other, _)| *other != look_up) {
                    known.push((look_up.clone(), look_up.run(self).unwrap()));
                }
                let found = known.iter().find(|(other, _)| *other == look_up);
                Ok(found.map(|(_, leases)| leases.clone()).unwrap_or_default())
            }
            _ => look_up.run(self),
        });
    }

    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        if !self.is(Defect::BoundsAreNotChecked) {
            query.check()?;
        }
        let mut leases = self.shared.counted.lock().unwrap().clone();
        let mut query = *query;
        for lease in leases.values_mut() {
            match self.defect {
                Defect::ReclaimedAreCounted if lease.is_reclaimed() => {
                    lease.set_state(LeaseState::DEFAULT).unwrap();
                }
                Defect::PoolsAreNotCounted => lease.data_mut().pool_id = PoolId(0),
                Defect::PoolsAreStale => {
                    let first = self.first.lock().unwrap();
                    let pool = first.get(&lease.address()).map(|first| first.data().pool_id);
                    lease.data_mut().pool_id = pool.unwrap_or(lease.data().pool_id);
                }
                _ => {}
            }
        }
        if let (Defect::RangesEndEarly, Subnets::Range(first, last)) = (self.defect, query.subnets) {
            query.subnets = Subnets::Range(first, SubnetId(last.0.saturating_sub(1)));
        }
        let mut rows = count(leases.values(), &query);
        let temporary = leases.values().filter(|lease| lease.kind() == Some(LeaseType::TA)).count() as u64;
        for row in &mut rows {
            row.count += match self.defect {
                Defect::RenewalsAreCounted => self.renewals.load(Ordering::Relaxed),
                Defect::RefusedAreCounted => self.refused.load(Ordering::Relaxed),
                Defect::RecountDoubles => row.count * self.recounts.load(Ordering::Relaxed),
                Defect::TemporaryAreCounted => temporary,
                _ => 0,
            };
        }
        if self.is(Defect::RowsAreNotInOrder) {
            rows.sort_by_key(|row| row.subnet_id.to_string());
        }
        Ok(rows)
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        self.recounts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        let name = String::from_utf8_lossy(class.as_bytes()).into_owned();
        let count_of = |lease: &L| {
            let context = lease.data().user_context.as_ref();
            let names = context.into_iter().flat_map(client_classes);
            match self.defect {
                Defect::ClassesCountAllStates => u64::from(names_class(lease, class)),
                Defect::ClassesCountAllKinds => {
                    u64::from(class_kind(lease).is_some() && names_class(lease, class))
                }
                _ if class_kind(lease) != Some(kind) => 0,
                Defect::ClassesCountNames => names.filter(|name| **name == *class.as_bytes()).count() as u64,
                Defect::ClassesAreLookedForInText => {
                    context.is_some_and(|context| context.as_str().contains(&name)).into()
                }
                _ => names_class(lease, class).into(),
            }
        };
        let count: u64 = self.shared.counted.lock().unwrap().values().map(count_of).sum();
        let times =
            if self.is(Defect::RecountDoubles) { self.recounts.load(Ordering::Relaxed) + 1 } else { 1 };
        Ok(count * times)
    }

    fn tracking(&self) -> &Tracking<L> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        &self.tracking[usize::from(self.is(Defect::TracksTwice) && call % 2 == 1)]
    }

    fn flush(&self) -> Result<(), LeaseMgrError> {
        if self.is(Defect::FlushForgetsALease) {
            self.inner.lock().pop_first();
        }
        Ok(())
    }

    fn clean_up(&self) -> Result<CleanupStart, LeaseMgrError> {
        match self.defect {
            Defect::CleanupForgetsALease => drop(self.inner.lock().pop_first()),
            Defect::SavesNothingAfterACleanup => *self.saves.lock().unwrap() = false,
            _ => {}
        }
        Ok(CleanupStart::Requested)
    }
}

/// A store of a manager with a defect.
#[derive(Debug)]
pub(crate) struct BrokenStore<L: DefectLease> {
    defect: Defect,
    disk: Arc<Mutex<Leases<L>>>,
    /// State shared by open managers.
    shared: Mutex<Weak<Shared<L>>>,
    opened: AtomicU64,
}

impl<L: DefectLease> BrokenStore<L> {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { defect, disk: Arc::default(), shared: Mutex::default(), opened: AtomicU64::new(0) }
    }
}

impl<L: DefectLease + TestedLease> Fixture<L> for BrokenStore<L> {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut disk = self.disk.lock().unwrap();
        match self.defect {
            Defect::ForgetsAll => disk.clear(),
            Defect::ForgetsAtTheThirdTime if opened == 2 => disk.clear(),
            Defect::FindsMore if opened > 0 => {
                drop(disk.insert(L::never_added().address(), L::never_added()));
            }
            _ => {}
        }
        let mut open = self.shared.lock().unwrap();
        let shared = match (self.defect, open.upgrade()) {
            (Defect::SharedIsCached, _) | (_, None) => Shared::new(disk.clone()),
            (Defect::SharedRaces, Some(shared)) => {
                let (leases, counted) = (Arc::clone(&shared.leases), Mutex::new(disk.clone()));
                Arc::new(Shared { leases, turn: Mutex::default(), counted })
            }
            (_, Some(shared)) => shared,
        };
        *open = Arc::downgrade(&shared);
        Arc::new(Broken::open_shared(self.defect, Arc::clone(&self.disk), shared))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn crash(&self, manager: Arc<dyn LeaseMgr<L>>) {
        let left = self.disk.lock().unwrap().clone();
        drop(manager);
        *self.disk.lock().unwrap() = left;
    }
}
