//! The cluster's `health_check_config` resources as this agent knows them: read live from the auth service, the last
//! known kept while it is away, and the preset before its first answer.

use std::sync::Arc;

use tidegate_core::HealthCheckConfig;
use tidegate_proto::v1::{self, health_service_client::HealthServiceClient};
use tidegate_service::{rpc::MESSAGE_BYTES_MAX, tasks::ShutdownToken};
use tokio::sync::watch;
use tonic::{Status, transport::Channel};
use tracing::{error, info, warn};

use crate::retry;

/// Configurations that are kept. The auth service keeps no more.
const CONFIGS_MAX: usize = 100;

/// The present configurations; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Configs {
    now: watch::Sender<Arc<Vec<HealthCheckConfig>>>,
}

impl Default for Configs {
    fn default() -> Self {
        let preset = vec![HealthCheckConfig::preset()];
        Self {
            now: watch::Sender::new(Arc::new(preset)),
        }
    }
}

impl Configs {
    /// Tells of changes.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Vec<HealthCheckConfig>>> {
        self.now.subscribe()
    }

    /// Takes an answer of the auth service; whether it says something new.
    fn set(&self, configs: Vec<HealthCheckConfig>) -> bool {
        self.now.send_if_modified(|now| {
            let is_news = **now != configs;
            if is_news {
                *now = Arc::new(configs);
            }
            is_news
        })
    }
}

/// Follows the configurations until shutdown.
pub(crate) async fn follow(channel: Channel, configs: Configs, shutdown: ShutdownToken) {
    retry::follow(
        &shutdown,
        || watch_once(channel.clone(), &configs),
        |cause| {
            warn!(
                error = cause,
                "cannot watch health check configurations; checking by what was last known"
            );
        },
    )
    .await;
}

async fn watch_once(channel: Channel, configs: &Configs) -> Result<(), Status> {
    let mut client = HealthServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = client
        .watch_health_check_configs(v1::WatchHealthCheckConfigsRequest {})
        .await?
        .into_inner();
    while let Some(answer) = stream.message().await? {
        let understood = understood(answer.configs);
        let count = understood.len();
        if configs.set(understood) {
            info!(configs = count, "health check configurations changed");
        }
    }
    Ok(())
}

/// The configurations as they were sent. One that cannot be understood is left out: the next that matches counts.
fn understood(configs: Vec<v1::HealthCheckConfig>) -> Vec<HealthCheckConfig> {
    configs
        .into_iter()
        .take(CONFIGS_MAX)
        .filter_map(|config| {
            let name = config.name.clone();
            HealthCheckConfig::try_from(config)
                .inspect_err(|invalid| {
                    error!(config = name, error = %invalid, "a health_check_config cannot be understood and is left out");
                })
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preset_counts_until_the_auth_service_has_answered() {
        let configs = Configs::default();
        let changes = configs.changes();
        assert_eq!(**changes.borrow(), [HealthCheckConfig::preset()]);
        assert!(!configs.set(vec![HealthCheckConfig::preset()]));
        assert!(!changes.has_changed().unwrap());
        assert!(configs.set(Vec::new()));
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn one_that_cannot_be_understood_is_left_out() {
        let good: v1::HealthCheckConfig = HealthCheckConfig::preset().into();
        let bad = v1::HealthCheckConfig {
            db_labels_expression: "labels[".to_owned(),
            ..good.clone()
        };
        assert_eq!(understood(vec![bad, good]), [HealthCheckConfig::preset()]);
    }
}
