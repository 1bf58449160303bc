//! The CA bundles that AWS publishes, below `/trust/` of the simulation's address.
//!
//! `global/global-bundle.pem` and `<region>/<region>-bundle.pem` are RDS's, `<partition>/amazon-trust-ca-bundle.crt` is
//! Redshift's. All hold the simulation's CA. What is asked for with the `ETag` that it has is not sent again.

use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, Method};

use crate::api::{Reply, Unsigned, answer_unsigned};
use crate::crypto::{hex, sha256};
use crate::state::State;
use crate::world::{DEFAULT_REGIONS, OPT_IN_REGIONS};

/// Where bundles are on the simulation's address.
pub(crate) const PATH: &str = "/trust/";
/// Partitions that Redshift's bundle is published for.
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];

/// Answers a request below [`PATH`].
pub(crate) async fn serve(
    state: &State,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Reply {
    let region = path.split('/').next().unwrap_or_default();
    let asked = Unsigned {
        service: "trust",
        action: format!("{method} /{path}"),
        account: "",
        region,
        headers,
    };
    answer_unsigned(state, asked, || answer(state, method, path, headers)).await
}

fn answer(state: &State, method: &Method, path: &str, headers: &HeaderMap) -> Reply {
    if method != Method::GET {
        return Reply::plain(405, "Method Not Allowed");
    }
    if !is_published(state, path) {
        return Reply::plain(403, "Forbidden");
    }
    let pem = state.fleet.ca_pem();
    let etag = format!("\"{}\"", &hex(&sha256(pem.as_bytes()))[..32]);
    let known = headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    let reply = if known == Some(&etag) {
        Reply::plain(304, "")
    } else {
        Reply::plain(200, pem)
    };
    reply.with(ETAG.as_str(), etag)
}

/// What is not there is forbidden, as in a bucket whose listing is.
fn is_published(state: &State, path: &str) -> bool {
    let Some((folder, file)) = path.split_once('/') else {
        return false;
    };
    if file == "amazon-trust-ca-bundle.crt" {
        return PARTITIONS.contains(&folder);
    }
    let mut known = DEFAULT_REGIONS.iter().chain(&OPT_IN_REGIONS);
    let is_region = folder == "global" || known.any(|region| *region == folder) || {
        let world = state.world();
        world
            .accounts
            .values()
            .any(|it| it.regions.contains_key(folder))
    };
    is_region && file == format!("{folder}-bundle.pem")
}
