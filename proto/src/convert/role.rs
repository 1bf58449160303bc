//! Roles: what they allow and deny.

use tidegate_core::{Role, RoleConditions};

use super::Invalid;
use crate::v1;

impl From<RoleConditions> for v1::RoleConditions {
    fn from(conditions: RoleConditions) -> Self {
        Self {
            db_labels: Some(conditions.db_labels.into()),
            db_users: conditions.db_users,
            db_names: conditions.db_names,
        }
    }
}

impl TryFrom<v1::RoleConditions> for RoleConditions {
    type Error = Invalid;

    fn try_from(conditions: v1::RoleConditions) -> Result<Self, Invalid> {
        Ok(Self {
            db_labels: conditions
                .db_labels
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("db_labels"))?,
            db_users: conditions.db_users,
            db_names: conditions.db_names,
            ..Self::default()
        })
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        Self {
            name: role.name,
            allow: Some(role.allow.into()),
            deny: Some(role.deny.into()),
            revision: 0,
        }
    }
}

impl TryFrom<v1::Role> for Role {
    type Error = Invalid;

    fn try_from(role: v1::Role) -> Result<Self, Invalid> {
        if role.name.is_empty() {
            return Err(Invalid::new("name", "is missing"));
        }
        Ok(Self {
            name: role.name,
            allow: role
                .allow
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("allow"))?,
            deny: role
                .deny
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("deny"))?,
            ..Self::default()
        })
    }
}
