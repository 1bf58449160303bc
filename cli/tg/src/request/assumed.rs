//! Using the roles of approved requests, and going back.
//!
//! The requests in use are named whole each time, so the certificate carries exactly what the profile says.

use jiff::Timestamp;
use tidegate_console::{
    Failure,
    client::Client,
    profile::{AssumedRequest, Profile},
    rpc,
};
use tidegate_identity::tls;
use tidegate_proto::{
    convert,
    v1::{AssumeRequestsRequest, AssumeRequestsResponse},
};

use crate::db;

/// What to do when some request cannot be used.
const REFUSED_HINT: &str = "`tg request ls --mine` shows which of your requests are approved; `tg request drop` goes back to your own roles";

/// Uses these requests beside those in use.
pub(super) async fn add(profile: &Profile, ids: Vec<String>) -> Result<(), Failure> {
    let mut all = in_use(profile)?;
    for id in ids {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    assume(profile, all).await
}

/// Stops using these requests, or all when none is named.
pub(super) async fn drop(profile: &Profile, ids: &[String]) -> Result<(), Failure> {
    let used = in_use(profile)?;
    if let Some(other) = ids.iter().find(|id| !used.contains(id)) {
        return Err(
            Failure::new(format!("you do not use access request {other}"))
                .hint("`tg status` shows those that you use"),
        );
    }
    let left = if ids.is_empty() {
        Vec::new()
    } else {
        used.into_iter().filter(|id| !ids.contains(id)).collect()
    };
    go_on_with(profile, left).await
}

/// Stops using a request that is gone, if it was in use.
pub(super) async fn forget(profile: &Profile, id: &str) -> Result<(), Failure> {
    let mut left = in_use(profile)?;
    let before = left.len();
    left.retain(|used| used != id);
    if left.len() == before {
        return Ok(());
    }
    go_on_with(profile, left).await
}

async fn go_on_with(profile: &Profile, left: Vec<String>) -> Result<(), Failure> {
    // Certificates of databases were given for the roles that end now.
    db::forget_all(profile)?;
    profile.drop_assumed()?;
    if left.is_empty() {
        return Ok(());
    }
    assume(profile, left).await
}

fn in_use(profile: &Profile) -> Result<Vec<String>, Failure> {
    let assumed = profile.assumed(Timestamp::now())?;
    let requests = assumed.map(|assumed| assumed.requests).unwrap_or_default();
    Ok(requests.into_iter().map(|request| request.id).collect())
}

async fn assume(profile: &Profile, ids: Vec<String>) -> Result<(), Failure> {
    let own = profile.own_credentials(Timestamp::now())?;
    let client = Client::of_login(profile)?;
    let asked = AssumeRequestsRequest {
        public_key: own.key.public_key_der(),
        ids,
    };
    let given = rpc::call_refusable(
        "use the roles of the request",
        client.requests().assume_requests(asked),
        Some(REFUSED_HINT),
    )
    .await?;
    keep(profile, given)
}

/// Checks what the service gave, and writes it down.
fn keep(profile: &Profile, given: AssumeRequestsResponse) -> Result<(), Failure> {
    let unusable = || Failure::new("the auth service answered without a usable certificate");
    let chain_pem = given.certificate.ok_or_else(unusable)?.certificate_pem;
    tls::first_certificate_der(&chain_pem).map_err(|_| unusable())?;
    let requests = given.requests.into_iter().map(|request| {
        let end = request.access_until.as_ref();
        let end = end.and_then(|end| convert::instant(end).ok());
        Ok(AssumedRequest {
            id: request.id,
            roles: request.roles,
            expires: end.ok_or_else(unusable)?,
        })
    });
    let requests = requests.collect::<Result<_, Failure>>()?;
    Ok(profile.assume(chain_pem, requests, Timestamp::now())?)
}
