//! Each feature has a list of the test suites that need it. It is shown if the feature is off,
//! because cargo then omits these suites silently.

#![allow(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Returns the text in quotes.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

/// Returns the features that each `[[test]]` of the manifest requires.
fn manifest() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let entry = |part: &str| {
        let lines: Vec<_> = part.lines().take_while(|line| !line.starts_with('[')).collect();
        let value = |key: &str| lines.iter().find(|line| line.starts_with(key)).unwrap();
        let name = quoted(value("name = ")).next().unwrap().to_owned();
        (name, quoted(value("required-features = ")).map(str::to_owned).collect())
    };
    text.split("[[test]]\n").skip(1).map(entry).collect()
}

/// Panics unless exactly these suites require the feature, and each of them exists.
fn needed_by(feature: &str, suites: &str) {
    let suites: Vec<_> =
        suites.strip_prefix(&format!("needs --features {feature}: ")).unwrap().split(", ").collect();
    let of_manifest = manifest();
    let needing = of_manifest.iter().filter(|(_, needs)| needs.contains(feature));
    assert_eq!(needing.map(|(name, _)| name).collect::<Vec<_>>(), suites, "the suites that need {feature}");
    for suite in suites {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{suite}.rs"));
        assert!(file.exists(), "{}", file.display());
    }
}

/// Defines a test for each feature. If the feature is off, the test is ignored, with the list of
/// suites as the reason.
macro_rules! suites {
    ($($test:ident: $feature:literal, $suites:literal;)*) => {$(
        #[test]
        #[cfg_attr(not(feature = $feature), ignore = $suites)]
        fn $test() {
            needed_by($feature, $suites);
        }
    )*};
}

suites! {
    suites_with_kea_lfc: "kea-lfc", "needs --features kea-lfc: clock_jumps, corpus, hostile_input, \
        invalid_rows, kill, memfile_and_kea, memfile_cleanups, memfile_kill, memfile_soak, owners, \
        program, real_faults";
    suites_with_commands: "commands", "needs --features commands: commands, database_commands, server_commands";
    suites_with_control: "control", "needs --features control: commands, server_commands";
    suites_with_control_tls: "control-tls", "needs --features control-tls: control, control_and_kea";
    suites_with_ha: "ha", "needs --features ha: ha_and_kea, ha_copy, ha_messages, ha_model, ha_rules, \
        ha_service, ha_states";
    suites_with_conformance: "conformance", "needs --features conformance: conformance, database_faults, databases";
    suites_with_simulated_disk: "simulated-disk", "needs --features simulated-disk: crash_scenarios, \
        faults, invalid_rows, memfile_model, memfile_threads, submitted";
    suites_with_demo: "demo", "needs --features demo: demo";
    suites_with_serde: "serde", "needs --features serde: control_and_kea, databases, databases_and_kea, lease_json, memfile_and_kea";
    suites_with_mysql: "mysql", "needs --features mysql: database_commands, database_connections, database_faults, database_imports, \
        databases, databases_and_kea";
    suites_with_postgresql: "postgresql", "needs --features postgresql: database_commands, database_connections, database_faults, \
        database_imports, databases, databases_and_kea";
    suites_with_tokio: "tokio", "needs --features tokio: tokio_server";
}
