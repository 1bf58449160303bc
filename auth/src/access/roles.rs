//! Roles: the built-in ones are always there and cannot be changed, others come and go.

use tidegate_core::Role;
use tidegate_proto::{Invalid, v1};

use super::{Access, AccessError, check_name};
use crate::{audit::event, keys, record::encode, store::Txn};

/// Most people who are named when a role cannot be removed.
const HOLDERS_NAMED_MAX: usize = 5;

impl Access {
    /// All roles, the built-in ones included, in name order.
    pub(crate) fn list_roles(&self) -> Vec<v1::Role> {
        self.parts.inventory.roles().messages.clone()
    }

    /// Makes or replaces a role.
    pub(crate) async fn upsert_role(
        &self,
        actor: &str,
        message: Option<v1::Role>,
    ) -> Result<v1::Role, AccessError> {
        let message = message.ok_or_else(|| Invalid::new("role", "is missing"))?;
        check_name("role.name", &message.name)?;
        refuse_builtin(&message.name)?;
        let asked = message.revision;
        let role = Role::try_from(message).map_err(|invalid| invalid.within("role"))?;
        refuse_problems(&role)?;
        for (kind, known) in role.unknown_kinds() {
            tracing::info!(
                role = role.name,
                kind,
                nearest = known,
                "a role's rule names a kind of resource that this service has none of"
            );
        }
        let key = keys::role(&role.name);
        let before = self.store().get(key.clone()).await?;
        let stored = v1::Role::from(role);
        let mut txn = Txn::new().put(key.clone(), encode(&stored));
        if asked != 0 {
            txn = txn.at(key, asked);
        }
        let committed = self.store().commit(txn).await;
        let revision = committed.map_err(|error| AccessError::commit("the role", error))?;
        let kind = match before {
            None => event::ROLE_CREATED,
            Some(_) => event::ROLE_UPDATED,
        };
        self.tell_role(kind, actor, &stored.name);
        self.parts.inventory.reached(revision).await;
        Ok(v1::Role { revision, ..stored })
    }

    /// Removes a role that nobody has.
    pub(crate) async fn delete_role(&self, actor: &str, name: &str) -> Result<(), AccessError> {
        refuse_builtin(name)?;
        let missing = || AccessError::NotFound {
            what: "role",
            name: name.chars().take(128).collect(),
        };
        let entry = self
            .store()
            .get(keys::role(name))
            .await?
            .ok_or_else(missing)?;
        let users = self.list_users().await?;
        let holders: Vec<&str> = users
            .iter()
            .filter(|user| user.roles.iter().any(|role| role == name))
            .map(|user| user.name.as_str())
            .collect();
        if !holders.is_empty() {
            return Err(AccessError::forbidden(
                "ROLE_IN_USE",
                in_use(name, &holders),
            ));
        }
        let txn = Txn::new()
            .at(entry.key.clone(), entry.modified)
            .delete(entry.key);
        let committed = self.store().commit(txn).await;
        let revision = committed.map_err(|error| AccessError::commit("the role", error))?;
        self.tell_role(event::ROLE_DELETED, actor, name);
        self.parts.inventory.reached(revision).await;
        Ok(())
    }

    fn tell_role(&self, kind: event::Kind, actor: &str, name: &str) {
        let mut told = event::new(kind);
        actor.clone_into(&mut told.user);
        told.fields.insert("name".to_owned(), name.to_owned());
        self.parts.audit.record(told);
    }
}

fn refuse_builtin(name: &str) -> Result<(), AccessError> {
    if Role::is_builtin(name) {
        let message = format!("role `{name}` is built in: make one of another name");
        return Err(AccessError::forbidden("BUILTIN_ROLE", message));
    }
    Ok(())
}

/// Refuses a role with parts that allow nothing and deny everything because they cannot be read.
fn refuse_problems(role: &Role) -> Result<(), AccessError> {
    let mut problems = role.problems();
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &mut problems {
        problem.field.insert_str(0, "role.");
    }
    Err(AccessError::Role(problems))
}

fn in_use(name: &str, holders: &[&str]) -> String {
    let named: Vec<String> = holders
        .iter()
        .take(HOLDERS_NAMED_MAX)
        .map(|holder| format!("`{holder}`"))
        .collect();
    let mut who = named.join(", ");
    if holders.len() > HOLDERS_NAMED_MAX {
        let more = holders.len() - HOLDERS_NAMED_MAX;
        who.push_str(&format!(" and {more} more"));
    }
    format!("role `{name}` is given to {who}: take it away first")
}
