//! Import, export and recount, on the servers of `scripts/databases`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/database_pool.rs"]
mod database_pool;
#[path = "support/database_servers.rs"]
mod database_servers;
#[path = "support/databases.rs"]
mod databases;
#[path = "support/kea_database.rs"]
mod kea_database;
mod support;

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use databases::{Database, Server};
use leasemgr::lease::{Lease4, Lease6};
use leasemgr::{
    ImportEvent, ImportOptions, Imported, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrFactory, Query,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;
use support::leases::TestLease;

const BOTH: [Server; 2] = [Server::Postgresql, Server::Mariadb];

/// Returns leases of every kind, in the order of their addresses.
fn any_leases<L: TestLease>(count: u32) -> Vec<L> {
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let lease = L::any(u32::MAX / 2);
    let leases = iter::repeat_with(|| lease.new_tree(&mut runner).unwrap().current());
    // A lease that is valid for 0 seconds is not one.
    let leases = leases.filter(|lease| lease.data().valid_lifetime.0 > 0);
    let by_address: BTreeMap<_, _> =
        leases.take(count as usize).map(|lease| (lease.address(), lease)).collect();
    by_address.into_values().collect()
}

/// Returns leases that every database can keep.
fn tagged<L: TestLease>(count: u32) -> Vec<L> {
    (0..count).map(|n| L::tagged(n, n)).collect()
}

/// What an import has reported.
struct Report<L: TestLease> {
    portions: Vec<Imported<L>>,
    conflicts: Vec<(L, L)>,
    refused: Vec<L>,
}

/// Imports leases, and calls `at_portion` after each portion with the number of portions.
fn import_with<L: TestLease>(
    mgr: &dyn LeaseMgr<L>,
    leases: &mut dyn Iterator<Item = Result<L, LeaseMgrError>>,
    options: ImportOptions,
    mut at_portion: impl FnMut(usize),
) -> (Result<Imported<L>, LeaseMgrError>, Report<L>) {
    let mut report = Report { portions: vec![], conflicts: vec![], refused: vec![] };
    let result = mgr.import(leases, &options, &mut |event| match event {
        ImportEvent::Portion(imported) => {
            report.portions.push(imported.clone());
            at_portion(report.portions.len());
        }
        ImportEvent::Conflict { lease, there } => report.conflicts.push((lease.clone(), there.clone())),
        ImportEvent::Refused { lease, error } => {
            assert!(matches!(error, LeaseMgrError::CannotKeep { .. }), "{error}");
            report.refused.push(lease.clone());
        }
        event => panic!("{event:?}"),
    });
    (result, report)
}

fn import<L: TestLease>(
    mgr: &dyn LeaseMgr<L>,
    leases: &[L],
    options: ImportOptions,
) -> (Imported<L>, Report<L>) {
    let (result, report) = import_with(mgr, &mut leases.iter().cloned().map(Ok), options, |_| {});
    (result.unwrap(), report)
}

/// Returns the statistics that tables have, apart from rows without leases.
fn statistics(database: &Database) -> String {
    let has_pools = database.name != "kea22";
    let mut found = String::new();
    for family in ["lease4", "lease6"] {
        for table in ["stat", "pool_stat", "stat_by_client_class"] {
            if table == "pool_stat" && !has_pools {
                continue;
            }
            let rows = database.execute(&format!("SELECT * FROM {family}_{table} WHERE leases > 0"));
            let mut rows: Vec<_> = rows.lines().collect();
            rows.sort_unstable();
            found.push_str(&format!("{family}_{table}:\n{}\n", rows.join("\n")));
        }
    }
    found
}

fn memfile<L: TestLease>() -> Arc<dyn LeaseMgr<L>> {
    LeaseMgrFactory::<L>::new().open("type=memfile persist=false").unwrap()
}

/// Imports all leases of one manager into another one, and checks that those that it can keep are
/// there.
fn move_all<L: TestLease>(from: &dyn LeaseMgr<L>, to: &dyn LeaseMgr<L>, options: ImportOptions) {
    let leases = from.all().unwrap();
    let kept: Vec<_> = leases.iter().filter_map(|lease| to.kept(lease).ok()).collect();
    let (result, report) = import_with(to, &mut from.leases(Query::all()), options, |_| {});
    let imported = result.unwrap();
    assert_eq!(imported.added, kept.len() as u64);
    assert_eq!(imported.refused, (leases.len() - kept.len()) as u64);
    assert_eq!((imported.same, imported.conflicts), (0, 0));
    assert_eq!(imported.last, leases.last().map(L::address));
    let refused: Vec<_> = leases.into_iter().filter(|lease| to.kept(lease).is_err()).collect();
    assert!(report.refused == refused, "the refused leases are reported");
    assert_eq!(to.all().unwrap(), kept);
}

fn leases_move_through_all_backends<L: TestLease>(exclusive: bool) {
    let databases = BOTH.map(Database::new);
    let [postgresql, mariadb] = databases.each_ref().map(Database::open::<L>);
    let (first, last) = (memfile::<L>(), memfile::<L>());
    let options = ImportOptions::default().portion(97);
    let options = if exclusive { options.exclusive() } else { options };
    let (imported, _) = import(&*first, &any_leases(1000), options);
    assert!(imported.added > 900, "{imported:?}");
    move_all(&*first, &*postgresql, options);
    move_all(&*postgresql, &*mariadb, options);
    move_all(&*mariadb, &*last, options);
    assert!(last.count(&Query::all()).unwrap() > 300);
    for database in &databases {
        let counted = statistics(database);
        assert!(counted.matches('\n').count() > 20, "{counted}");
        if database.server == Server::Postgresql { postgresql.recount() } else { mariadb.recount() }.unwrap();
        assert_eq!(statistics(database), counted, "what the triggers count is what a recount finds");
    }
}

#[rstest]
fn leases_of_every_kind_move_through_all_backends4(#[values(false, true)] exclusive: bool) {
    leases_move_through_all_backends::<Lease4>(exclusive);
}

#[rstest]
fn leases_of_every_kind_move_through_all_backends6(#[values(false, true)] exclusive: bool) {
    leases_move_through_all_backends::<Lease6>(exclusive);
}

fn a_recount_repairs_statistics<L: TestLease>(database: &Database) {
    let mgr = database.open::<L>();
    import(&*mgr, &tagged(500), ImportOptions::default());
    // The triggers of Kea 2.2 overlook a lease that gets its first class by an update, or loses its
    // last one.
    let has_exact_triggers = database.name != "kea22";
    for n in 0..50 {
        if has_exact_triggers {
            mgr.update(&L::tagged(n, n + 1)).unwrap();
        }
        let _ = mgr.delete(L::numbered(n + 100)).unwrap();
    }
    let counted = statistics(database);
    for family in ["lease4", "lease6"] {
        database.execute(&format!(
            "UPDATE {family}_stat SET leases = leases + 3; DELETE FROM {family}_stat_by_client_class"
        ));
    }
    database.execute(
        "DELETE FROM lease4_stat WHERE subnet_id = 1; INSERT INTO lease4_stat VALUES (999, 0, 4); \
         DELETE FROM lease6_stat WHERE subnet_id = 1; INSERT INTO lease6_stat VALUES (999, 0, 0, 4)",
    );
    assert_ne!(statistics(database), counted);
    database.open::<Lease4>().recount().unwrap();
    database.open::<Lease6>().recount().unwrap();
    assert_eq!(statistics(database), counted);
}

#[rstest]
fn a_recount_repairs_the_statistics(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(false, true)] of_kea: bool,
) {
    let database = if of_kea { Database::of_kea(server) } else { Database::new(server) };
    a_recount_repairs_statistics::<Lease4>(&database);
    a_recount_repairs_statistics::<Lease6>(&database);
}

