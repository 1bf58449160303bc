//! What the guides show is what the program takes: every resource and every command line in them is read.

use std::path::{Path, PathBuf};

use clap::Parser as _;

use crate::{
    args::Tgctl,
    create::{self, Wanted},
};

const GUIDE: &str = "docs/guides/roles-and-locks.md";

fn guide() -> (PathBuf, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(GUIDE);
    let text = std::fs::read_to_string(&file).unwrap();
    (file, text)
}

/// The blocks of a language in a text.
pub(crate) fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// The words of a command line whose only quotes are single ones.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

#[test]
fn the_resources_of_the_guide_can_be_created() {
    let (file, text) = guide();
    let mut kinds = Vec::new();
    for block in blocks(&text, "yaml") {
        let (wanted, warnings) = create::parse(&block, &file).unwrap();
        assert_eq!(warnings, [], "{block}");
        kinds.extend(wanted.into_iter().map(|wanted| match wanted {
            Wanted::Lock(_) => "lock",
            Wanted::Role(_) => "role",
            _ => "other",
        }));
    }
    assert_eq!(kinds, ["role", "role", "lock"]);
}

#[test]
fn the_commands_of_the_guide_are_understood() {
    let (_, text) = guide();
    let blocks = blocks(&text, "sh");
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(lines.len() > 8, "{lines:?}");
    for line in lines {
        let parsed = Tgctl::try_parse_from(words(line));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}
