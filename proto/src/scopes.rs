//! Reads the listing of scan scopes to its end.
//!
//! Not here: what a scope's status means (`cli/console`, `auth`).

use tonic::{Status, transport::Channel};

use crate::v1::{ListScopesRequest, ScopeStatus, discovery_service_client::DiscoveryServiceClient};

/// Pages read at most: far more scopes than an auth service keeps.
const PAGES_MAX: usize = 1_000;

/// Every scope that the auth service knows, in order of id.
///
/// # Errors
///
/// What the service answered; `INTERNAL` when its pages do not end.
pub async fn all(client: &mut DiscoveryServiceClient<Channel>) -> Result<Vec<ScopeStatus>, Status> {
    let mut scopes = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = ListScopesRequest {
            page_token,
            ..ListScopesRequest::default()
        };
        let page = client.list_scopes(request).await?.into_inner();
        scopes.extend(page.scopes);
        if page.next_page_token.is_empty() {
            return Ok(scopes);
        }
        page_token = page.next_page_token;
    }
    Err(Status::internal(format!(
        "the listing of scan scopes did not end within {PAGES_MAX} pages"
    )))
}
