//! In which order a listing comes.
//!
//! An order is read from `order_by`: fields with commas between, `desc` after one for the other way. Rows that are equal
//! in all of them come in the order of their table, so every order is total and a page can go on after any row.

use std::{borrow::Cow, cmp::Ordering, fmt::Write as _};

use tidegate_core::{
    labels::is_label_key,
    predicate::{FieldType, Fields, Schema},
};
use tidegate_proto::Invalid;

use super::rows::Row;

/// Most fields of one order.
const FIELDS_MAX: usize = 8;
/// Longest order as written.
const WRITTEN_BYTES_MAX: usize = 2048;
/// How much of a value counts: the last row's values travel in the page token.
const VALUE_BYTES_MAX: usize = 256;
/// How like a known field a name must be to have meant it.
const SIMILAR_ENOUGH: f64 = 0.84;
/// The prefix of labels.
const LABEL: &str = "labels.";
/// What `unavailable` is called by the label and by people.
const STATUS: &str = "status";

/// Something that an order can put in its place.
pub(crate) trait Ordered {
    /// As orders look at it.
    fn sort_fields(&self) -> &dyn Fields;
    /// Its place when nothing else tells: no two have the same.
    fn sort_key(&self) -> (&str, &str);
}

impl<R: Row> Ordered for R {
    fn sort_fields(&self) -> &dyn Fields {
        Row::fields(self)
    }

    fn sort_key(&self) -> (&str, &str) {
        Row::key(self)
    }
}

/// An order of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    fields: Vec<By>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct By {
    what: What,
    descending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Flag(&'static str),
    Label(String),
    List(&'static str),
    Number(&'static str),
    Text(&'static str),
}

/// Where a row stands in an order: what a page token carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    values: Vec<String>,
    key: (String, String),
}

impl Order {
    /// Reads `order_by`; empty is the order of the table.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names what is not known, and what may have been meant.
    pub(crate) fn parse(schema: &'static Schema, written: &str) -> Result<Self, Invalid> {
        let invalid = |problem: String| Invalid::new("order_by", problem);
        if written.len() > WRITTEN_BYTES_MAX {
            return Err(invalid(format!("is longer than {WRITTEN_BYTES_MAX} bytes")));
        }
        if written.trim().is_empty() {
            return Ok(Self::default());
        }
        let fields = written
            .split(',')
            .map(|part| By::parse(schema, part))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        if fields.len() > FIELDS_MAX {
            return Err(invalid(format!("holds more than {FIELDS_MAX} fields")));
        }
        Ok(Self { fields })
    }

    /// Whether it is the order in which the table is kept.
    pub(crate) fn is_of_table(&self) -> bool {
        match self.fields.as_slice() {
            [] => true,
            [only] => only.what == What::Text("name") && !only.descending,
            _ => false,
        }
    }

    /// The order as a text that only equal orders share.
    pub(crate) fn canonical(&self) -> String {
        let mut text = String::new();
        for By { what, descending } in &self.fields {
            // Writing to a string cannot fail.
            let _ = write!(text, "{what:?} {descending},");
        }
        text
    }

    /// Which of two rows comes first.
    pub(crate) fn compare<R: Ordered>(&self, a: &R, b: &R) -> Ordering {
        let by = self.fields.iter().map(|by| {
            let (a, b) = (by.what.of(a.sort_fields()), by.what.of(b.sort_fields()));
            by.directed(by.what.compare(&a, &b))
        });
        first(by).then_with(|| a.sort_key().cmp(&b.sort_key()))
    }

    /// How a row stands to a place.
    pub(crate) fn compare_to<R: Ordered>(&self, row: &R, place: &Place) -> Ordering {
        let by = self.fields.iter().zip(&place.values).map(|(by, value)| {
            let own = by.what.of(row.sort_fields());
            by.directed(by.what.compare(&own, value))
        });
        let key = (place.key.0.as_str(), place.key.1.as_str());
        first(by).then_with(|| row.sort_key().cmp(&key))
    }

    /// Where a row stands.
    pub(crate) fn place<R: Ordered>(&self, row: &R) -> Place {
        let values = self.fields.iter().map(|by| by.what.of(row.sort_fields()));
        let (name, host) = row.sort_key();
        Place {
            values: values.map(Cow::into_owned).collect(),
            key: (name.to_owned(), host.to_owned()),
        }
    }

    /// A place of this order from the text of [`Place::written`].
    pub(crate) fn place_of(&self, written: &str) -> Option<Place> {
        let mut rest = written;
        let mut values = Vec::with_capacity(self.fields.len());
        for _ in 0..self.fields.len() + 2 {
            let (length, after) = rest.split_once(':')?;
            let (value, after) = after.split_at_checked(length.parse().ok()?)?;
            values.push(value.to_owned());
            rest = after;
        }
        let key = (values.pop()?, values.pop()?);
        rest.is_empty().then_some(Place {
            values,
            key: (key.1, key.0),
        })
    }
}

impl Place {
    /// The place as a text.
    pub(crate) fn written(&self) -> String {
        let mut text = String::new();
        let key = [&self.key.0, &self.key.1];
        for value in self.values.iter().chain(key) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}:{value}", value.len());
        }
        text
    }

    /// The key of the row that stood there.
    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.key.0, &self.key.1)
    }
}