/// An import that the iterator ends with an error has added the portions before it, or nothing if it
/// was exclusive; further ones complete it.
#[rstest]
fn an_interrupted_import_is_resumed(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(false, true)] exclusive: bool,
) {
    let database = Database::new(server);
    let mgr = database.open::<Lease4>();
    let leases = tagged::<Lease4>(100);
    let options = ImportOptions::default().portion(10);
    let options = if exclusive { options.exclusive() } else { options };
    let ends = || LeaseMgrError::Backend("the source has ended".into());
    let mut interrupted = leases[..45].iter().cloned().map(Ok).chain(iter::once_with(|| Err(ends())));
    let (result, report) = import_with(&*mgr, &mut interrupted, options, |_| {});
    assert_eq!(result.unwrap_err().to_string(), "the source has ended");
    assert_eq!(report.portions.len(), 4);
    let last = report.portions[3].last;
    let is_at_once = exclusive && server == Server::Postgresql;
    let added = if is_at_once { 0 } else { 40 };
    assert_eq!(last, (!is_at_once).then(|| leases[39].address()));
    assert_eq!(mgr.all().unwrap(), leases[..added]);

    let rest: Vec<_> = leases.iter().filter(|lease| Some(lease.address()) > last).cloned().collect();
    let (imported, _) = import(&*mgr, &rest[..10], options);
    assert_eq!((imported.added, imported.same), (10, 0));
    let (imported, report) = import(&*mgr, &leases, options);
    assert_eq!((imported.added, imported.same), ((90 - added) as u64, (10 + added) as u64));
    assert_eq!((imported.conflicts, report.conflicts.len()), (0, 0));
    assert_eq!(mgr.all().unwrap(), leases);
    let counted = statistics(&database);
    mgr.recount().unwrap();
    assert_eq!(statistics(&database), counted);
}

