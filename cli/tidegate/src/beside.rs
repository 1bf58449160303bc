//! The discovery worker that runs beside an agent whose section has `aws` matchers of its own.
//!
//! It is an ordinary worker: what it finds goes into the inventory, and the agent picks it up from there by
//! selectors made from the same matchers. All workers of this sort share one group, which configuration refuses to
//! others, so that agents with the same matchers share the work, and agents with others own other scopes in it.

use std::{collections::BTreeMap, time::Duration};

use tidegate_core::{
    AwsMatcher, DB_SERVICE_GROUP, EndpointFilter, InvalidSelector, Regions, ResourceMatcher,
    Selector,
    labels::{ACCOUNT_ID, DISCOVERY_TYPE, ENDPOINT_TYPE, REGION},
};
use tidegate_service::settings::DiscoverySettings;

const POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Settings of the worker, and the entries that make the agent serve what it finds.
///
/// # Errors
///
/// When tags and what is added to them are more than a selector may hold.
pub(crate) fn discovery(
    matchers: &[AwsMatcher],
) -> Result<(DiscoverySettings, Vec<ResourceMatcher>), InvalidSelector> {
    let entries = matchers.iter().map(entry).collect::<Result<_, _>>()?;
    let worker = DiscoverySettings {
        group: DB_SERVICE_GROUP.to_owned(),
        poll_interval: POLL_INTERVAL,
        matchers: matchers.to_vec(),
    };
    Ok((worker, entries))
}

/// Chooses what the matcher finds, whichever worker put it into the inventory, and serves it with the matcher's role.
fn entry(matcher: &AwsMatcher) -> Result<ResourceMatcher, InvalidSelector> {
    let mut labels: BTreeMap<String, Vec<String>> = matcher.tags.written().clone();
    let mut add = |key: &str, values: Vec<String>| {
        labels.entry(key.to_owned()).or_insert(values);
    };
    add(
        DISCOVERY_TYPE,
        matcher
            .types
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
    );
    if let Regions::These(regions) = &matcher.regions {
        add(REGION, regions.iter().map(ToString::to_string).collect());
    }
    if !matcher.endpoints.is_everything() {
        let admitted = EndpointFilter::TYPES
            .into_iter()
            .filter(|kind| matcher.endpoints.admits(kind))
            .map(str::to_owned);
        add(ENDPOINT_TYPE, admitted.collect());
    }
    if let Some(role) = &matcher.assume_role {
        add(ACCOUNT_ID, vec![role.role_arn.account().to_string()]);
    }
    Ok(ResourceMatcher {
        labels: Selector::new(labels)?,
        assume_role: matcher.assume_role.clone(),
        line: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate_core::Labels;
    use tidegate_service::settings;

    use super::*;

    fn entries(tags: &str) -> Vec<ResourceMatcher> {
        let text = format!(
            "db_service: {{enabled: yes, aws: [{{types: [redshift], regions: [us-east-1], tags: {tags}, assume_role_arn: 'arn:aws:iam::111111111111:role/x'}}]}}"
        );
        let settings = settings::parse(&text, Path::new("t.yaml")).unwrap();
        let (worker, entries) = discovery(&settings.database.unwrap().matchers).unwrap();
        assert_eq!(
            (worker.matchers.len(), &*worker.group),
            (1, DB_SERVICE_GROUP)
        );
        entries
    }

    fn labels(region: &str, account: &str) -> Labels {
        [
            ("env", "prod"),
            ("region", region),
            ("account-id", account),
            ("tidegate.dev/discovery-type", "redshift"),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_agent_serves_what_its_matchers_find_and_nothing_else() {
        for tags in ["{env: prod}", "{'*': '*'}"] {
            let entries = entries(tags);
            let chosen = &entries[0].labels;
            assert!(chosen.matches(&labels("us-east-1", "111111111111")));
            assert!(!chosen.matches(&labels("us-west-2", "111111111111")));
            assert!(!chosen.matches(&labels("us-east-1", "222222222222")));
            assert!(!chosen.matches(&Labels::new()));
        }
    }

    #[test]
    fn endpoints_that_are_left_out_are_not_served() {
        let text = "db_service: {enabled: yes, aws: [{types: [rds], regions: ['*'], endpoints: {exclude: [reader]}}]}";
        let settings = settings::parse(text, Path::new("t.yaml")).unwrap();
        let (_, entries) = discovery(&settings.database.unwrap().matchers).unwrap();
        let matches = |endpoint: &str| {
            let labels = [
                ("tidegate.dev/discovery-type", "rds"),
                ("region", "eu-west-1"),
                ("endpoint-type", endpoint),
            ];
            entries[0].labels.matches(&labels.into_iter().collect())
        };
        assert!(matches("primary"));
        assert!(!matches("reader"));
    }

    #[test]
    fn it_logs_in_with_the_matcher_s_role() {
        let role = entries("{env: prod}").remove(0).assume_role.unwrap();
        assert_eq!(role.role_arn.role_name(), "x");
    }
}
