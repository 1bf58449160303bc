//! `kind: token`: what may join, and how it proves that it may.
//!
//! The secret of a token is never here: such a token is named by its id, which opens nothing, and which
//! `tgctl create` refuses as a secret because it is too short.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::v1;

use super::{Metadata, Resource, instant};

/// How a token is joined with when nothing is said.
const METHOD_DEFAULT: &str = "token";

/// What may join with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenSpec {
    /// `Db`, `Discovery`, `Proxy`.
    pub roles: Vec<String>,
    /// `token` or `iam`.
    pub join_method: String,
    /// The AWS identities that may join by `iam`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowSpec>,
    /// How many hosts may join; absent is any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
}

/// An AWS identity that may join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AllowSpec {
    /// Its account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub aws_account: String,
    /// A pattern of its ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub aws_arn: String,
}

/// What became of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenStatus {
    /// Hosts that joined with it; absent for tokens of the configuration file, which are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

impl From<&v1::Token> for super::Token {
    fn from(token: &v1::Token) -> Self {
        let status = TokenStatus {
            uses: (!token.is_static).then_some(token.uses),
            created_by: token.created_by.clone(),
            created_at: instant(token.created_at.as_ref()),
        };
        let method = Some(token.join_method.as_str()).filter(|method| !method.is_empty());
        Resource {
            kind: "token",
            version: "v2",
            metadata: Metadata {
                expires: instant(token.expires_at.as_ref()),
                ..Metadata::named(&token.id, token.revision)
            },
            spec: TokenSpec {
                roles: token.types.iter().map(|kind| role(kind)).collect(),
                join_method: method.unwrap_or(METHOD_DEFAULT).to_owned(),
                allow: token.allow.iter().map(AllowSpec::from).collect(),
                max_uses: Some(token.max_uses).filter(|uses| *uses > 0),
            },
            status: Some(status).filter(|status| *status != TokenStatus::default()),
        }
    }
}

impl From<&v1::TokenAllow> for AllowSpec {
    fn from(allow: &v1::TokenAllow) -> Self {
        Self {
            aws_account: allow.aws_account.clone(),
            aws_arn: allow.aws_arn.clone(),
        }
    }
}

/// What may join, as the known tools write it: `Db` for `db`.
fn role(kind: &str) -> String {
    let mut role = kind.to_owned();
    if let Some(first) = role.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    role
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_token_shows_its_id_its_end_and_its_uses() {
        let token = v1::Token {
            id: "0a1b2c3d".to_owned(),
            types: vec!["db".to_owned()],
            expires_at: Some(prost_types::Timestamp {
                seconds: 3600,
                nanos: 0,
            }),
            max_uses: 1,
            uses: 1,
            ..v1::Token::default()
        };
        assert_eq!(
            output::yaml(&resource::Token::from(&token)).unwrap(),
            "\
kind: token
version: v2
metadata:
  name: 0a1b2c3d
  expires: \"1970-01-01T01:00:00Z\"
spec:
  roles:
  - Db
  join_method: token
  max_uses: 1
status:
  uses: 1
"
        );
    }

    #[test]
    fn a_token_of_method_iam_shows_who_may_join() {
        let token = v1::Token {
            id: "agents".to_owned(),
            types: vec!["db".to_owned(), "discovery".to_owned()],
            join_method: "iam".to_owned(),
            allow: vec![v1::TokenAllow {
                aws_account: "111122223333".to_owned(),
                aws_arn: String::new(),
            }],
            is_static: true,
            revision: 4,
            ..v1::Token::default()
        };
        assert_eq!(
            output::yaml(&resource::Token::from(&token)).unwrap(),
            "\
kind: token
version: v2
metadata:
  name: agents
  revision: \"4\"
spec:
  roles:
  - Db
  - Discovery
  join_method: iam
  allow:
  - aws_account: \"111122223333\"
"
        );
    }
}
