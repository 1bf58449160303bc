//! `health_check_config` resources: how agents check the databases that they serve.
//!
//! They are read whole from the store after each change and kept in memory, from where listings and watches are served.
//!
//! Invariant: there always is one called `default`: the one that somebody wrote, else the preset.
//!
//! Not here: which of them is whose ([`tidegate_core::health`]); checking (the database service).

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::StreamExt as _;
use tidegate_core::{HealthCheckConfig, health::DEFAULT};
use tidegate_proto::{Invalid, v1};
use tidegate_service::{rpc::Backoff, tasks::ShutdownToken};
use tokio::sync::watch as cell;

use crate::{
    audit::{AuditLog, event},
    keys,
    named::{self, Refused, Written},
    record::{decode, encode},
    store::{RangeQuery, Store, StoreUnavailable, WatchError, Watched},
};

/// Longest description.
const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Most configurations, since agents are sent all of them in one message.
const CONFIGS_MAX: usize = 100;
/// Largest configuration, in bytes.
const CONFIG_BYTES_MAX: usize = 32 * 1024;

/// Why a configuration was not written or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthConfigError {
    /// The revision is not the stored one.
    #[error("health_check_config `{name}` is not at revision {revision} any more: read it again")]
    Conflict {
        /// Its name.
        name: String,
        /// What was expected.
        revision: u64,
    },
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is none, or only the preset.
    #[error("nobody wrote a health_check_config `{0}`")]
    NotFound(String),
    /// There are as many as there may be.
    #[error("there are {CONFIGS_MAX} health_check_configs already: delete one")]
    TooMany,
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// One reading of the configurations.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The store's revision that was read.
    revision: u64,
    /// In name order, the preset included.
    configs: Arc<Vec<v1::HealthCheckConfig>>,
}

/// The configurations of the cluster.
pub(crate) struct HealthConfigs {
    store: Arc<dyn Store>,
    audit: AuditLog,
    known: cell::Sender<Known>,
}

impl HealthConfigs {
    /// Reads them for the first time.
    ///
    /// # Errors
    ///
    /// [`StoreUnavailable`] when they cannot be read.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        audit: AuditLog,
    ) -> Result<Self, StoreUnavailable> {
        let configs = Self {
            store,
            audit,
            known: cell::Sender::default(),
        };
        configs.read().await?;
        Ok(configs)
    }

    /// All of them, in name order.
    pub(crate) fn list(&self) -> Vec<v1::HealthCheckConfig> {
        self.known.borrow().configs.to_vec()
    }

    /// All of them now, and again after each change.
    pub(crate) fn watch(
        &self,
    ) -> impl futures::Stream<Item = Vec<v1::HealthCheckConfig>> + Send + use<> {
        let mut last = None;
        tokio_stream::wrappers::WatchStream::new(self.known.subscribe()).filter_map(move |known| {
            let is_news = last.as_ref() != Some(&known.configs);
            last = Some(known.configs.clone());
            std::future::ready(is_news.then(|| known.configs.to_vec()))
        })
    }

    /// Makes or replaces one.
    pub(crate) async fn upsert(
        &self,
        actor: &str,
        message: Option<v1::HealthCheckConfig>,
    ) -> Result<v1::HealthCheckConfig, HealthConfigError> {
        let message = message.ok_or_else(|| Invalid::new("config", "is missing"))?;
        let expected = message.revision;
        let config = checked(message)?;
        let key = keys::health_check_config(&config.name);
        let has_room = || self.known.borrow().configs.len() < CONFIGS_MAX;
        let value = encode(&config);
        let written = named::put(self.store.as_ref(), key, value, expected, has_room).await;
        let Written { revision, is_new } = written.map_err(|refused| of(refused, &config.name))?;
        let kind = if is_new {
            event::HEALTH_CHECK_CONFIG_CREATE
        } else {
            event::HEALTH_CHECK_CONFIG_UPDATE
        };
        self.tell(kind, actor, &config.name);
        self.read().await?;
        Ok(v1::HealthCheckConfig { revision, ..config })
    }

    /// Deletes one.
    pub(crate) async fn delete(&self, actor: &str, name: &str) -> Result<(), HealthConfigError> {
        let key = keys::health_check_config(name);
        let deleted = named::delete(self.store.as_ref(), key).await;
        deleted.map_err(|refused| of(refused, name))?;
        self.tell(event::HEALTH_CHECK_CONFIG_DELETE, actor, name);
        self.read().await?;
        Ok(())
    }

    /// Keeps them known until shutdown.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: ShutdownToken) {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow_watch(&mut backoff) => ended,
            };
            let Err(error) = ended;
            tracing::warn!(error = %error, "cannot follow the health check configurations, starting again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    async fn follow_watch(&self, backoff: &mut Backoff) -> Result<Infallible, WatchError> {
        // From a fresh reading: history before it may be gone.
        let revision = self.read().await?;
        let prefix = Bytes::from_static(keys::HEALTH_CHECK_CONFIGS.as_bytes());
        let mut watch = self.store.watch(prefix, revision).await?;
        backoff.reset();
        loop {
            let next = watch.next().await.unwrap_or(Err(WatchError::Closed))?;
            if matches!(next, Watched::Batch(_)) {
                self.read().await?;
            }
        }
    }

    /// Reads them all and tells whoever watches; gives the revision that was read.
    async fn read(&self) -> Result<u64, StoreUnavailable> {
        // There are no more than fit on a page.
        let page = self
            .store
            .range(RangeQuery::prefix(keys::HEALTH_CHECK_CONFIGS))
            .await?;
        let mut configs: Vec<v1::HealthCheckConfig> = Vec::new();
        for entry in &page.entries {
            match decode::<v1::HealthCheckConfig>(entry) {
                Ok(config) => configs.push(v1::HealthCheckConfig {
                    revision: entry.modified,
                    ..config
                }),
                Err(error) => {
                    tracing::error!(error = %error, "left out a stored health_check_config that cannot be read");
                }
            }
        }
        if !configs.iter().any(|config| config.name == DEFAULT) {
            configs.push(HealthCheckConfig::preset().into());
            configs.sort_by(|one, other| one.name.cmp(&other.name));
        }
        self.known.send_if_modified(|known| {
            let is_newer = page.revision > known.revision || known.revision == 0;
            if is_newer {
                *known = Known {
                    revision: page.revision,
                    configs: Arc::new(configs),
                };
            }
            is_newer
        });
        Ok(page.revision)
    }

    fn tell(&self, kind: event::Kind, actor: &str, name: &str) {
        let mut made = event::new(kind);
        actor.clone_into(&mut made.user);
        made.fields.insert("name".to_owned(), name.to_owned());
        self.audit.record(made);
    }
}

