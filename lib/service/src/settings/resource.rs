//! Resources as people write them for `tgctl create -f`: `kind`, `version`, `metadata`, `spec`.
//!
//! A file may hold several documents, a document may be a list, and JSON is YAML. What `tgctl get` prints can be
//! given back: `status` is left alone, and so is the label that says how a database got into the inventory.

use std::path::Path;

use tidegate_core::{AwsMatcher, Database, DatabaseName, Labels, Origin, labels};

use super::{
    ConfigError, ConfigProblem, Warning, database, discovery,
    report::Report,
    section::{Item, Section},
    spec,
    words::quote,
    yaml,
};

/// Most resources in one text.
pub const RESOURCES_MAX: usize = 10_000;
/// Longest name of a resource that is no database, in characters.
pub const NAME_CHARS_MAX: usize = 128;

const KINDS: [&str; 2] = ["db", "discovery_config"];

/// Something that can be created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// `kind: db`.
    Database(Box<Database>),
    /// `kind: discovery_config`.
    DiscoveryConfig(DiscoveryConfig),
}

/// `kind: discovery_config`: matchers that the workers of a group scan beside those of their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// Unique among resources of this kind.
    pub name: String,
    /// The workers that are meant; never empty.
    pub discovery_group: String,
    /// What to look for; empty is nothing yet: matchers may be added later.
    pub matchers: Vec<AwsMatcher>,
}

/// The resources of a text, and what looks wrong in it without being wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// In the order of the text.
    pub resources: Vec<Resource>,
    /// What was read but is not served, or looks like a slip of the pen.
    pub warnings: Vec<Warning>,
}

/// Reads every resource of a text.
///
/// The text is told of as `input`; [`ConfigError::in_file`] gives it another name.
///
/// # Errors
///
/// Everything that is wrong in it, with line and column.
pub fn parse_resources(text: &str) -> Result<Vec<Resource>, ConfigError> {
    Ok(read_resources(text)?.resources)
}

/// As [`parse_resources`], with warnings.
///
/// # Errors
///
/// Everything that is wrong in it, with line and column.
pub fn read_resources(text: &str) -> Result<Resources, ConfigError> {
    let file = Path::new("input");
    let documents = yaml::documents(text).map_err(|error| super::syntax_error(file, error))?;
    let report = Report::default();
    let mut resources = Vec::new();
    for document in &documents {
        let item = Item::root(document, &report);
        if item.is_null() {
            continue;
        }
        for item in item.one_or_many() {
            if resources.len() >= RESOURCES_MAX {
                item.error(format!("more than {RESOURCES_MAX} resources"));
                break;
            }
            resources.extend(resource(&item));
        }
    }
    let warnings = report.finish(file)?.warnings;
    Ok(Resources {
        resources,
        warnings,
    })
}

fn resource(item: &Item<'_>) -> Option<Resource> {
    let mut section = item.section()?;
    let kind = section.require("kind")?;
    match kind.text()? {
        "db" => db(section).map(|database| Resource::Database(Box::new(database))),
        "discovery_config" => discovery_config(section).map(Resource::DiscoveryConfig),
        other => {
            kind.not_one_of(other, &KINDS);
            None
        }
    }
}

/// Checks the version, and reads past what a resource may carry and creation leaves alone.
fn shape(section: &mut Section<'_>, version: &'static str) {
    if let Some(item) = section.require("version")
        && let Some(text) = item.text()
        && text != version
    {
        item.not_one_of(text, &[version]);
    }
    for known in ["status", "sub_kind"] {
        section.get(known);
    }
}

