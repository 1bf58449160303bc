//! Listings, a page at a time, and counts.
//!
//! Rows come from the index by label when it leaves few, else from the table in its order. They are looked at in chunks:
//! the tables are held for one chunk, and other work gets its turn after every few rows, so a long listing stops neither writers
//! nor other callers, and ends when its caller goes away.

use std::{cmp::Ordering, collections::HashMap, ops::Bound, ops::ControlFlow, sync::Arc};

use tidegate_core::predicate::Schema;

use super::{
    Inventory, Viewer,
    index::{Counts, LabelIndex, is_indexed},
    query::{Budget, Conditions, ListQuery, QueryError},
    slots::Slots,
    tables::{DatabaseRow, Row, ServerRow, Tables},
};

/// Rows looked at under one hold of the tables' lock.
const CHUNK_ROWS: usize = 4096;
/// Rows looked at before other work gets its turn.
const TURN_ROWS: usize = 256;
/// Most values of one count.
pub(crate) const VALUES_MAX: usize = 1000;
/// Following the index costs about this many times what the next row of the table costs.
const INDEX_COST: usize = 2;

/// A table that can be listed.
pub(crate) trait ListRows: Row + Sized {
    /// Tells its page tokens from others'.
    const KIND: &'static str;
    /// What predicates and orders may speak of.
    const SCHEMA: &'static Schema;

    /// Its rows by label.
    fn index(tables: &Tables) -> &LabelIndex<Self>;
    /// At most `limit` rows after a key, in the table's order; with `database`, of that one alone.
    fn after(
        tables: &Tables,
        after: Option<(&str, &str)>,
        database: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Self>>;
}

impl ListRows for DatabaseRow {
    const KIND: &'static str = "databases";
    const SCHEMA: &'static Schema = &Schema::DATABASE;

    fn index(tables: &Tables) -> &LabelIndex<Self> {
        &tables.database_labels
    }

    fn after(
        tables: &Tables,
        after: Option<(&str, &str)>,
        _database: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Self>> {
        let start = after.map_or(Bound::Unbounded, |(name, _)| Bound::Excluded(name));
        let rows = tables.databases.range::<str, _>((start, Bound::Unbounded));
        rows.take(limit).map(|(_, row)| row.clone()).collect()
    }
}

impl ListRows for ServerRow {
    const KIND: &'static str = "servers";
    const SCHEMA: &'static Schema = &Schema::DATABASE_SERVER;

    fn index(tables: &Tables) -> &LabelIndex<Self> {
        &tables.server_labels
    }

