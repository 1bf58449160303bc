//! Paging, the same for every listing.
//!
//! A token holds the last name that was read, not a position: what comes and goes between two
//! pages shifts nothing. It is good for the same caller, region and filters only.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Bound, RangeInclusive};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::form::Form;
use super::{Call, Paged};
use crate::crypto::{hex, sha256};
use crate::world::World;

/// What an API calls its paging parameters, and how many records a page may have.
pub(super) struct Style {
    token: &'static str,
    size: &'static str,
    sizes: RangeInclusive<u32>,
}

/// Of the Query APIs.
pub(super) const MARKER: Style = Style {
    token: "Marker",
    size: "MaxRecords",
    sizes: 20..=100,
};
/// Of Redshift Serverless.
pub(super) const NEXT_TOKEN: Style = Style {
    token: "nextToken",
    size: "maxResults",
    sizes: 1..=100,
};
/// Of account management.
pub(super) const REGIONS_TOKEN: Style = Style {
    token: "NextToken",
    size: "MaxResults",
    sizes: 1..=50,
};

/// Of the tagging API.
pub(super) const PAGINATION_TOKEN: Style = Style {
    token: "PaginationToken",
    size: "ResourcesPerPage",
    sizes: 1..=100,
};

/// Where the next page starts.
#[derive(Serialize, Deserialize)]
struct Token {
    scope: String,
    page: u32,
    after: String,
}

impl Token {
    fn read(form: &Form, name: &str) -> Result<Option<Self>, ApiError> {
        let Some(text) = form.get(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.map(Some).ok_or_else(|| bad_token(name))
    }
}

fn bad_token(name: &str) -> ApiError {
    let name = name.to_ascii_lowercase();
    ApiError::invalid_parameter(format!("The specified {name} is invalid"))
}

/// The page that a request asks for, from 1; a bad token counts as page 1.
pub(super) fn page_of(form: &Form) -> u32 {
    let styles = [MARKER, NEXT_TOKEN, REGIONS_TOKEN, PAGINATION_TOKEN];
    let tokens = styles.map(|style| Token::read(form, style.token).ok().flatten());
    let token = tokens.into_iter().flatten().next();
    token.map_or(1, |token| token.page)
}

/// One page that was asked for.
pub(super) struct Paging {
    scope: String,
    number: u32,
    after: String,
    size: usize,
    again: bool,
}

impl Paging {
    /// Reads the paging parameters of a request.
    pub(super) fn read(call: &Call<'_>, world: &World, style: &Style) -> Result<Self, ApiError> {
        let size =
            call.form
                .number(style.size, style.sizes.clone(), *style.sizes.end())? as usize;
        let size = world.page_records_max.map_or(size, |most| size.min(most));
        let filters = call.form.without(&[style.token, style.size]);
        let account = call.caller.account();
        let scope = format!("{account}/{}/{}/{filters}", call.region, call.action);
        let scope = hex(&sha256(scope.as_bytes()));
        let (number, after) = match Token::read(call.form, style.token)? {
            Some(token) if token.scope != scope => return Err(bad_token(style.token)),
            Some(token) => (token.page, token.after),
            None => (1, String::new()),
        };
        Ok(Self {
            scope,
            number,
            after,
            size: if call.paged == Paged::Empty { 0 } else { size },
            again: call.paged == Paged::Again,
        })
    }

    /// Whether a listing begins with this page.
    pub(super) fn is_first(&self) -> bool {
        self.number == 1
    }

    /// The name that the page before ended with; empty on the first page.
    pub(super) fn after(&self) -> &str {
        &self.after
    }

    /// The entries of a map that come after the page before.
    pub(super) fn rest<'m, T>(
        &self,
        map: &'m BTreeMap<String, T>,
    ) -> btree_map::Range<'m, String, T> {
        map.range::<str, _>((Bound::Excluded(self.after()), Bound::Unbounded))
    }

    /// Takes one page off records in order of their names, all of them after [`Paging::after`];
    /// with the token of the next page, if there is one.
    pub(super) fn cut<K: AsRef<str>, T>(
        self,
        mut records: impl Iterator<Item = (K, T)>,
    ) -> (Vec<(K, T)>, Option<String>) {
        let page: Vec<(K, T)> = records.by_ref().take(self.size).collect();
        let more = records.next().is_some();
        let last = page.last().map(|(name, _)| name.as_ref().to_owned());
        let (number, after) = match last {
            _ if self.again => (self.number, self.after),
            Some(last) => (self.number + 1, last),
            None => (self.number + 1, self.after),
        };
        let token = Token {
            scope: self.scope,
            page: number,
            after,
        };
        let token = URL_SAFE_NO_PAD.encode(serde_json::json!(token).to_string());
        (page, (more || self.again).then_some(token))
    }
}
