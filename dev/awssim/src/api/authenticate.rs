//! Who sends a request: its signature, then its date, the session and the region.

use http::header::HOST;

use super::error::ApiError;
use super::service::{ACCOUNT, IAM, STS, Service};
use crate::clock::moved;
use crate::faults::{FaultKind, Site};
use crate::sessions::Caller;
use crate::sigv4::{Claim, SignedRequest};
use crate::state::State;

/// What a request is for, before it is known who sends it.
pub(super) struct Asked<'a> {
    pub(super) service: &'static Service,
    pub(super) action: &'a str,
    pub(super) page: u32,
}

impl<'a> Asked<'a> {
    pub(super) fn site(&self, account: &'a str, region: &'a str) -> Site<'a> {
        Site {
            service: self.service.name,
            action: self.action,
            account,
            region,
            page: self.page,
        }
    }
}

/// Holds a request's date to the simulation's clock, unless a fault moves it for this request.
fn check_date(
    state: &State,
    claim: &Claim,
    site: &Site<'_>,
    strike: &mut Option<FaultKind>,
) -> Result<(), ApiError> {
    let skew = state.faults.clock_skew(site);
    let checked = claim.check_date(moved(state.clock.now(), skew.unwrap_or(0)));
    if checked.is_err() && skew.is_some() {
        *strike = state.faults.strike(site);
    }
    Ok(checked?)
}

/// A signature for STS has to be for the region of the host that it names, where that is one of AWS's; our own address
/// stands for all of them.
fn check_scope(claim: &Claim, request: &SignedRequest<'_>) -> Result<(), ApiError> {
    let host = request
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let Some(rest) = host.and_then(|host| host.strip_prefix("sts.")) else {
        return Ok(());
    };
    let region = match rest {
        "amazonaws.com" => "us-east-1",
        _ => rest.split('.').next().unwrap_or_default(),
    };
    if claim.service == STS.name && claim.region == region {
        return Ok(());
    }
    let message = "Credential should be scoped to a valid region.";
    Err(ApiError::new(403, "SignatureDoesNotMatch", message))
}

/// Finds whose key it is and proves the signature; then the date, the session and the region.
pub(super) fn authenticate(
    state: &State,
    claim: &Claim,
    request: &SignedRequest<'_>,
    asked: &Asked<'_>,
    strike: &mut Option<FaultKind>,
) -> Result<Caller, ApiError> {
    let now = state.clock.now();
    check_scope(claim, request)?;
    if Service::named(&claim.service).is_none() {
        let message = "Credential should be scoped to a service that is simulated";
        return Err(ApiError::new(403, "SignatureDoesNotMatch", message));
    }
    let caller = match state.sessions.find(&claim.access_key) {
        Some(session) => {
            claim.verify(request, session.secret.expose())?;
            let site = asked.site(&session.spec.account, &claim.region);
            check_date(state, claim, &site, strike)?;
            if claim.token.as_deref() != Some(session.token.expose()) {
                return Err(ApiError::invalid_token());
            }
            if session.expires_at <= now {
                return Err(ApiError::expired_token());
            }
            Caller::Session(session)
        }
        None => {
            let (caller, secret) = state
                .find_user(&claim.access_key)
                .ok_or_else(ApiError::invalid_token)?;
            claim.verify(request, secret.expose())?;
            let site = asked.site(caller.account(), &claim.region);
            check_date(state, claim, &site, strike)?;
            caller
        }
    };
    let is_global = [STS.name, ACCOUNT.name, IAM.name].contains(&claim.service.as_str());
    let is_global = is_global && claim.region == "us-east-1";
    let enabled = state
        .world()
        .region(caller.account(), &claim.region)
        .map(|region| !region.disabled);
    match enabled {
        Some(true) => Ok(caller),
        _ if is_global => Ok(caller),
        Some(false) if claim.service == STS.name => {
            Err(ApiError::region_disabled(&claim.region, caller.account()))
        }
        _ => Err(ApiError::invalid_token()),
    }
}
