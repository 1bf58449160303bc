//! Listings, a page at a time.

use std::{ops::Bound, sync::Arc};

use tidegate_core::Selector;
use tidegate_proto::Invalid;

use super::{
    Inventory, Viewer, page,
    tables::{DatabaseRow, Row, ServerRow},
};

/// Rows on a page when the caller names no number.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 100;
/// Most rows on a page.
pub(crate) const PAGE_SIZE_MAX: usize = 1000;
/// Most search words.
const SEARCH_WORDS_MAX: usize = 16;
/// Rows looked at under one hold of the tables' lock.
const CHUNK_ROWS: usize = 4096;

/// What to list.
#[derive(Clone, Debug)]
pub(crate) struct ListQuery {
    /// Rows on the page.
    pub(crate) page_size: usize,
    /// Only these.
    pub(crate) selector: Option<Selector>,
    /// Words in lower case that must all occur.
    pub(crate) words: Vec<String>,
    /// Only rows of this database.
    pub(crate) database: Option<String>,
    /// The key after which the page starts.
    pub(crate) after: Option<String>,
    fingerprint: String,
}

impl ListQuery {
    /// Checks what a caller asked for.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the field.
    pub(crate) fn new(
        kind: &str,
        page_size: i32,
        page_token: &str,
        selector: Option<Selector>,
        search: Vec<String>,
        database: Option<String>,
    ) -> Result<Self, Invalid> {
        let page_size = usize::try_from(page_size)
            .map_err(|_| Invalid::new("page_size", "is negative"))?
            .min(PAGE_SIZE_MAX);
        if search.len() > SEARCH_WORDS_MAX {
            let problem = format!("holds more than {SEARCH_WORDS_MAX} words");
            return Err(Invalid::new("search", problem));
        }
        let words: Vec<String> = search.iter().map(|word| word.to_lowercase()).collect();
        let written = selector.as_ref().map(Selector::written);
        let fingerprint = format!("{kind}|{written:?}|{words:?}|{database:?}");
        Ok(Self {
            page_size: if page_size == 0 {
                PAGE_SIZE_DEFAULT
            } else {
                page_size
            },
            after: page::read(&fingerprint, page_token)?,
            selector,
            words,
            database,
            fingerprint,
        })
    }

    fn matches<R: Row>(&self, row: &R) -> bool {
        self.selector
            .as_ref()
            .is_none_or(|selector| selector.matches(row.labels()))
            && self.words.iter().all(|word| row.mentions(word))
    }
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page<R> {
    /// Its rows, in key order.
    pub(crate) rows: Vec<Arc<R>>,
    /// Where the next page starts; empty after the last.
    pub(crate) next_page_token: String,
    /// The store's revision when the page was begun.
    pub(crate) revision: u64,
}

impl Inventory {
    /// Databases in name order.
    pub(crate) fn list_databases(&self, query: &ListQuery, viewer: &Viewer) -> Page<DatabaseRow> {
        self.list(query, viewer, |after, limit| {
            let look = self.tables();
            let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_owned()));
            look.databases
                .range((start, Bound::Unbounded))
                .take(limit)
                .map(|(name, row)| (name.clone(), row.clone()))
                .collect()
        })
    }

    /// Database servers in order of database and host.
    pub(crate) fn list_servers(&self, query: &ListQuery, viewer: &Viewer) -> Page<ServerRow> {
        self.list(query, viewer, |after, limit| {
            let look = self.tables();
            let after = after.and_then(|key| key.split_once('/'));
            let start = match (after, &query.database) {
                (Some((name, host)), _) => Bound::Excluded((name.to_owned(), host.to_owned())),
                (None, Some(name)) => Bound::Included((name.clone(), String::new())),
                (None, None) => Bound::Unbounded,
            };
            look.servers
                .range((start, Bound::Unbounded))
                .take_while(|((name, _), _)| {
                    query.database.as_ref().is_none_or(|only| only == name)
                })
                .take(limit)
                .map(|((name, host), row)| (format!("{name}/{host}"), row.clone()))
                .collect()
        })
    }

    fn list<R: Row>(
        &self,
        query: &ListQuery,
        viewer: &Viewer,
        read: impl Fn(Option<&str>, usize) -> Vec<(String, Arc<R>)>,
    ) -> Page<R> {
        let revision = self.revision();
        let policy = self.roles().policy.clone();
        let mut rows = Vec::new();
        let mut last_shown = None;
        let mut after = query.after.clone();
        loop {
            let chunk = read(after.as_deref(), CHUNK_ROWS);
            let at_end = chunk.len() < CHUNK_ROWS;
            after = chunk.last().map(|(key, _)| key.clone());
            for (key, row) in chunk {
                if !viewer.sees(&policy, row.labels()) || !query.matches(row.as_ref()) {
                    continue;
                }
                if rows.len() == query.page_size {
                    let next_page_token = last_shown
                        .map(|key: String| page::token(&query.fingerprint, &key))
                        .unwrap_or_default();
                    return Page {
                        rows,
                        next_page_token,
                        revision,
                    };
                }
                rows.push(row);
                last_shown = Some(key);
            }
            if at_end {
                return Page {
                    rows,
                    next_page_token: String::new(),
                    revision,
                };
            }
        }
    }
}
