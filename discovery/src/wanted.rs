//! What the worker wants to scan: the matchers of its file, then those of its group's `discovery_config` resources.
//!
//! Pure. Of two scopes that find one database the one with the lower order owns it, so scopes of files come before
//! those of resources on every worker, whatever each one's file holds.
//!
//! Invariant: what comes out fits into the one message that asks the auth service for it. What does not fit is left
//! out and named in [`Expansion::left_out`], the last in order first.

use prost::Message;
use tidegate_core::{AwsMatcher, Region, ScanScope};
use tidegate_proto::v1;
use tidegate_service::rpc::MESSAGE_BYTES_MAX;

use crate::configs::Configs;

/// Scopes of one worker: 100 accounts × 30 regions × 3 types, and room. The auth service takes no more.
pub const SCOPES_MAX: usize = 10_000;

/// Longest id of a scope that the auth service takes.
const SCOPE_ID_BYTES_MAX: usize = 16 * 1024;

/// The order of the first scope of a resource; files have fewer scopes.
const CONFIGS_ORDER_MIN: u32 = 1_000_000;

/// What a scope takes in the message besides itself: its tag and its length.
const FRAMING_BYTES_MAX: usize = 6;

/// What matchers came to.
#[derive(Debug, Default)]
pub(crate) struct Expansion {
    /// In order, none twice.
    pub(crate) scopes: Vec<ScanScope>,
    /// How many more there would be.
    pub(crate) left_out: usize,
    /// What the message would take with all of them.
    pub(crate) bytes: usize,
}

/// Expands the matchers of the file and of the resources. `enabled` gives the regions of a matcher that asks for
/// all that its account has enabled, and is told the resource that it stands in.
pub(crate) fn expand(
    group: &str,
    matchers: &[AwsMatcher],
    configs: &Configs,
    enabled: impl Fn(&AwsMatcher, Option<&str>) -> Vec<Region>,
) -> Expansion {
    let of_file = ScanScope::expand(group, None, matchers, |matcher| enabled(matcher, None));
    let mut order = CONFIGS_ORDER_MIN;
    let of_configs = configs.iter().flat_map(|(name, matchers)| {
        let name = Some(name.as_str());
        let mut scopes = ScanScope::expand(group, name, matchers, |matcher| enabled(matcher, name));
        for scope in &mut scopes {
            scope.order = order;
            order = order.saturating_add(1);
        }
        scopes
    });
    let mut expansion = Expansion::default();
    for scope in of_file.into_iter().chain(of_configs) {
        expansion.add(scope);
    }
    expansion
}

impl Expansion {
    fn add(&mut self, scope: ScanScope) {
        let message = v1::ScanScope::from(&scope);
        let fits = message.id.len() <= SCOPE_ID_BYTES_MAX && self.scopes.len() < SCOPES_MAX;
        self.bytes += message.encoded_len() + FRAMING_BYTES_MAX;
        if fits && self.bytes <= MESSAGE_BYTES_MAX {
            self.scopes.push(scope);
        } else {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::{DatabaseKind, EndpointFilter, Regions, Selector};

    use super::*;

    fn matcher(regions: &[&str], tag: &str) -> AwsMatcher {
        let regions = regions.iter().map(|region| region.parse().unwrap());
        AwsMatcher {
            types: vec![DatabaseKind::Redshift],
            regions: Regions::These(regions.collect()),
            tags: Selector::new([("env".to_owned(), vec![tag.to_owned()])]).unwrap(),
            endpoints: EndpointFilter::default(),
            assume_role: None,
        }
    }

    fn configs(names: &[&str]) -> Configs {
        names
            .iter()
            .map(|name| {
                (
                    (*name).to_owned(),
                    vec![matcher(&["us-west-2"], "x")].into(),
                )
            })
            .collect()
    }

    fn none(_: &AwsMatcher, _: Option<&str>) -> Vec<Region> {
        Vec::new()
    }

    #[test]
    fn scopes_of_a_file_come_before_those_of_resources_on_every_worker() {
        let file = [matcher(&["us-east-1", "us-east-2"], "x")];
        let with_file = expand("prod", &file, &configs(&["a", "b"]), none).scopes;
        let without = expand("prod", &[], &configs(&["a", "b"]), none).scopes;
        assert_eq!(with_file[2..], without[..]);
        let orders: Vec<u32> = with_file.iter().map(|scope| scope.order).collect();
        assert_eq!(orders, [0, 1, 1_000_000, 1_000_001]);
        assert_eq!(with_file[2].config.as_deref(), Some("a"));
    }

    #[test]
    fn what_does_not_fit_into_one_message_is_left_out_from_the_end_and_counted() {
        let regions: Vec<String> = (0..50).map(|n| format!("us-east-{n}")).collect();
        let regions: Vec<&str> = regions.iter().map(String::as_str).collect();
        let long = "t".repeat(500);
        let matchers: Vec<AwsMatcher> = (0..100)
            .map(|n| matcher(&regions, &format!("{n}{long}")))
            .collect();
        let all = expand("prod", &matchers, &configs(&["a"]), none);
        assert_eq!(all.scopes.len() + all.left_out, 5_001);
        assert!(all.left_out > 1 && all.bytes > MESSAGE_BYTES_MAX);
        assert!(all.scopes.iter().all(|scope| scope.config.is_none()));
        let request = v1::AcquireScopesRequest {
            scopes: all.scopes.iter().map(Into::into).collect(),
        };
        assert!(request.encoded_len() <= MESSAGE_BYTES_MAX);
    }
}
