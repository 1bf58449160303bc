//! Bad input never panics, and is always told with a place.

use proptest::prelude::*;
use tidegate_service::settings::{self, ConfigError};

use crate::parse;

fn yaml_like() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "tidegate",
        "teleport",
        "db_service",
        "discovery_service",
        "auth_service",
        "proxy_service",
        "enabled",
        "aws",
        "types",
        "regions",
        "tags",
        "resources",
        "databases",
        "labels",
        "name",
        "uri",
        "ca_pin",
        "auth_token",
        ":",
        ": ",
        "\n",
        "\n  ",
        "\n    - ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "*",
        "&a",
        "*a",
        "<<",
        "yes",
        "redshift",
        "'",
        "\"",
        "---\n",
        "!x",
        "|",
        ">",
        "#",
        "%",
        "\t",
        "0",
        "é",
        "\u{0}",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_gives_settings_or_an_error_with_a_place(text in prop_oneof!["\\PC{0,200}", "(?s).{0,200}", yaml_like()]) {
        match parse(&text) {
            Ok(settings) => drop(settings.check_startable()),
            Err(ConfigError::Invalid { problems, .. }) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| problem.line > 0 && problem.column > 0));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
        drop(settings::resource::parse_resources(&text));
    }
}
