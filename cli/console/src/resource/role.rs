//! `kind: role`: a named set of rights.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_proto::v1;

use super::{Metadata, Resource};

/// What the role grants and forbids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RoleSpec {
    /// What it grants.
    pub allow: ConditionsSpec,
    /// What it forbids, whatever other roles grant.
    pub deny: ConditionsSpec,
}

/// One side of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConditionsSpec {
    /// Which databases.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub db_labels: BTreeMap<String, Vec<String>>,
    /// As which database users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_users: Vec<String>,
    /// On which logical databases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_names: Vec<String>,
}

impl From<&v1::Role> for super::Role {
    fn from(role: &v1::Role) -> Self {
        Resource {
            kind: "role",
            version: "v7",
            metadata: Metadata::named(&role.name, role.revision),
            spec: RoleSpec {
                allow: conditions(role.allow.as_ref()),
                deny: conditions(role.deny.as_ref()),
            },
            status: None,
        }
    }
}

fn conditions(conditions: Option<&v1::RoleConditions>) -> ConditionsSpec {
    let Some(conditions) = conditions else {
        return ConditionsSpec::default();
    };
    let labels = conditions.db_labels.clone().unwrap_or_default().labels;
    ConditionsSpec {
        db_labels: labels
            .into_iter()
            .map(|(key, values)| (key, values.values))
            .collect(),
        db_users: conditions.db_users.clone(),
        db_names: conditions.db_names.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Role;

    use crate::{output, resource};

    #[test]
    fn a_role_is_printed_in_the_known_shape() {
        let access = Role::builtin().into_iter().next().unwrap();
        let text = output::yaml(&resource::Role::from(&access.into())).unwrap();
        assert_eq!(
            text,
            "\
kind: role
version: v7
metadata:
  name: access
spec:
  allow:
    db_labels:
      \"*\":
      - \"*\"
    db_users:
    - \"{{internal.db_users}}\"
    db_names:
    - \"{{internal.db_names}}\"
  deny: {}
"
        );
    }
}
