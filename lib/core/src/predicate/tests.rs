use super::*;
use crate::{access::Traits, labels::Labels};

mod laws;

fn facts() -> Facts {
    let labels: Labels = [
        ("env", "prod"),
        ("team", "bi"),
        ("owner", "alice"),
        ("project-a", "x"),
        ("project-b", "y"),
        ("tidegate.dev/origin", "cloud"),
        ("ports", "5439,5440"),
    ]
    .into_iter()
    .collect();
    let traits: Traits = [
        ("teams".to_owned(), vec!["bi".to_owned(), "ops".to_owned()]),
        (
            "email".to_owned(),
            vec!["alice@example.com".to_owned(), "nobody".to_owned()],
        ),
        (
            "env".to_owned(),
            vec!["env-prod".to_owned(), "other".to_owned()],
        ),
    ]
    .into();
    Facts::new()
        .with_text("name", "dw-Orders")
        .with_text("type", "redshift")
        .with_text("user.metadata.name", "alice")
        .with_list("user.spec.roles", ["access", "dba"])
        .with_labels("labels", labels)
        .with_traits("user.spec.traits", traits)
}

fn holds(schema: &'static Schema, text: &str) -> bool {
    match Predicate::parse_for(schema, text) {
        Ok(predicate) => predicate.matches(&facts()),
        Err(error) => panic!("{}", error.with_caret(text)),
    }
}

fn refused(schema: &'static Schema, text: &str) -> PredicateError {
    Predicate::parse_for(schema, text).expect_err(text)
}

