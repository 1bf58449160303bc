//! The whole document: which sections there are, and what they need of each other.

use std::path::Path;

use super::{
    Settings, auth, database, discovery, process, proxy,
    report::{Remarks, Report},
    section::{Item, Section},
    yaml::Node,
};

/// Sections of a full `teleport.yaml` that Tidegate does not serve.
const UNSERVED: [&str; 12] = [
    "app_service",
    "assist",
    "debug_service",
    "jamf_service",
    "kubernetes_service",
    "metrics_service",
    "okta_service",
    "plugins",
    "relay_service",
    "ssh_service",
    "tracing_service",
    "windows_desktop_service",
];

/// Whether a section that does not say `enabled` runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsaid {
    Runs,
    Rests,
}

/// Reads the document into settings without remarks; `None` when an error was reported.
pub(super) fn read(root: &Node, file: &Path, report: &Report) -> Option<Settings> {
    let mut document = Item::root(root, report).section()?;
    version(&mut document);
    let process_item = process_section(&mut document);
    let process::Process {
        settings: process,
        storage,
    } = process::read(process_item.as_ref());

    let auth = service(&mut document, "auth_service", Unsaid::Runs, |section| {
        auth::read(section, &process, storage.clone())
    });
    let proxy = service(&mut document, "proxy_service", Unsaid::Runs, |section| {
        proxy::read(section, &process)
    });
    let discovery = service(
        &mut document,
        "discovery_service",
        Unsaid::Rests,
        discovery::read,
    );
    let database = service(&mut document, "db_service", Unsaid::Rests, |section| {
        Some(database::read(section))
    });
    unserved(&mut document);

    let settings = Settings {
        file: file.to_owned(),
        process,
        auth,
        proxy,
        discovery,
        database,
        warnings: Vec::new(),
        blockers: Vec::new(),
        notes: Vec::new(),
        said: super::changes::Said::default(),
    };
    connections(&settings, document.item());
    document.finish();
    Some(settings)
}

/// Adds what was remarked while reading.
pub(super) fn with_remarks(mut settings: Settings, remarks: Remarks) -> Settings {
    settings.warnings = remarks.warnings;
    settings.blockers = remarks.blockers;
    settings.notes = remarks.notes;
    settings
}

/// The file format's version, which changes nothing for us.
fn version(document: &mut Section<'_>) {
    if let Some(item) = document.get("version")
        && let Some(text) = item.text()
        && !matches!(text, "v1" | "v2" | "v3")
    {
        item.not_one_of(text, &["v1", "v2", "v3"]);
    }
}

fn process_section<'t>(document: &mut Section<'t>) -> Option<Item<'t>> {
    match (document.get("tidegate"), document.get("teleport")) {
        (Some(ours), Some(alias)) => {
            alias.error_expected("is the same section as `tidegate`", "one of the two");
            Some(ours)
        }
        (ours, alias) => ours.or(alias),
    }
}

/// Reads a service's section when it is there and switched on. What is wrong in one that is switched off is a warning.
fn service<T>(
    document: &mut Section<'_>,
    name: &'static str,
    unsaid: Unsaid,
    read: impl FnOnce(Section<'_>) -> Option<T>,
) -> Option<T> {
    let item = document.get(name)?;
    let mut section = item.section()?;
    let enabled = match section.get("enabled").filter(Item::is_given) {
        Some(flag) => flag.boolean()?,
        None => {
            if unsaid == Unsaid::Rests {
                item.warn("does not run: it does not say `enabled: yes`");
            }
            unsaid == Unsaid::Runs
        }
    };
    if enabled {
        return read(section);
    }
    let aside = Report::default();
    if let Some(mut section) = item.reporting_to(&aside).section() {
        section.get("enabled");
        read(section);
    }
    item.report().absorb_disabled(aside);
    None
}

fn unserved(document: &mut Section<'_>) {
    for name in UNSERVED {
        let Some(item) = document.get(name) else {
            continue;
        };
        let switched_off = item.enabled_flag().is_some_and(|flag| {
            matches!(flag.to_ascii_lowercase().as_str(), "no" | "false" | "off")
        });
        if !switched_off {
            item.warn("ignored: Tidegate has no such service");
        }
    }
}

/// What a process needs of the rest of the cluster before it can start.
fn connections(settings: &Settings, document: &Item<'_>) {
    let joins =
        settings.proxy.is_some() || settings.discovery.is_some() || settings.database.is_some();
    if settings.auth.is_none() && !joins {
        document.blocker_unplaced("no service is enabled");
    }
    let process = &settings.process;
    if settings.auth.is_some() || !process.auth_servers.is_empty() {
        return;
    }
    if settings.proxy.is_some() {
        document.blocker_unplaced(
            "a proxy relays to the auth service: give `auth_server` under `tidegate`",
        );
    } else if joins && process.proxy_server.is_none() {
        document.blocker_unplaced(
            "no way to the auth service: give `auth_server` or `proxy_server` under `tidegate`",
        );
    }
}