/// Returns what an exclusive import removes for a time.
fn definitions(database: &Database) -> String {
    database.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename IN ('lease4', 'lease6') ORDER BY indexname; \
         SELECT conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint \
         WHERE conrelid IN ('lease4'::regclass, 'lease6'::regclass) ORDER BY conname; \
         SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname",
    )
}

#[rstest]
fn an_exclusive_import_leaves_the_schema_as_it_was(#[values(false, true)] of_kea: bool) {
    let server = Server::Postgresql;
    let database = if of_kea { Database::of_kea(server) } else { Database::new(server) };
    let before = definitions(&database);
    assert!(before.contains("FOREIGN KEY") && before.contains("lease6_ains"), "{before}");
    let (mgr4, mgr6) = (database.open::<Lease4>(), database.open::<Lease6>());
    let options = ImportOptions::default().portion(50).exclusive();
    let (leases4, leases6) = (tagged::<Lease4>(200), tagged::<Lease6>(200));
    let kept = |leases: &[Lease4]| leases.iter().map(|lease| mgr4.kept(lease).unwrap()).collect::<Vec<_>>();
    assert_eq!(import(&*mgr4, &leases4, options).0.added, 200);
    assert_eq!(import(&*mgr6, &leases6, options).0.added, 200);
    assert_eq!(definitions(&database), before);
    assert_eq!(mgr4.all().unwrap(), kept(&leases4));
    let counted = statistics(&database);
    // The triggers count again.
    for lease in &leases4[..100] {
        let _ = mgr4.delete(lease.address()).unwrap();
    }
    assert_ne!(statistics(&database), counted);
    assert_eq!(import(&*mgr4, &leases4[..100], ImportOptions::default()).0.added, 100);
    assert_eq!(statistics(&database), counted);

    // A session that ends leaves nothing.
    let _ = mgr4.wipe_subnet(leases4[0].data().subnet_id).unwrap();
    let there = mgr4.all().unwrap();
    let end = |portion| {
        if portion == 2 {
            database.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'",
            );
        }
    };
    let (result, _) = import_with(&*mgr4, &mut leases4.iter().cloned().map(Ok), options, end);
    assert!(matches!(result, Err(LeaseMgrError::Unavailable { .. })), "{result:?}");
    assert_eq!(definitions(&database), before);
    assert_eq!(mgr4.all().unwrap(), there);
}

