//! Where something is wrong in a file.

use std::{fmt::Write as _, path::Path};

use serde_yaml::{Location, Spanned};
use tidegate_console::Failure;

/// A line and a column, from 1; 0 when it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Place {
    /// Where a value was written.
    pub(super) fn of<T>(spanned: &Spanned<T>) -> Self {
        spanned.defined.into()
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// What the reader of YAML says, with its place told once.
pub(super) fn problem_of(error: &serde_yaml::Error) -> Problem {
    let text = error.without_snippet().to_string();
    let place = error.location().map(Place::from).unwrap_or_default();
    let line = format!("line {}", place.line);
    // It tells the place in words of its own, before or after.
    let told = text
        .strip_prefix("error: ")
        .unwrap_or(&text)
        .split_once(&format!(" at {line}"))
        .map_or_else(|| text.clone(), |(said, _)| said.to_owned());
    Problem { place, text: told }
}

/// All that is wrong in a file, a line each.
pub(super) fn failure(file: &Path, problems: &[Problem]) -> Failure {
    let mut text = String::new();
    for problem in problems {
        if !text.is_empty() {
            text.push('\n');
        }
        let Place { line, column } = problem.place;
        // Writing to a string cannot fail.
        let _ = write!(text, "{}:", file.display());
        if line > 0 {
            let _ = write!(text, "{line}:{column}:");
        }
        let _ = write!(text, " {}", problem.text);
    }
    Failure::new(text)
}