#[test]
fn a_query_means_what_it_says() {
    for (text, expected) in [
        (r#"labels["env"] == "prod" && hasPrefix(name, "dw-")"#, true),
        (r#"labels.env == "prod""#, true),
        (r#"labels.project-a == "x""#, true),
        (r#"labels["env"] != "prod""#, false),
        (r#"labels["absent"] == """#, true),
        (r#"labels["teleport.dev/origin"] == "cloud""#, true),
        (r#"resource.metadata.labels["team"] == "bi""#, true),
        (r#"resource.metadata.name == "dw-Orders""#, true),
        ("name == `dw-Orders`", true),
        (r#"labels[type] == """#, true),
        (r#"equals(labels.team, "bi")"#, true),
        (r#"has_prefix(name, "x")"#, false),
        (r#"search("ORDERS", "prod")"#, true),
        (r#"search("orders", "absent")"#, false),
        (r#"search("")"#, true),
        (r#"exists(labels["env"])"#, true),
        ("exists(labels.absent)", false),
        ("exists(name)", true),
        ("exists(description)", false),
        (r#"contains(split(labels["ports"], ","), "5440")"#, true),
        (r#"contains(split(labels["ports"], ","), "54")"#, false),
        (r#"contains(split(labels["ports"], ""), "5439,5440")"#, true),
        (r#"contains(set("prod", "stage"), labels.env)"#, true),
        (r#"contains(labels.env, "prod")"#, true),
        (r#"regexp.match(name, "dw-*")"#, true),
        (r#"regexp.match(name, "^dw-(orders|Orders)$")"#, true),
        (r#"regexp.match(name, "dw")"#, false),
        (r#"strings.lower(name) == "dw-orders""#, true),
        (r#"strings.upper(name) == "DW-ORDERS""#, true),
        (
            r#"regexp.replace(name, "^dw-(.*)$", "$1") == "Orders""#,
            true,
        ),
        (r#"regexp.replace(name, "^x-(.*)$", "$1") == """#, true),
        (r#""b" == "b" && !false || false"#, true),
        ("true || false && false", true),
        ("(true || false) && false", false),
        (r#"!(name == "x")"#, true),
        ("!!true", true),
    ] {
        assert_eq!(holds(&Schema::DATABASE, text), expected, "{text}");
    }
}

#[test]
fn a_label_expression_compares_the_database_with_who_asks() {
    for (text, expected) in [
        (
            r#"contains(user.spec.traits["teams"], labels["team"])"#,
            true,
        ),
        ("contains(user.spec.traits.teams, labels.owner)", false),
        (r#"contains(user.spec.traits["absent"], "")"#, false),
        (r#"exists(user.spec.traits["teams"])"#, true),
        (r#"exists(user.spec.traits["absent"])"#, false),
        (
            r#"contains_any(user.spec.traits["teams"], set("x", "ops"))"#,
            true,
        ),
        (r#"contains_any(user.spec.traits["teams"], set())"#, false),
        (
            r#"contains_all(user.spec.traits["teams"], set("bi", "ops"))"#,
            true,
        ),
        (
            r#"contains_all(user.spec.traits["teams"], set("bi", "x"))"#,
            false,
        ),
        (r#"contains(labels_matching("project-*"), "y")"#, true),
        (
            r#"contains(labels_matching("^project-(a|c)$"), "y")"#,
            false,
        ),
        (
            r#"contains(email.local(user.spec.traits["email"]), labels["owner"])"#,
            true,
        ),
        (
            r#"contains(email.local(user.spec.traits["email"]), "nobody")"#,
            false,
        ),
        (
            r#"contains(regexp.replace(user.spec.traits["env"], "^env-(.*)$", "$1"), labels["env"])"#,
            true,
        ),
        (
            r#"contains(regexp.replace(user.spec.traits["env"], "^env-(.*)$", "$1"), "other")"#,
            false,
        ),
        (
            r#"contains(strings.upper(user.spec.traits["teams"]), "BI")"#,
            true,
        ),
        (r#"regexp.match(user.spec.traits["teams"], "o*")"#, true),
        (r#"user.metadata.name == labels["owner"]"#, true),
        (r#"contains(user.spec.roles, "dba")"#, true),
    ] {
        assert_eq!(holds(&Schema::LABEL_EXPRESSION, text), expected, "{text}");
    }
}

#[test]
fn asking_for_all_of_nothing_is_no_match() {
    assert!(!holds(
        &Schema::LABEL_EXPRESSION,
        r#"contains_all(user.spec.traits["teams"], labels_matching("absent-*"))"#
    ));
}

#[test]
fn a_fault_is_told_with_its_place_and_what_was_expected() {
    for (text, column, said) in [
        (
            "",
            1,
            "expected a field, a function, a text in double quotes or `(`, found the end",
        ),
        (r#"labels["env"] = "prod""#, 15, "expected `==`, found '='"),
        (
            "name == 'x'",
            9,
            r"expected a text in double quotes, found '\''",
        ),
        (
            r#"name == "x"#,
            9,
            "the text that begins here has no closing quote",
        ),
        (
            r#"name == "\d""#,
            10,
            r"unknown escape `\d`: write a backslash twice, or the text in backquotes",
        ),
        (
            r#"nam == "x""#,
            1,
            "a database has no field `nam`: did you mean `name`",
        ),
        (
            r#"hasPrefx(name, "x")"#,
            1,
            "unknown function `hasPrefx`: did you mean `hasPrefix`",
        ),
        ("frobnicate(name)", 1, "unknown function `frobnicate`"),
        (
            "hasPrefix(name)",
            1,
            "1 values given to `hasPrefix`: write `hasPrefix(text, prefix)`",
        ),
        ("name", 1, "expected a condition, this is a text"),
        ("name && true", 1, "expected a condition, this is a text"),
        (
            r#"labels == "x""#,
            1,
            "expected a text to compare, this is all labels: name one, as in `labels[\"env\"]`",
        ),
        (
            r#"split(name, ",") == "x""#,
            1,
            "expected a text to compare, this is a list: use `contains(list, text)`",
        ),
        (
            r#"name["x"] == "y""#,
            1,
            "expected labels or traits before `[`, this is a text",
        ),
        (
            r#"name == "a" == "b""#,
            13,
            "expected `&&`, `||` or the end, found `==`",
        ),
        (r#"(name == "a""#, 13, "expected `)`, found the end"),
        (
            r#"name."x""#,
            6,
            "expected a name after the dot, found the text \"x\"",
        ),
        (
            r#"regexp.match(name, "^(a$")"#,
            20,
            "`^(a$` is not a valid pattern: error: unclosed group",
        ),
        (
            "regexp.match(name, name)",
            20,
            "expected a text in quotes, this is a text",
        ),
        (
            r#"é == "x""#,
            1,
            "expected a name, a text in double quotes or an operator, found 'é'",
        ),
    ] {
        let error = refused(&Schema::DATABASE, text);
        assert_eq!(
            (error.column, error.problem.to_string().as_str()),
            (column, said),
            "{text}"
        );
    }
    let elsewhere = refused(&Schema::LABEL_EXPRESSION, r#"search("x")"#);
    assert_eq!(
        elsewhere.to_string(),
        "at character 1: unknown function `search`"
    );
}

#[test]
fn a_caret_points_at_the_fault() {
    let text = r#"labels["é"] = "prod""#;
    assert_eq!(
        refused(&Schema::DATABASE, text).with_caret(text),
        "labels[\"é\"] = \"prod\"\n            ^ expected `==`, found '='"
    );
    let long = format!("{} &", vec!["true"; 40].join(" && "));
    let shown = refused(&Schema::DATABASE, &long).with_caret(&long);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[0].starts_with('…') && lines[0].chars().count() < 130,
        "{shown}"
    );
    let caret = lines[1].chars().position(|c| c == '^').unwrap();
    assert_eq!(lines[0].chars().nth(caret), Some('&'));
}

#[test]
fn size_depth_parts_and_patterns_are_bounded() {
    let problem = |text: &str| refused(&Schema::DATABASE, text).problem;
    assert_eq!(
        problem(&" ".repeat(PREDICATE_BYTES_MAX + 1)),
        PredicateProblem::TooLong
    );
    let deep = format!("{}true{}", "(".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
    assert_eq!(problem(&deep), PredicateProblem::TooDeep);
    assert_eq!(
        problem(&format!("{}true", "!".repeat(DEPTH_MAX))),
        PredicateProblem::TooDeep
    );
    let wide = vec!["true"; NODES_MAX].join("||");
    assert_eq!(problem(&wide), PredicateProblem::TooManyNodes);
    let patterns = vec![r#"regexp.match(name,"*")"#; PATTERNS_MAX + 1].join("||");
    assert_eq!(problem(&patterns), PredicateProblem::TooManyPatterns);
    let huge = r#"regexp.match(name, "^(a{100}){100}$")"#;
    assert!(matches!(problem(huge), PredicateProblem::Pattern { .. }));
}

#[test]
fn an_evaluation_that_would_run_long_stops_and_is_no_match() {
    let mut growing = "name".to_owned();
    for _ in 0..10 {
        growing = format!(r#"regexp.replace({growing}, "^(.*)$", "$1$1$1$1$1$1$1$1$1$1")"#);
    }
    let predicate = Predicate::parse(&format!(r#"{growing} != """#)).unwrap();
    assert_eq!(predicate.evaluate(&facts()), Err(OverBudget));
    assert!(!predicate.matches(&facts()));

    let many = Facts::new().with_list("roles", vec!["x"; 400]);
    let product = r#"contains_any(roles, split(name, ","))"#;
    let predicate = Predicate::parse_for(&Schema::USER, product).unwrap();
    let many = many.with_text("name", vec!["y"; 400].join(","));
    assert_eq!(predicate.evaluate(&many), Err(OverBudget));
}

#[test]
fn labels_that_a_match_must_have_are_told() {
    for (text, expected) in [
        (
            r#"labels.env == "prod" && name == "x""#,
            vec![("env", "prod")],
        ),
        (
            r#""bi" == labels["team"] && (labels.env == "prod" && exists(name))"#,
            vec![("team", "bi"), ("env", "prod")],
        ),
        (r#"equals(labels.env, "prod")"#, vec![("env", "prod")]),
        (r#"labels.env == "prod" || labels.env == "dev""#, vec![]),
        (r#"!(labels.env == "prod")"#, vec![]),
        (r#"labels.env != "prod""#, vec![]),
        (r#"labels.env == """#, vec![]),
        (r#"labels[name] == "prod""#, vec![]),
    ] {
        let predicate = Predicate::parse(text).unwrap();
        assert_eq!(predicate.required_labels(), expected, "{text}");
    }
}

#[test]
fn many_evaluations_share_one_budget() {
    let predicate = Predicate::parse(r#"name == "dw-Orders""#).unwrap();
    let mut left = 7;
    assert_eq!(predicate.evaluate_within(&facts(), &mut left), Ok(true));
    assert_eq!(left, 4);
    assert_eq!(predicate.evaluate_within(&facts(), &mut left), Ok(true));
    assert_eq!(
        predicate.evaluate_within(&facts(), &mut left),
        Err(OverBudget)
    );
    assert_eq!(left, 0);
}

#[test]
fn every_function_is_found_by_each_of_its_names_and_says_how_to_call_it() {
    for function in functions::FUNCTIONS {
        for name in std::iter::once(function.name).chain(function.also.iter().copied()) {
            assert!(functions::named(name).is_some_and(|found| found.name == function.name));
        }
        assert!(function.usage.starts_with(&format!("`{}(", function.name)));
    }
    let names: Vec<&str> = functions::FUNCTIONS
        .iter()
        .map(|function| function.name)
        .collect();
    assert!(names.is_sorted());
}

#[test]
fn no_two_fields_of_a_schema_share_a_name() {
    for schema in [
        &Schema::DATABASE,
        &Schema::DATABASE_SERVER,
        &Schema::INSTANCE,
        &Schema::PROXY,
        &Schema::DISCOVERY_CONFIG,
        &Schema::SCAN_SCOPE,
        &Schema::USER,
        &Schema::ROLE,
        &Schema::TOKEN,
        &Schema::LOCK,
        &Schema::LABEL_EXPRESSION,
        &Schema::RULE,
        &Schema::REVIEW,
        &Schema::TEMPLATE,
    ] {
        let mut names: Vec<&str> = schema
            .iter()
            .flat_map(|field| std::iter::once(field.path).chain(field.also.iter().copied()))
            .collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before, "{}", schema.kind);
    }
}
