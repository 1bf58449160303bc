//! Whether a session may begin, and what it is held to.
//!
//! In this order: roles, locks, audit, what AWS says of the database, how to log in, and last a place among the
//! person's sessions, so that nobody holds a place for a session that is refused.

use jiff::Timestamp;
use tidegate_core::{
    Permit, Problem, Request,
    access::{AuditMode, Provisioning},
};
use tidegate_wire::SqlState;

use super::{identify::Asked, refusals, session::Engine, terms::Terms};
use crate::{
    credentials::{LoginPlan, plan_permitted},
    metrics::Cause,
    places::Place,
    wanted::Wanted,
};

/// What a session needs to go on: the proof that it may, how it logs in, what ends it, and its place.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) permit: Permit,
    pub(crate) plan: LoginPlan,
    pub(crate) terms: Terms,
    pub(crate) place: Place,
}

/// Why a session may not begin.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) cause: Cause,
    pub(crate) problem: Problem,
    /// When it is another than the problem's own.
    pub(crate) state: Option<SqlState>,
}

impl Refusal {
    fn new((cause, problem): (Cause, Problem)) -> Self {
        Self {
            cause,
            problem,
            state: None,
        }
    }

    /// One that may be over soon, which clients that try again can tell by the SQLSTATE.
    fn for_now((cause, problem): (Cause, Problem)) -> Self {
        Self {
            cause,
            problem,
            state: Some(SqlState::CANNOT_CONNECT_NOW),
        }
    }
}

/// Decides.
///
/// # Errors
///
/// A [`Refusal`] with what the client is told.
pub(crate) fn admit(
    engine: &Engine,
    wanted: &Wanted,
    asked: &Asked,
    certificate_ends: Timestamp,
) -> Result<Admission, Refusal> {
    let policy = engine
        .roles
        .policy()
        .ok_or_else(|| Refusal::for_now((Cause::Internal, refusals::roles_unknown())))?;
    let subject = asked.user.subject();
    let grants = policy.grants(&subject);
    let request = Request {
        database: &wanted.database,
        db_user: &asked.db_user,
        db_name: &asked.db_name,
    };
    let decided = grants.decide(request, Provisioning::on(&wanted.database));
    let name = &wanted.database.name;
    let permit = decided.decision.map_err(|_| {
        let problem = refusals::denied(asked, name.as_str(), &decided.explanation);
        Refusal::new((Cause::Denied, problem))
    })?;
    let mut options = grants.options();
    // Roles that were given for a time are not kept beyond it by staying connected.
    options.disconnect_expired_cert |= !asked.user.access_requests.is_empty();
    let terms = Terms {
        options,
        user: subject.user.clone(),
        roles: subject.roles.clone(),
        access_requests: asked.user.access_requests.clone(),
        login: asked.user.login.clone(),
        database: name.to_string(),
        agent: engine.agent.clone(),
        certificate_ends,
    };
    hold(engine, &terms)?;
    refusals::available(wanted)
        .map_err(|problem| Refusal::new((Cause::DatabaseUnavailable, problem)))?;
    let plan = plan_permitted(wanted, &permit)
        .map_err(|problem| Refusal::new((Cause::Denied, problem)))?;
    let place = engine
        .places
        .take(&terms.user, terms.options.max_db_connections)
        .map_err(|no_place| Refusal::new((Cause::TooMany, refusals::too_many(no_place))))?;
    Ok(Admission {
        permit,
        plan,
        terms,
        place,
    })
}

/// Whether a session with these terms may run at this moment.
fn hold(engine: &Engine, terms: &Terms) -> Result<(), Refusal> {
    terms
        .judge(&engine.locks.known(), engine.clock.now())
        .map_err(|breach| {
            let refused = refusals::breach(&breach, &terms.database);
            match refused.0 {
                Cause::LocksUnknown => Refusal::for_now(refused),
                _ => Refusal::new(refused),
            }
        })?;
    if terms.options.audit == AuditMode::Strict && !engine.audit.takes_statements() {
        let refused = (Cause::NotAudited, refusals::not_audited());
        return Err(Refusal::for_now(refused));
    }
    Ok(())
}
