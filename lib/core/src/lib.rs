//! The nouns of Tidegate: labels, selectors, predicates, names, resources, roles and decisions, requests for roles,
//! locks, matchers, errors.
//!
//! Everything here is a value or a pure function: no I/O, no async, no clock. Time comes in as an argument.
//! What is here is what several services must agree on; how it travels is in `tidegate-proto`.

pub mod access;
pub mod aws_session;
pub mod database;
pub mod doctor;
pub mod endpoint;
pub mod error;
pub mod generated;
pub mod health;
pub mod ids;
pub mod labels;
pub mod locks;
pub mod matcher;
pub mod naming;
pub mod overrides;
mod pattern;
pub mod predicate;
pub mod requests;
pub mod scope;
pub mod selector;

pub use access::{
    Decision, Denial, Explanation, Grants, Permit, Policy, Request, Role, RoleConditions, Subject,
    Traits,
};
pub use database::{
    AwsMetadata, Database, DatabaseServer, HealthLayer, HealthStatus, Origin, Protocol, RoleSource,
    SessionsSaw, TargetHealth, TlsMode, TlsSettings, Uri,
};
pub use doctor::Diagnosis;
pub use error::{ErrorCode, Layer, Problem};
pub use health::HealthCheckConfig;
pub use ids::{
    AccountId, AssumeRole, ClusterName, DatabaseName, ExternalId, HostId, InvalidId, Region,
    RoleArn,
};
pub use labels::Labels;
pub use locks::{Lock, LockTarget};
pub use matcher::{AwsMatcher, DB_SERVICE_GROUP, DatabaseKind, EndpointFilter, Regions};
pub use overrides::{EffectiveRole, ResourceMatcher};
pub use predicate::{Predicate, PredicateError};
pub use requests::AccessRequest;
pub use scope::{ScanScope, ScopeId};
pub use selector::{InvalidSelector, Selector};
