//! Moving CAs from phase to phase: read, decide, write if nobody else did.
//!
//! Invariant: a move is written only over the record that it was decided by, for all kinds that are named in one
//! transaction. So of two operators, or of all instances when an automatic phase is due, one moves; the others find the
//! phase that they asked for, or are told that it does not follow.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_identity::CaKind;
use tidegate_proto::{Invalid, v1};

use super::{
    Authority, AuthorityError, RotateError,
    rotation::{GRACE_DEFAULT, GRACE_MAX, GRACE_MIN, Keys, Mode, Move, Phase},
    set::{CaSet, Rotation},
};
use crate::{
    audit::event,
    keys,
    record::{CaRecord, decode, encode},
    store::{CommitError, Txn},
};

/// How often a move is decided anew when somebody else wrote first.
const ATTEMPTS_MAX: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// A rotation that starts.
    Start(Mode),
    /// A phase, by an administrator: from then on each is asked for.
    To(Phase),
    /// The phase that an automatic rotation is due to move to.
    Due(Phase),
}

/// A move of CAs.
#[derive(Clone, Debug)]
pub(crate) struct RotateRequest {
    pub(crate) kinds: Vec<CaKind>,
    pub(crate) moved: Moved,
    /// Who asks, for the audit log; empty for nobody but the time.
    pub(crate) actor: String,
}

