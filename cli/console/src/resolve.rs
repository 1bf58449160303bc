//! Which database a person means by a name: the exact name, the undecorated one, or a prefix that only one has.
//!
//! Pure: the candidates are an argument. A name that fits several databases is never guessed at.

use tidegate_proto::v1;

use crate::{Failure, table::visible};

/// Most candidates named in a failure.
const CANDIDATES_SHOWN_MAX: usize = 20;

/// What tells databases apart, beside their names.
const DIFFERENCES: [&str; 4] = ["Type", "Endpoint", "Region", "Account"];

/// Why a name means no one database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Several fit equally well.
    #[error("{} {} databases", fits(.wanted.as_deref()), .candidates.len())]
    Ambiguous {
        /// The name as typed, if one was.
        wanted: Option<String>,
        /// The databases, in name order.
        candidates: Vec<Candidate>,
    },
    /// None fits.
    #[error("{}, or your roles do not let you see it", absent(.wanted.as_deref()))]
    NotFound {
        /// The name as typed, if one was.
        wanted: Option<String>,
    },
}

fn fits(wanted: Option<&str>) -> String {
    match wanted {
        Some(name) => format!("`{}` fits", visible(name)),
        None => "what you ask for fits".to_owned(),
    }
}

fn absent(wanted: Option<&str>) -> String {
    match wanted {
        Some(name) => format!("there is no database `{}`", visible(name)),
        None => "there is no such database".to_owned(),
    }
}

/// A database that may be meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// As [`DIFFERENCES`]; empty where it is not known.
    differences: [String; DIFFERENCES.len()],
}

impl Candidate {
    fn of(database: &v1::Database) -> Self {
        let aws = database.aws.clone().unwrap_or_default();
        let or_label = |known: String, key: &str| match database.labels.get(key) {
            Some(label) if known.is_empty() => label.clone(),
            _ => known,
        };
        let kind = if database.kind.is_empty() {
            &database.protocol
        } else {
            &database.kind
        };
        Self {
            name: database.name.clone(),
            differences: [
                kind.clone(),
                or_label(String::new(), "endpoint-type"),
                or_label(aws.region, "region"),
                or_label(aws.account_id, "account-id"),
            ],
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let failure = Self::new(&error);
        match error {
            ResolveError::Ambiguous { candidates, .. } => failure.hint(choices(&candidates)),
            ResolveError::NotFound { .. } => {
                failure.hint("`db ls` shows the databases that you can use")
            }
        }
    }
}

/// The candidates, a line each, with those columns in which they differ.
fn choices(candidates: &[Candidate]) -> String {
    let differing: Vec<usize> = (0..DIFFERENCES.len())
        .filter(|column| {
            let mut values = candidates.iter().map(|one| &one.differences[*column]);
            let first = values.next();
            values.any(|value| Some(value) != first)
        })
        .collect();
    let shown = candidates.iter().take(CANDIDATES_SHOWN_MAX);
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !differing.is_empty() {
        let header = differing.iter().map(|column| DIFFERENCES[*column]);
        rows.push(
            std::iter::once("Name")
                .chain(header)
                .map(str::to_owned)
                .collect(),
        );
    }
    rows.extend(shown.map(|one| {
        let differences = differing.iter().map(|column| &one.differences[*column]);
        std::iter::once(&one.name)
            .chain(differences)
            .map(|cell| visible(cell))
            .collect()
    }));
    let more = candidates.len().saturating_sub(CANDIDATES_SHOWN_MAX);
    let more = if more == 0 {
        String::new()
    } else {
        format!("\n    and {more} more")
    };
    format!("name one of them:{}{more}", aligned(&rows))
}

fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate();
        let line: String = cells
            .map(|(column, cell)| format!("{cell:width$}  ", width = width(column)))
            .collect();
        format!("\n    {}", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// The database that `wanted` means among these.
///
/// # Errors
///
/// When none fits, or several fit equally well.
pub fn choose<'c>(
    wanted: &str,
    candidates: &'c [v1::Database],
) -> Result<&'c v1::Database, ResolveError> {
    let fits: [fn(&v1::Database, &str) -> bool; 3] = [
        |database, wanted| database.name == wanted,
        |database, wanted| database.discovered_name == wanted,
        |database, wanted| database.name.starts_with(wanted),
    ];
    for fit in fits {
        let fitting = candidates
            .iter()
            .filter(|database| !wanted.is_empty() && fit(database, wanted));
        if let Some(one) = only(Some(wanted), fitting)? {
            return Ok(one);
        }
    }
    Err(ResolveError::NotFound {
        wanted: Some(wanted.to_owned()),
    })
}

/// The only one of these, for who chose by labels or a predicate.
///
/// # Errors
///
/// When there is none, or there are several.
pub fn the_one(candidates: &[v1::Database]) -> Result<&v1::Database, ResolveError> {
    only(None, candidates.iter())?.ok_or(ResolveError::NotFound { wanted: None })
}

