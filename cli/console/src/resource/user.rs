//! `kind: user`: who may log in.

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
    /// How many second factors the person has.
    pub second_factors: u32,
    /// Until when no login is tried, after too many that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_out_until: Option<Timestamp>,
    /// When the user was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
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
                second_factors: user.second_factors,
                locked_out_until: instant(user.locked_out_until.as_ref()),
                created_at: instant(user.created_at.as_ref()),
            }),
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
            second_factors: 1,
            locked_out_until: None,
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
  second_factors: 1
  created_at: \"1970-01-01T00:00:00Z\"
"
        );
    }
}
