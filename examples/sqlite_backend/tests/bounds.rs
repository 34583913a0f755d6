//! What code that is generic over [`leasemgr::ManagedLease`] sees: nothing of the memfile, and no clash with names of its own.

#[test]
fn generic_code_sees_nothing_of_the_memfile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/bounds/own_names.rs");
    cases.compile_fail("tests/bounds/memfile_methods.rs");
}
