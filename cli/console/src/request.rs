//! Requests for roles: fetching them, and showing them to people.

use jiff::Timestamp;
use tidegate_proto::v1::{
    self, AccessRequestScope, AccessRequestState, GetAccessRequestRequest,
    ListAccessRequestsRequest,
};

use crate::{Failure, Table, client::Client, resource::AccessRequest, rpc, table::visible, when};

/// Most pages of one listing; the service keeps no more requests than fit.
const PAGES_MAX: usize = 10_000;

/// What to do about a request that is not there.
const MISSING_HINT: &str =
    "`tg request ls` lists those that you may see; removed and long decided ones are gone";

/// All requests of a scope that are in one of these states; none is any.
///
/// # Errors
///
/// When a page cannot be fetched.
pub async fn list(
    client: &Client,
    scope: AccessRequestScope,
    states: &[AccessRequestState],
) -> Result<Vec<AccessRequest>, Failure> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = ListAccessRequestsRequest {
            page_size: 0,
            page_token,
            scope: scope.into(),
            states: states.iter().map(|state| (*state).into()).collect(),
        };
        let page = rpc::call(
            "list access requests",
            client.requests().list_access_requests(request),
        )
        .await?;
        found.extend(page.requests.iter().map(AccessRequest::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// One request.
///
/// # Errors
///
/// When there is none that the caller may see.
pub async fn get(client: &Client, id: &str) -> Result<v1::AccessRequest, Failure> {
    let request = GetAccessRequestRequest { id: id.to_owned() };
    rpc::call_refusable(
        &format!("get access request `{}`", visible(id)),
        client.requests().get_access_request(request),
        Some(MISSING_HINT),
    )
    .await
}

/// Requests as a table.
#[must_use]
pub fn table(requests: &[AccessRequest], now: Timestamp) -> Table {
    let mut table = Table::new([
        "ID",
        "User",
        "Roles",
        "Created (UTC)",
        "Status",
        "Ends In",
        "Reason",
    ])
    .shrinking("Reason");
    for request in requests {
        let spec = &request.spec;
        table.row([
            request.metadata.name.as_str(),
            &spec.user,
            &spec.roles.join(","),
            &spec.created.map_or_else(String::new, |at| {
                at.strftime("%Y-%m-%d %H:%M:%S").to_string()
            }),
            spec.state,
            &ends_in(request, now),
            &spec.request_reason,
        ]);
    }
    table
}

/// How long a request goes on waiting, or giving its roles.
fn ends_in(request: &AccessRequest, now: Timestamp) -> String {
    let end = match request.spec.state {
        "PENDING" => request.metadata.expires,
        "APPROVED" => request.spec.expires,
        _ => None,
    };
    end.map_or_else(String::new, |end| when::left(end, now))
}

/// One request as lines.
#[must_use]
pub fn text(request: &AccessRequest, now: Timestamp) -> String {
    let spec = &request.spec;
    let until = |at: Option<Timestamp>| {
        at.map_or_else(String::new, |at| {
            format!("{} [{}]", when::utc(at), when::left(at, now))
        })
    };
    let mut lines = vec![
        ("Request ID", visible(&request.metadata.name)),
        ("Username", visible(&spec.user)),
        ("Roles", visible(&spec.roles.join(", "))),
        ("Reason", visible(&spec.request_reason)),
        ("Status", spec.state.to_owned()),
        ("Decide by", until(request.metadata.expires)),
        ("Access until", until(spec.expires)),
    ];
    let thresholds = spec.thresholds.iter().map(|threshold| {
        let (approve, deny) = (threshold.approve.max(1), threshold.deny.max(1));
        let roles = visible(&threshold.roles.join(", "));
        format!("{roles}: {approve} to approve, {deny} to deny")
    });
    lines.extend(thresholds.map(|line| ("Needs", line)));
    let reviews = spec.reviews.iter().map(|review| {
        let said = format!("{} {}", visible(&review.author), review.proposed_state);
        match review.reason.as_str() {
            "" => said,
            reason => format!("{said}: {}", visible(reason)),
        }
    });
    lines.extend(reviews.map(|line| ("Review", line)));
    lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{:<14}{value}\n", format!("{name}:")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{
        AccessRequestSpec, AccessReviewSpec, AccessThresholdSpec, Metadata, Resource,
    };

    fn request(state: &'static str) -> AccessRequest {
        let at = |second| Timestamp::from_second(second).ok();
        Resource {
            kind: "access_request",
            version: "v3",
            metadata: Metadata {
                name: "0190".to_owned(),
                expires: at(3600).filter(|_| state == "PENDING"),
                ..Metadata::default()
            },
            spec: AccessRequestSpec {
                user: "alice".to_owned(),
                roles: vec!["access".to_owned()],
                state,
                created: at(0),
                expires: at(7200),
                request_reason: "deploy\u{1b}[2J".to_owned(),
                resolve_reason: String::new(),
                thresholds: vec![AccessThresholdSpec {
                    name: String::new(),
                    roles: vec!["access".to_owned()],
                    approve: 2,
                    deny: 0,
                }],
                reviews: vec![AccessReviewSpec {
                    author: "bob".to_owned(),
                    proposed_state: "APPROVED",
                    reason: "go on".to_owned(),
                    created: at(60),
                }],
            },
            status: None,
        }
    }

    #[test]
    fn a_request_is_told_in_lines_with_nothing_that_moves_the_cursor() {
        let told = text(&request("PENDING"), Timestamp::UNIX_EPOCH);
        assert!(!told.contains('\u{1b}'), "{told:?}");
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(
            told[4..],
            [
                "Status:       PENDING",
                "Decide by:    1970-01-01 01:00:00 UTC [1h]",
                "Access until: 1970-01-01 02:00:00 UTC [2h]",
                "Needs:        access: 2 to approve, 1 to deny",
                "Review:       bob APPROVED: go on",
            ]
        );
    }

    #[test]
    fn what_ends_is_the_waiting_the_access_or_nothing() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(ends_in(&request("PENDING"), now), "1h");
        assert_eq!(ends_in(&request("APPROVED"), now), "2h");
        assert_eq!(ends_in(&request("DENIED"), now), "");
    }
}
