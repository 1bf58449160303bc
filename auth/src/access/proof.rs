//! Proofs of who somebody is: a name, its password and, where one is asked for, the code of a second factor.
//!
//! Invariant: who cannot prove it learns nothing. An unknown name, a wrong password and a wrong code take the same way
//! through here, the same time (a hash is computed in each case) and get the same answer. Every proof counts against
//! guessing, whatever it is for.

use std::net::SocketAddr;

use tidegate_core::locks::LockFacts;
use tidegate_proto::{Invalid, v1};
use tidegate_service::settings::SecondFactor;

use super::{
    Access, AccessError, check_name, digest_of,
    factors::{self, Judged, StoredFactors},
    records::FactorsRecord,
};
use crate::{
    audit::event,
    record::{UserRecord, encode},
    store::{CommitError, Entry, Txn},
};

/// What is said of a proof that fails, whatever the cause.
const REFUSED: &str = "wrong user name or password";
/// The same where codes are looked at.
const REFUSED_WITH_CODE: &str = "wrong user name, password or code";
/// How often a code is judged when something else of the person changes at the same time.
const TRIES_MAX: u32 = 3;
/// Longest part of what was typed as a name that is told: it may be a password.
const NAME_TOLD_CHARS_MAX: usize = 128;

/// What a proof is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    AddFactor,
    ChangePassword,
    Login,
    RemoveFactor,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::AddFactor => "mfa.add",
            Self::ChangePassword => "user.password_change",
            Self::Login => "user.login",
            Self::RemoveFactor => "mfa.delete",
        }
    }
}

/// What somebody says to prove who they are.
pub(super) struct Claim {
    pub(super) purpose: Purpose,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) code: String,
    /// The secret of a second factor that is to be confirmed with the code; empty for none.
    pub(super) enrolment: String,
    pub(super) remote: Option<SocketAddr>,
}

impl Claim {
    /// As a message has it.
    pub(super) fn of(
        purpose: Purpose,
        proof: Option<v1::Proof>,
        remote: Option<SocketAddr>,
    ) -> Result<Self, Invalid> {
        let proof = proof.ok_or_else(|| Invalid::new("proof", "is missing"))?;
        Ok(Self {
            purpose,
            user: proof.user,
            password: proof.password,
            code: proof.otp,
            enrolment: String::new(),
            remote,
        })
    }
}

/// Somebody who proved who they are; [`Access::prove_person`] alone makes it.
pub(super) struct Proven {
    entry: Entry,
    account: UserRecord,
    second_factor: bool,
}

impl Proven {
    /// The person's name.
    pub(super) fn name(&self) -> &str {
        self.account
            .user
            .as_ref()
            .map_or("", |user| user.name.as_str())
    }

    /// The account.
    pub(super) const fn account(&self) -> &UserRecord {
        &self.account
    }

    /// Whether a second factor was given.
    pub(super) const fn second_factor(&self) -> bool {
        self.second_factor
    }

    /// Only if the account is still what was proven to be: neither changed nor gone since.
    pub(super) fn unchanged(&self, txn: Txn) -> Txn {
        txn.at(self.entry.key.clone(), self.entry.modified)
    }

    /// The account, and where it was read.
    pub(super) fn into_account(self) -> (Entry, UserRecord) {
        (self.entry, self.account)
    }
}

impl Access {
    /// Whether people give a code.
    pub(crate) const fn second_factor(&self) -> SecondFactor {
        self.parts.second_factor
    }

    /// Finds out whether somebody is who they say. A code that was right is used up, whatever follows.
    ///
    /// # Errors
    ///
    /// [`AccessError::Unproven`] without a cause; [`AccessError::LockedOut`] before anything is looked at;
    /// [`AccessError::Denied`] when a lock strikes who was proven to be it.
    pub(super) async fn prove_person(&self, claim: Claim) -> Result<Proven, AccessError> {
        let told = (claim.purpose, claim.user.clone(), claim.remote);
        let outcome = self.try_prove_person(claim).await;
        if let Err(error) = &outcome {
            let (purpose, user, remote) = told;
            match error {
                AccessError::Unproven(_)
                | AccessError::LockedOut { .. }
                | AccessError::Denied { .. }
                | AccessError::Forbidden { .. } => self.tell_refused(purpose, &user, remote, error),
                // Nothing was found out.
                _ => {}
            }
        }
        outcome
    }

    fn tell_refused(
        &self,
        purpose: Purpose,
        user: &str,
        remote: Option<SocketAddr>,
        error: &AccessError,
    ) {
        let mut told = event::new(event::LOGIN_FAILED);
        told.user = user.chars().take(NAME_TOLD_CHARS_MAX).collect();
        told.error = error.to_string();
        told.fields.insert("method".to_owned(), "local".to_owned());
        told.fields
            .insert("purpose".to_owned(), purpose.as_str().to_owned());
        if let Some(remote) = remote {
            told.fields
                .insert("addr.remote".to_owned(), remote.to_string());
        }
        self.parts.audit.record(told);
    }

