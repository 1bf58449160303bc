//! Section `db_service`: which databases of the inventory to serve, and the static ones.

use std::collections::HashMap;

use tidegate_core::{
    Database, DatabaseName, Labels, Origin, ResourceMatcher,
    labels::{self, LABELS_MAX},
};

use super::{
    DatabaseSettings, ca_bundles, discovery, overlap,
    section::{Item, Section},
    spec, values,
    words::quote,
};

/// Reads the section, whose `enabled` was looked at.
pub(super) fn read(mut section: Section<'_>) -> DatabaseSettings {
    let resources = resources(&mut section);
    let databases = databases(&mut section);
    let matchers = section
        .get("aws")
        .map(|item| discovery::matchers(&item, discovery::Form::File))
        .unwrap_or_default();
    let ca_bundles = section
        .get("ca_bundles")
        .and_then(|item| ca_bundles::read(&item));
    section.ignore(&["azure"]);
    let settings = DatabaseSettings {
        resources,
        databases,
        matchers,
        ca_bundles,
    };
    if settings.resources.is_empty()
        && settings.databases.is_empty()
        && settings.matchers.is_empty()
    {
        section
            .item()
            .warn("serves nothing: it has no `resources`, no `databases` and no `aws`");
    }
    section.finish();
    settings
}

/// The entries, with a warning at each that an earlier one leaves nothing to decide.
fn resources(section: &mut Section<'_>) -> Vec<ResourceMatcher> {
    let items = section
        .get("resources")
        .and_then(|item| item.list())
        .unwrap_or_default();
    let mut entries: Vec<ResourceMatcher> = Vec::with_capacity(items.len());
    let mut lines = Vec::with_capacity(items.len());
    for item in items {
        let Some(entry) = resource(&item) else {
            continue;
        };
        if let Some(line) = overlap::decided_by(&entries, &entry).and_then(|at| lines.get(at)) {
            item.warn(format!(
                "never decides: the entry on line {line} matches everything that this one does, comes first and names \
                 a role; put the narrower entry first"
            ));
        }
        lines.push(item.line());
        entries.push(entry);
    }
    entries
}

fn resource(item: &Item<'_>) -> Option<ResourceMatcher> {
    let mut section = item.section()?;
    let labels = section.require("labels").and_then(|item| {
        let labels = values::selector(&item)?;
        if labels.is_empty() {
            item.error_expected(
                "is empty and would match nothing",
                "labels, or `\"*\": \"*\"` for every database",
            );
            return None;
        }
        Some(labels)
    });
    let aws = section.get("aws").and_then(|item| item.section());
    let assume_role = aws.and_then(|mut aws| {
        let role = values::assume_role(&mut aws, false);
        aws.finish();
        role
    });
    section.finish();
    Some(ResourceMatcher {
        labels: labels?,
        assume_role,
    })
}

fn databases(section: &mut Section<'_>) -> Vec<Database> {
    let items = section
        .get("databases")
        .and_then(|item| item.list())
        .unwrap_or_default();
    let mut lines: HashMap<DatabaseName, u64> = HashMap::new();
    let mut databases = Vec::new();
    for item in items {
        let Some((name, database)) = database(&item) else {
            continue;
        };
        if let Some(line) = lines.insert(database.name.clone(), name.line()) {
            name.error(format!(
                "database `{}` is already defined on line {line}",
                database.name
            ));
            continue;
        }
        databases.push(database);
    }
    databases
}

fn database<'t>(item: &Item<'t>) -> Option<(Item<'t>, Database)> {
    let mut section = item.section()?;
    let name_item = section.require("name");
    let name = name_item.as_ref().and_then(Item::parse::<DatabaseName>);
    let description = section.text("description").unwrap_or_default();
    let spec = spec::read(&mut section, spec::Certificates::InFile);
    let mut labels = section
        .get("static_labels")
        .map(|item| static_labels(&item))
        .unwrap_or_default();
    labels.insert(labels::ORIGIN, Origin::Config.as_str());
    if let Some(dynamic) = section.get("dynamic_labels") {
        dynamic_labels(&dynamic);
    }
    section.finish();
    let database = spec?.into_database(name?, description, labels, Origin::Config);
    Some((name_item?, database))
}

fn static_labels(item: &Item<'_>) -> Labels {
    labels_except(item, |_| false)
}

/// Labels that a person wrote, without those that are passed over.
pub(super) fn labels_except(item: &Item<'_>, pass_over: impl Fn(&str) -> bool) -> Labels {
    let pairs = item.pairs().unwrap_or_default();
    if pairs.len() > LABELS_MAX {
        item.error(format!("has more than {LABELS_MAX} labels"));
        return Labels::new();
    }
    let mut labels = Labels::new();
    for (key, value) in pairs {
        if pass_over(key) {
            continue;
        }
        if !labels::is_label_key(key) {
            value.error_expected(
                format!("{} is not a label key", quote(key)),
                "letters, digits and any of `/.-_:*`",
            );
        } else if labels::is_reserved(key) {
            value.error(format!("only Tidegate sets labels such as {}", quote(key)));
        } else if value.is_null() {
            labels.insert(key, "");
        } else if let Some(text) = value.text() {
            labels.insert(key, text);
        }
    }
    labels
}

/// Checked for form: the commands are not run yet, which is said.
fn dynamic_labels(item: &Item<'_>) {
    for entry in item.list().unwrap_or_default() {
        let Some(mut section) = entry.section() else {
            continue;
        };
        if let Some(name) = section.require("name").and_then(|item| item.text())
            && !labels::is_label_key(name)
        {
            entry.error(format!("{} is not a label key", quote(name)));
        }
        if let Some(command) = section.require("command") {
            let words = command.one_or_many();
            if words.is_empty() {
                command.error("is empty");
            }
            words.iter().for_each(|word| {
                word.text();
            });
        }
        if let Some(period) = section.get("period") {
            values::duration(&period, std::time::Duration::ZERO);
        }
        section.finish();
    }
    item.warn("ignored: commands for labels are not run yet");
}
