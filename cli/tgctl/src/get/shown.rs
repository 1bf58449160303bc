//! Resources of any kind as they are printed.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table,
    discovery::{self, Scope},
    output,
    resource::{self, Metadata, Resource},
    table::visible,
    when,
};
use tidegate_proto::{
    convert,
    v1::{self, resource::Body},
};

use crate::{databases, locks, resources, tokens, users};

/// A process that is up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct InstanceSpec {
    hostname: String,
    version: String,
    services: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    public_addr: String,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct InstanceStatus {
    databases: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

type Instance = Resource<InstanceSpec, InstanceStatus>;

fn instance(instance: v1::Instance) -> Instance {
    let since = instance.since.and_then(|at| convert::instant(&at).ok());
    Resource {
        kind: "instance",
        version: "v1",
        metadata: Metadata {
            name: instance.host_id,
            revision: instance.revision.to_string(),
            ..Metadata::default()
        },
        spec: InstanceSpec {
            hostname: instance.hostname,
            version: instance.version,
            services: instance.services,
            public_addr: instance.public_addr,
        },
        status: Some(InstanceStatus {
            databases: instance.databases,
            since,
        }),
    }
}

fn proxy(proxy: v1::Proxy) -> Instance {
    Resource {
        kind: "proxy",
        version: "v1",
        metadata: Metadata {
            name: proxy.host_id,
            ..Metadata::default()
        },
        spec: InstanceSpec {
            hostname: proxy.hostname,
            version: proxy.version,
            services: vec!["proxy".to_owned()],
            public_addr: proxy.public_addr,
        },
        status: None,
    }
}

/// A resource in the shape that its kind is known by.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[allow(
    clippy::large_enum_variant,
    reason = "all of a listing are of one kind, so none is larger than it must be"
)]
enum Shown {
    Config(resource::DiscoveryConfig),
    Database(resource::Database),
    Instance(Instance),
    Lock(resource::Lock),
    Role(resource::Role),
    Scope(Box<Scope>),
    Server(resource::DatabaseServer),
    Token(resource::Token),
    User(resource::User),
}

impl Shown {
    /// `None` for what this program is too old to know.
    fn of(body: Body) -> Option<Self> {
        Some(match body {
            Body::Db(body) => Self::Database((&body).into()),
            Body::DbServer(body) => Self::Server((&body).into()),
            Body::DiscoveryConfig(body) => Self::Config((&body).into()),
            Body::DiscoveryScope(body) => Self::Scope(Box::new(body.into())),
            Body::Instance(body) => Self::Instance(instance(body)),
            Body::Lock(body) => Self::Lock((&body).into()),
            Body::Proxy(body) => Self::Instance(proxy(body)),
            Body::Role(body) => Self::Role((&body).into()),
            Body::Token(body) => Self::Token((&body).into()),
            Body::User(body) => Self::User((&body).into()),
        })
    }
}

/// Prints resources of one kind.
pub(super) fn print(resources: Vec<v1::Resource>, out: Output) -> Result<(), Failure> {
    let bodies = resources.into_iter().filter_map(|resource| resource.body);
    let shown: Vec<Shown> = bodies.filter_map(Shown::of).collect();
    out.list(&shown, || table(&shown))
}

/// The table of the kind that the first one is of.
fn table(shown: &[Shown]) -> Table {
    macro_rules! all {
        ($kind:ident) => {
            shown
                .iter()
                .filter_map(|one| match one {
                    Shown::$kind(one) => Some(one.clone()),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
    }
    match shown.first() {
        None => Table::new(["Name"]),
        Some(Shown::Config(_)) => resources::discovery_config_table(&all!(Config)),
        Some(Shown::Database(_)) => resources::database_table(&all!(Database)),
        Some(Shown::Instance(_)) => instance_table(&all!(Instance)),
        Some(Shown::Lock(_)) => locks::table(&all!(Lock)),
        Some(Shown::Role(_)) => resources::role_table(&all!(Role)),
        Some(Shown::Scope(_)) => {
            let scopes: Vec<Scope> = all!(Scope).into_iter().map(|scope| *scope).collect();
            discovery::status_table(&scopes, Timestamp::now(), false)
        }
        Some(Shown::Server(_)) => databases::table(&all!(Server), true),
        Some(Shown::Token(_)) => tokens::table(&all!(Token)),
        Some(Shown::User(_)) => users::table(&all!(User)),
    }
}

fn instance_table(instances: &[Instance]) -> Table {
    let mut table = Table::new([
        "Host",
        "Host ID",
        "Services",
        "Version",
        "Databases",
        "Up",
        "Address",
    ]);
    for instance in instances {
        let status = instance.status.as_ref();
        let since = status.and_then(|status| status.since);
        table.row([
            instance.spec.hostname.as_str(),
            &instance.metadata.name,
            &instance.spec.services.join(","),
            &instance.spec.version,
            &status.map_or(String::new(), |status| status.databases.to_string()),
            &since.map_or(String::new(), |at| when::ago(at, Timestamp::now())),
            &instance.spec.public_addr,
        ]);
    }
    table
}

/// One event of a watch, for programs.
#[derive(Serialize)]
struct EventShown<'e> {
    event: &'e str,
    kind: &'e str,
    name: &'e str,
    /// Text, since a number of this size does not survive every JSON reader. `0` while what there is is listed.
    revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Shown>,
}

/// Prints one event: a line of text, a line of JSON, or a YAML document.
pub(super) fn print_event(
    event: &'static str,
    revision: u64,
    resource: v1::Resource,
    format: Format,
) -> Result<(), Failure> {
    let v1::Resource {
        kind, name, body, ..
    } = resource;
    let shown = EventShown {
        event,
        kind: &kind,
        name: &name,
        revision: revision.to_string(),
        resource: body.and_then(Shown::of),
    };
    match format {
        Format::Text => {
            let sign = if event == "deleted" { '-' } else { '+' };
            output::print(&format!("{sign} {}/{}\n", visible(&kind), visible(&name)))
        }
        Format::Json => {
            let line = serde_json::to_string(&shown)
                .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
            output::print(&format!("{line}\n"))
        }
        Format::Yaml => output::print(&format!("---\n{}", output::yaml(&shown)?)),
    }
}
