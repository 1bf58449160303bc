//! Every format is read back by its own grammar, with names and paths that nobody should choose.

use proptest::prelude::*;

use super::{mysql, percent, postgres, python_text};
use crate::db::{
    certificate::{Certificate, Route},
    target::{Target, exports},
};

/// Characters that mean something somewhere.
const NASTY: &[char] = &[
    'a', 'Z', '7', '\'', '"', '\\', ' ', '=', '&', '?', '#', '%', '+', '@', ':', '/', ';', '{',
    '}', '[', ']', '|', '$', '`', '!', ',', '<', '>', '~', '*', '(', ')', '\t', '\n', 'é', '日',
    '😀',
];

fn nasty() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(NASTY), 1..10).prop_map(String::from_iter)
}

fn target(user: &str, name: &str, path: &str) -> Target {
    let certificate = Certificate {
        route: Route {
            database: "orders".to_owned(),
            db_user: user.to_owned(),
            db_name: Some(name.to_owned()),
        },
        chain_file: format!("/c{path}/o.pem").into(),
        key_file: format!("/c{path}/o.key").into(),
    };
    Target::of_parts(&certificate, "orders.db.example.com", format!("/ca{path}"))
}

/// libpq's `conninfo_parse`: the last value of a keyword counts.
fn conninfo(text: &str) -> Vec<(String, String)> {
    let mut chars = text.chars().peekable();
    let mut pairs = Vec::new();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return pairs;
        }
        let keyword: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
        assert_eq!(chars.next(), Some('='), "{text}");
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_ascii_whitespace() => break,
                Some(c) => value.push(c),
                None => {
                    assert!(!quoted, "{text}");
                    break;
                }
            }
        }
        pairs.push((keyword, value));
    }
}

fn decoded(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match first {
            b'%' => {
                let digits = std::str::from_utf8(&tail[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                &tail[2..]
            }
            b'+' if plus_is_space => {
                bytes.push(b' ');
                tail
            }
            other => {
                bytes.push(*other);
                tail
            }
        };
    }
    String::from_utf8(bytes).unwrap()
}

/// `user`, `path` and parameters of a URL.
fn url(text: &str, plus_is_space: bool) -> (String, String, Vec<(String, String)>) {
    let (_, rest) = text.trim_end_matches('\n').split_once("://").unwrap();
    let (before, query) = rest.split_once('?').unwrap();
    let (authority, path) = before.split_once('/').unwrap();
    let user = authority.split_once('@').map_or("", |(user, _)| user);
    let pairs = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), decoded(value, plus_is_space))
    });
    (
        decoded(user, plus_is_space),
        decoded(path, plus_is_space),
        pairs.collect(),
    )
}

fn value<'p>(pairs: &'p [(String, String)], name: &str) -> &'p str {
    let found: Vec<&str> = pairs
        .iter()
        .filter(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(found.len(), 1, "{name} in {pairs:?}");
    found[0]
}

/// Pairs of an ODBC connection string.
fn odbc(text: &str) -> Vec<(String, String)> {
    let mut chars = text.trim_end_matches('\n').chars().peekable();
    let mut pairs = Vec::new();
    while chars.peek().is_some() {
        let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
        assert_eq!(chars.next(), Some('='), "{text}");
        let mut value = String::new();
        if chars.next_if_eq(&'{').is_some() {
            loop {
                match chars.next().expect("a closing brace") {
                    '}' if chars.next_if_eq(&'}').is_some() => value.push('}'),
                    '}' => break,
                    other => value.push(other),
                }
            }
        } else {
            value = std::iter::from_fn(|| chars.next_if(|c| *c != ';')).collect();
        }
        assert!(matches!(chars.next(), None | Some(';')), "{text}");
        pairs.push((name, value));
    }
    pairs
}

