//! Requests for whoever may see them.

use prost::Message as _;
use tidegate_core::requests::{AccessRequest, RequestState};
use tidegate_proto::{Invalid, v1};

use super::{Author, Sees, Stored, missing};
use crate::{
    access::{Access, AccessError},
    inventory::page,
    keys,
    store::{Entry, RangeQuery},
};

/// Requests of a page when nothing else is asked for.
const PAGE_SIZE_DEFAULT: usize = 100;
/// Most requests of a page.
const PAGE_SIZE_MAX: usize = 1000;
/// A page ends when it has grown to this: reasons can be long.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Entries that are read at a time.
const READ_AT_ONCE: usize = 50;
/// Most requests that are looked at for one page; what is left is on the next.
const LOOKED_AT_MAX: usize = 5000;

/// Which requests are wanted.
pub(crate) struct Listing {
    /// Only those of this person.
    pub(crate) of: Option<String>,
    /// Only in one of these states; none is any.
    pub(crate) states: Vec<RequestState>,
    /// Only those for which this holds.
    pub(crate) sees: Sees,
    /// Names the query in page tokens.
    pub(crate) query: String,
}

impl Access {
    /// A request that the caller may see. One that is not theirs to see is not there.
    pub(crate) async fn get_request(
        &self,
        id: &str,
        sees: &Sees,
    ) -> Result<v1::AccessRequest, AccessError> {
        let stored = self.request(id).await?;
        if sees(&stored.request) {
            Ok(stored.message())
        } else {
            Err(missing(id))
        }
    }

    /// A page of requests, the oldest first.
    pub(crate) async fn list_requests(
        &self,
        listing: &Listing,
        page_size: i32,
        page_token: &str,
    ) -> Result<v1::ListAccessRequestsResponse, AccessError> {
        let size = match usize::try_from(page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => return Err(Invalid::new("page_size", "must not be negative").into()),
        };
        let after = page::read(&listing.query, page_token)?;
        let mut page = Page::new(size);
        let last = match &listing.of {
            Some(user) => self.read_own(user, after, listing, &mut page).await?,
            None => self.read_any(after, listing, &mut page).await?,
        };
        Ok(v1::ListAccessRequestsResponse {
            requests: page.requests,
            next_page_token: last
                .map(|last| page::token(&listing.query, &last))
                .unwrap_or_default(),
        })
    }

    /// Fills a page with one person's requests; the last id that was looked at when there are more.
    async fn read_own(
        &self,
        user: &str,
        after: Option<String>,
        listing: &Listing,
        page: &mut Page,
    ) -> Result<Option<String>, AccessError> {
        let author = Author::of(self.store(), user).await?;
        // Ids are in the order of time.
        let mut ids: Vec<&str> = author.ids().collect();
        ids.sort_unstable();
        let ids = ids
            .into_iter()
            .filter(|id| after.as_deref().is_none_or(|after| *id > after));
        for id in ids {
            let Some(entry) = self.store().get(keys::access_request(id)).await? else {
                continue;
            };
            if self.take(&entry, listing, page) {
                return Ok(Some(id.to_owned()));
            }
        }
        Ok(None)
    }

    /// Fills a page with requests of everybody; the last id that was looked at when there may be more.
    async fn read_any(
        &self,
        after: Option<String>,
        listing: &Listing,
        page: &mut Page,
    ) -> Result<Option<String>, AccessError> {
        let mut query = RangeQuery {
            after: after.map(|id| keys::access_request(&id)),
            limit: READ_AT_ONCE,
            ..RangeQuery::prefix(keys::ACCESS_REQUESTS)
        };
        let mut looked_at = 0;
        loop {
            let range = self.store().range(query.clone()).await?;
            for entry in &range.entries {
                looked_at += 1;
                let id = keys::name_under(keys::ACCESS_REQUESTS, &entry.key).unwrap_or_default();
                if self.take(entry, listing, page) || looked_at >= LOOKED_AT_MAX {
                    return Ok(Some(id.to_owned()));
                }
            }
            if !range.more {
                return Ok(None);
            }
            query.after = range.entries.last().map(|entry| entry.key.clone());
        }
    }

    /// Takes a request into a page if it is wanted; whether the page is full.
    fn take(&self, entry: &Entry, listing: &Listing, page: &mut Page) -> bool {
        match Stored::read(entry) {
            Ok(stored) => {
                let stored = stored.at(self.now());
                if listing.wants(&stored.request) {
                    page.push(stored.message());
                }
            }
            Err(error) => {
                tracing::error!(error = %error, "left out a stored access request that cannot be read");
            }
        }
        page.is_full()
    }
}

impl Listing {
    fn wants(&self, request: &AccessRequest) -> bool {
        let of = self.of.as_ref();
        (self.states.is_empty() || self.states.contains(&request.state))
            && of.is_none_or(|user| *user == request.user)
            && (self.sees)(request)
    }
}

struct Page {
    size: usize,
    bytes: usize,
    requests: Vec<v1::AccessRequest>,
}

impl Page {
    const fn new(size: usize) -> Self {
        Self {
            size,
            bytes: 0,
            requests: Vec::new(),
        }
    }

    fn push(&mut self, request: v1::AccessRequest) {
        self.bytes += request.encoded_len();
        self.requests.push(request);
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= self.size || self.bytes >= PAGE_BYTES_MAX
    }
}
