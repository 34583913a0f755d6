//! What the documents refer to exists: files, headings and tests.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files below a directory, without those that are built.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if !entry.is_dir() {
            files.push(entry);
        } else if !entry.ends_with("target") && !entry.ends_with(".git") {
            files.extend(self::files(&entry));
        }
    }
    files
}

fn with_extension(extension: &str) -> Vec<(PathBuf, String)> {
    let files = files(ROOT.as_ref()).into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|found| found == extension));
    files.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The pieces of a text between two marks, none of which has a line break.
fn between<'a>(text: &'a str, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    let pieces = text.split(begin).skip(1).filter_map(move |rest| Some(rest.split_once(end)?.0));
    pieces.filter(|piece| !piece.contains('\n'))
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let heading = heading.trim_start_matches('#').trim();
    heading.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for (path, text) in with_extension("md") {
        for link in between(&text, "](", ")").filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let is_right = target.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&target)
                        .unwrap()
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line) == heading));
            if !is_right {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

/// Inline code with at least three underscores is the name of a test; `...` stands for its rest.
#[test]
fn the_tests_that_documents_name_exist() {
    let sources = with_extension("rs");
    let functions: BTreeSet<_> = sources.iter().flat_map(|(_, text)| between(text, "fn ", "(")).collect();
    let mut missing = Vec::new();
    for (path, text) in with_extension("md") {
        // Inline code only: a block may define functions of its own.
        for name in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let name = name.rsplit("::").next().unwrap_or(name);
            let start = name.trim_end_matches("...");
            let is_name = start.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !is_name || start.matches('_').count() < 3 {
                continue;
            }
            let is_there = |function: &&&str| {
                let function = function.split('<').next().unwrap_or_default();
                if start == name { function == name } else { function.starts_with(start) }
            };
            if functions.iter().find(is_there).is_none() {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}
