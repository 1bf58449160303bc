//! Resources as people write them for `tgctl create -f`: `kind`, `version`, `metadata`, `spec`.
//!
//! A file may hold several documents, a document may be a list, and JSON is YAML. What `tgctl get` prints can be
//! given back: `status` is left alone, and so is the label that says how a database got into the inventory.

use std::path::Path;

use tidegate_core::{Database, DatabaseName, Labels, Origin, labels};

use super::{ConfigError, ConfigProblem, database, report::Report, section::Item, spec, yaml};

/// Most resources in one text.
pub const RESOURCES_MAX: usize = 10_000;

/// Something that can be created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// `kind: db`.
    Database(Database),
}

/// Reads every resource of a text.
///
/// The text is told of as `input`; [`ConfigError::in_file`] gives it another name.
///
/// # Errors
///
/// Everything that is wrong in it, with line and column.
pub fn parse_resources(text: &str) -> Result<Vec<Resource>, ConfigError> {
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
    report.finish(file)?;
    Ok(resources)
}

fn resource(item: &Item<'_>) -> Option<Resource> {
    let mut section = item.section()?;
    let kind = section.require("kind")?;
    match kind.text()? {
        "db" => {}
        other => {
            kind.not_one_of(other, &["db"]);
            return None;
        }
    }
    if let Some(version) = section.require("version")
        && let Some(text) = version.text()
        && text != "v3"
    {
        version.not_one_of(text, &["v3"]);
    }
    let metadata = section.require("metadata").and_then(|item| metadata(&item));
    let spec = section.require("spec").and_then(|item| {
        let mut section = item.section()?;
        let spec = spec::read(&mut section, spec::Certificates::InPlace);
        if let Some(dynamic) = section.get("dynamic_labels") {
            dynamic.error("commands for labels are not run yet");
        }
        section.finish();
        spec
    });
    for known in ["status", "sub_kind"] {
        section.get(known);
    }
    section.finish();
    let (name, description, mut labels) = metadata?;
    labels.insert(labels::ORIGIN, Origin::Dynamic.as_str());
    Some(Resource::Database(spec?.into_database(
        name,
        description,
        labels,
        Origin::Dynamic,
    )))
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
    if let Some(expires) = section.get("expires") {
        expires.error("resources that expire are not supported yet");
    }
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
