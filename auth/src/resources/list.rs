//! Listings a page at a time, single resources, and counts.
//!
//! A kind's rows are taken from the tables in one look and then judged one by one; other work gets its turn after every
//! few, so that a long listing stops nobody.

use std::{cmp::Ordering, sync::Arc};

use jiff::Timestamp;

use super::{
    Resources,
    kind::{Beside, Kind, Scans},
    table::Row,
    tally::{By, Tally},
};
use crate::inventory::{Budget, Conditions, Counts, ListQuery, QueryError};

/// Rows looked at before other work gets its turn.
const TURN_ROWS: usize = 256;

/// Who asks, and with what.
pub(crate) struct Asking<'a> {
    /// Whether a row may be seen.
    pub(crate) sees: &'a (dyn Fn(&Row) -> bool + Send + Sync),
    /// What is known of scans.
    pub(crate) scans: &'a Scans<'a>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its rows, in order.
    pub(crate) rows: Vec<Arc<Row>>,
    /// Whether there are more after them.
    pub(crate) more: bool,
    /// The store's revision that it shows.
    pub(crate) revision: u64,
}

impl Resources {
    /// A page of a kind.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when it would cost too much.
    pub(crate) async fn list(
        &self,
        kind: &'static dyn Kind,
        query: &ListQuery,
        asking: &Asking<'_>,
    ) -> Result<Page, QueryError> {
        let (rows, revision) = self.meeting(kind, &query.conditions, asking).await?;
        let order = &query.order;
        let is_after = |row: &Arc<Row>| {
            let after = query.after.as_ref();
            after.is_none_or(|place| order.compare_to(row.as_ref(), place) == Ordering::Greater)
        };
        let mut rows: Vec<Arc<Row>> = rows.into_iter().filter(is_after).collect();
        rows.sort_by(|a, b| order.compare(a.as_ref(), b.as_ref()));
        let more = rows.len() > query.page_size;
        rows.truncate(query.page_size);
        Ok(Page {
            rows,
            more,
            revision,
        })
    }

    /// The resource of a name.
    pub(crate) fn get(
        &self,
        kind: &'static dyn Kind,
        name: &str,
        asking: &Asking<'_>,
    ) -> Option<Arc<Row>> {
        let (rows, serving, _) = self.rows(kind);
        let beside = Beside {
            scans: asking.scans,
            serving,
        };
        let named = |row: &&Arc<Row>| row.record.name() == name && !is_over(row, asking.now);
        let row = rows.iter().find(named)?;
        (asking.sees)(row).then(|| row.completed(&beside))
    }

    /// Counts a kind, in all and by the values of something.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when it would cost too much.
    pub(crate) async fn count(
        &self,
        kind: &'static dyn Kind,
        conditions: &Conditions,
        by: Option<&By>,
        asking: &Asking<'_>,
    ) -> Result<(Counts, u64), QueryError> {
        let (rows, revision) = self.meeting(kind, conditions, asking).await?;
        let mut tally = Tally::new(by);
        for row in &rows {
            tally.add(row.fields());
        }
        Ok((tally.counts(), revision))
    }

    /// The rows that are meant, may be seen and are not over, in no order; with what is known beside the store.
    async fn meeting(
        &self,
        kind: &'static dyn Kind,
        conditions: &Conditions,
        asking: &Asking<'_>,
    ) -> Result<(Vec<Arc<Row>>, u64), QueryError> {
        let (rows, serving, revision) = self.rows(kind);
        let beside = Beside {
            scans: asking.scans,
            serving,
        };
        let mut budget = Budget::new();
        let mut met = Vec::new();
        for turn in rows.chunks(TURN_ROWS) {
            for row in turn {
                // What may not be seen is not looked into any further.
                if is_over(row, asking.now) || !(asking.sees)(row) {
                    continue;
                }
                let row = row.completed(&beside);
                if meets(conditions, &row, &mut budget)? {
                    met.push(row);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok((met, revision))
    }
}

/// Whether a row is meant.
pub(super) fn meets(
    conditions: &Conditions,
    row: &Row,
    budget: &mut Budget,
) -> Result<bool, QueryError> {
    let fields = row.fields();
    let mentions = |word: &str| fields.any_searched(&mut |text| text.to_lowercase().contains(word));
    conditions.meet_fields(fields, mentions, budget)
}

fn is_over(row: &Row, now: Timestamp) -> bool {
    row.record.ends_at().is_some_and(|end| end <= now)
}
