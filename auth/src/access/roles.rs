//! Roles: the built-in ones are always there and cannot be changed, others come and go.

use tidegate_core::{
    Role,
    access::{ROLE_ACCESS, ROLE_EDITOR},
};
use tidegate_proto::{Invalid, v1};

use super::{Access, AccessError, check_name};
use crate::{keys, record::encode, store::Txn};

/// Most entries of one list of a role.
const ENTRIES_MAX: usize = 1000;

fn is_builtin(name: &str) -> bool {
    [ROLE_ACCESS, ROLE_EDITOR].contains(&name)
}

impl Access {
    /// All roles, the built-in ones included, in name order.
    pub(crate) fn list_roles(&self) -> Vec<v1::Role> {
        self.parts.inventory.roles().messages.clone()
    }

    /// Makes or replaces a role.
    pub(crate) async fn upsert_role(
        &self,
        message: Option<v1::Role>,
    ) -> Result<v1::Role, AccessError> {
        let message = message.ok_or_else(|| Invalid::new("role", "is missing"))?;
        check_name("role.name", &message.name)?;
        refuse_builtin(&message.name)?;
        let role = Role::try_from(message)?;
        for (field, list) in [
            ("role.allow.db_users", &role.allow.db_users),
            ("role.allow.db_names", &role.allow.db_names),
            ("role.deny.db_users", &role.deny.db_users),
            ("role.deny.db_names", &role.deny.db_names),
        ] {
            if list.len() > ENTRIES_MAX {
                return Err(
                    Invalid::new(field, format!("has more than {ENTRIES_MAX} entries")).into(),
                );
            }
        }
        let stored = v1::Role::from(role);
        let txn = Txn::new().put(keys::role(&stored.name), encode(&stored));
        let committed = self.store().commit(txn).await;
        let revision = committed.map_err(|error| AccessError::commit("the role", error))?;
        self.parts.inventory.reached(revision).await;
        Ok(v1::Role { revision, ..stored })
    }

    /// Removes a role that nobody has.
    pub(crate) async fn delete_role(&self, name: &str) -> Result<(), AccessError> {
        refuse_builtin(name)?;
        let missing = || AccessError::NotFound {
            what: "role",
            name: name.to_owned(),
        };
        let entry = self
            .store()
            .get(keys::role(name))
            .await?
            .ok_or_else(missing)?;
        let users = self.list_users().await?;
        if let Some(user) = users
            .iter()
            .find(|user| user.roles.iter().any(|role| role == name))
        {
            let message = format!("user `{}` has role `{name}`: take it away first", user.name);
            return Err(AccessError::forbidden("ROLE_IN_USE", message));
        }
        let txn = Txn::new()
            .at(entry.key.clone(), entry.modified)
            .delete(entry.key);
        let committed = self.store().commit(txn).await;
        let revision = committed.map_err(|error| AccessError::commit("the role", error))?;
        self.parts.inventory.reached(revision).await;
        Ok(())
    }
}

fn refuse_builtin(name: &str) -> Result<(), AccessError> {
    if is_builtin(name) {
        let message = format!("role `{name}` is built in: make one of another name");
        return Err(AccessError::forbidden("BUILTIN_ROLE", message));
    }
    Ok(())
}
