//! Modules import only modules above them, and each public item has one path.
//!
//! The source is parsed as tokens, so that comments and strings are ignored, and bodies of macros
//! are checked.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use rstest::rstest;

/// The modules of the crate, ordered so that each imports only modules of earlier rows. Modules in
/// one row do not import each other. Planned modules are listed, too.
const ORDER: &[&[&str]] = &[
    &["first_of_many", "panics", "parallel", "pem", "request", "simd", "sync", "with_sources"],
    &["identifiers"],
    &["kea_json"],
    &["lease"],
    &["fs"],
    &["control", "lease_mgr"],
    &["connection", "lease_file"],
    &["export", "factory", "lfc"],
    // What backends share.
    &["sql"],
    // Backends.
    &["memfile", "mysql", "postgresql"],
    // Users of the trait.
    &["allocator", "async_lease_mgr", "commands", "hosts"],
    &["ha"],
    &["builtin", "conformance", "cookbook", "prelude", "tutorial"],
];

fn row_of(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

/// A module of the crate or name in its root that a file imports.
#[derive(Debug, PartialEq)]
struct Import {
    name: String,
    file: PathBuf,
}

/// Returns the source files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns the library's source files, by their paths below `src`, as tokens.
fn library() -> Vec<(PathBuf, TokenStream)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |file: &PathBuf| file.strip_prefix(&src).unwrap().to_owned();
    let is_library = |file: &PathBuf| !name(file).starts_with("bin");
    let read = |file: PathBuf| (name(&file), fs::read_to_string(&file).unwrap().parse().unwrap());
    sources(&src).into_iter().filter(is_library).map(read).collect()
}

/// Returns the module path of a file: `[memfile, journal]` for `memfile/journal.rs`.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if names == ["lib"] { Vec::new() } else { names }
}

fn is_ident(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == name)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Returns whether there is a `::` at a position.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |at| tokens.get(at).is_some_and(|token| is_punct(token, ':'));
    is_colon(at) && is_colon(at + 1)
}

/// Calls `found` for each name that is imported from the root of the crate or from a module.
fn walk(stream: TokenStream, module: &[String], found: &mut dyn FnMut(String)) {
    let tokens: Vec<_> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is_ident(tokens.get(at), "mod")
            && let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                (tokens.get(at + 1), tokens.get(at + 2))
        {
            walk(body.stream(), &[module, &[name.to_string()]].concat(), found);
            at += 3;
            continue;
        }
        let is_root = is_ident(tokens.get(at), "crate") && is_separator(&tokens, at + 1);
        let is_super = is_ident(tokens.get(at), "super") && is_separator(&tokens, at + 1);
        if is_root || is_super {
            let mut base = if is_root { &[][..] } else { parent(module) };
            at += 3;
            while is_ident(tokens.get(at), "super") && is_separator(&tokens, at + 1) {
                base = parent(base);
                at += 3;
            }
            imported(&tokens[at..], base, found);
            continue;
        }
        if let TokenTree::Group(group) = &tokens[at] {
            walk(group.stream(), module, found);
        }
        at += 1;
    }
}

fn parent(module: &[String]) -> &[String] {
    module.split_last().map_or(&[], |(_, parent)| parent)
}

/// Calls `found` for each name that the next path or group of paths imports from a module.
fn imported(tokens: &[TokenTree], base: &[String], found: &mut dyn FnMut(String)) {
    if let Some(top) = base.first() {
        return found(top.clone());
    }
    match tokens.first() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let paths: Vec<_> = group.stream().into_iter().collect();
            for path in paths.split(|token| is_punct(token, ',')).filter(|path| !path.is_empty()) {
                imported(path, base, found);
            }
        }
        Some(token) => found(token.to_string()),
        None => {}
    }
}

fn imports(files: &[(PathBuf, TokenStream)]) -> Vec<Import> {
    let mut imports = Vec::new();
    for (file, tokens) in files {
        walk(tokens.clone(), &module_of(file), &mut |name| imports.push(Import { name, file: file.clone() }));
    }
    imports
}

/// Returns the items that `lib.rs` exports, each with its module.
fn exports(lib: TokenStream) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    let tokens: Vec<_> = lib.into_iter().collect();
    for statement in tokens.split(|token| is_punct(token, ';')) {
        let Some(start) =
            statement.windows(2).position(|two| is_ident(two.first(), "pub") && is_ident(two.get(1), "use"))
        else {
            continue;
        };
        let [module, _, _, items] = &statement[start + 2..] else {
            panic!("an export of lib.rs is module::item or module::{{items}}, not {statement:?}");
        };
        let items = match items {
            TokenTree::Group(group) => group.stream(),
            item => item.clone().into(),
        };
        let items = items.into_iter().filter(|token| matches!(token, TokenTree::Ident(_)));
        exports.extend(items.map(|item| (item.to_string(), module.to_string())));
    }
    exports
}

/// Returns the macros of the library, each with its module. Exported ones are called through the
/// root of the crate.
fn macros(files: &[(PathBuf, TokenStream)]) -> BTreeMap<String, String> {
    let mut macros = BTreeMap::new();
    for (file, tokens) in files {
        let tokens: Vec<_> = tokens.clone().into_iter().collect();
        for three in tokens.windows(3) {
            if is_ident(three.first(), "macro_rules")
                && is_punct(&three[1], '!')
                && let Some(module) = module_of(file).first()
            {
                macros.insert(three[2].to_string(), module.clone());
            }
        }
    }
    macros
}