/// One, or none; never one of several.
fn only<'c>(
    wanted: Option<&str>,
    fitting: impl Iterator<Item = &'c v1::Database>,
) -> Result<Option<&'c v1::Database>, ResolveError> {
    let fitting: Vec<&v1::Database> = fitting.collect();
    if let [] | [_] = fitting.as_slice() {
        return Ok(fitting.first().copied());
    }
    let mut candidates: Vec<Candidate> = fitting.into_iter().map(Candidate::of).collect();
    candidates.sort();
    candidates.dedup();
    Err(ResolveError::Ambiguous {
        wanted: wanted.map(str::to_owned),
        candidates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases(names: &[(&str, &str)]) -> Vec<v1::Database> {
        names
            .iter()
            .map(|(name, discovered)| v1::Database {
                name: (*name).to_owned(),
                discovered_name: (*discovered).to_owned(),
                ..v1::Database::default()
            })
            .collect()
    }

    fn chosen(wanted: &str, names: &[(&str, &str)]) -> Result<String, ResolveError> {
        choose(wanted, &databases(names)).map(|database| database.name.clone())
    }

    #[test]
    fn an_exact_name_beats_an_undecorated_one_and_that_beats_a_prefix() {
        let names = [
            ("dw", "x"),
            ("dw-redshift-us-east-1", "dw"),
            ("dw-2-redshift", "dw-2"),
        ];
        assert_eq!(chosen("dw", &names).unwrap(), "dw");
        assert_eq!(chosen("dw", &names[1..]).unwrap(), "dw-redshift-us-east-1");
        assert_eq!(chosen("dw-2-r", &names).unwrap(), "dw-2-redshift");
    }

    #[test]
    fn an_ambiguous_name_lists_its_candidates() {
        let names = [("b-us-west-2", "b"), ("b-us-east-1", "b")];
        let error = chosen("b", &names).unwrap_err();
        assert_eq!(
            Failure::from(error).to_string(),
            "ERROR: `b` fits 2 databases\n  hint: name one of them:\n    b-us-east-1\n    b-us-west-2"
        );
        assert!(matches!(
            chosen("b-us", &names),
            Err(ResolveError::Ambiguous { .. })
        ));
    }

    #[test]
    fn candidates_are_told_with_what_tells_them_apart_and_nothing_else() {
        let database = |name: &str, region: &str, account: &str| v1::Database {
            discovered_name: "orders".to_owned(),
            kind: "rds".to_owned(),
            labels: [("region".to_owned(), region.to_owned())].into(),
            aws: Some(v1::AwsMetadata {
                account_id: account.to_owned(),
                ..v1::AwsMetadata::default()
            }),
            ..databases(&[(name, "orders")]).remove(0)
        };
        let found = [
            database(
                "orders-rds-us-west-2-222222222222",
                "us-west-2",
                "222222222222",
            ),
            database("orders-rds-us-east-1-1", "us-east-1", "111111111111"),
        ];
        assert_eq!(
            Failure::from(choose("orders", &found).unwrap_err()).to_string(),
            "\
ERROR: `orders` fits 2 databases
  hint: name one of them:
    Name                               Region     Account
    orders-rds-us-east-1-1             us-east-1  111111111111
    orders-rds-us-west-2-222222222222  us-west-2  222222222222"
        );
    }

    #[test]
    fn without_a_name_only_a_single_database_is_meant() {
        let found = databases(&[("b", ""), ("a", "")]);
        assert_eq!(the_one(&found[..1]).unwrap().name, "b");
        let said = the_one(&found).unwrap_err().to_string();
        assert_eq!(said, "what you ask for fits 2 databases");
        let said = the_one(&[]).unwrap_err().to_string();
        assert_eq!(
            said,
            "there is no such database, or your roles do not let you see it"
        );
    }

    #[test]
    fn a_name_that_fits_nothing_is_not_guessed_at() {
        assert!(matches!(
            chosen("c", &[("b", "")]),
            Err(ResolveError::NotFound { .. })
        ));
        assert!(matches!(
            chosen("", &[("b", "")]),
            Err(ResolveError::NotFound { .. })
        ));
    }

    #[test]
    fn a_long_list_of_candidates_is_cut() {
        let names: Vec<(String, String)> = (0..50)
            .map(|n| (format!("a{n:02}"), String::new()))
            .collect();
        let names: Vec<(&str, &str)> = names
            .iter()
            .map(|(name, found)| (name.as_str(), found.as_str()))
            .collect();
        let text = Failure::from(chosen("a", &names).unwrap_err()).to_string();
        assert!(text.ends_with("a19\n    and 30 more"), "{text}");
    }
}
