//! AWS as the rest of Tidegate sees it: role chains, SDK clients made once, failures that say who
//! must act, and short-lived database credentials.
//!
//! What must hold: every call has timeouts and a bounded number of attempts; a failure names the
//! API action and the hop of the role chain that failed, however deep the SDK hid it; and nothing
//! here prints a secret.
//!
//! - [`chain`]: which roles are assumed in turn; [`session`]: what their sessions are called.
//! - [`factory`]: from a chain and a region to a configuration and clients.
//! - [`error`]: what went wrong, in twelve classes; [`diagnosis`]: what that means for a login, and the statement that
//!   ends it.
//! - [`login`]: what is asked for so that somebody can log in to a database.
//! - [`describe`]: what AWS says of databases that are known already.
//! - [`iam`]: what policies say of a call before it is made, and whom a role trusts: asked by the doctor alone.
//! - [`kms`]: keys that encrypt keys.
//! - [`sources`]: where the process's own credentials come from, and what each source said.
//! - [`caller`]: a signed request that tells others who this process is; [`object`]: one that puts an object into S3.
//! - [`mint`] with [`dbcreds`] and [`rds_token`]: passwords and tokens for logins; [`cache`]: how seldom they are asked
//!   for; [`budget`]: how often at most.
//!
//! Not here: what is scanned (`discovery`), and which role a database gets (`tidegate_core`).

pub mod budget;
pub mod cache;
pub mod caller;
pub mod chain;
pub mod dbcreds;
pub mod describe;
pub mod diagnosis;
pub mod error;
pub mod factory;
pub mod iam;
pub mod kms;
pub mod login;
pub mod mint;
pub mod object;
pub mod rds_token;
pub mod session;
pub mod sources;

mod bounded;
mod hop;
mod identity;
mod keeper;
mod whoami;

pub use cache::{CredentialCache, CredentialKey, Minter, Refused};
pub use caller::{SignError, SignedCaller};
pub use chain::{InvalidChain, RoleChain};
pub use dbcreds::{
    DbCredentials, redshift_cluster_credentials, redshift_cluster_credentials_with_iam,
    redshift_serverless_credentials,
};
pub use diagnosis::{Diagnosis, diagnose};
pub use error::{AwsErrorClass, AwsFailure, classify};
pub use factory::{AwsFactory, AwsFactoryBuilder, Limits};
pub use login::{Login, LoginRequest};
pub use mint::AwsMinter;
pub use object::ObjectPut;
pub use rds_token::rds_token;
pub use session::SessionTag;
