//! Follows the `discovery_config` resources of the worker's group.
//!
//! The auth service sends the whole set now and after each change. While it is away the set that was last known
//! stays in force, and so does the last good form of a resource whose new form cannot be used.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_core::AwsMatcher;
use tidegate_proto::v1;
use tidegate_service::{
    rpc::{self, Backoff},
    tasks::ShutdownToken,
    telemetry::SaidOnce,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use tracing::{debug, error, info, warn};

use crate::{lease::needs_somebody, metrics::Meters, publish::Client};

/// Longest wait for the watch to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch that lasted this long was a good one: what follows begins with short waits again.
const STEADY: Duration = Duration::from_secs(10);

/// Matchers by the name of the resource that holds them.
pub(crate) type Configs = BTreeMap<String, Arc<[AwsMatcher]>>;

/// Keeps `configs` what the auth service says of `group`, until `shutdown`. `None` is: not known yet.
pub(crate) async fn follow(
    client: Client,
    group: String,
    configs: watch::Sender<Option<Configs>>,
    meters: Meters,
    shutdown: ShutdownToken,
) {
    let mut follower = Follower {
        client,
        group,
        configs,
        meters,
        counted: (0, 0),
        said: SaidOnce::new(),
        malformed: SaidOnce::new(),
    };
    let mut backoff = Backoff::new();
    let run = async {
        loop {
            let opened = Instant::now();
            let ended = follower.watch().await;
            if opened.elapsed() >= STEADY {
                backoff.reset();
                follower.said.clear();
            }
            follower.complain(ended);
            sleep(backoff.next()).await;
        }
    };
    shutdown.run_until_cancelled(run).await;
}

struct Follower {
    client: Client,
    group: String,
    configs: watch::Sender<Option<Configs>>,
    meters: Meters,
    /// Resources in force and malformed ones, as the metrics have them.
    counted: (usize, usize),
    said: SaidOnce,
    malformed: SaidOnce,
}

impl Follower {
    /// Watches until the stream ends.
    async fn watch(&mut self) -> Result<(), Status> {
        let request = v1::WatchDiscoveryConfigsRequest {
            discovery_group: self.group.clone(),
        };
        let opening = self.client.watch_discovery_configs(request);
        let mut stream = timeout(OPEN_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?
            .into_inner();
        while let Some(message) = stream.message().await? {
            self.take_in(message.configs);
        }
        Ok(())
    }

    fn take_in(&mut self, sent: Vec<v1::DiscoveryConfig>) {
        let known = self.configs.borrow().clone().unwrap_or_default();
        let (now, problems) = read(&self.group, &known, sent);
        for problem in &problems {
            if self.malformed.is_new(&format!("{problem:?}")) {
                error!(
                    discovery.config = problem.name,
                    revision = problem.revision,
                    error = problem.text,
                    kept = problem.kept,
                    "a discovery_config cannot be used: correct it with `tgctl create -f`"
                );
            }
        }
        let counts = (now.len(), problems.len());
        self.meters.configs(self.counted, counts);
        self.counted = counts;
        self.configs.send_if_modified(|configs| {
            let changed = configs.as_ref() != Some(&now);
            if changed {
                info!(
                    discovery.group = self.group,
                    configs = now.len(),
                    "the discovery_configs of the group changed"
                );
                *configs = Some(now);
            }
            changed
        });
    }

    fn complain(&mut self, ended: Result<(), Status>) {
        let Err(status) = ended else {
            debug!("the auth service ended the watch of discovery_configs; opens it again");
            return;
        };
        let cause = rpc::describe(&status);
        if !self.said.is_new(&format!("{:?} {cause}", status.code())) {
            debug!(
                error = cause,
                "cannot watch discovery_configs; keeps trying"
            );
        } else if needs_somebody(&status) {
            error!(
                error = cause,
                "the auth service does not let this worker read discovery_configs; keeps trying"
            );
        } else {
            warn!(
                error = cause,
                "cannot watch discovery_configs; goes on with what was last known"
            );
        }
    }
}

/// A resource that cannot be used as it was sent.
#[derive(Debug, PartialEq, Eq)]
struct Malformed {
    name: String,
    revision: u64,
    text: String,
    /// Whether an earlier form of it stays in force.
    kept: bool,
}

/// Reads what was sent. Resources of other groups do not count.
fn read(group: &str, known: &Configs, sent: Vec<v1::DiscoveryConfig>) -> (Configs, Vec<Malformed>) {
    let mut configs = Configs::new();
    let mut problems = Vec::new();
    for config in sent {
        if config.discovery_group != group {
            continue;
        }
        let name = config.name;
        let matchers: Result<Vec<AwsMatcher>, _> =
            config.aws.into_iter().map(AwsMatcher::try_from).collect();
        match matchers {
            Ok(matchers) => {
                configs.insert(name, matchers.into());
            }
            Err(invalid) => {
                let before = known.get(&name).cloned();
                problems.push(Malformed {
                    name: name.clone(),
                    revision: config.revision,
                    text: invalid.to_string(),
                    kept: before.is_some(),
                });
                configs.extend(before.map(|before| (name, before)));
            }
        }
    }
    (configs, problems)
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
                ..Default::default()
            }],
            revision: 1,
        }
    }

    #[test]
    fn a_malformed_resource_is_left_out_and_the_others_count() {
        let sent = vec![
            config("bad", "prod", "nowhere"),
            config("good", "prod", "us-east-1"),
            config("other", "dev", "us-east-1"),
        ];
        let (configs, problems) = read("prod", &Configs::new(), sent);
        assert_eq!(configs.keys().collect::<Vec<_>>(), ["good"]);
        assert_eq!((problems.len(), problems[0].kept), (1, false));
        assert!(problems[0].text.contains("regions"), "{}", problems[0].text);
    }

    #[test]
    fn a_resource_that_became_malformed_stays_as_it_last_was_good() {
        let sent = vec![config("a", "prod", "us-east-1")];
        let (known, _) = read("prod", &Configs::new(), sent);
        let (configs, problems) = read("prod", &known, vec![config("a", "prod", "nowhere")]);
        assert_eq!(configs, known);
        assert!(problems[0].kept);
    }

    #[test]
    fn a_resource_that_is_sent_no_more_is_gone() {
        let (known, _) = read(
            "prod",
            &Configs::new(),
            vec![config("a", "prod", "us-east-1")],
        );
        assert!(read("prod", &known, Vec::new()).0.is_empty());
    }
}