fn db(mut section: Section<'_>) -> Option<Database> {
    shape(&mut section, "v3");
    let metadata = section.require("metadata").and_then(|item| metadata(&item));
    let spec = section.require("spec").and_then(|item| {
        let mut section = item.section()?;
        let spec = spec::read(&mut section, spec::Certificates::InPlace);
        if let Some(dynamic) = section.get("dynamic_labels") {
            dynamic.error_expected(
                "commands run on the hosts of agents, so they may not come from whoever may write this resource",
                "databases with such labels under `db_service.databases` in an agent's own file",
            );
        }
        section.finish();
        spec
    });
    section.finish();
    let (name, description, mut labels) = metadata?;
    labels.insert(labels::ORIGIN, Origin::Dynamic.as_str());
    Some(spec?.into_database(name, description, labels, Origin::Dynamic))
}

fn discovery_config(mut section: Section<'_>) -> Option<DiscoveryConfig> {
    shape(&mut section, "v1");
    let name = section
        .require("metadata")
        .and_then(|item| name_alone(&item));
    let spec = section
        .require("spec")
        .and_then(|item| discovery_spec(&item));
    section.finish();
    let (discovery_group, matchers) = spec?;
    Some(DiscoveryConfig {
        name: name?,
        discovery_group,
        matchers,
    })
}

fn discovery_spec(item: &Item<'_>) -> Option<(String, Vec<AwsMatcher>)> {
    let mut section = item.section()?;
    let group = section
        .require("discovery_group")
        .and_then(|item| item.full_text().and_then(|_| discovery::group(&item)));
    let matchers = section
        .get("aws")
        .map(|item| discovery::matchers(&item, discovery::Form::Resource))
        .unwrap_or_default();
    for other in ["access_graph", "azure", "gcp", "kube"] {
        if let Some(item) = section.get(other).filter(|item| !item.holds_nothing()) {
            item.error_expected(
                "Tidegate discovers databases in AWS only",
                "matchers under `aws`",
            );
        }
    }
    section.finish();
    Some((group?, matchers))
}

/// The metadata of a resource that has a name and nothing else that we keep.
fn name_alone(item: &Item<'_>) -> Option<String> {
    let mut section = item.section()?;
    let name = section.require("name").and_then(|item| {
        let text = item.full_text()?;
        let sound = text.len() <= NAME_CHARS_MAX
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !sound {
            item.error_expected(
                format!("{} is not a name", quote(text)),
                format!("letters, digits, `-`, `_` and `.`, the first a letter or digit, at most {NAME_CHARS_MAX} characters"),
            );
        }
        sound.then(|| text.to_owned())
    });
    for known in ["description", "id", "labels", "namespace", "revision"] {
        section.get(known);
    }
    expires_never(&mut section);
    section.finish();
    name
}

fn expires_never(section: &mut Section<'_>) {
    if let Some(expires) = section.get("expires") {
        expires.error("resources that expire are not supported yet");
    }
}

fn metadata(item: &Item<'_>) -> Option<(DatabaseName, String, Labels)> {
    let mut section = item.section()?;
    let name = section.require("name").and_then(|item| item.parse());
    let description = section.text("description").unwrap_or_default();
    let labels = section
        .get("labels")
        .map(|item| written_labels(&item))
        .unwrap_or_default();
    for known in ["id", "namespace", "revision"] {
        section.get(known);
    }
    expires_never(&mut section);
    section.finish();
    Some((name?, description, labels))
}

/// Labels without the one that says how the database got here, which this creation answers anew.
fn written_labels(item: &Item<'_>) -> Labels {
    let cloud = item
        .pairs()
        .unwrap_or_default()
        .into_iter()
        .find(|(key, value)| {
            is_origin(key)
                && value
                    .text()
                    .is_some_and(|text| text == Origin::Cloud.as_str())
        });
    if let Some((_, origin)) = cloud {
        item.report().error(ConfigProblem {
            expected: Some("a database that was created, or that is written in a file".to_owned()),
            ..origin.problem("discovery keeps this database, so it cannot be created")
        });
        return Labels::new();
    }
    database::labels_except(item, is_origin)
}

fn is_origin(key: &str) -> bool {
    key == labels::ORIGIN || key == "teleport.dev/origin"
}
