//! `kind: token` as people write it.
//!
//! What the auth service checks is checked there (names, accounts, patterns, lifetimes), so that every client is told
//! the same; here is what a file alone can tell: its shape, and where in it a mistake is.

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_yaml::Spanned;
use tidegate_proto::{
    convert,
    v1::{self, UpsertTokenRequest},
};

use super::{
    place::{Place, Problem},
    role::one_or_many,
};

const VERSION: &str = "v2";
const METHODS: [&str; 2] = ["token", "iam"];

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
    expires: Option<Timestamp>,
    #[serde(default)]
    #[expect(dead_code, reason = "tokens have none")]
    description: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    roles: Spanned<Vec<String>>,
    #[serde(default)]
    join_method: Option<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Allow>,
    #[serde(default)]
    max_uses: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    #[serde(default)]
    aws_account: String,
    #[serde(default)]
    aws_arn: String,
}

/// Reads the tokens of a document.
pub(super) fn parse(document: &str) -> Result<Vec<UpsertTokenRequest>, Vec<Problem>> {
    let written: Vec<Written> = one_or_many(document)?;
    written
        .into_iter()
        .map(|written| token(written).map_err(|problem| vec![problem]))
        .collect()
}

fn token(written: Written) -> Result<UpsertTokenRequest, Problem> {
    let problem = |place: Place, text: String| Problem { place, text };
    let Written {
        version,
        metadata,
        spec,
        ..
    } = written;
    if version.value != VERSION {
        let text = format!(
            "version `{}` of a token is not known; write {VERSION}",
            version.value
        );
        return Err(problem(Place::of(&version), text));
    }
    if metadata.name.value.is_empty() {
        let text = "metadata.name of a token is empty".to_owned();
        return Err(problem(Place::of(&metadata.name), text));
    }
    if spec.roles.value.is_empty() {
        let text = "spec.roles: names nothing that may join; write Db, Discovery or Proxy";
        return Err(problem(Place::of(&spec.roles), text.to_owned()));
    }
    let place = spec.join_method.as_ref().map(Place::of).unwrap_or_default();
    let method = spec
        .join_method
        .map_or(METHODS[0].to_owned(), |method| method.value);
    if !METHODS.contains(&method.as_str()) {
        let text = format!(
            "spec.join_method: `{method}` is not served; write {}",
            METHODS.join(" or ")
        );
        return Err(problem(place, text));
    }
    let allow = spec.allow.into_iter().map(|allow| v1::TokenAllow {
        aws_account: allow.aws_account,
        aws_arn: allow.aws_arn,
    });
    let token = v1::Token {
        types: spec
            .roles
            .value
            .iter()
            .map(|role| role.to_ascii_lowercase())
            .collect(),
        expires_at: metadata.expires.map(convert::timestamp),
        join_method: method,
        allow: allow.collect(),
        max_uses: spec.max_uses,
        ..v1::Token::default()
    };
    Ok(UpsertTokenRequest {
        token: Some(token),
        name: metadata.name.value,
        replace: false,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_console::{output, resource};

    use super::*;

    const IAM: &str = "\
kind: token
version: v2
metadata:
  # no secret: who joins proves who it is
  name: iam-agents
spec:
  roles: [Db, Discovery]
  join_method: iam
  allow:
  - aws_account: \"111122223333\"
  - aws_account: 444455556666
    aws_arn: arn:aws:sts::444455556666:assumed-role/agents/*
";

    #[test]
    fn a_token_is_read_as_the_known_tools_write_it() {
        let read = parse(IAM).unwrap();
        assert_eq!(read[0].name, "iam-agents");
        let token = read[0].token.as_ref().unwrap();
        assert_eq!(token.types, ["db", "discovery"]);
        assert_eq!(token.join_method, "iam");
        assert_eq!(token.allow[0].aws_account, "111122223333");
        assert_eq!(token.allow[1].aws_account, "444455556666");
        assert!(token.expires_at.is_none());
    }

    #[test]
    fn what_get_prints_of_an_iam_token_can_be_given_back() {
        let read = parse(IAM).unwrap();
        let shown = v1::Token {
            id: read[0].name.clone(),
            uses: 7,
            revision: 3,
            created_by: "eve".to_owned(),
            created_at: Some(prost_types::Timestamp::default()),
            ..read[0].token.clone().unwrap()
        };
        let printed = output::yaml(&resource::Token::from(&shown)).unwrap();
        assert_eq!(parse(&printed), Ok(read));
    }

    #[test]
    fn the_token_of_the_guide_can_be_created() {
        let guide = include_str!("../../../../docs/guides/joining.md");
        let mut blocks = guide.split("```yaml\n").skip(1);
        let block = blocks.find(|block| block.starts_with("kind: token"));
        let text = block.and_then(|block| block.split("```").next());
        let read = parse(text.unwrap()).unwrap();
        assert_eq!(read[0].token.as_ref().unwrap().allow.len(), 2);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let line = |from: &str, to: &str| {
            let problems = parse(&IAM.replace(from, to)).unwrap_err();
            (problems[0].place.line, problems[0].text.clone())
        };
        let (at, text) = line("join_method: iam", "join_method: ec2");
        assert_eq!(at, 8, "{text}");
        assert!(text.contains("`ec2` is not served"), "{text}");
        assert_eq!(line("version: v2", "version: v1").0, 2);
        assert_eq!(line("[Db, Discovery]", "[]").0, 7);
        assert_eq!(line("  allow:", "  suggested_labels: {}\n  allow:").0, 9);
    }
}
