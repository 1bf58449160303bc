//! Second factors of people: begun, confirmed with a code, used, removed.
//!
//! Invariant: a second factor counts from when a code of it was shown on, and never before; one that was begun and
//! forgotten changes nothing. A code is used up in the store before what it proves is believed, by a guard on what was
//! read: two that show the same code at two instances are told apart there.
//!
//! Judging ([`judge`]) is pure. Codes themselves: [`totp`].

mod totp;

use jiff::{SignedDuration, Timestamp};
use tidegate_identity::secret;
use tidegate_proto::{Invalid, convert, v1};
use tidegate_service::settings::SecondFactor;
use zeroize::Zeroizing;

use super::{
    Access, AccessError, check_name, digest_of, new_secret,
    proof::{Claim, Purpose},
    records::{FactorRecord, FactorsRecord, PendingRecord},
};
use crate::{
    audit::event,
    keys,
    record::{UserRecord, decode, encode},
    store::{Entry, Txn},
};

/// Most second factors of one person.
const FACTORS_MAX: usize = 8;
/// How long one that was begun can be confirmed.
const ENROLMENT_TTL: SignedDuration = SignedDuration::from_mins(10);
/// What one is called that was given no name.
const NAME_DEFAULT: &str = "app";
/// What is said of the secret of an enrolment that confirms nothing.
const ENROLMENT_REFUSED: &str = "this second factor was confirmed already, replaced by another one, or begun too long ago: begin again";

/// What a code, or none, comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Judged {
    /// One is asked for, and the person has none.
    Missing,
    /// None is asked for.
    NotAsked,
    /// It is right; it is used up when this is stored.
    Right(FactorsRecord),
    /// It is right, and confirms the second factor that was begun: all is so when this is stored.
    RightAndConfirms(FactorsRecord),
    /// None of the person's second factors shows it now, or it was used before.
    Wrong,
}

/// Judges a code. `enrolment` is the digest of the secret of a second factor that is to be confirmed with it, which only
/// somebody without any can do here.
pub(super) fn judge(
    record: &FactorsRecord,
    asked: SecondFactor,
    code: &str,
    enrolment: Option<&str>,
    now: Timestamp,
) -> Judged {
    if asked == SecondFactor::Off {
        return Judged::NotAsked;
    }
    if record.factors.is_empty() {
        return match enrolment {
            Some(digest) => match confirmed(record, digest, code, now) {
                Some(record) => Judged::RightAndConfirms(record),
                None => Judged::Wrong,
            },
            None if asked == SecondFactor::On => Judged::Missing,
            None => Judged::NotAsked,
        };
    }
    let mut used = None;
    for (index, factor) in record.factors.iter().enumerate() {
        // All are looked at, whatever the first ones come to.
        let step = totp::step_of(&factor.secret, code, now, factor.last_step);
        used = used.or(step.map(|step| (index, step)));
    }
    let Some((index, step)) = used else {
        return Judged::Wrong;
    };
    let mut record = record.clone();
    let factor = &mut record.factors[index];
    factor.last_step = step;
    factor.last_used_at = Some(convert::timestamp(now));
    Judged::Right(record)
}

/// The pending one, when this is its enrolment and it is not over.
fn pending<'r>(
    record: &'r FactorsRecord,
    digest: &str,
    now: Timestamp,
) -> Option<&'r FactorRecord> {
    let pending = record.pending.as_ref()?;
    let ends = convert::instant(pending.expires_at.as_ref()?).ok()?;
    (pending.enrolment_digest == digest && now < ends)
        .then_some(pending.factor.as_ref())
        .flatten()
}

/// With the pending one confirmed, when the code is one of it.
fn confirmed(
    record: &FactorsRecord,
    digest: &str,
    code: &str,
    now: Timestamp,
) -> Option<FactorsRecord> {
    let mut factor = pending(record, digest, now)?.clone();
    factor.last_step = totp::step_of(&factor.secret, code, now, factor.last_step)?;
    factor.created_at = Some(convert::timestamp(now));
    let mut record = record.clone();
    record.pending = None;
    record.factors.push(factor);
    Some(record)
}

/// How many a person has, for the account.
pub(super) fn count(record: &FactorsRecord) -> u32 {
    u32::try_from(record.factors.len()).unwrap_or(u32::MAX)
}

/// What is stored of one person's second factors, and where.
#[derive(Default)]
pub(super) struct StoredFactors {
    /// When it was read: 0 when there was nothing.
    modified: u64,
    /// What was read.
    pub(super) record: FactorsRecord,
}