proptest! {
    #[test]
    fn a_conninfo_is_read_back_as_it_was_meant(user in nasty(), name in nasty(), path in nasty()) {
        let target = target(&user, &name, &path);
        let pairs = conninfo(&target.conninfo());
        prop_assert_eq!(value(&pairs, "user"), user);
        prop_assert_eq!(value(&pairs, "dbname"), name);
        prop_assert_eq!(value(&pairs, "sslkey"), target.key_file());
        prop_assert_eq!(value(&pairs, "sslmode"), "verify-full");
    }

    #[test]
    fn urls_are_read_back_as_they_were_meant(user in nasty(), name in nasty(), path in nasty()) {
        let target = target(&user, &name, &path);
        let (url_user, url_name, pairs) = url(&postgres::url(&target), false);
        prop_assert_eq!(&url_user, &user);
        prop_assert_eq!(&url_name, &name);
        prop_assert_eq!(value(&pairs, "sslcert"), target.chain_file());
        prop_assert_eq!(value(&pairs, "sslmode"), "verify-full");

        let (_, jdbc_name, pairs) = url(&postgres::jdbc(&target), true);
        prop_assert_eq!(&jdbc_name, &name);
        prop_assert_eq!(value(&pairs, "user"), user);
        prop_assert_eq!(value(&pairs, "sslkey"), target.der_key_file());
        prop_assert_eq!(value(&pairs, "sslmode"), "verify-full");
    }

    #[test]
    fn an_odbc_string_is_read_back_as_it_was_meant(user in nasty(), name in nasty(), path in nasty()) {
        let target = target(&user, &name, &path);
        let pairs = odbc(&postgres::odbc(&target));
        prop_assert_eq!(value(&pairs, "UID"), user);
        prop_assert_eq!(value(&pairs, "Database"), name);
        prop_assert_eq!(value(&pairs, "SSLmode"), "verify-full");
        let libpq = conninfo(value(&pairs, "pqopt"));
        prop_assert_eq!(value(&libpq, "sslkey"), target.key_file());
        prop_assert_eq!(value(&libpq, "sslrootcert"), target.ca_file());
    }

    #[test]
    fn documents_are_read_back_as_they_were_meant(user in nasty(), name in nasty(), path in nasty()) {
        let target = target(&user, &name, &path);
        let text = postgres::dbt(&target, "orders").unwrap();
        let profile: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let output = &profile["orders"]["outputs"]["tidegate"];
        let rendered = |field: &str| output[field].as_str().unwrap().replace("{{ '{' }}", "{");
        // Nothing but our own templates begins like one.
        for field in ["user", "dbname", "sslkey"] {
            let left = output[field].as_str().unwrap().replace("{{ '{' }}", "");
            prop_assert!(!left.contains('{'), "{}", text);
        }
        prop_assert_eq!(rendered("user"), user);
        prop_assert_eq!(rendered("dbname"), name);
        prop_assert_eq!(rendered("sslkey"), target.key_file());

        let text = postgres::dbeaver(&target, "orders").unwrap();
        let sources: serde_json::Value = serde_json::from_str(&text).unwrap();
        let url = sources["connections"]["tidegate-orders"]["configuration"]["url"].as_str();
        let jdbc = postgres::jdbc(&target);
        prop_assert_eq!(url, Some(jdbc.trim_end()));
    }

    #[test]
    fn a_text_for_python_stays_on_its_line_and_in_its_quotes(text in nasty()) {
        let literal = python_text(&text).unwrap();
        prop_assert!(!literal.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), text);
    }

    #[test]
    fn percent_encoding_leaves_only_what_means_nothing(text in nasty()) {
        let encoded = percent(&text);
        prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
        prop_assert_eq!(decoded(&encoded, true), text);
    }
}

#[test]
fn a_shell_reads_commands_and_exports_as_they_were_meant() {
    let all: String = NASTY.iter().collect();
    for nasty in [all.as_str(), "-x", "a b", "$(id)", "it's", "`id`", "a\nb"] {
        let target = target(nasty, nasty, nasty);
        let script = format!(
            "psql() {{ printf '%s' \"$1\"; }}\n{}",
            postgres::command(&target)
        );
        assert_eq!(sh(&script), target.conninfo(), "{script}");
        let script = format!(
            "{}printf '%s' \"$PGUSER$PGSSLKEY\"",
            exports(&target.environment())
        );
        let meant = format!("{nasty}{}", target.key_file());
        assert_eq!(sh(&script), meant, "{script}");
    }
}

fn sh(script: &str) -> String {
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_url_of_several_addresses_names_the_host_for_each() {
    let target = target("u", "n", "").at_addresses(&["10.0.0.1", "10.0.0.2"]);
    let url = postgres::url(&target);
    assert!(
        url.starts_with(
            "postgresql://u@orders.db.example.com:3080,orders.db.example.com:3080/n?hostaddr=10.0.0.1%2C10.0.0.2&"
        ),
        "{url}"
    );
}

#[test]
fn dbt_is_not_given_a_profile_without_a_database() {
    let mut certificate = Certificate {
        route: Route {
            database: "orders".to_owned(),
            db_user: "reader".to_owned(),
            db_name: None,
        },
        chain_file: "/c.pem".into(),
        key_file: "/k.key".into(),
    };
    let target = Target::of_parts(&certificate, "h", "/ca".to_owned());
    let failure = postgres::dbt(&target, "orders").unwrap_err();
    assert!(
        failure.hint_text().unwrap().contains("--db-name"),
        "{failure}"
    );
    super::open(&mut certificate, Some("sales".to_owned())).unwrap();
    assert_eq!(certificate.route.db_name.as_deref(), Some("sales"));
    let other = super::open(&mut certificate, Some("other".to_owned())).unwrap_err();
    assert!(
        other.hint_text().unwrap().contains("tg db login"),
        "{other}"
    );
}

#[test]
fn pymysql_is_told_files_and_names() {
    let target = target("o'brien", "sales", "").at_port(mysql::PORT);
    assert_eq!(
        mysql::python(&target).unwrap(),
        "import pymysql\n\nconnection = pymysql.connect(\n    host=\"orders.db.example.com\",\n    port=3036,\n    \
         user=\"o'brien\",\n    database=\"sales\",\n    ssl={\"ca\": \"/ca\", \"cert\": \"/c/o.pem\", \"key\": \
         \"/c/o.key\"},\n)\n"
    );
}
