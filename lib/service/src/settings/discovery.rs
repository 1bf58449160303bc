//! Section `discovery_service`, and the AWS matchers that `db_service` may have too.

use std::time::Duration;

use tidegate_core::{
    AwsMatcher, DB_SERVICE_GROUP, DatabaseKind, EndpointFilter, Region, Regions, Selector,
};

use super::{
    ConfigProblem, DiscoverySettings, regions,
    section::{Item, Section},
    values,
    words::{listed, quote},
};

const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(300);
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Types that Teleport discovers and we do not: said apart from slips of the pen.
const FOREIGN_TYPES: [&str; 9] = [
    "docdb",
    "ec2",
    "eks",
    "elasticache",
    "elasticache-serverless",
    "memorydb",
    "opensearch",
    "dynamodb",
    "keyspaces",
];

/// Reads the section, whose `enabled` was looked at.
pub(super) fn read(mut section: Section<'_>) -> Option<DiscoverySettings> {
    let group = section
        .get("discovery_group")
        .and_then(|item| group(&item))
        .unwrap_or_default();
    let poll_interval = section.get("poll_interval").filter(Item::is_given).map_or(
        Some(POLL_INTERVAL_DEFAULT),
        |item| match item.text() {
            // Zero is how Teleport's default is written.
            Some("0" | "0s") => Some(POLL_INTERVAL_DEFAULT),
            _ => values::duration(&item, POLL_INTERVAL_MIN),
        },
    );
    let aws = section.get("aws");
    let matchers = aws
        .as_ref()
        .map(|item| matchers(item, Form::File))
        .unwrap_or_default();
    let has_matchers = aws
        .and_then(|item| item.list())
        .is_some_and(|items| !items.is_empty());
    section.ignore(&["access_graph", "azure", "gcp", "kubernetes"]);
    match (has_matchers, group.is_empty()) {
        (false, true) => section.item().error_expected(
            "has nothing to discover",
            "matchers under `aws`, or a `discovery_group` to be given some",
        ),
        (true, true) => section.item().warn(
            "has no `discovery_group`: give workers that share their work one name, and others another",
        ),
        _ => {}
    }
    section.finish();
    Some(DiscoverySettings {
        group,
        poll_interval: poll_interval?,
        matchers,
    })
}

/// The name of a group; empty is none. An error was told when it is somebody else's.
pub(super) fn group(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text == DB_SERVICE_GROUP {
        item.error_expected(
            format!(
                "`{DB_SERVICE_GROUP}` is the group of the workers that run beside database services"
            ),
            "another name",
        );
    }
    Some(text.to_owned())
}

/// How a matcher's role is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `assume_role_arn` and `external_id`, in configuration files.
    File,
    /// `assume_role: {role_arn, external_id}`, in `discovery_config` resources; those of files are read too.
    Resource,
}

/// Reads a list of matchers.
pub(super) fn matchers(item: &Item<'_>, form: Form) -> Vec<AwsMatcher> {
    let items = item.list().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| matcher(item, form))
        .collect()
}

fn matcher(item: &Item<'_>, form: Form) -> Option<AwsMatcher> {
    let mut section = item.section()?;
    let types = section.require("types").and_then(|item| types(&item));
    let regions = section
        .require("regions")
        .and_then(|item| regions_of(&item));
    let tags = match section.get("tags") {
        Some(tags) => values::selector(&tags).map(|selector| {
            if selector.is_empty() {
                Selector::everything()
            } else {
                selector
            }
        }),
        None => Some(Selector::everything()),
    };
    let users_are_roles = types.as_ref().is_some_and(|types| {
        types
            .iter()
            .all(|kind| *kind == DatabaseKind::RedshiftServerless)
    });
    let assume_role = match form {
        Form::File => {
            if let Some(item) = section.get("assume_role").filter(Item::is_given) {
                item.error_expected(
                    "is how resources write a role",
                    "`assume_role_arn`, and `external_id` where the role asks for one",
                );
            }
            values::assume_role(&mut section, users_are_roles)
        }
        Form::Resource => values::assume_role_nested(&mut section, users_are_roles),
    };
    for name in ["integration", "organization"] {
        if let Some(item) = section.get(name).filter(Item::is_given) {
            item.error_expected(
                "Tidegate cannot take its AWS credentials from there",
                "`assume_role_arn`, or the process's own identity",
            );
        }
    }
    section.ignore(&[
        "install",
        "kube_app_discovery",
        "setup_access_for_arn",
        "ssm",
    ]);
    let endpoints = match section.get("endpoints").filter(Item::is_given) {
        Some(item) => endpoint_filter(&item),
        None => Some(EndpointFilter::default()),
    };
    section.finish();
    Some(AwsMatcher {
        types: types?,
        regions: regions?,
        tags: tags?,
        endpoints: endpoints?,
        assume_role,
    })
}

