//! Who may join with a token, under which host id, and how the token is spent.
//!
//! The certificate is made before the token is spent, so that a request which cannot be fulfilled costs nothing; and the
//! token is spent, under the guard that it is still as it was read, before the certificate is given. Of two hosts that
//! show one place of a token at once, at one instance or at two, the store lets one through.
//!
//! Invariant: a join is never a way to become another host. A host that joined by an AWS identity keeps its id for that
//! identity alone; one that joined with a secret keeps it unless a host of that id is up.

use std::time::Duration;

use tidegate_core::{HostId, locks::LockFacts};
use tidegate_identity::{HostHolder, secret};
use tidegate_proto::{Invalid, v1};
use tokio::sync::Mutex;

use super::{
    super::{
        Access, AccessError, digest_of,
        tokens::{
            Found,
            allow::{self, CallerIdentity},
            asked::JoinMethod,
            spend::{self, Spend},
            told_name,
        },
    },
    JOIN_REFUSED, allows,
    facts::JoinFacts,
    iam::IamError,
    names::{checked_hostname, new_host_id},
    sts::Sts,
};
use crate::{
    keys,
    record::{HostOriginRecord, TokenRecord, decode, encode},
    store::{CommitError, Entry, LeaseId, Txn},
};

/// How often a join tries again because its token was changed meanwhile. Within an instance joins take turns, so only
/// other instances and administrators change it.
const SPEND_TRIES_MAX: usize = 16;
/// How long it is remembered which AWS identity a host had: longer than anybody leaves one switched off.
const ORIGIN_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most services that a process may want to run.
const SERVICES_MAX: usize = 8;

/// What joins share.
pub(crate) struct Joins {
    /// The way to AWS.
    pub(super) sts: Sts,
    /// Whose turn it is to spend a token.
    turn: Mutex<()>,
}

impl Joins {
    pub(crate) fn new(sts: Sts) -> Self {
        Self {
            sts,
            turn: Mutex::new(()),
        }
    }
}

/// What a process has proven so far.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proven<'p> {
    /// Nothing yet: it will be asked to prove its AWS identity.
    Challenged,
    /// Its AWS identity.
    Identity(&'p CallerIdentity),
    /// That it knows the token.
    Secret,
}

impl Proven<'_> {
    const fn method(self) -> JoinMethod {
        match self {
            Self::Challenged | Self::Identity(_) => JoinMethod::Iam,
            Self::Secret => JoinMethod::Token,
        }
    }
}

/// What a join writes once it is decided.
struct Spent {
    txn: Txn,
    /// Of what it replaces.
    old_lease: Option<LeaseId>,
    new_lease: Option<LeaseId>,
}

impl Access {
    /// Lets a process in: spends the token and makes a certificate.
    pub(super) async fn admit(
        &self,
        request: &v1::JoinRequest,
        proven: Proven<'_>,
        facts: &mut JoinFacts,
    ) -> Result<v1::JoinResponse, AccessError> {
        let _turn = self.joins.turn.lock().await;
        let key_digest = secret::digest(&secret::hex(&request.public_key));
        for _ in 0..SPEND_TRIES_MAX {
            let Found::Stored { entry, record } =
                self.look_at_token(request, proven, facts).await?
            else {
                let (host_id, _) = self.host_id(&request.host_id, proven).await?;
                return self.give(request, host_id);
            };
            let (host_id, origin) = match spend::look(&record, &key_digest, self.now()) {
                Spend::Again { host_id } => {
                    let host_id = host_id
                        .parse()
                        .map_err(|error| AccessError::from(Invalid::new("host_id", error)))?;
                    return self.give(request, host_id);
                }
                Spend::UsedUp => return Err(used_up(&record)),
                Spend::Next => self.host_id(&request.host_id, proven).await?,
            };
            let given = self.give(request, host_id)?;
            let record = spend::used(*record, &key_digest, &given.host_id, self.now());
            let spent = self
                .spent(&entry, &record, &given.host_id, proven, origin)
                .await?;
            match self.store().commit(spent.txn).await {
                Ok(_) => {
                    self.give_back(spent.old_lease).await;
                    return Ok(given);
                }
                Err(CommitError::Conflict { .. } | CommitError::LeaseGone { .. }) => {
                    self.give_back(spent.new_lease).await;
                }
                Err(error) => {
                    self.give_back(spent.new_lease).await;
                    return Err(AccessError::commit("the join token", error));
                }
            }
        }
        Err(AccessError::Conflict {
            what: "the join token",
        })
    }

