//! What a listing or a count asks for, checked: which rows, in which order, from where.
//!
//! A question is paid in steps, one budget for all of its rows, so that none can run long: see [`QUERY_STEPS_MAX`].

use tidegate_core::{
    Labels, Predicate, Selector,
    predicate::{Fields, PREDICATE_BYTES_MAX, Schema},
};
use tidegate_proto::Invalid;

use super::{
    index::Term,
    order::{Order, Ordered, Place},
    page,
    rows::Row,
    view::View,
};

/// Rows on a page when the caller names no number.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 100;
/// Most rows on a page.
pub(crate) const PAGE_SIZE_MAX: usize = 1000;
/// Most search words.
const SEARCH_WORDS_MAX: usize = 16;
/// Longest search word.
const SEARCH_WORD_BYTES_MAX: usize = 256;
/// What a word costs that is looked for in something that is no row of the inventory.
const WORD_STEPS: usize = 16;
/// What one listing or count may cost. A step is a part of a predicate, a value of a selector, or a text searched for a
/// word: a predicate of ten parts over a million databases takes about twenty million.
pub(crate) const QUERY_STEPS_MAX: u64 = 400_000_000;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// It looks at too much.
    #[error(
        "the query would take more than {QUERY_STEPS_MAX} steps: narrow it with a selector, or with `labels[\"key\"] == \
         \"value\"` in its filter, which are looked up and not searched for"
    )]
    TooExpensive,
}

/// Steps that are left of a question's budget.
#[derive(Debug)]
pub(crate) struct Budget(u64);

impl Budget {
    /// For a new question.
    pub(crate) const fn new() -> Self {
        Self(QUERY_STEPS_MAX)
    }

    fn spend(&mut self, steps: usize) -> Result<(), QueryError> {
        let left = self.0.checked_sub(steps as u64);
        self.0 = left.unwrap_or(0);
        left.map(|_| ()).ok_or(QueryError::TooExpensive)
    }
}

/// Which rows are meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    selector: Option<Selector>,
    /// Values in the selector: what a row costs at most.
    selector_steps: usize,
    /// In lower case; all must occur.
    words: Vec<String>,
    filter: Option<Predicate>,
    terms: Vec<Term>,
}

impl Conditions {
    /// Checks what a caller asked for.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the field.
    pub(crate) fn new(
        schema: &'static Schema,
        selector: Option<Selector>,
        search: &[String],
        filter: &str,
    ) -> Result<Self, Invalid> {
        if search.len() > SEARCH_WORDS_MAX {
            let problem = format!("holds more than {SEARCH_WORDS_MAX} words");
            return Err(Invalid::new("search", problem));
        }
        if search.iter().any(|word| word.len() > SEARCH_WORD_BYTES_MAX) {
            let problem = format!("has a word longer than {SEARCH_WORD_BYTES_MAX} bytes");
            return Err(Invalid::new("search", problem));
        }
        let filter = predicate(schema, filter)?;
        let selected = selector.as_ref().map(Selector::written);
        let mut terms: Vec<Term> = selector.iter().flat_map(terms_of).collect();
        let required = filter.iter().flat_map(Predicate::required_labels);
        terms.extend(required.filter_map(|(key, value)| Term::new(key, [value])));
        Ok(Self {
            selector_steps: selected.map_or(0, |written| written.values().map(Vec::len).sum()),
            words: search.iter().map(|word| word.to_lowercase()).collect(),
            selector,
            filter,
            terms,
        })
    }

    /// Labels without which no row is meant.
    pub(super) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether no row can be meant.
    pub(super) fn are_hopeless(&self) -> bool {
        self.selector.as_ref().is_some_and(Selector::is_empty)
    }

    /// Whether a row is meant exactly when it has the labels of [`Self::terms`].
    pub(super) fn are_labels_only(&self) -> bool {
        let selected = self.selector.as_ref().map(Selector::written);
        self.filter.is_none()
            && self.words.is_empty()
            && !self.are_hopeless()
            && selected.is_none_or(|written| {
                written.keys().filter(|key| *key != "*").count() == self.terms.len()
            })
    }

    /// Whether a row is meant, and may be seen. What a person may not see is not looked into any further: neither time
    /// nor a failure tells of it.
    pub(super) fn meet<R: Row>(
        &self,
        row: &R,
        view: &View<'_>,
        budget: &mut Budget,
    ) -> Result<bool, QueryError> {
        let labels = row.labels();
        budget.spend(1 + self.selector_steps)?;
        let selected = |selector: &Selector| selector.matches(labels);
        if !self.selector.as_ref().is_none_or(selected) || !view.sees(labels) {
            return Ok(false);
        }
        budget.spend(self.words.len() * (2 + labels.len()))?;
        if !self.words.iter().all(|word| row.mentions(word)) {
            return Ok(false);
        }
        self.filter.as_ref().map_or(Ok(true), |filter| {
            filter
                .evaluate_within(row.fields(), &mut budget.0)
                .map_err(|_| QueryError::TooExpensive)
        })
    }

    /// As [`Self::meet`], of something that is no row here and that whoever asks may see. `mentions` tells whether a
    /// word, in lower case, occurs in it.
    pub(crate) fn meet_fields(
        &self,
        fields: &dyn Fields,
        mentions: impl Fn(&str) -> bool,
        budget: &mut Budget,
    ) -> Result<bool, QueryError> {
        budget.spend(1 + self.selector_steps + self.words.len() * WORD_STEPS)?;
        let none = Labels::new();
        let labels = fields.labels("labels").unwrap_or(&none);
        let selected = |selector: &Selector| selector.matches(labels);
        if !self.selector.as_ref().is_none_or(selected)
            || !self.words.iter().all(|word| mentions(word))
        {
            return Ok(false);
        }
        self.filter.as_ref().map_or(Ok(true), |filter| {
            filter
                .evaluate_within(fields, &mut budget.0)
                .map_err(|_| QueryError::TooExpensive)
        })
    }