/// `None` when any is wrong: a matcher with a part of its types would be another matcher.
fn types(item: &Item<'_>) -> Option<Vec<DatabaseKind>> {
    let items = item.one_or_many();
    if items.is_empty() {
        item.error_expected("is empty", "at least one type of database");
        return None;
    }
    let kinds: Vec<Option<DatabaseKind>> = items.iter().map(kind).collect();
    let kinds: Vec<DatabaseKind> = kinds.into_iter().collect::<Option<_>>()?;
    Some(without_repeats(kinds))
}

fn kind(item: &Item<'_>) -> Option<DatabaseKind> {
    let text = item.text()?;
    let known = text.parse().ok();
    if known.is_none() {
        let names = DatabaseKind::ALL.map(DatabaseKind::as_str);
        if FOREIGN_TYPES.contains(&text) {
            item.error_expected(
                format!("Tidegate does not discover `{text}`"),
                listed(&names),
            );
        } else {
            item.not_one_of(text, &names);
        }
    }
    known
}

/// `endpoints: {include: […], exclude: […]}`.
fn endpoint_filter(item: &Item<'_>) -> Option<EndpointFilter> {
    let mut section = item.section()?;
    let include = section
        .get("include")
        .map_or(Some(Vec::new()), |item| endpoint_types(&item));
    let exclude = section
        .get("exclude")
        .map_or(Some(Vec::new()), |item| endpoint_types(&item));
    section.finish();
    let filter = EndpointFilter {
        include: include?,
        exclude: exclude?,
    };
    let some_left = EndpointFilter::TYPES.iter().any(|kind| filter.admits(kind));
    if !some_left {
        item.error_expected(
            "leaves no endpoint",
            "an `include` that `exclude` does not take away whole",
        );
    }
    some_left.then_some(filter)
}

fn endpoint_types(item: &Item<'_>) -> Option<Vec<String>> {
    let items = item.one_or_many();
    let types: Vec<Option<String>> = items
        .iter()
        .map(|item| {
            let text = item.text()?;
            let known = EndpointFilter::TYPES.contains(&text);
            if !known {
                item.not_one_of(text, &EndpointFilter::TYPES);
            }
            known.then(|| text.to_owned())
        })
        .collect();
    Some(without_repeats(types.into_iter().collect::<Option<_>>()?))
}

fn regions_of(item: &Item<'_>) -> Option<Regions> {
    let items = item.one_or_many();
    if items.is_empty() {
        item.error_expected("is empty", "at least one AWS region");
        return None;
    }
    if let [only] = items.as_slice()
        && only.text() == Some("*")
    {
        return Some(Regions::Enabled);
    }
    let regions: Vec<Option<Region>> = items.iter().map(region).collect();
    let regions: Vec<Region> = regions.into_iter().collect::<Option<_>>()?;
    Some(Regions::These(without_repeats(regions)))
}

/// A region in good form, with a warning when nobody has heard of it.
pub(super) fn region(item: &Item<'_>) -> Option<Region> {
    let text = item.text()?;
    if text == "*" {
        item.error_expected(
            "`*` means every region, so it stands alone",
            "`*` alone, or a list of region names",
        );
        return None;
    }
    let near = regions::nearest_known(text);
    let Ok(region) = text.parse::<Region>() else {
        item.report().error(ConfigProblem {
            expected: Some("a region name such as `us-east-1`".to_owned()),
            nearest: near,
            ..item.problem(format!("{} is not a valid AWS region", quote(text)))
        });
        return None;
    };
    if !regions::is_known(text) {
        let hint = near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
        item.warn(format!(
            "`{text}` is not a region that this version knows{hint}"
        ));
    }
    Some(region)
}

fn without_repeats<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut unique: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}
