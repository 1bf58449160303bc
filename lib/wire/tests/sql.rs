//! What is taken out of statements, and what is not.

use std::borrow::Cow;

use proptest::prelude::*;
use tidegate_wire::sql::{Dialect, Redaction};

fn clean(dialect: Dialect, text: &str) -> String {
    redaction(dialect).apply(text).into_owned()
}

fn redaction(dialect: Dialect) -> Redaction {
    Redaction {
        dialect,
        iam_roles: false,
    }
}

/// `S3CRET` stands for a secret; each line must come out with the mark in its place and nothing else changed.
const POSTGRES: &[&str] = &[
    "ALTER USER bob PASSWORD 'S3CRET'",
    "alter user bob with encrypted password 'S3CRET' valid until '2027-01-01'",
    "CREATE USER a PASSWORD E'S3CRET'; SELECT 'kept'",
    "CREATE USER a PASSWORD $$S3CRET$$",
    "CREATE USER a PASSWORD $x$S3CRET$x$ CREATEDB",
    "CREATE USER a PASSWORD /* the new one */ 'S3CRET'",
    "CREATE USER a PASSWORD -- the new one\n 'S3CRET'",
    "-- ALTER USER bob PASSWORD 'S3CRET'",
    "/* ALTER USER bob PASSWORD 'S3CRET' */ SELECT 1",
    "COPY t FROM 's3://bucket/key' CREDENTIALS 'S3CRET' CSV",
    "COPY t FROM 's3://bucket/key' WITH CREDENTIALS AS 'S3CRET' REGION 'us-east-1'",
    "COPY t FROM 's3://b/k' ACCESS_KEY_ID 'S3CRET' SECRET_ACCESS_KEY 'S3CRET' SESSION_TOKEN 'S3CRET' GZIP",
    "UNLOAD ('select * from t where a = ''b''') TO 's3://b/k' MASTER_SYMMETRIC_KEY 'S3CRET' ENCRYPTED",
    "COPY t FROM 's3://b/k' IAM_ROLE 'arn:aws:iam::1:role/r' MANIFEST",
    "COPY t FROM 's3://b/k' CREDENTIALS 'aws_iam_role=arn:aws:iam::1:role/r'",
    "SHOW x DRIVER_TOKEN 'S3CRET'",
    "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'bob', password 'S3CRET')",
    "CREATE SUBSCRIPTION s CONNECTION 'host=h password=S3CRET user=bob' PUBLICATION p",
    "SELECT dblink('host=h password=''S3CRET'' dbname=d', 'select 1')",
    "SELECT dblink_connect('postgresql://bob:S3CRET@host:5432/db?sslmode=require')",
    "SELECT 'postgresql://host/db?user=a&password=S3CRET&sslmode=require'",
    "DO $$ BEGIN EXECUTE 'ALTER USER bob PASSWORD ''S3CRET'''; END $$",
    "EXECUTE 'ALTER USER bob PASSWORD ' || quote_literal(p)",
    "SELECT * FROM users WHERE password = 'S3CRET' AND name = 'bob'",
    "SELECT * FROM users WHERE \"password\" <> 'S3CRET'",
    "SELECT * FROM users WHERE password = other_column AND name = 'bob'",
    "SELECT 'the password is wrong', 'kept'",
    "SELECT password, 'kept' FROM users",
    "UNLOAD ('select password from users') TO 's3://b/k'",
    "INSERT INTO j VALUES ('{\"user\": \"bob\", \"password\": \"S3CRET\", \"a\": 1}')",
    "ALTER USER bob PASSWORD DISABLE",
    "ALTER USER bob PASSWORD NULL; SELECT 'kept'",
    "SELECT 1 AS password",
    "SELECT f('x', 'access_key_id', 'kept')",
];

const MYSQL: &[&str] = &[
    "CREATE USER a IDENTIFIED BY 'S3CRET'",
    "CREATE USER a IDENTIFIED BY \"S3CRET\" COMMENT 'kept'",
    "CREATE USER a IDENTIFIED BY 'S3CRET', b IDENTIFIED WITH caching_sha2_password BY 'S3CRET'",
    "CREATE USER a IDENTIFIED WITH 'mysql_native_password' AS 'S3CRET'",
    "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('S3CRET') OR unix_socket",
    "ALTER USER a IDENTIFIED BY 'S3CRET' REPLACE 'S3CRET' RETAIN CURRENT PASSWORD",
    "SET PASSWORD FOR 'bob'@'%' = 'S3CRET'",
    "SET PASSWORD = PASSWORD('S3CRET')",
    "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='S3CRET', MASTER_PORT=1",
    "CREATE USER a IDENTIFIED BY _utf8mb4 'S3CRET'",
    "CREATE USER a # don't\n IDENTIFIED BY 'S3CRET'",
    "/*!50700 ALTER USER a IDENTIFIED BY 'S3CRET' */",
    "SELECT * FROM `users` WHERE `password` = 'S3CRET'",
    "SELECT 'it\\'s', 'kept'",
];

fn as_it_should_be(text: &str) -> String {
    text.replace("S3CRET", Redaction::MARK)
}

#[test]
fn secrets_go_and_everything_else_stays() {
    for (dialect, texts) in [(Dialect::Postgres, POSTGRES), (Dialect::Mysql, MYSQL)] {
        for text in texts {
            assert_eq!(clean(dialect, text), as_it_should_be(text), "of {text}");
        }
    }
}

