//! Says whether a person may use a database, and why: what an agent would decide now; and what a person may choose from.

use tidegate_core::{
    Database, Request, Subject,
    access::{AllowedValues, Decided, Provisioning},
    locks::LockFacts,
};
use tidegate_proto::{Invalid, convert, v1};

use super::{Access, AccessError, locks};
use crate::inventory::tables::Row as _;

impl Access {
    /// Decides with the roles and traits that a login would give the person now.
    pub(crate) async fn explain(
        &self,
        asked: &v1::ExplainAccessRequest,
    ) -> Result<v1::ExplainAccessResponse, AccessError> {
        if asked.db_user.is_empty() {
            return Err(Invalid::new("db_user", "is missing").into());
        }
        let subject = self.subject(&asked.user).await?;
        let database = self.database(&asked.database)?;
        let policy = self.parts.inventory.roles().policy.clone();
        let request = Request {
            database: &database,
            db_user: &asked.db_user,
            db_name: &asked.db_name,
        };
        let Decided {
            decision,
            explanation,
        } = policy
            .grants(&subject)
            .decide(request, Provisioning::on(&database));
        let lock = self.locks.struck(LockFacts {
            user: Some(&subject.user),
            roles: &subject.roles,
            database: Some(database.name.as_str()),
            ..LockFacts::default()
        });
        let mut lines = Vec::new();
        if let Some(lock) = &lock {
            lines.push(format!(
                "lock `{}` shuts `{}` out: {}",
                lock.name,
                subject.user,
                locks::told(lock)
            ));
        }
        lines.extend(explanation.lines());
        let reason_json =
            serde_json::to_string(&explanation).map_err(|error| AccessError::Internal {
                doing: "writing an explanation",
                source: error.into(),
            })?;
        Ok(v1::ExplainAccessResponse {
            allowed: decision.is_ok() && lock.is_none(),
            lines,
            reason_json,
            lock: lock.map(Into::into),
        })
    }

    /// The database users and logical databases that a person's roles allow on a database.
    pub(crate) fn choices(
        &self,
        subject: &Subject,
        database: &str,
    ) -> Result<v1::DescribeChoicesResponse, AccessError> {
        let found = self.database(database)?;
        let policy = self.parts.inventory.roles().policy.clone();
        let grants = policy.grants(subject);
        if !grants.may_see(&found.labels) {
            return Err(missing("database", database));
        }
        let makes_users = matches!(Provisioning::on(&found), Provisioning::Able { .. })
            && grants.user_mode(&found.labels).is_on();
        let own_db_user = if makes_users { &subject.user } else { "" };
        Ok(v1::DescribeChoicesResponse {
            db_users: Some(choices(grants.db_users(&found.labels))),
            db_names: Some(choices(grants.db_names(&found.labels))),
            own_db_user: own_db_user.to_owned(),
        })
    }

    async fn subject(&self, name: &str) -> Result<Subject, AccessError> {
        let user = self.user(name).await?.and_then(|(_, record)| record.user);
        let user = user.ok_or_else(|| missing("user", name))?;
        Ok(Subject {
            user: user.name,
            roles: user.roles,
            traits: convert::traits(user.traits),
        })
    }

    /// A database of that name, registered or served from an agent's configuration.
    fn database(&self, name: &str) -> Result<Database, AccessError> {
        let message = {
            let look = self.parts.inventory.tables();
            let listed = look.databases.get(name).map(|row| row.message());
            listed.or_else(|| {
                look.servers
                    .range((name.to_owned(), String::new())..)
                    .next()
                    .filter(|((database, _), _)| database == name)
                    .and_then(|(_, row)| row.message().database)
            })
        };
        let message = message.ok_or_else(|| missing("database", name))?;
        Database::try_from(message).map_err(|error| AccessError::Internal {
            doing: "reading a stored database",
            source: error.into(),
        })
    }
}

fn choices(allowed: AllowedValues) -> v1::Choices {
    v1::Choices {
        values: allowed.values,
        except: allowed.except,
    }
}

fn missing(what: &'static str, name: &str) -> AccessError {
    AccessError::NotFound {
        what,
        name: name.chars().take(253).collect(),
    }
}
