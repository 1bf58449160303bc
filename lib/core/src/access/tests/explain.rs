//! What explanations show.

use super::*;

#[test]
fn an_explanation_shows_what_each_clause_compared() {
    let mut dev = role("dev", "dev", &["*"], &["*"]);
    dev.deny.db_users = vec!["admin".to_owned()];
    let prod = role("prod", "prod", &["{{internal.db_users}}", "app"], &["dev"]);
    let alice = subject(&["dev", "gone", "prod"], &["reader", "writer"], &[]);
    let decided = decide(&[dev.clone(), prod.clone()], &alice, "postgres");
    assert_eq!(
        decided.explanation.lines().join("\n"),
        "\
`alice` using database `orders` as `postgres` on `dev`: no role allows it
  role `dev`
    deny   db_users             no   `postgres` in admin
    allow  db_labels            no   env = dev; label `env` is `prod`
    allow  db_users             yes  `postgres` in *
    allow  db_names             yes  `dev` in *
  role `gone` does not exist
  role `prod`
    deny   nothing
    allow  db_labels            yes  env = prod
    allow  db_users             no   `postgres` in {{internal.db_users}} (reader, writer), app
    allow  db_names             yes  `dev` in dev
  every part is allowed by some role, but no single role allows all of it"
    );
    let allowed = decide(&[dev.clone(), prod.clone()], &alice, "writer").explanation;
    assert!(allowed.allowed());
    assert!(allowed.lines()[0].ends_with("allowed by role `prod`"));
    let denied = decide(&[dev, prod], &alice, "admin").explanation;
    assert_eq!(
        denied.outcome,
        Outcome::Denied {
            role: "dev".to_owned(),
            clause: Clause::DbUsers
        }
    );
    let json = serde_json::to_value(&denied).unwrap();
    assert_eq!(json["outcome"]["denied"]["clause"], "db_users");
}

#[test]
fn long_lists_are_cut_in_explanations() {
    let users: Vec<String> = (0..20).map(|number| format!("u{number}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let explained = decide(
        &[role("r", "prod", &users, &["*"])],
        &subject(&["r"], &[], &[]),
        "x",
    );
    let lines = explained.explanation.lines().join("\n");
    assert!(lines.contains("u7 and 12 more"), "{lines}");
}