impl By {
    fn parse(schema: &'static Schema, written: &str) -> Result<Self, String> {
        let mut words = written.split_whitespace();
        let name = words
            .next()
            .ok_or("has nothing between two commas: write fields as `name, labels.env desc`")?;
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => {
                let shown = shortened(other);
                return Err(format!(
                    "has `{shown}` after a field: only `asc` and `desc` can stand there"
                ));
            }
        };
        if words.next().is_some() {
            return Err("lacks a comma between two fields".to_owned());
        }
        let what = What::parse(schema, name)?;
        Ok(Self { what, descending })
    }

    const fn directed(&self, ordering: Ordering) -> Ordering {
        if self.descending {
            ordering.reverse()
        } else {
            ordering
        }
    }
}

impl What {
    fn parse(schema: &'static Schema, name: &str) -> Result<Self, String> {
        if let Some(key) = name.strip_prefix(LABEL) {
            return if is_label_key(key) {
                Ok(Self::Label(key.to_owned()))
            } else {
                Err(format!("has `{}`, which is no label key", shortened(key)))
            };
        }
        let meant = if name == STATUS {
            meant_by_status(schema)
        } else {
            name
        };
        let field = schema.field(meant).ok_or_else(|| unknown(schema, name))?;
        match field.holds {
            FieldType::Flag => Ok(Self::Flag(field.path)),
            FieldType::Labels => Err("needs the key of a label: write `labels.KEY`".to_owned()),
            FieldType::List => Ok(Self::List(field.path)),
            FieldType::Number => Ok(Self::Number(field.path)),
            FieldType::Text => Ok(Self::Text(field.path)),
            FieldType::Traits => Err(unknown(schema, name)),
        }
    }

    /// Which of two values comes first. Numbers are written without leading zeros, so the shorter is the smaller.
    fn compare(&self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Number(_) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            _ => a.cmp(b),
        }
    }

    /// A row's value; what is absent is empty and so comes first.
    fn of<'r>(&self, fields: &'r dyn Fields) -> Cow<'r, str> {
        match self {
            Self::Label(key) => {
                let labels = fields.labels("labels");
                cut(labels
                    .and_then(|labels| labels.get(key))
                    .unwrap_or_default())
                .into()
            }
            Self::Flag(path) => if fields.flag(path) { "yes" } else { "no" }.into(),
            Self::List(path) => cut(&fields.list(path).join(",")).to_owned().into(),
            Self::Number(path) | Self::Text(path) => match fields.text(path) {
                None => Cow::Borrowed(""),
                Some(Cow::Borrowed(text)) => cut(text).into(),
                Some(Cow::Owned(text)) => cut(&text).to_owned().into(),
            },
        }
    }
}

fn first(mut orderings: impl Iterator<Item = Ordering>) -> Ordering {
    orderings
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE_BYTES_MAX)]
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A database's status is why it cannot be connected to; other things have one of their own.
fn meant_by_status(schema: &'static Schema) -> &'static str {
    if schema.field(STATUS).is_some() {
        STATUS
    } else {
        "unavailable"
    }
}

fn unknown(schema: &'static Schema, name: &str) -> String {
    let is_ordered = |holds| !matches!(holds, FieldType::Labels | FieldType::Traits);
    let fields = schema.iter().filter(|field| is_ordered(field.holds));
    let status = (meant_by_status(schema) == "unavailable").then_some(STATUS);
    let known = fields.map(|field| field.path).chain(status);
    format!(
        "cannot be by `{}`: {}",
        shortened(name),
        nearest(name, known)
    )
}

/// What may have been meant, else all that there is.
pub(crate) fn nearest(name: &str, known: impl IntoIterator<Item = &'static str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let likely = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(likeness, _)| *likeness >= SIMILAR_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match likely {
        Some((_, likely)) => format!("did you mean `{likely}`"),
        None => format!("there are `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_known_fields_and_labels() {
        let parse = |text| Order::parse(&Schema::DATABASE, text);
        let order = parse("labels.env desc, name").unwrap();
        assert_eq!(order.fields.len(), 2);
        assert!(!order.is_of_table());
        assert!(parse(" ").unwrap().is_of_table());
        assert!(parse("name asc").unwrap().is_of_table());
        assert_eq!(parse("status").unwrap(), parse("unavailable").unwrap());
        for (wrong, problem) in [
            ("regoin", "did you mean `region`"),
            ("name,", "nothing between two commas"),
            ("name downwards", "only `asc` and `desc`"),
            ("name desc region", "lacks a comma"),
            ("labels", "labels.KEY"),
            ("labels.a b", "only `asc` and `desc`"),
            ("labels.", "no label key"),
            ("zzz", "there are `name`"),
            (
                "name,name,name,name,name,name,name,name,name",
                "more than 8",
            ),
        ] {
            let invalid = parse(wrong).unwrap_err();
            assert_eq!(invalid.field, "order_by");
            assert!(invalid.problem.contains(problem), "{wrong}: {invalid}");
        }
        assert!(parse(&"name".repeat(1000)).is_err());
        let servers = Order::parse(&Schema::DATABASE_SERVER, "hostname desc");
        assert!(servers.is_ok());
    }

    #[test]
    fn a_place_reads_back_whatever_its_values_hold() {
        let order = Order::parse(&Schema::DATABASE, "labels.env, region desc").unwrap();
        let place = Place {
            values: vec!["3:x".to_owned(), "é".to_owned()],
            key: ("orders".to_owned(), String::new()),
        };
        assert_eq!(order.place_of(&place.written()), Some(place.clone()));
        let none = Order::default();
        assert_eq!(none.place_of(&place.written()), None);
        for damaged in ["", "1:", "9:x", "x", "1:é2:ab0:0:"] {
            assert_eq!(order.place_of(damaged), None, "{damaged}");
        }
    }
}
