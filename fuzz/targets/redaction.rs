//! Statements without their secrets: what stays, stays in order; what stands in a clause for a secret goes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::sql::{Dialect, Redaction};

const CLAUSES: [&str; 4] = [
    "ALTER USER bob PASSWORD ",
    "COPY t FROM 's3://b/k' SECRET_ACCESS_KEY ",
    "CREATE USER bob IDENTIFIED BY ",
    "COPY t FROM 's3://b/k' CREDENTIALS AS ",
];

fuzz_target!(|input: (bool, bool, &str)| {
    let (mysql, iam_roles, text) = input;
    let redaction = Redaction {
        dialect: if mysql {
            Dialect::Mysql
        } else {
            Dialect::Postgres
        },
        iam_roles,
    };
    let clean = redaction.apply(text);
    if !text.contains('*') {
        let mut rest = text;
        for part in clean.split(Redaction::MARK) {
            let at = rest.find(part).expect("what stays is of the text");
            rest = &rest[at + part.len()..];
        }
    }
    // A literal of a secret, behind any clause, and quoted once more as the text of another.
    let secret = format!("S3CRET{}S3CRET", text.replace('\\', "\\\\"));
    let literal = format!("'{}'", secret.replace('\'', "''"));
    for clause in CLAUSES {
        let statement = format!("{clause}{literal}");
        let nested = format!("EXECUTE '{}'", statement.replace('\'', "''"));
        for statement in [statement, nested] {
            let clean = redaction.apply(&statement);
            assert!(!clean.contains("S3CRET"), "{statement} became {clean}");
        }
    }
});