impl StoredFactors {
    fn read(entry: Option<&Entry>) -> Result<Self, AccessError> {
        Ok(Self {
            modified: entry.map_or(0, |entry| entry.modified),
            record: entry.map(decode).transpose()?.unwrap_or_default(),
        })
    }

    /// Puts another record in the place of what was read, if it is still that.
    pub(super) fn replace(&self, txn: Txn, user: &str, record: &FactorsRecord) -> Txn {
        let key = keys::factors(user);
        let guarded = match self.modified {
            0 => txn.absent(key.clone()),
            revision => txn.at(key.clone(), revision),
        };
        guarded.put(key, encode(record))
    }
}

impl Access {
    /// One person's second factors; nobody's are none.
    pub(super) async fn factors(&self, user: &str) -> Result<StoredFactors, AccessError> {
        let entry = self.store().get(keys::factors(user)).await?;
        StoredFactors::read(entry.as_ref())
    }

    /// Makes a second factor that waits to be confirmed.
    pub(crate) async fn begin_factor(
        &self,
        request: v1::BeginFactorRequest,
        remote: Option<std::net::SocketAddr>,
    ) -> Result<v1::BeginFactorResponse, AccessError> {
        if self.second_factor() == SecondFactor::Off {
            let message = "second factors are off in this cluster: an operator can turn them on \
                           (`auth_service.authentication.second_factor`)";
            return Err(AccessError::forbidden("SECOND_FACTOR_OFF", message));
        }
        if !request.name.is_empty() {
            check_name("name", &request.name)?;
        }
        let claim = Claim::of(Purpose::AddFactor, request.proof, remote)?;
        let proven = self.prove_person(claim).await?;
        let user = proven.name();
        let stored = self.factors(user).await?;
        let name = free_name(&stored.record, &request.name)?;
        let bytes = Zeroizing::new(secret::random_bytes::<{ totp::SECRET_BYTES }>()?);
        let cluster = self.parts.authority.cluster().to_string();
        let shown =
            totp::shown(bytes.as_slice(), &cluster, user).ok_or_else(|| AccessError::Internal {
                doing: "making a second factor",
                source: "its address cannot be written".into(),
            })?;
        let (enrolment, enrolment_digest) = new_secret()?;
        let ends = self.now().saturating_add(ENROLMENT_TTL);
        let expires_at = convert::timestamp(ends.unwrap_or(Timestamp::MAX));
        let mut record = stored.record.clone();
        record.pending = Some(PendingRecord {
            enrolment_digest,
            factor: Some(FactorRecord {
                name: name.clone(),
                secret: bytes.to_vec(),
                last_step: 0,
                created_at: None,
                last_used_at: None,
            }),
            expires_at: Some(expires_at),
        });
        let txn = stored.replace(proven.unchanged(Txn::new()), user, &record);
        let committed = self.store().commit(txn).await;
        committed.map_err(|error| AccessError::commit("the user", error))?;
        Ok(v1::BeginFactorResponse {
            enrolment,
            secret: shown.secret,
            otpauth_url: shown.address,
            expires_at: Some(expires_at),
            name,
        })
    }

    /// Confirms a second factor that was begun.
    pub(crate) async fn confirm_factor(
        &self,
        request: v1::ConfirmFactorRequest,
    ) -> Result<v1::Factor, AccessError> {
        let v1::ConfirmFactorRequest {
            user,
            enrolment,
            otp,
        } = request;
        check_name("user", &user)?;
        let refused = || AccessError::Unproven(ENROLMENT_REFUSED);
        let (entry, account) = self.user(&user).await?.ok_or_else(refused)?;
        let stored = self.factors(&user).await?;
        let (digest, now) = (digest_of(&enrolment), self.now());
        let waiting = pending(&stored.record, &digest, now).ok_or_else(refused)?;
        let name = waiting.name.clone();
        let record = confirmed(&stored.record, &digest, &otp, now).ok_or_else(|| {
            let message = "the code is wrong: give the one that the app shows now, and check that \
                           the clock of its device is right";
            AccessError::forbidden("WRONG_CODE", message)
        })?;
        self.store_factors(&stored, &record, (&entry, account), &user)
            .await?;
        self.tell_factor(event::MFA_ADD, &user, &user, &name);
        let made = record.factors.last().map(shown);
        Ok(made.unwrap_or_default())
    }