/// Returns what is wrong with an import.
fn problem(import: &Import, exports: &BTreeMap<String, String>) -> Option<String> {
    let Import { name, file } = import;
    let name = exports.get(name).unwrap_or(name);
    let module = module_of(file).first()?.clone();
    let (Some(own), Some(other)) = (row_of(&module), row_of(name)) else {
        let unknown = if row_of(&module).is_none() { &module } else { name };
        return Some(format!("{}: {unknown} is not a module in ORDER", file.display()));
    };
    (own <= other && module != *name).then(|| format!("{}: imports {name}", file.display()))
}

#[test]
fn each_module_imports_only_those_above_it() {
    let files = library();
    let (_, lib) = files.iter().find(|(file, _)| file == Path::new("lib.rs")).unwrap();
    let (imports, mut exports) = (imports(&files), exports(lib.clone()));
    exports.extend(macros(&files));
    assert!(imports.len() > 500, "only {} imports are found", imports.len());
    assert_eq!(exports.get("LeaseMgr").map(String::as_str), Some("lease_mgr"));
    let mut problems: Vec<_> = imports.iter().filter_map(|import| problem(import, &exports)).collect();
    problems.dedup();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn each_module_has_a_place_in_the_order() {
    let files = library();
    let modules = files.iter().filter_map(|(file, _)| module_of(file).into_iter().next());
    let unknown: Vec<_> = modules.filter(|module| row_of(module).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[rstest]
#[case::a_path("lfc.rs", "use crate::memfile::Memfile;", &["memfile"])]
#[case::a_group("lfc.rs", "use crate::{fs::{File, Memory}, memfile};", &["fs", "memfile"])]
#[case::in_an_expression("lfc/index.rs", "fn f() { g(crate::memfile::h()) }", &["memfile"])]
#[case::by_super("lfc.rs", "use super::memfile::Memfile;", &["memfile"])]
#[case::by_super_twice("lfc/index.rs", "use super::super::{fs, memfile};", &["fs", "memfile"])]
#[case::its_own_module("lfc/index.rs", "use super::memfile; use super::*;", &["lfc", "lfc"])]
#[case::in_an_inner_module("lfc.rs", "mod tests { use super::*; use super::super::fs; }", &["lfc", "fs"])]
#[case::in_a_macro("lfc.rs", "macro_rules! m { () => { $crate::memfile::f() } }", &["memfile"])]
#[case::all_of_the_root("lfc.rs", "use crate::*;", &["*"])]
#[case::an_item_of_the_root("lfc.rs", "use crate::LeaseMgr;", &["LeaseMgr"])]
#[case::a_visibility("lfc/index.rs", "pub(crate) fn f() {} pub(in crate::lfc) fn g() {}", &["lfc"])]
#[case::no_code("lfc.rs", "/* crate::memfile */ /// crate::memfile\nconst A: &str = \"crate::memfile\";", &[])]
fn all_imports_are_found(#[case] file: &str, #[case] text: &str, #[case] expected: &[&str]) {
    let found = imports(&[(file.into(), text.parse().unwrap())]);
    let names: Vec<_> = found.iter().map(|import| import.name.as_str()).collect();
    assert_eq!(names, expected);
}

#[rstest]
#[case::above("lfc/index.rs", "fs", None)]
#[case::itself("lfc/index.rs", "lfc", None)]
#[case::below("lfc/index.rs", "memfile", Some("lfc/index.rs: imports memfile"))]
#[case::beside("lfc.rs", "factory", Some("lfc.rs: imports factory"))]
#[case::an_item_above("lfc.rs", "LeaseMgr", None)]
#[case::an_item_below("lfc.rs", "WriteLeases", Some("lfc.rs: imports export"))]
#[case::an_unknown_item("lfc.rs", "Lease", Some("lfc.rs: Lease is not a module in ORDER"))]
#[case::all_of_the_root("lfc.rs", "*", Some("lfc.rs: * is not a module in ORDER"))]
fn an_import_is_checked_against_the_order(
    #[case] file: &str,
    #[case] name: &str,
    #[case] expected: Option<&str>,
) {
    let import = Import { name: name.to_owned(), file: file.into() };
    let exports =
        exports("pub use export::WriteLeases; pub use lease_mgr::{LeaseMgr, Query};".parse().unwrap());
    assert_eq!(problem(&import, &exports).as_deref(), expected);
}

/// Returns the public modules of a file, and its public exports that give an item of one of them a
/// second path or are globs.
fn second_paths(stream: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = stream.into_iter().collect();
    let public = |word| {
        let is_next = move |tokens: &[TokenTree]| {
            is_ident(tokens.first(), "pub") && is_ident(tokens.get(1), word) && tokens.len() > 2
        };
        tokens.windows(3).filter(move |tokens| is_next(tokens)).map(|tokens| tokens[2].to_string())
    };
    let modules: Vec<_> = public("mod").collect();
    let mut second: Vec<_> = public("use").filter(|module| modules.contains(module)).collect();
    for export in tokens.split(|token| is_punct(token, ';')) {
        let start =
            export.windows(2).position(|two| is_ident(two.first(), "pub") && is_ident(two.get(1), "use"));
        if start.is_some_and(|start| export[start..].iter().any(|token| is_punct(token, '*'))) {
            second.push("*".to_owned());
        }
    }
    second
}

#[test]
fn each_public_item_has_one_path() {
    for (file, tokens) in library() {
        assert_eq!(second_paths(tokens), [""; 0], "{}", file.display());
    }
}

#[rstest]
#[case::of_a_private_module("mod a; pub use a::A;", &[])]
#[case::of_a_public_module("pub mod a; mod b; pub use a::{A, B}; pub use b::C;", &["a"])]
#[case::of_all("mod a; pub use a::*;", &["*"])]
#[case::for_the_crate("pub mod a; pub(crate) use a::*; use a::A;", &[])]
fn second_paths_are_found(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(second_paths(text.parse().unwrap()), expected);
}