#[test]
fn a_backslash_is_read_both_ways() {
    for text in [
        r"ALTER USER a PASSWORD 'x\'S3CRET'",
        r"SELECT 'a\' , 'b', 'c\'' PASSWORD 'S3CRET'",
        r"SELECT 'a\', '', PASSWORD 'S3CRET'",
        r"SELECT 'a\'', PASSWORD 'S3CRET'",
    ] {
        for dialect in [Dialect::Postgres, Dialect::Mysql] {
            let clean = clean(dialect, text);
            assert!(!clean.contains("S3CRET"), "{text} became {clean}");
        }
    }
}

#[test]
fn joined_literals_are_one_value() {
    let text = "ALTER USER a PASSWORD 'S3' || 'CR'\n'ET' VALID UNTIL 'kept'";
    assert_eq!(
        clean(Dialect::Postgres, text),
        "ALTER USER a PASSWORD '***' || '***'\n'***' VALID UNTIL 'kept'"
    );
}

#[test]
fn roles_go_where_that_is_asked_for() {
    let redaction = Redaction {
        dialect: Dialect::Postgres,
        iam_roles: true,
    };
    for text in [
        "COPY t FROM 's3://b/k' IAM_ROLE 'S3CRET' CSV",
        "COPY t FROM 's3://b/k' CREDENTIALS 'S3CRET' CSV",
    ] {
        assert_eq!(redaction.apply(text), as_it_should_be(text));
    }
    let role = "COPY t FROM 's3://b/k' CREDENTIALS 'aws_iam_role=arn:aws:iam::1:role/r' CSV";
    assert!(!redaction.apply(role).contains("arn:"));
    assert_eq!(
        redaction.apply("COPY t FROM 's3://b/k' IAM_ROLE default CSV"),
        "COPY t FROM 's3://b/k' IAM_ROLE default CSV"
    );
}

#[test]
fn the_old_credentials_string_goes_wherever_it_stands() {
    let text = "COPY t FROM 's3://b/k' 'aws_access_key_id=S3CRET;aws_secret_access_key=S3CRET;token=S3CRET' CSV";
    assert_eq!(clean(Dialect::Postgres, text), as_it_should_be(text));
}

/// A secret as a literal of one of the ways to write it, and what must not be seen of it: runs of letters and digits.
fn literal() -> impl Strategy<Value = (String, Vec<String>)> {
    let runs = proptest::collection::vec(("[A-Z0-9]{5,9}", "['\"\\\\ ;=$a,|/*#-]{0,2}"), 1..4);
    (runs, 0..4_u8).prop_map(|(runs, form)| {
        let secret: String = runs
            .iter()
            .flat_map(|(run, between)| [&**run, between])
            .collect();
        let seen = runs.into_iter().map(|(run, _)| run).collect();
        let written = match form {
            0 => format!("'{}'", secret.replace('\'', "''").replace('\\', "")),
            1 => format!("'{}'", secret.replace('\\', "\\\\").replace('\'', "''")),
            2 => format!("E'{}'", secret.replace('\\', "\\\\").replace('\'', "\\'")),
            _ => format!("$q${}$q$", secret.replace("$q$", "")),
        };
        (written, seen)
    })
}

fn clause() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "ALTER USER bob PASSWORD ",
        "COPY t FROM 's3://b/k' SECRET_ACCESS_KEY ",
        "COPY t FROM 's3://b/k' CREDENTIALS AS ",
        "CREATE USER bob IDENTIFIED BY ",
        "SELECT * FROM t WHERE password = ",
    ])
}

/// Whether four characters in a row of a run are there to be seen.
fn shows(text: &str, runs: &[String]) -> bool {
    runs.iter()
        .any(|run| (0..=run.len() - 4).any(|at| text.contains(&run[at..at + 4])))
}

proptest! {
    #[test]
    fn no_part_of_a_secret_comes_out_wherever_the_text_is_cut(
        clause in clause(), (literal, runs) in literal(), cut in 0.0..1.0_f64, nested in 0..3_usize,
    ) {
        let mut text = format!("{clause}{literal} ");
        for _ in 0..nested {
            text = format!("EXECUTE '{}'", text.replace('\'', "''"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short text")]
        let end = (text.len() as f64 * (1.0 - cut)) as usize;
        for text in [&text[..], &text[..end]] {
            for dialect in [Dialect::Postgres, Dialect::Mysql] {
                if dialect == Dialect::Mysql && literal.starts_with(['E', '$']) {
                    continue;
                }
                let clean = clean(dialect, text);
                prop_assert!(!shows(&clean, &runs), "{text} became {clean}");
            }
        }
    }

    #[test]
    fn any_text_is_taken_and_what_stays_stays_in_order(text in "(?s)([ -)+-~]|PASSWORD|IDENTIFIED BY|password=|credentials|'|\\\\|\\$\\$|://|é|\n){0,60}") {
        for dialect in [Dialect::Postgres, Dialect::Mysql] {
            let clean = clean(dialect, &text);
            let mut rest = &text[..];
            for part in clean.split(Redaction::MARK) {
                let at = rest.find(part);
                prop_assert!(at.is_some(), "{text} became {clean}");
                rest = &rest[at.unwrap_or_default() + part.len()..];
            }
        }
    }

    #[test]
    fn what_names_no_secret_stays_as_it_is(text in "[a-oq-z '\"$;=()\\\\-]{0,80}") {
        for dialect in [Dialect::Postgres, Dialect::Mysql] {
            let redaction = redaction(dialect);
            prop_assume!(!text.contains("identified") && !text.contains("credentials"));
            prop_assert!(matches!(redaction.apply(&text), Cow::Borrowed(_)));
        }
    }
}
