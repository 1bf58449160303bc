//! `kind: role` as people write it.
//!
//! Keys that are not served are refused, not ignored: a role that seems to forbid something and does not would be worse
//! than none. Everything that is wrong is told with its line, as of other resources.

mod written;

use serde::Deserialize;
use serde_json::Value;
use tidegate_core::{Role, access::DbUserMode};
use tidegate_service::settings::Warning;

use super::place::{Place, Problem, problem_of};
use written::{Places, Written};

/// Versions of the shape that are read; they do not differ in what is served.
const VERSIONS: [&str; 6] = ["v3", "v4", "v5", "v6", "v7", "v8"];

/// One resource, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Peek {
    Many(Vec<Value>),
    One(Value),
}

/// Whether a document is about resources of a kind. One that cannot be read is not: the reader of databases says what is
/// wrong.
pub(super) fn is_of_kind(document: &str, wanted: &str) -> bool {
    let fits = |value: &Value| value.get("kind").and_then(Value::as_str) == Some(wanted);
    match serde_yaml::from_str::<Peek>(document) {
        Ok(Peek::One(value)) => fits(&value),
        Ok(Peek::Many(values)) => values.first().is_some_and(fits),
        Err(_) => false,
    }
}

/// Reads the resources of a document that is one of them or a list.
pub(super) fn one_or_many<T>(document: &str) -> Result<Vec<T>, Vec<Problem>>
where
    T: for<'de> Deserialize<'de>,
{
    let read = match serde_yaml::from_str::<Peek>(document) {
        Ok(Peek::Many(_)) => serde_yaml::from_str(document),
        _ => serde_yaml::from_str(document).map(|one| vec![one]),
    };
    read.map_err(|error| vec![problem_of(&error)])
}

