//! The nouns of Tidegate: labels, selectors, names, resources, roles and decisions, matchers, errors.
//!
//! Everything here is a value or a pure function: no I/O, no async, no clock. Time comes in as an argument.
//! What is here is what several services must agree on; how it travels is in `tidegate-proto`.

pub mod access;
pub mod database;
pub mod error;
pub mod generated;
pub mod ids;
pub mod labels;
pub mod matcher;
pub mod naming;
pub mod overrides;
pub mod scope;
pub mod selector;

pub use access::{
    Decision, Denial, Permit, Policy, Request, Role, RoleConditions, Subject, Traits,
};
pub use database::{
    AwsMetadata, Database, DatabaseServer, HealthStatus, Origin, Protocol, RoleSource,
    TargetHealth, TlsMode, TlsSettings, Uri,
};
pub use error::{ErrorCode, Layer, Problem};
pub use ids::{
    AccountId, AssumeRole, ClusterName, DatabaseName, ExternalId, HostId, InvalidId, Region,
    RoleArn,
};
pub use labels::Labels;
pub use matcher::{AwsMatcher, DatabaseKind, EndpointFilter, Regions};
pub use overrides::{EffectiveRole, ResourceMatcher};
pub use scope::{ScanScope, ScopeId};
pub use selector::{InvalidSelector, Selector};
