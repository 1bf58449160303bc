//! Resources as programs and people know them: `kind`, `version`, `metadata`, `spec`, `status`.
//!
//! What is written here can be read back by `tgctl create`, which ignores `status` and `revision`. Fields that are
//! empty are left out; fields that are there keep their name and type.
//!
//! Not here: reading resources from files (`tidegate_service::settings::resource`).

mod database;
mod discovery;
mod health;
mod lock;
mod request;
mod role;
mod server;
mod token;
mod user;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::convert;

pub(crate) use database::origin;
pub use database::{
    AwsSpec, DatabaseSpec, DatabaseStatus, RdsProxySpec, RdsSpec, RedshiftServerlessSpec,
    RedshiftSpec, TlsSpec,
};
pub use discovery::{
    AssumeRoleSpec, DiscoveryConfigSpec, DiscoveryConfigStatus, MatcherSpec,
    discovery_config_status,
};
pub use health::{HealthCheckSpec, HealthMatchSpec, LabelSpec};
pub use lock::LockSpec;
pub use request::{
    AccessRequestSpec, ReviewSpec as AccessReviewSpec, ThresholdSpec as AccessThresholdSpec,
};
pub use role::{
    ConditionsSpec, OptionsSpec, RecordSessionSpec, RequestSpec, ReviewSpec, RoleSpec, RuleSpec,
    ThresholdSpec,
};
pub use server::{ServerSpec, ServerStatus, TargetHealthStatus};
pub use token::{AllowSpec, TokenSpec, TokenStatus};
pub use user::{UserSpec, UserStatus};

/// `kind: access_request`.
pub type AccessRequest = Resource<AccessRequestSpec, ()>;
/// `kind: db`.
pub type Database = Resource<DatabaseSpec, DatabaseStatus>;
/// `kind: db_server`.
pub type DatabaseServer = Resource<ServerSpec, ServerStatus>;
/// `kind: discovery_config`.
pub type DiscoveryConfig = Resource<DiscoveryConfigSpec, DiscoveryConfigStatus>;
/// `kind: health_check_config`.
pub type HealthCheckConfig = Resource<HealthCheckSpec, ()>;
/// `kind: lock`.
pub type Lock = Resource<LockSpec, ()>;
/// `kind: role`.
pub type Role = Resource<RoleSpec, ()>;
/// `kind: token`.
pub type Token = Resource<TokenSpec, TokenStatus>;
/// `kind: user`.
pub type User = Resource<UserSpec, UserStatus>;

/// Any resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resource<Spec, Status> {
    /// What it is: `db`, `db_server`, …
    pub kind: &'static str,
    /// The version of its shape.
    pub version: &'static str,
    /// Its name and what is known of any resource.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: Spec,
    /// What is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// What is known of any resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Unique among resources of its kind.
    pub name: String,
    /// One line for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Changes with every change. Text, since a number of this size does not survive every JSON reader.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
}

impl Metadata {
    fn named(name: &str, revision: u64) -> Self {
        Self {
            name: name.to_owned(),
            revision: revision_text(revision),
            ..Self::default()
        }
    }
}

fn revision_text(revision: u64) -> String {
    if revision == 0 {
        String::new()
    } else {
        revision.to_string()
    }
}

/// An instant of a message; one that no clock can show is left out.
fn instant(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| convert::instant(at).ok())
}
