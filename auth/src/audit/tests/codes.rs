//! The guide's table of events is what the code emits.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const GUIDE: &str = "docs/guides/audit.md";
/// Crates that emit events.
const EMITTERS: [&str; 2] = ["auth/src", "dbservice/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Source files but for tests.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.ends_with("tests") && name != "gen" {
            sources(&path, found);
        } else if path.extension().is_some_and(|found| found == "rs") && !name.ends_with("tests.rs")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]").next().unwrap().to_owned());
        }
    }
}

fn is_event(text: &str) -> bool {
    text.contains('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'))
}

fn is_code(text: &str) -> bool {
    (5..=9).contains(&text.len())
        && text.ends_with(['I', 'W', 'E'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Neighbouring texts in quotes of which the first is an event's name and the second a code.
fn pairs<'t>(texts: impl Iterator<Item = &'t str>) -> BTreeSet<(String, String)> {
    let texts: Vec<&str> = texts.collect();
    texts
        .windows(2)
        .filter(|two| is_event(two[0]) && is_code(two[1]))
        .map(|two| (two[0].to_owned(), two[1].to_owned()))
        .collect()
}

#[test]
fn every_event_and_its_code_are_in_the_guide_and_no_others() {
    let mut emitted = BTreeSet::new();
    for folder in EMITTERS {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for file in &files {
            emitted.extend(pairs(file.split('"').skip(1).step_by(2)));
        }
    }
    assert!(emitted.contains(&("db.session.start".to_owned(), "TDB00W".to_owned())));
    let guide = std::fs::read_to_string(root().join(GUIDE)).unwrap();
    let rows = guide.lines().filter(|line| line.starts_with("| `"));
    let told: BTreeSet<_> = rows
        .flat_map(|row| pairs(row.split('`').skip(1).step_by(2)))
        .collect();
    let missing: Vec<_> = emitted.difference(&told).collect();
    let gone: Vec<_> = told.difference(&emitted).collect();
    assert!(
        missing.is_empty(),
        "add to the table of {GUIDE}: {missing:?}"
    );
    assert!(gone.is_empty(), "nothing emits these of {GUIDE}: {gone:?}");
}
