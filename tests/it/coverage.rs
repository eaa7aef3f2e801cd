//! The tests that `docs/coverage.md` names are there.

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate")
}

/// What a page names as `path.rs::test`, in code marks.
fn named(page: &str) -> Vec<(&str, &str)> {
    let codes = page.split('`').skip(1).step_by(2);
    codes.filter_map(|code| code.split_once("::").filter(|(path, _)| path.ends_with(".rs"))).collect()
}

/// Whether `source` has a test of this name: a function under `#[test]` or `#[tokio::test]`.
fn has_test(source: &str, name: &str) -> bool {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if let Some((before, after)) = line.split_once("fn ")
            && matches!(before, "" | "async ")
        {
            if is_test && after.split('(').next() == Some(name) {
                return true;
            }
            is_test = false;
        }
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
    }
    false
}

#[test]
fn every_test_that_the_coverage_page_names_exists() {
    let page = std::fs::read_to_string(root().join("docs/coverage.md")).expect("the page is there");
    let named = named(&page);
    assert!(named.len() > 80, "only {} tests are named", named.len());
    let missing: Vec<String> = named
        .into_iter()
        .filter(|(path, name)| !std::fs::read_to_string(root().join(path)).is_ok_and(|source| has_test(&source, name)))
        .map(|(path, name)| format!("{path}::{name}"))
        .collect();
    assert!(missing.is_empty(), "docs/coverage.md names tests that are not there: {missing:#?}");
}

#[test]
fn a_function_that_is_no_test_does_not_count() {
    let source = "fn helper() {}\n#[test]\nfn one() {\n}\n\nasync fn two() {}\n    #[tokio::test(flavor = \"x\")]\n    async fn three() {}";
    let found = ["helper", "one", "two", "three", "four"].map(|name| has_test(source, name));
    assert_eq!(found, [false, true, false, true, false]);
    let page = "see `a/b.rs::one`, `a::b` and `c.rs::two`";
    assert_eq!(named(page), [("a/b.rs", "one"), ("c.rs", "two")]);
}