fn of(refused: Refused, name: &str) -> HealthConfigError {
    match refused {
        Refused::Conflict(revision) => HealthConfigError::Conflict {
            name: name.to_owned(),
            revision,
        },
        Refused::Missing => HealthConfigError::NotFound(name.to_owned()),
        Refused::TooMany => HealthConfigError::TooMany,
        Refused::Unavailable(unavailable) => unavailable.into(),
    }
}

/// A configuration that agents can use, as it is stored: defaults written out.
fn checked(message: v1::HealthCheckConfig) -> Result<v1::HealthCheckConfig, Invalid> {
    use prost::Message as _;
    named::check_name("config.name", &message.name)?;
    if message.description.len() > DESCRIPTION_BYTES_MAX {
        let problem = format!("is longer than {DESCRIPTION_BYTES_MAX} bytes");
        return Err(Invalid::new("config.description", problem));
    }
    if message.encoded_len() > CONFIG_BYTES_MAX {
        let problem = format!("is larger than {CONFIG_BYTES_MAX} bytes");
        return Err(Invalid::new("config", problem));
    }
    let config = HealthCheckConfig::try_from(message)
        .map_err(|invalid| Invalid::new(format!("config.{}", invalid.field), invalid.problem))?;
    Ok(config.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let usual = || v1::HealthCheckConfig {
            name: "team".to_owned(),
            ..v1::HealthCheckConfig::default()
        };
        let second = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        assert!(checked(usual()).is_ok());
        for (config, place) in [
            (
                v1::HealthCheckConfig {
                    name: "a/b".to_owned(),
                    ..usual()
                },
                "config.name",
            ),
            (
                v1::HealthCheckConfig {
                    interval: second(1),
                    ..usual()
                },
                "config.interval",
            ),
            (
                v1::HealthCheckConfig {
                    timeout: second(-1),
                    ..usual()
                },
                "config.timeout",
            ),
            (
                v1::HealthCheckConfig {
                    healthy_threshold: 99,
                    ..usual()
                },
                "config.healthy_threshold",
            ),
            (
                v1::HealthCheckConfig {
                    db_labels_expression: "labels[".to_owned(),
                    ..usual()
                },
                "config.db_labels_expression",
            ),
        ] {
            let refused = checked(config).unwrap_err();
            assert!(refused.to_string().contains(place), "{refused}");
        }
    }

    #[test]
    fn defaults_are_stored_written_out() {
        let stored = checked(v1::HealthCheckConfig {
            name: "team".to_owned(),
            revision: 9,
            ..v1::HealthCheckConfig::default()
        })
        .unwrap();
        assert_eq!((stored.healthy_threshold, stored.revision), (2, 0));
        assert_eq!(stored.interval.unwrap().seconds, 30);
    }
}