    /// Removes one of a person's own second factors.
    pub(crate) async fn remove_factor(
        &self,
        request: v1::RemoveFactorRequest,
        remote: Option<std::net::SocketAddr>,
    ) -> Result<(), AccessError> {
        let claim = Claim::of(Purpose::RemoveFactor, request.proof, remote)?;
        let proven = self.prove_person(claim).await?;
        let user = proven.name().to_owned();
        let stored = self.factors(&user).await?;
        let mut record = stored.record.clone();
        record.factors.retain(|factor| factor.name != request.name);
        if record.factors.len() == stored.record.factors.len() {
            return Err(AccessError::NotFound {
                what: "second factor",
                name: request.name.chars().take(128).collect(),
            });
        }
        if record.factors.is_empty() && self.second_factor() == SecondFactor::On {
            let message = "this cluster asks for a second factor, and this is your last one: add \
                           another one first";
            return Err(AccessError::forbidden("LAST_FACTOR", message));
        }
        let account = proven.into_account();
        self.store_factors(&stored, &record, (&account.0, account.1), &user)
            .await?;
        self.tell_factor(event::MFA_DELETE, &user, &user, &request.name);
        Ok(())
    }

    /// A person's own second factors.
    pub(crate) async fn list_factors(&self, user: &str) -> Result<Vec<v1::Factor>, AccessError> {
        let stored = self.factors(user).await?;
        Ok(stored.record.factors.iter().map(shown).collect())
    }

    /// Takes all second factors from a person.
    pub(crate) async fn reset_factors(
        &self,
        actor: &str,
        user: &str,
    ) -> Result<v1::User, AccessError> {
        let account = self.existing(user).await?;
        let stored = self.factors(user).await?;
        let none = FactorsRecord::default();
        let revision = self
            .store_factors(&stored, &none, (&account.0, account.1.clone()), user)
            .await?;
        for factor in &stored.record.factors {
            self.tell_factor(event::MFA_DELETE, actor, user, &factor.name);
        }
        let shown = account.1.user.unwrap_or_default();
        Ok(v1::User {
            second_factors: 0,
            revision,
            ..shown
        })
    }

    /// Writes other second factors, and how many they are to the account.
    async fn store_factors(
        &self,
        stored: &StoredFactors,
        record: &FactorsRecord,
        (entry, mut account): (&Entry, UserRecord),
        user: &str,
    ) -> Result<u64, AccessError> {
        account.user.get_or_insert_default().second_factors = count(record);
        let txn = Txn::new()
            .at(entry.key.clone(), entry.modified)
            .put(entry.key.clone(), encode(&account));
        let committed = self.store().commit(stored.replace(txn, user, record)).await;
        let revision = committed.map_err(|error| AccessError::commit("the user", error))?;
        self.parts.inventory.reached(revision).await;
        Ok(revision)
    }

    pub(super) fn tell_factor(&self, kind: event::Kind, actor: &str, user: &str, name: &str) {
        let mut told = event::new(kind);
        actor.clone_into(&mut told.user);
        for (key, value) in [("name", user), ("mfa_device_name", name)] {
            told.fields.insert(key.to_owned(), value.to_owned());
        }
        self.parts.audit.record(told);
    }
}

/// A second factor as listings show it.
fn shown(factor: &FactorRecord) -> v1::Factor {
    v1::Factor {
        name: factor.name.clone(),
        created_at: factor.created_at,
        last_used_at: factor.last_used_at,
    }
}

/// The name that was asked for, or the next one that is free.
fn free_name(record: &FactorsRecord, asked: &str) -> Result<String, AccessError> {
    let taken = |name: &str| record.factors.iter().any(|factor| factor.name == name);
    if record.factors.len() >= FACTORS_MAX {
        let problem = format!("are {FACTORS_MAX} already: remove one first");
        return Err(Invalid::new("second factors", problem).into());
    }
    if !asked.is_empty() {
        return if taken(asked) {
            Err(AccessError::Exists {
                what: "second factor",
                name: asked.to_owned(),
            })
        } else {
            Ok(asked.to_owned())
        };
    }
    let numbered = (2..=FACTORS_MAX + 1).map(|number| format!("{NAME_DEFAULT}-{number}"));
    let free = std::iter::once(NAME_DEFAULT.to_owned())
        .chain(numbered)
        .find(|name| !taken(name));
    // There are more names than second factors, so one is free.
    Ok(free.unwrap_or_else(|| NAME_DEFAULT.to_owned()))
}

#[cfg(test)]
mod tests;