impl RotateRequest {
    /// Reads a request.
    pub(crate) fn read(
        request: &v1::RotateCertAuthoritiesRequest,
        actor: String,
    ) -> Result<Self, Invalid> {
        let mut kinds: Vec<CaKind> = Vec::new();
        for name in &request.kinds {
            let kind = CaKind::ALL.into_iter().find(|kind| kind.as_str() == name);
            let kind = kind.ok_or_else(|| {
                Invalid::new(
                    "kinds",
                    format!("has `{name}`: a CA is `host`, `user` or `db`"),
                )
            })?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        if kinds.is_empty() {
            return Err(Invalid::new(
                "kinds",
                "must name a CA: `host`, `user` or `db`",
            ));
        }
        let phase = v1::RotationPhase::try_from(request.phase)
            .map_err(|_| Invalid::new("phase", "is not known to this service"))?;
        let grace = grace(request.grace_period.as_ref())?;
        let moved = match Phase::of_message(phase) {
            Some(_) if grace.is_some() => {
                return Err(Invalid::new(
                    "grace_period",
                    "is of a rotation that starts, not of a phase",
                ));
            }
            Some(phase) => Moved::To(phase),
            None if request.manual && grace.is_some() => {
                return Err(Invalid::new("grace_period", "is of an automatic rotation"));
            }
            None if request.manual => Moved::Start(Mode::Manual),
            None => Moved::Start(Mode::Automatic(grace.unwrap_or(GRACE_DEFAULT))),
        };
        Ok(Self {
            kinds,
            moved,
            actor,
        })
    }
}

fn grace(asked: Option<&prost_types::Duration>) -> Result<Option<Duration>, Invalid> {
    let Some(asked) = asked else { return Ok(None) };
    let grace = tidegate_proto::convert::span("grace_period", Some(*asked))?.unwrap_or_default();
    let grace = Duration::from_secs(grace.as_secs());
    if (GRACE_MIN..=GRACE_MAX).contains(&grace) {
        return Ok(Some(grace));
    }
    let (min, max) = (GRACE_MIN.as_secs() / 60, GRACE_MAX.as_secs() / 86_400);
    let problem = format!("must be from {min} minutes to {max} days");
    Err(Invalid::new("grace_period", problem))
}

/// What a move means for the CAs of one kind, or that it is made already.
fn decide(
    set: &CaSet,
    moved: Moved,
    now: Timestamp,
) -> Result<Option<(Keys, Rotation)>, RotateError> {
    let ca = set.kind.as_str();
    let phase = set.phase();
    let asked = match moved {
        Moved::Start(_) if phase != Phase::Standby => {
            return Err(RotateError::UnderWay { ca, phase });
        }
        Moved::Start(_) => Phase::Init,
        // Somebody moved on, went back, or took over: the time has nothing to say any more.
        Moved::Due(next) if set.due().is_none_or(|(at, due)| due != next || at > now) => {
            return Ok(None);
        }
        Moved::To(phase) | Moved::Due(phase) => phase,
    };
    let keys = match phase.to(asked) {
        Ok(Move::Already) => return Ok(None),
        Ok(Move::By(keys)) => keys,
        Err(why) => return Err(RotateError::NotNext { ca, why }),
    };
    let mode = match (moved, &set.rotation) {
        (Moved::Start(mode), _) => mode,
        (Moved::Due(_), Some(rotation)) => rotation.mode,
        (Moved::To(_) | Moved::Due(_), _) => Mode::Manual,
    };
    let started_at = match &set.rotation {
        Some(rotation) if asked != Phase::Init => rotation.started_at,
        _ => now,
    };
    let rotation = Rotation {
        phase: asked,
        mode,
        started_at,
        since: now,
    };
    Ok(Some((keys, rotation)))
}

impl Authority {
    /// Moves CAs, all that are named or none, and gives them as they are then.
    pub(crate) async fn rotate(
        &self,
        request: RotateRequest,
    ) -> Result<Vec<v1::CertAuthority>, RotateError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut txn = Txn::new();
            let mut moves = Vec::new();
            for kind in &request.kinds {
                let set = self.stored(*kind).await?;
                let key = keys::ca(kind.as_str());
                txn = txn.at(key.clone(), set.revision);
                if let Some((keys, rotation)) = decide(&set, request.moved, self.clock.now())? {
                    let after = set.moved(&self.keeping, keys, rotation).await?;
                    txn = txn.put(key, encode(&after.record()));
                    moves.push((set.phase(), after));
                }
            }
            if !moves.is_empty() {
                match self.store.commit(txn).await {
                    Ok(_) => self.tell(&moves, &request.actor),
                    Err(CommitError::Conflict { .. }) => continue,
                    Err(CommitError::Unavailable(error)) => {
                        return Err(AuthorityError::from(error).into());
                    }
                    Err(source) => {
                        let what = "phase of a certificate authority";
                        return Err(AuthorityError::Commit { what, source }.into());
                    }
                }
            }
            // Whoever asked finds what was done in whatever is asked next.
            self.reread().await?;
            let sets = self.sets();
            let kinds = request.kinds.iter();
            return Ok(kinds.map(|kind| sets.of(*kind).message()).collect());
        }
        Err(RotateError::Conflict)
    }

    /// The CAs of a kind as they are stored now.
    async fn stored(&self, kind: CaKind) -> Result<CaSet, AuthorityError> {
        let sets = self.sets();
        let known = sets.of(kind);
        match self.store.get(keys::ca(kind.as_str())).await? {
            Some(entry) if entry.modified != known.revision => {
                let record: CaRecord = decode(&entry)?;
                CaSet::read(&self.keeping, kind, record, entry.modified, Some(known)).await
            }
            _ => Ok(known.clone()),
        }
    }

    fn tell(&self, moves: &[(Phase, CaSet)], actor: &str) {
        for (from, after) in moves {
            let (ca, phase) = (after.kind.as_str(), after.phase());
            let pins: Vec<String> = after.pins().iter().map(ToString::to_string).collect();
            tracing::info!(
                ca,
                rotation.phase = phase.as_str(),
                pins = pins.join(","),
                "moved a certificate authority to another phase"
            );
            let mut told = event::new(event::CA_ROTATED);
            actor.clone_into(&mut told.user);
            for (key, value) in [
                ("type", ca.to_owned()),
                ("phase", phase.as_str().to_owned()),
                ("phase.previous", from.as_str().to_owned()),
                ("automatic", actor.is_empty().to_string()),
                ("pins", pins.join(",")),
            ] {
                told.fields.insert(key.to_owned(), value);
            }
            self.audit.record(told);
        }
    }
}