    /// The token, when it is one that lets in who asks by what it has proven.
    pub(super) async fn look_at_token(
        &self,
        request: &v1::JoinRequest,
        proven: Proven<'_>,
        facts: &mut JoinFacts,
    ) -> Result<Found, AccessError> {
        let found = self.find_token(&request.token).await?;
        let found = found.ok_or(AccessError::Unproven(JOIN_REFUSED))?;
        let digest = digest_of(&request.token);
        let (method, name, types, rules) = match &found {
            Found::Static { types } => (JoinMethod::Token, "", types, [].as_slice()),
            Found::Stored { record, .. } => (
                record.method(),
                record.name.as_str(),
                &record.types,
                record.allow.as_slice(),
            ),
        };
        facts.token = told_name(method, name, &digest);
        facts.method = Some(proven.method());
        if method != proven.method() {
            let message = format!(
                "the join token is joined with by method `{0}`: set `join_params.method: {0}`",
                method.as_str()
            );
            return Err(AccessError::forbidden("JOIN_METHOD", message));
        }
        check_services(&request.services, types)?;
        if let Proven::Identity(caller) = proven {
            allow::admit(rules, caller).map_err(|misfit| IamError::NotAllowed {
                misfit,
                account: caller.account.clone(),
                arn: caller.arn.clone(),
            })?;
        }
        Ok(found)
    }

    /// The id that the process had, when it may keep it, and a new one otherwise; with it what is known of the identity
    /// that the host of this id joined with.
    async fn host_id(
        &self,
        kept: &str,
        proven: Proven<'_>,
    ) -> Result<(HostId, Option<Entry>), AccessError> {
        if kept.is_empty() {
            return Ok((new_host_id()?, None));
        }
        let id: HostId = kept
            .parse()
            .map_err(|error| Invalid::new("host_id", error))?;
        let origin = self.store().get(keys::host_origin(kept)).await?;
        let may_keep = match (&origin, proven) {
            (Some(entry), Proven::Identity(caller)) => {
                let origin: HostOriginRecord = decode(entry)?;
                origin.account == caller.account && origin.arn == caller.arn
            }
            (None, Proven::Secret) => !self.is_up(kept),
            _ => false,
        };
        Ok(if may_keep {
            (id, origin)
        } else {
            (new_host_id()?, None)
        })
    }

    fn is_up(&self, host_id: &str) -> bool {
        let from = (host_id.to_owned(), String::new());
        let tables = self.parts.inventory.tables();
        let next = tables.hosts.range(from..).next();
        next.is_some_and(|((host, _), _)| host == host_id)
    }

    /// A certificate for what is asked, under an id.
    fn give(
        &self,
        request: &v1::JoinRequest,
        host_id: HostId,
    ) -> Result<v1::JoinResponse, AccessError> {
        let holder = HostHolder {
            host_id,
            services: request.services.clone(),
            hostname: checked_hostname(request.hostname.clone())?,
        };
        let host_id = holder.host_id.to_string();
        self.refuse_locked(LockFacts {
            host_id: Some(&host_id),
            hostname: Some(&holder.hostname),
            ..LockFacts::default()
        })?;
        let issued = self.host_certificate(&holder, &request.public_key, &request.names)?;
        Ok(v1::JoinResponse {
            host_id,
            certificate: Some(issued),
            trust: Some(self.parts.authority.trust()),
        })
    }

    /// What is written: the token with one use more, and which identity the host has.
    async fn spent(
        &self,
        entry: &Entry,
        record: &TokenRecord,
        host_id: &str,
        proven: Proven<'_>,
        origin: Option<Entry>,
    ) -> Result<Spent, AccessError> {
        let mut txn = Txn::new().at(entry.key.clone(), entry.modified).put_with(
            entry.key.clone(),
            encode(record),
            entry.lease,
        );
        let mut new_lease = None;
        if let Proven::Identity(caller) = proven {
            let lease = self.store().grant(ORIGIN_KEPT).await?;
            let record = HostOriginRecord {
                account: caller.account.clone(),
                arn: caller.arn.clone(),
            };
            txn = txn.put_with(keys::host_origin(host_id), encode(&record), Some(lease));
            new_lease = Some(lease);
        }
        Ok(Spent {
            txn,
            old_lease: origin.and_then(|origin| origin.lease),
            new_lease,
        })
    }
}

fn used_up(record: &TokenRecord) -> AccessError {
    let hosts = match record.max_uses {
        1 => "one host".to_owned(),
        hosts => format!("{hosts} hosts"),
    };
    AccessError::Denied {
        reason: "TOKEN_USED",
        message: format!(
            "the join token is for {hosts} and is used up: make another with `tgctl tokens add`"
        ),
    }
}

fn check_services(services: &[String], types: &[String]) -> Result<(), AccessError> {
    if services.is_empty() {
        return Err(Invalid::new("services", "must name what the process runs").into());
    }
    if services.len() > SERVICES_MAX {
        let problem = format!("are more than {SERVICES_MAX}");
        return Err(Invalid::new("services", problem).into());
    }
    if let Some(service) = services.iter().find(|service| !allows(types, service)) {
        let message = format!(
            "the join token does not allow `{service}`: it allows {}",
            types.join(", ")
        );
        return Err(AccessError::Denied {
            reason: "SERVICE_NOT_ALLOWED",
            message,
        });
    }
    Ok(())
}
