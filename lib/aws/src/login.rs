//! What AWS is asked for so that somebody can log in to a database, as values.
//!
//! A [`LoginRequest`] is all that decides which credentials come back, so it is also what they are kept by. Its
//! [`LoginRequest::steps`] are the calls in the order in which they are made: each role of the chain, then the call
//! that mints.
//!
//! Not here: making the calls ([`crate::mint`]), and what a refusal of one means ([`crate::diagnosis`]).

use tidegate_core::{AccountId, Protocol, Region};

use crate::{
    chain::RoleChain,
    diagnosis::{Call, Identity, Statement, Step},
    session::SessionTag,
};

/// `redshift:GetClusterCredentials`, as policies name it.
pub const GET_CLUSTER_CREDENTIALS: &str = "redshift:GetClusterCredentials";
/// `redshift:GetClusterCredentialsWithIAM`, as policies name it.
pub const GET_CLUSTER_CREDENTIALS_WITH_IAM: &str = "redshift:GetClusterCredentialsWithIAM";
/// `redshift-serverless:GetCredentials`, as policies name it.
pub const GET_SERVERLESS_CREDENTIALS: &str = "redshift-serverless:GetCredentials";
/// What a policy has to allow for a token to be taken by RDS. No call has that name: the database decides.
pub const RDS_CONNECT: &str = "rds-db:connect";

/// A login, and of which database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Login {
    /// A password for the user of a provisioned Redshift cluster that belongs to the calling role.
    ClusterRole {
        /// The cluster's identifier.
        cluster: String,
        /// The database that the password is bound to.
        db_name: String,
    },
    /// A password for a user of a provisioned Redshift cluster.
    ClusterUser {
        /// The cluster's identifier.
        cluster: String,
        /// The user, as the database knows it.
        db_user: String,
        /// The database that the password is bound to.
        db_name: String,
        /// Whether Redshift makes the user if there is none; `None` is never.
        create: Option<NewUser>,
    },
    /// A token that an RDS instance, an Aurora cluster or an RDS Proxy takes as password. Signed here, not asked for.
    RdsToken(RdsLogin),
    /// A password for the user of a Redshift Serverless workgroup that belongs to the calling role.
    Workgroup {
        /// The workgroup.
        workgroup: Workgroup,
        /// The database that the password is bound to.
        db_name: String,
    },
}

/// A database user that Redshift makes at its first login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NewUser {
    /// Groups that it is in for the session, on top of those that it has; existing ones, in lower case.
    pub groups: Vec<String>,
}

/// How a workgroup of Redshift Serverless is named to AWS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Workgroup {
    /// By the custom domain that it is reached at, where its name is not known.
    CustomDomain(String),
    /// By its name.
    Named {
        /// The name.
        name: String,
        /// Its ARN, which ends in an id that only AWS knows; for the statement that a policy needs.
        arn: Option<String>,
    },
}

/// What a token for RDS is signed for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RdsLogin {
    /// The endpoint's own name at AWS, which is part of what is signed: no alias of it.
    pub host: String,
    /// The port that the database listens on.
    pub port: u16,
    /// The user, as the database knows it.
    pub db_user: String,
    /// What is spoken: users are let in by IAM in another way on each.
    pub protocol: Protocol,
    /// The id that policies name: `db-…`, `cluster-…` or `prx-…`; `None` when it is not known.
    pub resource_id: Option<String>,
    /// Whether an RDS Proxy stands before the database.
    pub is_proxy: bool,
}

/// A login, and as whom AWS is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoginRequest {
    /// What is asked for.
    pub login: Login,
    /// The database's region.
    pub region: Region,
    /// The account that owns the database; `None` when it is not known.
    pub account: Option<AccountId>,
    /// As whom.
    pub chain: RoleChain,
}

impl LoginRequest {
    /// The action that mints, as policies name it.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match &self.login {
            Login::ClusterRole { .. } => GET_CLUSTER_CREDENTIALS_WITH_IAM,
            Login::ClusterUser { .. } => GET_CLUSTER_CREDENTIALS,
            Login::RdsToken(_) => RDS_CONNECT,
            Login::Workgroup { .. } => GET_SERVERLESS_CREDENTIALS,
        }
    }

    /// Who mints in the end.
    #[must_use]
    pub fn caller(&self) -> Identity {
        self.chain
            .last()
            .map_or(Identity::Own, |role| Identity::Role(role.clone()))
    }

    /// The calls in the order in which they are made; the last one mints.
    #[must_use]
    pub fn steps(&self, session: &SessionTag) -> Vec<Step> {
        let mut caller = Identity::Own;
        let mut steps = Vec::with_capacity(self.chain.hops().len() + 1);
        for hop in self.chain.hops() {
            let role = Identity::Role(hop.role_arn.clone());
            let call = Call::AssumeRole {
                role: hop.clone(),
                with_source_identity: session.source_identity().is_some(),
                with_tags: !session.tags().is_empty(),
            };
            steps.push(Step { caller, call });
            caller = role;
        }
        let call = Call::Mint(Box::new(self.clone()));
        steps.push(Step { caller, call });
        steps
    }

    /// What the identity that mints has to be allowed, each as one statement of a policy.
    ///
    /// Source: service authorization reference, "Amazon Redshift", "Amazon Redshift Serverless" and "Amazon RDS IAM
    /// Authentication", resource types.
    #[must_use]
    pub fn needs(&self) -> Vec<Statement> {
        let cluster_arn = |kind: &str, cluster: &str, name: &str| {
            self.arn("redshift", &format!("{kind}:{cluster}/{name}"))
        };
        let action = self.action();
        match &self.login {
            Login::ClusterRole { cluster, db_name } => {
                vec![Statement::allow(
                    action,
                    [cluster_arn("dbname", cluster, db_name)],
                )]
            }
            Login::ClusterUser {
                cluster,
                db_user,
                db_name,
                create,
            } => {
                let user = cluster_arn("dbuser", cluster, db_user);
                let database = cluster_arn("dbname", cluster, db_name);
                let mut needs = vec![Statement::allow(action, [user.clone(), database])];
                if let Some(new) = create {
                    needs.push(Statement::allow("redshift:CreateClusterUser", [user]));
                    let groups: Vec<String> = new
                        .groups
                        .iter()
                        .map(|group| cluster_arn("dbgroup", cluster, group))
                        .collect();
                    if !groups.is_empty() {
                        needs.push(Statement::allow("redshift:JoinGroup", groups));
                    }
                }
                needs
            }
            Login::RdsToken(rds) => {
                let id = rds.resource_id.as_deref().unwrap_or("*");
                let user = self.arn("rds-db", &format!("dbuser:{id}/{}", rds.db_user));
                vec![Statement::allow(action, [user])]
            }
            Login::Workgroup { workgroup, .. } => {
                let arn = match workgroup {
                    Workgroup::Named { arn: Some(arn), .. } => arn.clone(),
                    _ => self.arn("redshift-serverless", "workgroup/*"),
                };
                vec![Statement::allow(action, [arn])]
            }
        }
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let partition = self.region.partition();
        let account = self.account.as_ref().map_or("*", AccountId::as_str);
        format!(
            "arn:{partition}:{service}:{}:{account}:{resource}",
            self.region
        )
    }
}
