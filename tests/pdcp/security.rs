//! SECURITY.md names the tests that keep its promises: each of them is there.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// What looks like the name of a test, between backquotes: they are sentences.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split('`').skip(1).step_by(2);
    words.filter(|word| {
        word.split('_').count() > 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

fn collect_functions(directory: &Path, functions: &mut HashSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect_functions(&path, functions);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let named = text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split(['(', '<']).next());
            functions.extend(named.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = HashSet::new();
    ["src", "tests"].iter().for_each(|directory| collect_functions(&root.join(directory), &mut functions));
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let missing: Vec<&str> = names(&page).filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(names(&page).count() > 30, "looked for the wrong thing");
}
