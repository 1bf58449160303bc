//! Section `db_service`: which databases of the inventory to serve, and the static ones.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tidegate_core::{
    Database, DatabaseName, Labels, Origin, ResourceMatcher,
    labels::{self, LABELS_MAX},
};

use super::{
    DatabaseSettings, LabelCommand, aws_session, ca_bundles, discovery, overlap,
    section::{Item, Section},
    spec, values,
    words::quote,
};

/// How long roles and locks that were kept count at a start without a control plane, when nothing is said: long enough for
/// a restart in an outage, short enough for what a lock that nobody heard of may cost.
const OFFLINE_START_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The control plane says once a minute that nothing has changed.
const OFFLINE_START_MIN: Duration = Duration::from_secs(60);
/// A host's certificate lives no longer.
const OFFLINE_START_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// From the end of one run of a command to the start of the next, when nothing else is said.
const PERIOD_DEFAULT: Duration = Duration::from_secs(60);
/// Commands run no more often than this.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// Most commands for labels of one database.
const COMMANDS_PER_DATABASE_MAX: usize = 32;
/// Most commands for labels of one file.
const COMMANDS_MAX: usize = 1000;
/// Most words of a command: the program and its arguments.
const COMMAND_WORDS_MAX: usize = 64;

/// Databases of the file, and the commands that give them labels.
type Written = (Vec<Database>, BTreeMap<DatabaseName, Vec<LabelCommand>>);

