//! `kind: lock` as people write it.

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_yaml::Spanned;
use tidegate_core::LockTarget;
use tidegate_proto::{convert, v1};

use super::{
    place::{Place, Problem},
    role::one_or_many,
};

const VERSION: &str = "v2";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(dead_code, reason = "told apart before")]
    kind: String,
    version: Spanned<String>,
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    #[expect(dead_code, reason = "it is not asked for")]
    status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: Spanned<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "locks have a message instead")]
    description: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    target: Spanned<Target>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    expires: Option<Timestamp>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; the service says when")]
    created_at: Option<IgnoredAny>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; the service says who")]
    created_by: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Target {
    user: Option<String>,
    role: Option<String>,
    #[serde(alias = "server_id", alias = "node")]
    agent: Option<String>,
    #[serde(alias = "db")]
    database: Option<String>,
    access_request: Option<String>,
}

/// Reads the locks of a document.
pub(super) fn parse(document: &str) -> Result<Vec<v1::Lock>, Vec<Problem>> {
    let written: Vec<Written> = one_or_many(document)?;
    written
        .into_iter()
        .map(|written| lock(written).map_err(|problem| vec![problem]))
        .collect()
}

fn lock(written: Written) -> Result<v1::Lock, Problem> {
    let problem = |place: Place, text: &str| Problem {
        place,
        text: text.to_owned(),
    };
    let (version, name) = (&written.version, &written.metadata.name);
    if version.value != VERSION {
        let text = format!(
            "version `{}` of a lock is not known; write {VERSION}",
            version.value
        );
        return Err(problem(Place::of(version), &text));
    }
    if name.value.is_empty() {
        return Err(problem(Place::of(name), "metadata.name of a lock is empty"));
    }
    let place = Place::of(&written.spec.target);
    let target = written.spec.target.value;
    let target = LockTarget {
        user: target.user,
        role: target.role,
        agent: target.agent,
        database: target.database,
        access_request: target.access_request,
        ..LockTarget::default()
    };
    if target.is_empty() {
        let text =
            "spec.target: names neither a user, a role, an agent, a database nor an access request";
        return Err(problem(place, text));
    }
    Ok(v1::Lock {
        name: written.metadata.name.value,
        target: Some(target.into()),
        message: written.spec.message,
        expires_at: written.spec.expires.map(convert::timestamp),
        ..v1::Lock::default()
    })
}

#[cfg(test)]
mod tests {
    use tidegate_console::{output, resource};

    use super::*;

    #[test]
    fn what_get_prints_can_be_given_back() {
        let text = "kind: lock\nversion: v2\nmetadata: {name: stolen}\nspec:\n  target: {user: alice, server_id: h1}\n  message: laptop stolen\n  expires: 2026-12-01T00:00:00Z\n";
        let locks = parse(text).unwrap();
        let target = locks[0].target.as_ref().unwrap();
        assert_eq!(
            (target.user.as_str(), target.agent.as_str()),
            ("alice", "h1")
        );
        let shown = v1::Lock {
            created_by: "eve".to_owned(),
            created_at: Some(prost_types::Timestamp::default()),
            revision: 3,
            ..locks[0].clone()
        };
        let printed = output::yaml(&resource::Lock::from(&shown)).unwrap();
        assert_eq!(parse(&printed), Ok(locks));
    }

    #[test]
    fn a_lock_without_a_target_is_told_with_its_place() {
        let text = "kind: lock\nversion: v2\nmetadata: {name: x}\nspec:\n  target: {}\n";
        let problems = parse(text).unwrap_err();
        assert_eq!(problems[0].place.line, 5);
        let text = "kind: lock\nversion: v2\nmetadata: {name: x}\nspec:\n  target: {login: root}\n";
        assert_eq!(parse(text).unwrap_err()[0].place.line, 5);
    }
}
