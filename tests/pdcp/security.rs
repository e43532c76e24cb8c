//! SECURITY.md names the tests that keep its promises: each of them is there, and fails when its defence is taken out. The
//! latter takes a while (`scripts/defences`); here it is seen that its table fits the sources.

use serde::Deserialize;
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

/// tests/defences.toml
#[derive(Deserialize)]
struct Defences {
    defence: Vec<Defence>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defence {
    name: String,
    file: String,
    code: String,
    without: String,
    tests: Vec<String>,
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = HashSet::new();
    ["src", "tests"].iter().for_each(|directory| collect_functions(&root.join(directory), &mut functions));
    let page = read("SECURITY.md");
    let missing: Vec<&str> = names(&page).filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(names(&page).count() > 30, "looked for the wrong thing");
}

#[test]
fn every_defence_is_where_its_table_says_and_has_a_test_of_its_own() {
    let defences = toml::from_str::<Defences>(&read("tests/defences.toml")).unwrap().defence;
    let mut seen = HashSet::new();
    for Defence { name, file, code, without, tests } in &defences {
        assert!(seen.insert(name), "{name} is there twice");
        assert_eq!(read(file).matches(code.as_str()).count(), 1, "{name}: its code in {file}");
        assert!(without.contains("OUT") && !tests.is_empty(), "{name}");
    }
    let page = read("SECURITY.md");
    let (_, rows) = page.split_once("## What rsync's").unwrap();
    let (table, rest) = rows.split_once("Nothing of ours is to be taken out").unwrap();
    let named: HashSet<&str> = names(table).collect();
    let without: HashSet<&str> = names(rest).collect();
    let tested: HashSet<&str> = defences.iter().flat_map(|defence| &defence.tests).map(String::as_str).collect();
    let untested: Vec<_> = named.difference(&tested).filter(|name| !without.contains(**name)).collect();
    assert!(untested.is_empty(), "no defence is taken out for {untested:#?}");
}