/// Reads the section, whose `enabled` was looked at.
pub(super) fn read(mut section: Section<'_>) -> DatabaseSettings {
    let resources = resources(&mut section);
    let (databases, label_commands) = databases(&mut section);
    let matchers = section
        .get("aws")
        .map(|item| discovery::matchers(&item, discovery::Form::File))
        .unwrap_or_default();
    let aws_session = aws_session::read(&mut section);
    let ca_bundles = section
        .get("ca_bundles")
        .and_then(|item| ca_bundles::read(&item));
    let offline_start = offline_start(&mut section);
    let redact_iam_roles = redact_iam_roles(&mut section);
    section.ignore(&["azure"]);
    let settings = DatabaseSettings {
        resources,
        databases,
        label_commands,
        matchers,
        aws_session,
        ca_bundles,
        offline_start,
        redact_iam_roles,
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

/// `offline_start`; nothing is the default, `off` is none.
fn offline_start(section: &mut Section<'_>) -> Option<Duration> {
    let Some(item) = section.get("offline_start").filter(Item::is_given) else {
        return Some(OFFLINE_START_DEFAULT);
    };
    if matches!(item.text()?, "off" | "no" | "false") {
        return None;
    }
    let duration = values::duration(&item, OFFLINE_START_MIN)?;
    if duration > OFFLINE_START_MAX {
        item.error_expected(
            "is longer than a host certificate lives",
            "`off`, or a duration from `1m` to `24h`",
        );
    }
    Some(duration)
}

/// `audit.redact_iam_roles`.
fn redact_iam_roles(section: &mut Section<'_>) -> bool {
    let audit = section.get("audit").and_then(|item| item.section());
    audit.is_some_and(|mut audit| {
        let flag = audit
            .get("redact_iam_roles")
            .and_then(|item| item.boolean());
        audit.finish();
        flag.unwrap_or(false)
    })
}

/// The entries, with a warning at each that never decides, and a note where order does.
fn resources(section: &mut Section<'_>) -> Vec<ResourceMatcher> {
    let items = section
        .get("resources")
        .and_then(|item| item.list())
        .unwrap_or_default();
    let mut entries: Vec<ResourceMatcher> = Vec::with_capacity(items.len());
    for item in items {
        let Some(entry) = resource(&item) else {
            continue;
        };
        let line = |at: usize| entries.get(at).map_or(0, |entry| entry.line);
        if let Some(why) = overlap::never_matches(&entry.labels) {
            item.warn(format!("never matches: {why}"));
        } else if let Some(line) = overlap::decided_by(&entries, &entry).map(line) {
            item.warn(format!(
                "never decides: the entry on line {line} matches everything that this one does, comes first and names \
                 a role; put the narrower entry first"
            ));
        } else if let Some(line) = overlap::order_decides(&entries, &entry).map(line) {
            item.note(format!(
                "comes after the entry on line {line}, which names another role: a database that both match gets that one"
            ));
        }
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
        line: item.line(),
    })
}

fn databases(section: &mut Section<'_>) -> Written {
    let items = section
        .get("databases")
        .and_then(|item| item.list())
        .unwrap_or_default();
    let mut lines: HashMap<DatabaseName, u64> = HashMap::new();
    let mut databases = Vec::new();
    let mut commands = BTreeMap::new();
    let mut commands_count = 0;
    for item in items {
        let Some((name, database, dynamic)) = database(&item) else {
            continue;
        };
        if let Some(line) = lines.insert(database.name.clone(), name.line()) {
            name.error(format!(
                "database `{}` is already defined on line {line}",
                database.name
            ));
            continue;
        }
        commands_count += dynamic.len();
        if commands_count > COMMANDS_MAX {
            item.error(format!("more than {COMMANDS_MAX} commands for labels"));
            break;
        }
        if !dynamic.is_empty() {
            commands.insert(database.name.clone(), dynamic);
        }
        databases.push(database);
    }
    (databases, commands)
}

fn database<'t>(item: &Item<'t>) -> Option<(Item<'t>, Database, Vec<LabelCommand>)> {
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
    let dynamic = section
        .get("dynamic_labels")
        .map(|item| dynamic_labels(&item))
        .unwrap_or_default();
    if labels.len() + dynamic.len() > LABELS_MAX {
        item.error(format!("has more than {LABELS_MAX} labels"));
    }
    section.finish();
    let database = spec?.into_database(name?, description, labels, Origin::Config);
    Some((name_item?, database, dynamic))
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

fn dynamic_labels(item: &Item<'_>) -> Vec<LabelCommand> {
    let items = item.list().unwrap_or_default();
    if items.len() > COMMANDS_PER_DATABASE_MAX {
        item.error(format!(
            "has more than {COMMANDS_PER_DATABASE_MAX} commands"
        ));
        return Vec::new();
    }
    let mut commands: Vec<LabelCommand> = Vec::with_capacity(items.len());
    for item in items {
        let Some(command) = label_command(&item) else {
            continue;
        };
        if commands.iter().any(|other| other.label == command.label) {
            item.error(format!(
                "label {} already has a command",
                quote(&command.label)
            ));
            continue;
        }
        commands.push(command);
    }
    commands
}

fn label_command(item: &Item<'_>) -> Option<LabelCommand> {
    let mut section = item.section()?;
    let label = section.require("name").and_then(|item| label_key(&item));
    let command = section.require("command").and_then(|item| words(&item));
    let period = section
        .get("period")
        .filter(Item::is_given)
        .and_then(|item| values::duration(&item, PERIOD_MIN));
    section.finish();
    Some(LabelCommand {
        label: label?,
        command: command?,
        period: period.unwrap_or(PERIOD_DEFAULT),
    })
}

fn label_key(item: &Item<'_>) -> Option<String> {
    let key = item.text()?;
    if !labels::is_label_key(key) {
        item.error(format!("{} is not a label key", quote(key)));
        return None;
    }
    if labels::is_reserved(key) {
        item.error(format!("only Tidegate sets labels such as {}", quote(key)));
        return None;
    }
    Some(key.to_owned())
}

/// A program, as a path or found by `PATH`, and its arguments.
fn words(item: &Item<'_>) -> Option<Vec<String>> {
    let items = item.one_or_many();
    if items.len() > COMMAND_WORDS_MAX {
        item.error(format!("has more than {COMMAND_WORDS_MAX} words"));
        return None;
    }
    let mut words = Vec::with_capacity(items.len());
    for word in &items {
        words.push(word.text()?.to_owned());
    }
    match words.first() {
        None => {
            item.error("is empty");
            None
        }
        Some(program) if program.trim().is_empty() => {
            item.error("names no program");
            None
        }
        Some(_) => Some(words),
    }
}
