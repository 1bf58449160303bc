//! Accounts: who may sign requests in them, the roles that can be assumed, and what limits both.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::is_region_name;
use super::{Region, World, WorldError, check_iam_name, check_role, invalid, partition};
use crate::iam::{IdentityPolicy, Layers, TrustPolicy};

/// The longest session that a role may grant, in seconds (12 hours).
pub(crate) const ROLE_SESSION_SECONDS_MAX: u32 = 43_200;
/// The least value of a role's longest session, in seconds (1 hour).
pub(crate) const ROLE_SESSION_SECONDS_MIN: u32 = 3_600;

/// One AWS account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Account {
    /// IAM users by name.
    pub users: BTreeMap<String, User>,
    /// IAM roles by name.
    pub roles: BTreeMap<String, Role>,
    /// Service control policies. With none everything is allowed by them; with any, one of them has to allow what is
    /// done, and none may deny it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_control_policies: Vec<IdentityPolicy>,
    /// OIDC providers that trust policies can name, by issuer without `https://`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub oidc_providers: BTreeMap<String, OidcProvider>,
    /// Enabled regions by name. A region that is not listed is not opted in (and one that is can be
    /// disabled): calls signed for it fail as AWS lets them fail, with `InvalidClientTokenId`. (`sts` in `us-east-1` always
    /// works.)
    pub regions: BTreeMap<String, Region>,
}

/// An IAM user: long-lived access keys and what they may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    /// Access keys; each id is unique in the world.
    pub access_keys: Vec<AccessKey>,
    /// Identity policies.
    pub policies: Vec<IdentityPolicy>,
    /// Permissions boundary: what its policies can allow at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<IdentityPolicy>,
}

/// An OIDC provider of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OidcProvider {
    /// Audiences (client ids) that its tokens may be for.
    pub audiences: BTreeSet<String>,
}

/// A long-lived access key. Its secret does not show in `Debug`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Public id, `AKIA…`.
    pub id: String,
    /// The secret that requests are signed with.
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// An IAM role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Who may assume it.
    pub trust: TrustPolicy,
    /// What its sessions may do.
    #[serde(default)]
    pub policies: Vec<IdentityPolicy>,
    /// Permissions boundary: what its policies can allow at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<IdentityPolicy>,
    /// The longest session in seconds, 3600 to 43200. Default 3600.
    #[serde(default = "default_role_session")]
    pub max_session_duration: u32,
    /// IAM path with both slashes. Default `/`.
    #[serde(default = "default_path")]
    pub path: String,
}

impl Role {
    /// A role at path `/` with sessions of up to one hour.
    pub fn new(trust: TrustPolicy, policies: Vec<IdentityPolicy>) -> Self {
        Self {
            trust,
            policies,
            boundary: None,
            max_session_duration: default_role_session(),
            path: default_path(),
        }
    }
}

/// Whose policies count: a user, or a role whatever the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IamName {
    Role(String),
    User(String),
}

impl World {
    /// The policies of a user or role; of one that is not there, those that limit its account.
    pub(crate) fn layers(&self, account: &str, name: &IamName) -> Layers<'_> {
        let Some(account) = self.accounts.get(account) else {
            return Layers::default();
        };
        let (policies, boundary) = match name {
            IamName::Role(name) => account
                .roles
                .get(name)
                .map(|it| (&it.policies, &it.boundary)),
            IamName::User(name) => account
                .users
                .get(name)
                .map(|it| (&it.policies, &it.boundary)),
        }
        .unzip();
        Layers {
            identity: policies.map_or(&[], Vec::as_slice),
            boundary: boundary.and_then(Option::as_ref),
            service_control: &account.service_control_policies,
            session: None,
        }
    }
}

impl Account {
    /// Adds or replaces a user with one access key.
    pub fn put_user(&mut self, name: &str, key: AccessKey, policies: Vec<IdentityPolicy>) {
        self.users.insert(
            name.to_owned(),
            User {
                access_keys: vec![key],
                policies,
                boundary: None,
            },
        );
    }

    /// Adds or replaces a role.
    pub fn put_role(&mut self, name: &str, role: Role) {
        self.roles.insert(name.to_owned(), role);
    }

    /// The partition that its regions are in; `aws` without any.
    pub(crate) fn partition(&self) -> &'static str {
        let first = self.regions.keys().next();
        first.map_or("aws", |region| partition(region))
    }

    /// Enables a region; what it holds stays.
    pub fn enable_region(&mut self, name: &str) {
        self.regions.entry(name.to_owned()).or_default();
    }

    pub(super) fn validate(&self, id: &str, keys: &mut BTreeSet<String>) -> Result<(), WorldError> {
        for (name, user) in &self.users {
            check_iam_name(&format!("accounts.{id}.users"), name)?;
            for key in &user.access_keys {
                if !keys.insert(key.id.clone()) {
                    return Err(WorldError::AccessKeyTwice { id: key.id.clone() });
                }
            }
        }
        for (name, role) in &self.roles {
            check_role(&format!("accounts.{id}.roles"), name, role)?;
        }
        for (region, in_region) in &self.regions {
            let at = format!("accounts.{id}.regions");
            if !is_region_name(region) {
                return Err(invalid(&at, region, "is no region name"));
            }
            if partition(region) != self.partition() {
                let rule = "is in another partition than the account's other regions";
                return Err(invalid(&at, region, rule));
            }
            in_region.validate(&format!("{at}.{region}"))?;
        }
        Ok(())
    }
}

fn default_role_session() -> u32 {
    ROLE_SESSION_SECONDS_MIN
}

fn default_path() -> String {
    "/".to_owned()
}