    fn canonical(&self) -> String {
        let selected = self.selector.as_ref().map(Selector::written);
        let filter = self.filter.as_ref().map(ToString::to_string);
        format!("{selected:?}|{:?}|{filter:?}", self.words)
    }
}

/// Labels without which a selector is not met.
pub(super) fn terms_of(selector: &Selector) -> impl Iterator<Item = Term> {
    let exact = selector.written().iter();
    exact
        .filter(|(_, values)| values.iter().all(|value| is_exact(value)))
        .filter_map(|(key, values)| Term::new(key, values))
}

/// Whether a selector's value means itself alone.
fn is_exact(value: &str) -> bool {
    !(value.contains('*') || value.starts_with('^') && value.ends_with('$'))
}

fn predicate(schema: &'static Schema, written: &str) -> Result<Option<Predicate>, Invalid> {
    if written.trim().is_empty() {
        return Ok(None);
    }
    Predicate::parse_for(schema, written)
        .map(Some)
        .map_err(|error| {
            // The caret stands below the fault only when nothing stands before the predicate.
            let shown = if written.len() > PREDICATE_BYTES_MAX {
                error.to_string()
            } else {
                format!("does not parse\n{}", error.with_caret(written))
            };
            Invalid::new("filter", shown)
        })
}

/// What to list.
#[derive(Clone, Debug)]
pub(crate) struct ListQuery {
    /// Rows on the page.
    pub(crate) page_size: usize,
    /// Which.
    pub(crate) conditions: Conditions,
    /// Only rows of this database.
    pub(super) database: Option<String>,
    /// In which order.
    pub(crate) order: Order,
    /// After which row the page starts.
    pub(crate) after: Option<Place>,
    fingerprint: String,
}

/// A request for a listing, as both tables take it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListRequest {
    /// Rows on the page; 0 is [`PAGE_SIZE_DEFAULT`].
    pub(crate) page_size: i32,
    /// From the last answer; empty is the first page.
    pub(crate) page_token: String,
    /// Only these.
    pub(crate) selector: Option<Selector>,
    /// Words that must all occur.
    pub(crate) search: Vec<String>,
    /// Only rows of this database; empty is all.
    pub(crate) database: String,
    /// A predicate; empty is all.
    pub(crate) filter: String,
    /// An order; empty is that of the table.
    pub(crate) order_by: String,
}

impl ListQuery {
    /// Checks what a caller asked for. `kind` tells the tables' page tokens apart.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the field.
    pub(crate) fn new(
        kind: &str,
        schema: &'static Schema,
        request: ListRequest,
    ) -> Result<Self, Invalid> {
        let page_size = usize::try_from(request.page_size)
            .map_err(|_| Invalid::new("page_size", "is negative"))?
            .min(PAGE_SIZE_MAX);
        let conditions =
            Conditions::new(schema, request.selector, &request.search, &request.filter)?;
        let order = Order::parse(schema, &request.order_by)?;
        let database = Some(request.database).filter(|database| !database.is_empty());
        let fingerprint = format!(
            "{kind}|{}|{database:?}|{}",
            conditions.canonical(),
            order.canonical()
        );
        let after = page::read(&fingerprint, &request.page_token)?
            .map(|place| order.place_of(&place).ok_or_else(page::foreign))
            .transpose()?;
        Ok(Self {
            page_size: if page_size == 0 {
                PAGE_SIZE_DEFAULT
            } else {
                page_size
            },
            conditions,
            database,
            order,
            after,
            fingerprint,
        })
    }

    /// The token of the page after this row.
    pub(crate) fn token_after<R: Ordered>(&self, row: &R) -> String {
        page::token(&self.fingerprint, &self.order.place(row).written())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Result<Conditions, Invalid> {
        Conditions::new(&Schema::DATABASE, None, &[], text)
    }

    #[test]
    fn a_predicate_that_does_not_parse_is_shown_with_its_fault() {
        let invalid = filter("nmae == \"x\"").unwrap_err();
        assert_eq!(invalid.field, "filter");
        assert!(invalid.problem.contains("\nnmae == \"x\"\n^ "), "{invalid}");
        assert!(invalid.problem.contains("did you mean `name`"), "{invalid}");
        let long = filter(&"x".repeat(PREDICATE_BYTES_MAX + 1)).unwrap_err();
        assert!(long.problem.len() < 200, "{long}");
    }

    #[test]
    fn only_exact_values_are_looked_up() {
        let terms = |values: &[&str]| {
            let selector = Selector::new([("env", values.iter().copied())]).unwrap();
            let conditions = Conditions::new(&Schema::DATABASE, Some(selector), &[], "");
            conditions.unwrap().terms().len()
        };
        assert_eq!(terms(&["prod", "dev"]), 1);
        assert_eq!(terms(&["prod", "d*"]), 0);
        assert_eq!(terms(&["^prod$"]), 0);
        let required = filter("labels[\"env\"] == \"prod\" && name != \"x\"").unwrap();
        assert_eq!(required.terms().len(), 1);
        assert!(!required.are_labels_only());
    }
}
