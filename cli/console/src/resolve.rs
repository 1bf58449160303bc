//! Which database a person means by a name: the exact name, the undecorated one, or a prefix that only one has.
//!
//! Pure: the candidates are an argument. A name that fits several databases is never guessed at.

use tidegate_proto::v1;

use crate::Failure;

/// Most candidates named in a failure.
const CANDIDATES_SHOWN_MAX: usize = 20;

/// Why a name means no one database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Several fit equally well.
    #[error("`{wanted}` fits {} databases", .names.len())]
    Ambiguous {
        /// The name as typed.
        wanted: String,
        /// The databases, in name order.
        names: Vec<String>,
    },
    /// None fits.
    #[error("there is no database `{wanted}`, or your roles do not let you see it")]
    NotFound {
        /// The name as typed.
        wanted: String,
    },
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let failure = Self::new(&error);
        match error {
            ResolveError::Ambiguous { names, .. } => failure.hint(choices(&names)),
            ResolveError::NotFound { .. } => {
                failure.hint("`db ls` shows the databases that you can use")
            }
        }
    }
}

fn choices(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(CANDIDATES_SHOWN_MAX)
        .map(|name| format!("\n    {name}"))
        .collect::<String>();
    let more = names.len().saturating_sub(CANDIDATES_SHOWN_MAX);
    let more = if more == 0 {
        String::new()
    } else {
        format!("\n    and {more} more")
    };
    format!("name one of them:{shown}{more}")
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
        let fitting: Vec<&v1::Database> = candidates
            .iter()
            .filter(|database| !wanted.is_empty() && fit(database, wanted))
            .collect();
        match fitting.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let mut names: Vec<String> = several
                    .iter()
                    .map(|database| database.name.clone())
                    .collect();
                names.sort();
                names.dedup();
                return Err(ResolveError::Ambiguous {
                    wanted: wanted.to_owned(),
                    names,
                });
            }
        }
    }
    Err(ResolveError::NotFound {
        wanted: wanted.to_owned(),
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
            error,
            ResolveError::Ambiguous {
                wanted: "b".to_owned(),
                names: vec!["b-us-east-1".to_owned(), "b-us-west-2".to_owned()],
            }
        );
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
