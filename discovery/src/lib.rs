//! The discovery worker: scans AWS by matchers and publishes what it finds to the auth service.
//!
//! Matchers, of the configuration file and of the group's `discovery_config` resources ([`configs`]), expand to
//! *scan scopes* (one kind of database in one account and region; [`wanted`], [`planner`]). The worker
//! holds a lease for each scope that it scans ([`lease`]), reads AWS to the last page ([`fetch`],
//! [`scan`]) within a budget of calls ([`budget`]), and streams the result ([`publish`]). The auth service
//! compares that with what the scope owns, names newcomers and applies the difference.
//!
//! [`survey`] looks at AWS once in the same way, and publishes nothing.
//!
//! Invariant: a scan that did not see everything says so. Only [`scan::Observed::Complete`] is
//! published as complete, and it is made in one place, from a reading without any failure; so
//! nothing is ever deleted on doubt.
//!
//! Not here: what a scan changes in the inventory, and who owns a database (`tidegate-auth`).

mod budget;
mod configs;
mod fetch;
mod found;
mod known;
mod lease;
mod metrics;
mod planner;
mod publish;
mod regions;
mod scan;
mod schedule;
mod survey;
mod wanted;
mod worker;

pub use survey::{Survey, Surveyed, Unexpanded, survey};
pub use wanted::SCOPES_MAX;
pub use worker::{DiscoveryError, SCANS_MAX, Worker};
