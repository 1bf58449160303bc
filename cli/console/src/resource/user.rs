//! `kind: user` and `kind: token`: who may log in, and what may join.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::{convert, v1};

use super::{Metadata, Resource, instant};

/// What a person may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UserSpec {
    /// Names of roles.
    pub roles: Vec<String>,
    /// Values that role templates refer to: `db_users`, `db_names`.
    pub traits: BTreeMap<String, Vec<String>>,
}

/// What is known of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UserStatus {
    /// Whether a password was set.
    pub signed_up: bool,
    /// When the user was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// What may join with a token. The secret is never listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenSpec {
    /// `db`, `discovery`, `proxy`.
    pub types: Vec<String>,
}

impl From<&v1::User> for super::User {
    fn from(user: &v1::User) -> Self {
        Resource {
            kind: "user",
            version: "v2",
            metadata: Metadata::named(&user.name, user.revision),
            spec: UserSpec {
                roles: user.roles.clone(),
                traits: convert::traits(user.traits.clone()),
            },
            status: Some(UserStatus {
                signed_up: user.signed_up,
                created_at: instant(user.created_at.as_ref()),
            }),
        }
    }
}

impl From<&v1::Token> for super::Token {
    fn from(token: &v1::Token) -> Self {
        Resource {
            kind: "token",
            version: "v2",
            metadata: Metadata {
                expires: instant(token.expires_at.as_ref()),
                ..Metadata::named(&token.id, 0)
            },
            spec: TokenSpec {
                types: token.types.clone(),
            },
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_user_is_printed_in_the_known_shape() {
        let user = v1::User {
            name: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            traits: [(
                "db_users".to_owned(),
                v1::LabelValues {
                    values: vec!["*".to_owned()],
                },
            )]
            .into(),
            created_at: Some(prost_types::Timestamp {
                seconds: 0,
                nanos: 0,
            }),
            signed_up: true,
            revision: 3,
        };
        assert_eq!(
            output::yaml(&resource::User::from(&user)).unwrap(),
            "\
kind: user
version: v2
metadata:
  name: alice
  revision: \"3\"
spec:
  roles:
  - access
  traits:
    db_users:
    - \"*\"
status:
  signed_up: true
  created_at: \"1970-01-01T00:00:00Z\"
"
        );
    }

    #[test]
    fn a_token_shows_its_id_and_its_end() {
        let token = v1::Token {
            id: "0a1b2c3d".to_owned(),
            types: vec!["db".to_owned()],
            expires_at: Some(prost_types::Timestamp {
                seconds: 3600,
                nanos: 0,
            }),
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
  types:
  - db
"
        );
    }
}