/// Reads the roles of a document.
pub(super) fn parse(document: &str) -> Result<(Vec<Role>, Vec<Warning>), Vec<Problem>> {
    let (mut roles, mut warnings, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for written in one_or_many::<Written>(document)? {
        let places = Places::of(&written);
        match role(written, &places) {
            Ok(role) => {
                warnings.extend(unknown_kinds(&role, &places));
                warnings.extend(idle(&role, &places));
                roles.push(role);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok((roles, warnings))
    } else {
        Err(problems)
    }
}

fn role(written: Written, places: &Places) -> Result<Role, Vec<Problem>> {
    let problem = |place: Place, text: String| vec![Problem { place, text }];
    if !VERSIONS.contains(&written.version.value.as_str()) {
        let text = format!(
            "version `{}` of a role is not known; write v7",
            written.version.value
        );
        return Err(problem(Place::of(&written.version), text));
    }
    if written.metadata.name.value.is_empty() {
        let text = "metadata.name of a role is empty".to_owned();
        return Err(problem(Place::of(&written.metadata.name), text));
    }
    let role = Role {
        name: written.metadata.name.value,
        options: written.spec.options.into(),
        allow: written.spec.allow.into(),
        deny: written.spec.deny.into(),
    };
    let problems: Vec<Problem> = role
        .problems()
        .into_iter()
        .map(|found| Problem {
            place: places.find(&found.field),
            text: format!("spec.{found}"),
        })
        .collect();
    if problems.is_empty() {
        Ok(role)
    } else {
        Err(problems)
    }
}

fn unknown_kinds(role: &Role, places: &Places) -> Vec<Warning> {
    let told = |(kind, nearest): (String, Option<String>)| {
        let meant = nearest.map_or(String::new(), |nearest| {
            format!(", did you mean `{nearest}`?")
        });
        Warning {
            line: places.find_kind(&kind).line,
            message: format!(
                "role `{}`: there is no kind of resource `{kind}`{meant}",
                role.name
            ),
        }
    };
    role.unknown_kinds().into_iter().map(told).collect()
}

/// What does less than it says: users are made by Redshift, which removes none.
fn idle(role: &Role, places: &Places) -> Option<Warning> {
    let field = "options.create_db_user_mode";
    let is_dropped = role.options.create_db_user_mode == Some(DbUserMode::BestEffortDrop);
    is_dropped.then(|| Warning {
        line: places.find(field).line,
        message: format!(
            "role `{}`: `spec.{field}: best_effort_drop` does what `keep` does in this version: Redshift makes users \
             and removes none",
            role.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
kind: role
version: v8
metadata: {name: analyst, description: reads}
spec:
  options:
    max_session_ttl: 8h0m0s
    client_idle_timeout: 30m
    disconnect_expired_cert: true
    lock: strict
    max_db_connections: 4
    record_session: {default: best_effort}
    create_db_user_mode: keep
  allow:
    db_labels: {env: [dev, '{{external.env}}'], team: data}
    db_labels_expression: labels[\"env\"] == \"dev\"
    db_users: ['{{internal.db_users}}', reader]
    db_names: ['*']
    db_roles: [viewer]
    rules:
    - resources: [role]
      verbs: [list, read]
      where: equals(resource.metadata.name, \"analyst\")
    request:
      roles: [access]
      thresholds: [{name: two, approve: 2, deny: 1}]
      max_duration: 4h
    review_requests: {roles: [access]}
  deny:
    db_users: [postgres]
";

    fn problems(text: &str) -> Vec<String> {
        let told = |problem: Problem| {
            format!(
                "{}:{} {}",
                problem.place.line, problem.place.column, problem.text
            )
        };
        parse(text).unwrap_err().into_iter().map(told).collect()
    }

    #[test]
    fn the_whole_format_is_read() {
        let (roles, warnings) = parse(WHOLE).unwrap();
        assert!(warnings.is_empty(), "{}", warnings[0].message);
        let role = &roles[0];
        let hour = std::time::Duration::from_secs(3600);
        assert_eq!(role.options.max_session_ttl, Some(8 * hour));
        assert_eq!(role.options.max_db_connections, Some(4));
        assert_eq!(role.allow.db_labels.written()["team"], ["data"]);
        assert_eq!(role.allow.db_roles, ["viewer"]);
        assert!(role.allow.rules[0].filter.is_some());
        assert_eq!(role.allow.request.thresholds[0].approve, 2);
        assert_eq!(role.allow.request.max_duration, Some(4 * hour));
        assert_eq!(role.deny.db_users, ["postgres"]);
    }

    #[test]
    fn users_that_would_have_to_be_removed_are_kept_and_that_is_told() {
        let (_, warnings) = parse(&WHOLE.replace("mode: keep", "mode: best_effort_drop")).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].message.contains("removes none"),
            "{}",
            warnings[0].message
        );
    }

    #[test]
    fn the_whole_format_survives_get_and_create() {
        let (roles, _) = parse(WHOLE).unwrap();
        let printed = tidegate_console::output::yaml(&tidegate_console::resource::Role::from(
            &roles[0].clone().into(),
        ))
        .unwrap();
        assert_eq!(parse(&printed).unwrap().0, roles, "{printed}");
        for builtin in Role::builtin() {
            let printed = tidegate_console::output::yaml(&tidegate_console::resource::Role::from(
                &builtin.clone().into(),
            ))
            .unwrap();
            assert_eq!(parse(&printed).unwrap().0, [builtin], "{printed}");
        }
    }

    #[test]
    fn everything_that_cannot_be_used_is_told_with_its_place() {
        let text = "\
kind: role
version: v7
metadata: {name: a}
spec:
  allow:
    db_users:
    - reader
    - '{{internal.'
    rules:
    - resources: []
      verbs: [list]
    request:
      thresholds:
      - {approve: 0, deny: 1}
";
        let found = problems(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].starts_with("8:7 spec.allow.db_users[1]: "),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("10:7 spec.allow.rules[0].resources: "),
            "{found:?}"
        );
        assert!(
            found[2].starts_with("14:9 spec.allow.request.thresholds[0]: "),
            "{found:?}"
        );
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_line() {
        let role = |spec: &str| {
            format!("kind: role\nversion: v7\nmetadata: {{name: a}}\nspec:\n  allow:\n    {spec}\n")
        };
        for (spec, what) in [
            ("db_labels_expression: 'labels[\"env\"] ='", "expected `==`"),
            ("rules: [{resources: [db], verbs: [reed]}]", "reed"),
            ("logins: [root]", "logins"),
            ("db_labels: {'*': dev}", "*"),
            ("request: {max_duration: soon}", "soon"),
        ] {
            let found = problems(&role(spec));
            assert!(found[0].starts_with("6:"), "{spec}: {found:?}");
            assert!(found[0].contains(what), "{spec}: {found:?}");
        }
    }

    #[test]
    fn a_kind_that_does_not_exist_is_a_warning() {
        let text = "kind: role\nversion: v7\nmetadata: {name: a}\nspec:\n  allow:\n    rules:\n    - {resources: [rols], verbs: [list]}\n";
        let (_, warnings) = parse(text).unwrap();
        assert_eq!(warnings[0].line, 7);
        assert_eq!(
            warnings[0].message,
            "role `a`: there is no kind of resource `rols`, did you mean `role`?"
        );
    }

    #[test]
    fn a_list_of_roles_is_read() {
        let text = r#"[{"kind": "role", "version": "v7", "metadata": {"name": "a"}, "spec": {"deny": {"db_users": ["x"]}}}]"#;
        assert!(is_of_kind(text, "role"));
        let (roles, _) = parse(text).unwrap();
        assert_eq!(roles[0].deny.db_users, ["x"]);
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let text = "kind: role\nversion: v99\nmetadata: {name: a}\nspec: {}\n";
        assert!(problems(text)[0].starts_with("2:10 version `v99`"));
    }
}