/// The table has another trigger for new rows, which must not be left out.
#[test]
fn an_exclusive_import_leaves_out_no_other_trigger() {
    let database = Database::new(Server::Postgresql);
    let mgr = database.open::<Lease4>();
    database.execute(
        "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER other AFTER INSERT ON lease4 FOR EACH ROW EXECUTE FUNCTION other()",
    );
    let leases = tagged::<Lease4>(20);
    let mut iterator = leases.iter().cloned().map(Ok);
    let (result, _) = import_with(&*mgr, &mut iterator, ImportOptions::default().exclusive(), |_| {});
    database.execute("DROP TRIGGER other ON lease4; DROP FUNCTION other");
    assert!(result.unwrap_err().to_string().contains("other triggers"));
    assert_eq!(import(&*mgr, &leases, ImportOptions::default()).0.added, 20);
}

/// The sessions end while leases are imported: the portion is sent again.
#[rstest]
fn an_import_outlives_its_session(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let database = Database::new(server);
    let mgr = database.open::<Lease4>();
    let leases = tagged::<Lease4>(50);
    let end = |portion| {
        if portion == 2 && server == Server::Postgresql {
            database.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
        } else if portion == 2 {
            let sessions = database.execute(
                "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
            );
            let kill: Vec<_> = sessions.lines().map(|id| format!("KILL {id}")).collect();
            assert!(!kill.is_empty());
            database.execute(&kill.join("; "));
        }
    };
    let options = ImportOptions::default().portion(10);
    let (result, _) = import_with(&*mgr, &mut leases.iter().cloned().map(Ok), options, end);
    assert_eq!(result.unwrap().added, 50);
    assert_eq!(mgr.all().unwrap(), leases);
}

/// Leases that are there with other values are kept and reported, and so is the first of several
/// leases of an address.
#[rstest]
fn conflicts_are_kept_and_reported(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(false, true)] exclusive: bool,
) {
    let database = Database::new(server);
    let mgr = database.open::<Lease6>();
    let mut expected = tagged::<Lease6>(60);
    let options = ImportOptions::default().portion(25);
    let options = if exclusive { options.exclusive() } else { options };
    for n in [3, 30, 59] {
        let index = usize::try_from(n).unwrap();
        expected[index] = Lease6::tagged(n, n + 1000);
        let _ = mgr.add(&expected[index]).unwrap();
    }
    let _ = mgr.add(&expected[4]).unwrap();
    // In any order, and with two leases of an address in one portion and in two.
    let mut leases = tagged::<Lease6>(60);
    leases.reverse();
    leases.insert(5, Lease6::tagged(57, 1057));
    leases.push(Lease6::tagged(50, 1050));
    let (imported, report) = import(&*mgr, &leases, options);
    assert_eq!((imported.added, imported.same, imported.conflicts, imported.refused), (56, 1, 5, 0));
    let mut conflicts: Vec<_> = report.conflicts;
    conflicts.sort_by_key(|(lease, _)| lease.address());
    let expected_conflicts: Vec<_> = [3, 30, 50, 57, 59]
        .into_iter()
        .map(|n| {
            let there = expected[usize::try_from(n).unwrap()].clone();
            let tag = if n == 50 || n == 57 { n + 1000 } else { n };
            (Lease6::tagged(n, tag), there)
        })
        .collect();
    assert!(conflicts == expected_conflicts, "{conflicts:?}");
    assert_eq!(mgr.all().unwrap(), expected);
}