    async fn try_prove_person(&self, claim: Claim) -> Result<Proven, AccessError> {
        let name = claim.user.as_str();
        let stored_failures = self.stored_failures(name).await?;
        let now = self.now();
        let wait = self.lockout.wait(name, stored_failures, now);
        if !wait.is_zero() {
            return Err(AccessError::LockedOut { wait });
        }
        let is_name = check_name("user", name).is_ok();
        let (account, factors) = if is_name {
            (self.user(name).await?, self.factors(name).await?)
        } else {
            (None, StoredFactors::default())
        };
        let hash = account
            .as_ref()
            .map(|(_, record)| record.password_hash.clone())
            .filter(|hash| !hash.is_empty());
        let failures = self.lockout.failed(name, stored_failures, now);
        let right = self
            .passwords
            .matches(claim.password.clone(), hash)
            .await
            .inspect_err(|_| self.lockout.forgive(name))?;
        let outcome = self.with_code(&claim, account, factors, right).await;
        match &outcome {
            Err(AccessError::Unproven(_)) => self.share_failure(name, failures).await?,
            Ok(_) | Err(AccessError::Forbidden { .. } | AccessError::Denied { .. }) => {
                self.lockout.clear(name);
                if stored_failures.is_some_and(|stored| stored.count > 0) {
                    self.forget_failures(name).await?;
                }
            }
            Err(_) => self.lockout.forgive(name),
        }
        outcome
    }

    /// The second half: the password was compared, the code is judged and used up.
    async fn with_code(
        &self,
        claim: &Claim,
        mut account: Option<(Entry, UserRecord)>,
        mut factors: StoredFactors,
        password_is_right: bool,
    ) -> Result<Proven, AccessError> {
        let enrolment = (!claim.enrolment.is_empty()).then(|| digest_of(&claim.enrolment));
        let hash_of = |account: &Option<(Entry, UserRecord)>| {
            let account = account.as_ref();
            account.map(|(_, record)| record.password_hash.clone())
        };
        let compared = hash_of(&account);
        for _ in 0..TRIES_MAX {
            let judged = factors::judge(
                &factors.record,
                self.second_factor(),
                &claim.code,
                enrolment.as_deref(),
                self.now(),
            );
            let Some((entry, record)) = account.take().filter(|_| password_is_right) else {
                break;
            };
            let proven = Proven {
                entry,
                account: record,
                second_factor: matches!(judged, Judged::Right(_) | Judged::RightAndConfirms(_)),
            };
            let used = match judged {
                Judged::Wrong => break,
                Judged::Missing if claim.purpose != Purpose::AddFactor => {
                    self.refuse_locked_person(&proven)?;
                    return Err(AccessError::forbidden(
                        "SECOND_FACTOR_NEEDED",
                        "this cluster asks for a second factor, and you have none yet",
                    ));
                }
                Judged::Missing | Judged::NotAsked => None,
                Judged::Right(record) | Judged::RightAndConfirms(record) => Some(record),
            };
            self.refuse_locked_person(&proven)?;
            let Some(used) = used else {
                return Ok(proven);
            };
            if let Some(proven) = self.use_up(proven, &factors, &used).await? {
                return Ok(proven);
            }
            // Somebody else was first: perhaps with this very code.
            account = self.user(&claim.user).await?;
            factors = self.factors(&claim.user).await?;
            if hash_of(&account) != compared {
                // Perhaps with another password, which this claim was not compared with.
                break;
            }
        }
        Err(AccessError::Unproven(match self.second_factor() {
            SecondFactor::Off => REFUSED,
            SecondFactor::Optional | SecondFactor::On => REFUSED_WITH_CODE,
        }))
    }

    /// Only who proved to be somebody is told of that somebody's locks.
    fn refuse_locked_person(&self, proven: &Proven) -> Result<(), AccessError> {
        let user = proven.account.user.as_ref();
        self.refuse_locked(LockFacts {
            user: user.map(|user| user.name.as_str()),
            roles: user.map_or(&[], |user| &user.roles),
            ..LockFacts::default()
        })
    }

    /// Stores that a code was used, and what it confirmed; `None` when something changed since it was judged.
    async fn use_up(
        &self,
        mut proven: Proven,
        before: &StoredFactors,
        used: &FactorsRecord,
    ) -> Result<Option<Proven>, AccessError> {
        let mut txn = proven.unchanged(Txn::new());
        let confirmed = used.factors.len() > before.record.factors.len();
        if confirmed {
            proven.account.user.get_or_insert_default().second_factors = factors::count(used);
            txn = txn.put(proven.entry.key.clone(), encode(&proven.account));
        }
        match self
            .store()
            .commit(before.replace(txn, proven.name(), used))
            .await
        {
            Ok(revision) => {
                if confirmed {
                    proven.entry.modified = revision;
                    if let Some(factor) = used.factors.last() {
                        let name = proven.name();
                        self.tell_factor(event::MFA_ADD, name, name, &factor.name);
                    }
                }
                Ok(Some(proven))
            }
            Err(CommitError::Conflict { .. }) => Ok(None),
            Err(error) => Err(AccessError::commit("the user", error)),
        }
    }
}