    fn after(
        tables: &Tables,
        after: Option<(&str, &str)>,
        database: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Self>> {
        let start = match (after, database) {
            (Some((name, host)), _) => Bound::Excluded((name.to_owned(), host.to_owned())),
            (None, Some(name)) => Bound::Included((name.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let rows = tables.servers.range((start, Bound::Unbounded));
        rows.take_while(|((name, _), _)| database.is_none_or(|only| only == name))
            .take(limit)
            .map(|(_, row)| row.clone())
            .collect()
    }
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page<R> {
    /// Its rows, in order.
    pub(crate) rows: Vec<Arc<R>>,
    /// Where the next page starts; empty after the last.
    pub(crate) next_page_token: String,
    /// The store's revision when the page was begun.
    pub(crate) revision: u64,
}

/// Where rows come from.
enum Source<'q> {
    /// The index: these, in no order that matters.
    Index(Vec<u32>),
    /// The table, from a key on.
    Table {
        after: Option<(&'q str, &'q str)>,
        database: Option<&'q str>,
    },
}

impl Inventory {
    /// A page of databases or database servers.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when it would cost too much.
    pub(crate) async fn list<R: ListRows>(
        &self,
        query: &ListQuery,
        viewer: &Viewer,
    ) -> Result<Page<R>, QueryError> {
        let revision = self.revision();
        let roles = self.roles();
        let view = viewer.view(&roles.policy);
        let mut budget = Budget::new();
        let mut next = Next::new(query);
        let source = self.source::<R>(query);
        let in_order = query.order.is_of_table() && matches!(source, Source::Table { .. });
        self.walk(source, |row: &Arc<R>| {
            if query.conditions.meet(row.as_ref(), &view, &mut budget)? {
                next.offer(row);
            }
            Ok(if in_order && next.is_full() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
        .await?;
        Ok(next.page(revision))
    }

    /// Counts databases by the values of one label.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when it would cost too much.
    pub(crate) async fn count_databases(
        &self,
        conditions: &Conditions,
        label: &str,
        viewer: &Viewer,
    ) -> Result<(Counts, u64), QueryError> {
        let revision = self.revision();
        let whole = viewer.sees_everything() && conditions.are_labels_only();
        if whole && is_indexed(label) {
            let look = self.tables();
            let counts = look
                .database_labels
                .counts(label, conditions.terms(), VALUES_MAX);
            return Ok((counts, revision));
        }
        let roles = self.roles();
        let view = viewer.view(&roles.policy);
        let mut budget = Budget::new();
        let mut values: HashMap<String, u64> = HashMap::new();
        let mut total = 0;
        let source = match self.candidates::<DatabaseRow>(conditions) {
            Some(slots) => Source::Index(slots.iter().collect()),
            None => Source::Table {
                after: None,
                database: None,
            },
        };
        self.walk(source, |row: &Arc<DatabaseRow>| {
            if conditions.meet(row.as_ref(), &view, &mut budget)? {
                total += 1;
                let value = row.labels().get(label).unwrap_or_default();
                match values.get_mut(value) {
                    Some(count) => *count += 1,
                    None => drop(values.insert(value.to_owned(), 1)),
                }
            }
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        let values = values.iter().map(|(value, count)| (value.as_str(), *count));
        Ok((Counts::largest(values, total, VALUES_MAX), revision))
    }

    /// Shows every row that is meant and may be seen, in no order, and gives the revision. A row that comes and goes
    /// meanwhile may be shown or not.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when it would cost too much.
    pub(crate) async fn visit<R: ListRows>(
        &self,
        conditions: &Conditions,
        viewer: &Viewer,
        mut visit: impl FnMut(&R),
    ) -> Result<u64, QueryError> {
        let revision = self.revision();
        let roles = self.roles();
        let view = viewer.view(&roles.policy);
        let mut budget = Budget::new();
        let source = match self.candidates::<R>(conditions) {
            Some(slots) => Source::Index(slots.iter().collect()),
            None => Source::Table {
                after: None,
                database: None,
            },
        };
        self.walk(source, |row: &Arc<R>| {
            if conditions.meet(row.as_ref(), &view, &mut budget)? {
                visit(row);
            }
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(revision)
    }

    /// The rows that can be meant, when that is known without looking at them.
    fn candidates<R: ListRows>(&self, conditions: &Conditions) -> Option<Slots> {
        if conditions.are_hopeless() {
            return Some(Slots::default());
        }
        R::index(&self.tables()).candidates(conditions.terms())
    }

    fn source<'q, R: ListRows>(&self, query: &'q ListQuery) -> Source<'q> {
        let in_order = query.order.is_of_table();
        let table = Source::Table {
            after: query
                .after
                .as_ref()
                .filter(|_| in_order)
                .map(super::order::Place::key),
            database: query.database.as_deref(),
        };
        if query.database.is_some() && !query.conditions.are_hopeless() {
            // One database has few servers.
            return table;
        }
        let Some(candidates) = self.candidates::<R>(&query.conditions) else {
            return table;
        };
        let (found, all) = (candidates.len(), R::index(&self.tables()).len());
        // In the table's order every `all / found`th row is one that is wanted, and a page of them is enough; with the
        // index, and in any other order, all have to be looked at.
        let by_table = if in_order {
            all.saturating_mul(query.page_size) / found.max(1)
        } else {
            all
        };
        if found.saturating_mul(INDEX_COST) <= by_table.max(CHUNK_ROWS) {
            Source::Index(candidates.iter().collect())
        } else {
            table
        }
    }

    /// Shows rows to `visit` until it has enough, or an error.
    async fn walk<R: ListRows>(
        &self,
        source: Source<'_>,
        mut visit: impl FnMut(&Arc<R>) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError> {
        match source {
            Source::Index(slots) => {
                for chunk in slots.chunks(CHUNK_ROWS) {
                    let rows = R::index(&self.tables()).rows(chunk);
                    if show(&rows, &mut visit).await?.is_break() {
                        break;
                    }
                }
            }
            Source::Table { after, database } => {
                let mut rows = R::after(&self.tables(), after, database, CHUNK_ROWS);
                while show(&rows, &mut visit).await?.is_continue()
                    && let Some(last) = rows.last().filter(|_| rows.len() == CHUNK_ROWS)
                {
                    rows = R::after(&self.tables(), Some(last.key()), database, CHUNK_ROWS);
                }
            }
        }
        Ok(())
    }
}

async fn show<R>(
    rows: &[Arc<R>],
    visit: &mut impl FnMut(&Arc<R>) -> Result<ControlFlow<()>, QueryError>,
) -> Result<ControlFlow<()>, QueryError> {
    for turn in rows.chunks(TURN_ROWS) {
        for row in turn {
            if visit(row)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(ControlFlow::Continue(()))
}

/// The rows that come next after a place: a page, and one more to know whether there is another.
struct Next<'q, R> {
    query: &'q ListQuery,
    rows: Vec<Arc<R>>,
    /// The last of the page as far as it is known.
    worst: Option<Arc<R>>,
}

impl<'q, R: Row> Next<'q, R> {
    fn new(query: &'q ListQuery) -> Self {
        Self {
            query,
            rows: Vec::new(),
            worst: None,
        }
    }

    fn wanted(&self) -> usize {
        self.query.page_size + 1
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.wanted()
    }

    fn offer(&mut self, row: &Arc<R>) {
        let Self { query, worst, .. } = self;
        let order = &query.order;
        let shown = |after| order.compare_to(row.as_ref(), after) != Ordering::Greater;
        let late = |worst: &Arc<R>| order.compare(row.as_ref(), worst.as_ref()).is_ge();
        if query.after.as_ref().is_some_and(shown) || worst.as_ref().is_some_and(late) {
            return;
        }
        self.rows.push(row.clone());
        if self.rows.len() >= 2 * self.wanted() {
            self.sort();
            self.worst = self.rows.last().cloned();
        }
    }

    /// Puts what there is in order and keeps what is wanted. A row that came and went while it was walked past may have
    /// been seen twice.
    fn sort(&mut self) {
        let order = &self.query.order;
        self.rows
            .sort_by(|a, b| order.compare(a.as_ref(), b.as_ref()));
        self.rows.dedup_by(|a, b| a.key() == b.key());
        self.rows.truncate(self.wanted());
    }

    fn page(mut self, revision: u64) -> Page<R> {
        self.sort();
        let more = self.rows.len() > self.query.page_size;
        self.rows.truncate(self.query.page_size);
        let last = self.rows.last().filter(|_| more);
        Page {
            next_page_token: last
                .map(|row| self.query.token_after(row.as_ref()))
                .unwrap_or_default(),
            rows: self.rows,
            revision,
        }
    }
}
