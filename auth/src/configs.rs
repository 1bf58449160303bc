//! `discovery_config` resources: matchers of a group that come and go over the API.
//!
//! Not here: scanning them (workers watch them), and their databases (the ledger's).

use std::sync::Arc;

use tidegate_core::{AwsMatcher, DB_SERVICE_GROUP};
use tidegate_proto::{Invalid, v1};

use crate::{
    audit::{AuditLog, event},
    inventory::Inventory,
    keys,
    named::{self, Refused, Written},
    record::encode,
    store::{Store, StoreUnavailable},
};

/// Longest name of a group.
const GROUP_CHARS_MAX: usize = 256;
/// Most matchers of one configuration.
const MATCHERS_MAX: usize = 1000;
/// Most configurations, since workers are sent all of their group's in one message.
const CONFIGS_MAX: usize = 1000;
/// Largest configuration, in bytes.
const CONFIG_BYTES_MAX: usize = 256 * 1024;

/// Why a configuration was not written or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The revision is not the stored one.
    #[error("discovery_config `{name}` is not at revision {revision} any more: read it again")]
    Conflict {
        /// Its name.
        name: String,
        /// What was expected.
        revision: u64,
    },
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is none.
    #[error("no discovery_config `{0}`")]
    NotFound(String),
    /// There are as many as there may be.
    #[error("there are {CONFIGS_MAX} discovery_configs already: put more matchers into fewer")]
    TooMany,
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// Writes configurations.
pub(crate) struct DiscoveryConfigs {
    /// The state.
    pub(crate) store: Arc<dyn Store>,
    /// What is shown of it.
    pub(crate) inventory: Arc<Inventory>,
    /// Tells what happened.
    pub(crate) audit: AuditLog,
}

impl DiscoveryConfigs {
    /// All of them, in name order.
    pub(crate) fn list(&self) -> Vec<v1::DiscoveryConfig> {
        self.inventory.watch_configs().borrow().to_vec()
    }

    /// Makes or replaces one.
    pub(crate) async fn upsert(
        &self,
        actor: &str,
        message: Option<v1::DiscoveryConfig>,
    ) -> Result<v1::DiscoveryConfig, ConfigError> {
        let message = message.ok_or_else(|| Invalid::new("config", "is missing"))?;
        let expected = message.revision;
        let config = checked(message)?;
        let key = keys::discovery_config(&config.name);
        let has_room = || self.inventory.tables().configs.len() < CONFIGS_MAX;
        let value = encode(&config);
        let written = named::put(self.store.as_ref(), key, value, expected, has_room).await;
        let Written { revision, is_new } = written.map_err(|refused| of(refused, &config.name))?;
        let kind = if is_new {
            event::DISCOVERY_CONFIG_CREATE
        } else {
            event::DISCOVERY_CONFIG_UPDATE
        };
        self.tell(kind, actor, &config.name);
        self.inventory.reached(revision).await;
        Ok(v1::DiscoveryConfig { revision, ..config })
    }

    /// Deletes one.
    pub(crate) async fn delete(&self, actor: &str, name: &str) -> Result<(), ConfigError> {
        let deleted = named::delete(self.store.as_ref(), keys::discovery_config(name)).await;
        let revision = deleted.map_err(|refused| of(refused, name))?;
        self.tell(event::DISCOVERY_CONFIG_DELETE, actor, name);
        self.inventory.reached(revision).await;
        Ok(())
    }

    fn tell(&self, kind: event::Kind, actor: &str, name: &str) {
        let mut made = event::new(kind);
        actor.clone_into(&mut made.user);
        made.fields.insert("name".to_owned(), name.to_owned());
        self.audit.record(made);
    }
}

fn of(refused: Refused, name: &str) -> ConfigError {
    match refused {
        Refused::Conflict(revision) => ConfigError::Conflict {
            name: name.to_owned(),
            revision,
        },
        Refused::Missing => ConfigError::NotFound(name.to_owned()),
        Refused::TooMany => ConfigError::TooMany,
        Refused::Unavailable(unavailable) => unavailable.into(),
    }
}

/// A configuration that workers can use, as it is stored.
fn checked(message: v1::DiscoveryConfig) -> Result<v1::DiscoveryConfig, Invalid> {
    use prost::Message as _;
    named::check_name("config.name", &message.name)?;
    if message.discovery_group.is_empty() {
        let problem = "is missing: say which workers scan it, by their `discovery_group`";
        return Err(Invalid::new("config.discovery_group", problem));
    }
    if message.discovery_group == DB_SERVICE_GROUP {
        let problem = format!(
            "is `{DB_SERVICE_GROUP}`, the group of the workers that run beside database services: give it \
             another name"
        );
        return Err(Invalid::new("config.discovery_group", problem));
    }
    if message.discovery_group.len() > GROUP_CHARS_MAX {
        return Err(Invalid::new("config.discovery_group", "is too long"));
    }
    if message.aws.len() > MATCHERS_MAX || message.encoded_len() > CONFIG_BYTES_MAX {
        let problem =
            format!("are more than {MATCHERS_MAX}, or {CONFIG_BYTES_MAX} bytes: use several");
        return Err(Invalid::new("config.aws", problem));
    }
    let matchers = message.aws.into_iter().enumerate().map(|(place, matcher)| {
        let within = |invalid: Invalid| {
            let field = format!("config.aws[{place}].{}", invalid.field);
            Invalid::new(field, invalid.problem)
        };
        let matcher = AwsMatcher::try_from(matcher).map_err(within)?;
        if matcher.tags.is_empty() {
            let problem = "is empty, which matches nothing: `*: \"*\"` matches everything";
            return Err(within(Invalid::new("tags", problem)));
        }
        Ok(matcher.into())
    });
    Ok(v1::DiscoveryConfig {
        aws: matchers.collect::<Result<_, _>>()?,
        revision: 0,
        ..message
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, group: &str, region: &str) -> v1::DiscoveryConfig {
        v1::DiscoveryConfig {
            name: name.to_owned(),
            discovery_group: group.to_owned(),
            aws: vec![v1::AwsMatcher {
                types: vec!["redshift".to_owned()],
                regions: vec![region.to_owned()],
                ..v1::AwsMatcher::default()
            }],
            revision: 7,
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (config, place) in [
            (config("", "prod", "us-east-1"), "config.name"),
            (config("-x", "prod", "us-east-1"), "config.name"),
            (config("a/b", "prod", "us-east-1"), "config.name"),
            (config("a", "", "us-east-1"), "config.discovery_group"),
            (
                config("a", "db_service", "us-east-1"),
                "config.discovery_group`: is `db_service`",
            ),
            (config("a", "prod", "US East"), "config.aws[0].regions"),
        ] {
            let refused = checked(config).unwrap_err();
            assert!(refused.to_string().contains(place), "{refused}");
        }
    }

    #[test]
    fn what_is_stored_has_no_revision_of_its_own_and_its_defaults_written_out() {
        let stored = checked(config("team.a_1", "prod", "*")).unwrap();
        assert_eq!(stored.revision, 0);
        assert!(stored.aws[0].tags.is_some());
    }
}
