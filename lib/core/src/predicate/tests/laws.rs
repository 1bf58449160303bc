//! What holds for any text and any predicate.

use proptest::prelude::*;

use super::*;

/// Texts as people might write them, quoted.
fn quoted() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| ast::Text::Literal(text).to_string()),
        Just(r#""prod""#.to_owned()),
        Just("`a b`".to_owned()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        quoted(),
        Just("name".to_owned()),
        Just("resource.spec.aws.region".to_owned()),
        Just("labels.env".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 1, |inner| {
        prop_oneof![
            inner.clone().prop_map(|key| format!("labels[{key}]")),
            inner
                .clone()
                .prop_map(|text| format!("strings.upper({text})")),
            inner
                .clone()
                .prop_map(|text| format!("email.local({text})")),
            inner.prop_map(|text| format!(r#"regexp.replace({text}, "^(.*)$", "$1$1")"#)),
        ]
    })
}

fn list() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        prop::collection::vec(text(), 0..4).prop_map(|texts| format!("set({})", texts.join(","))),
        (text(), text()).prop_map(|(text, by)| format!("split({text}, {by})")),
        Just(r#"labels_matching("project-*")"#.to_owned()),
        text().prop_map(|text| format!(r#"strings.lower(split({text}, ","))"#)),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        (text(), text()).prop_map(|(left, right)| format!("{left} == {right}")),
        Just(r#"labels.env == "prod""#.to_owned()),
        (text(), text()).prop_map(|(left, right)| format!("{left} != {right}")),
        (text(), text()).prop_map(|(left, right)| format!("hasPrefix({left}, {right})")),
        (list(), text()).prop_map(|(list, item)| format!("contains({list}, {item})")),
        (list(), list()).prop_map(|(list, items)| format!("contains_any({list}, {items})")),
        (list(), list()).prop_map(|(list, items)| format!("contains_all({list}, {items})")),
        list().prop_map(|list| format!(r#"regexp.match({list}, "a*b")"#)),
        text().prop_map(|word| format!("search({word})")),
        text().prop_map(|key| format!("exists(labels[{key}])")),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|test| format!("!({test})")),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|tests| tests.join(" && ")),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|tests| tests.join("||")),
            inner.prop_map(|test| format!("({test})")),
        ]
    })
}

/// Tokens in any order: nearer to the grammar than bytes, and still mostly wrong.
fn soup() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        "!",
        "&&",
        "||",
        "==",
        "!=",
        "labels",
        "name",
        "true",
        "env",
        "exists",
        "contains",
        "set",
        "search",
        "split",
        "regexp.match",
        "regexp.replace",
        "\"a\"",
        "`^(b$`",
        "\"",
        "\\",
        "é",
        " ",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn parsing_never_panics_and_faults_lie_within_the_text(
        text in prop_oneof![
            any::<String>(),
            soup(),
            prop::collection::vec(any::<u8>(), 0..200)
                .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        ]
    ) {
        if let Err(error) = Predicate::parse(&text) {
            prop_assert!(error.offset <= text.len());
            prop_assert!(error.with_caret(&text).lines().count() == 2);
        }
    }

}

proptest! {
    // Texts of the grammar are long, and patterns are compiled for each.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_printed_predicate_parses_back_to_itself(text in condition()) {
        if let Ok(predicate) = Predicate::parse(&text) {
            let printed = predicate.to_string();
            // The canonical spelling may be longer than what people may write.
            if printed.len() <= PREDICATE_BYTES_MAX {
                prop_assert_eq!(Predicate::parse(&printed), Ok(predicate), "{}", printed);
            }
        }
    }

    #[test]
    fn an_evaluation_never_takes_more_steps_than_it_may(text in condition(), value in any::<String>()) {
        if let Ok(predicate) = Predicate::parse(&text) {
            let mut left = u64::from(STEPS_MAX) * 2;
            let facts = facts().with_text("description", value);
            let _ = predicate.evaluate_within(&facts, &mut left);
            prop_assert!(left >= u64::from(STEPS_MAX));
        }
    }

    #[test]
    fn whatever_matches_has_the_labels_that_are_required(text in condition()) {
        let facts = facts();
        if let Ok(predicate) = Predicate::parse(&text) && predicate.matches(&facts) {
            let labels = facts.labels("labels").unwrap();
            for (key, value) in predicate.required_labels() {
                prop_assert_eq!(labels.get(key), Some(value));
            }
        }
    }

    #[test]
    fn not_and_or_keep_their_laws(left in condition(), right in condition()) {
        let facts = facts();
        let value = |text: String| Predicate::parse(&text).ok()?.evaluate(&facts).ok();
        let both = value(format!("!(({left}) && ({right}))"));
        let either = value(format!("!({left}) || !({right})"));
        if let (Some(both), Some(either)) = (both, either) {
            prop_assert_eq!(both, either);
        }
    }
}
