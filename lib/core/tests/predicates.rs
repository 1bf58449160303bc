//! Predicates that nobody would write: damaged ones, and texts that are none.
//!
//! Whatever the text, parsing ends without a panic and within its bounds; what was understood is printed as a text that
//! means the same, and is evaluated within its steps. `TIDEGATE_FUZZ_CASES` makes it look longer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use proptest::{prelude::*, sample};
use tidegate_core::{
    Database, DatabaseName, Labels, Predicate,
    database::{AwsMetadata, Origin, Protocol, TlsSettings},
    predicate::{DEPTH_MAX, PREDICATE_BYTES_MAX, Schema},
};

/// Texts that are tried when nothing is said.
const CASES: u32 = 1500;
/// Longest time that one text may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sound predicates over some schema or other, to be damaged.
const SOUND: [&str; 12] = [
    r#"labels["env"] == "prod" && hasPrefix(name, "dw-")"#,
    r#"!(labels.env == "dev" || search("orders", "eu"))"#,
    r#"regexp.match(labels["team"], "^(a|b)+$")"#,
    r#"contains(user.spec.traits["teams"], labels["team"])"#,
    r#"contains_any(split(labels["teams"], ","), set("a", "b"))"#,
    r#"exists(labels["env"]) && equals(health.status, "healthy")"#,
    r#"regexp.replace(email.local(name), "(.*)x", "$1$1") != strings.upper("a")"#,
    "labels_matching(\"project-*\") == set()",
    "((((((((((((true))))))))))))",
    "resource.metadata.labels[`a b`] == \"\\u00e9\\n\"",
    "name == \"a\" && name == \"b\" || name == \"c\" && !name == \"d\"",
    "is_static || uses == 3",
];

/// Pieces that damage them.
const PIECES: [&str; 20] = [
    "(",
    ")",
    "[",
    "]",
    "\"",
    "`",
    "!",
    "&&",
    "||",
    "==",
    "!=",
    ",",
    ".",
    "\\",
    "labels",
    "true",
    "^(a+)+$",
    "\u{0}",
    "é",
    "regexp.match(",
];

const SCHEMAS: [&Schema; 6] = [
    &Schema::DATABASE,
    &Schema::DATABASE_SERVER,
    &Schema::LABEL_EXPRESSION,
    &Schema::REVIEW,
    &Schema::RULE,
    &Schema::TOKEN,
];

fn damaged() -> impl Strategy<Value = String> {
    let cut = (
        any::<sample::Index>(),
        sample::select(PIECES.to_vec()),
        0..4_u8,
    );
    let cuts = prop::collection::vec(cut, 0..4);
    (sample::select(SOUND.to_vec()), cuts).prop_map(|(sound, cuts)| {
        let mut text: Vec<char> = sound.chars().collect();
        for (place, piece, how) in cuts {
            let place = place.index(text.len() + 1);
            match how {
                0 => drop(text.splice(place..place, piece.chars())),
                1 => text.truncate(place),
                2 if place < text.len() => {
                    text.remove(place);
                }
                _ => {
                    let again = text.clone();
                    drop(text.splice(place..place, again));
                }
            }
        }
        text.into_iter().collect()
    })
}

fn any_text() -> impl Strategy<Value = String> {
    let piece = sample::select(PIECES.to_vec());
    prop_oneof![
        4 => damaged(),
        1 => any::<String>(),
        1 => prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat()),
        1 => (sample::select(PIECES.to_vec()), 0..PREDICATE_BYTES_MAX)
            .prop_map(|(piece, times)| piece.repeat(times)),
    ]
}

fn database() -> Database {
    let labels: Labels = [
        ("env", "prod"),
        ("team", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into_iter()
    .collect();
    Database {
        name: "dw-orders".parse::<DatabaseName>().unwrap(),
        description: String::new(),
        labels,
        origin: Origin::Dynamic,
        protocol: Protocol::Postgres,
        uri: "h:5432".parse().unwrap(),
        tls: TlsSettings::default(),
        aws: AwsMetadata::default(),
        kind: None,
        identity: String::new(),
        discovered_name: String::new(),
        unavailable: String::new(),
    }
}

fn cases() -> u32 {
    let set = std::env::var("TIDEGATE_FUZZ_CASES");
    set.map_or(CASES, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic_or_take_long_and_what_is_understood_prints_the_same(
        text in any_text(),
        schema in sample::select(SCHEMAS.to_vec()),
    ) {
        let begun = Instant::now();
        if let Ok(predicate) = Predicate::parse_for(schema, &text) {
            let printed = predicate.to_string();
            let again = Predicate::parse_for(schema, &printed);
            prop_assert_eq!(again.as_ref(), Ok(&predicate), "{}", printed);
            // Within its steps or not at all; either is an answer.
            let _ = predicate.evaluate(&database());
        }
        prop_assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let times = DEPTH_MAX * 2;
    let deep = format!("{}true{}", "(".repeat(times), ")".repeat(times));
    assert!(Predicate::parse(&deep).is_err());
    let long = format!("name == \"{}\"", "a".repeat(PREDICATE_BYTES_MAX));
    assert!(Predicate::parse(&long).is_err());
}
