//! Each promise of SECURITY.md names a test, and that test exists.

use std::fs;
use std::path::{Path, PathBuf};
use testkit::folders;

/// The tests that the tables `| promise | test |` of the page name, as `binary::room::test`.
fn promised() -> Vec<String> {
    let page = fs::read_to_string(folders::root().join("SECURITY.md")).unwrap();
    let mut names = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if !line.starts_with('|') {
            inside = false;
        } else if line == "| promise | test |" {
            inside = true;
        } else if inside && !line.starts_with("|---") {
            let tests = line.trim_end_matches('|').rsplit('|').next().unwrap();
            let found: Vec<String> = tests
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect();
            assert!(!found.is_empty(), "no test behind the promise: {line}");
            names.extend(found);
        }
    }
    names
}

/// The file of a module path: `a::b` is `a/b.rs` or `a/b/mod.rs`.
fn file_of(below: &Path, segments: &[&str]) -> Option<PathBuf> {
    let stem = below.join(segments.join("/"));
    [stem.with_extension("rs"), stem.join("mod.rs")]
        .into_iter()
        .find(|file| file.is_file())
}

/// A path names a whole room, or a test in a room.
fn exists(name: &str) -> bool {
    let segments: Vec<&str> = name.split("::").collect();
    let (below, segments) = match segments.as_slice() {
        ["tool", rest @ ..] => ("tool/tests/tool", rest),
        all => ("tests", all),
    };
    let below = folders::root().join(below);
    if file_of(&below, segments).is_some() {
        return true;
    }
    let Some((test, room)) = segments.split_last() else {
        return false;
    };
    file_of(&below, room).is_some_and(|file| {
        fs::read_to_string(file)
            .unwrap()
            .contains(&format!("fn {test}("))
    })
}

#[test]
fn each_promise_names_a_test_that_exists() {
    let names = promised();
    assert!(names.len() > 20, "{}", names.len());
    let missing: Vec<&String> = names.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names no test: {missing:?}");
}

#[test]
fn a_test_that_is_not_there_is_found_out() {
    assert!(exists("pin::memory"));
    assert!(!exists("pin::memory::no_such_test"));
    assert!(!exists("pin::no_such_room"));
}
