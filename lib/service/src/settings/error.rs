//! What is wrong with a configuration, said so that it can be put right.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Most problems that one answer lists; the rest is counted.
pub const PROBLEMS_MAX: usize = 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It was read, and these things in it are wrong.
    #[error("{}", Listed { file, problems, omitted: *omitted })]
    Invalid {
        /// The file.
        file: PathBuf,
        /// In the order of the file; never empty, at most [`PROBLEMS_MAX`].
        problems: Vec<ConfigProblem>,
        /// How many more there are.
        omitted: usize,
    },
    /// It is larger than any configuration.
    #[error("{}: larger than {bytes_max} bytes, which no configuration is", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// It cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ConfigError {
    /// The problems found inside the file; empty when it could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[ConfigProblem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            Self::TooLarge { .. } | Self::Unreadable { .. } => &[],
        }
    }

    /// The same, told of another file: for text that did not come from the file it was first told of.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        match &mut self {
            Self::Invalid { file, .. }
            | Self::TooLarge { file, .. }
            | Self::Unreadable { file, .. } => *file = path.to_owned(),
        }
        self
    }

    pub(super) fn of(file: &Path, mut problems: Vec<ConfigProblem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        let omitted = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        Self::Invalid {
            file: file.to_owned(),
            problems,
            omitted,
        }
    }
}

/// One thing that is wrong. It never quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Line in the file, from 1; 0 when it is about no one place.
    pub line: u64,
    /// Column, from 1; 0 likewise.
    pub column: u64,
    /// Path of the key, such as `discovery_service.aws[0].types[1]`; empty for the document itself.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would have been right.
    pub expected: Option<String>,
    /// The nearest thing that would have been right.
    pub nearest: Option<String>,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(expected) = &self.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, ", did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

struct Listed<'l> {
    file: &'l Path,
    problems: &'l [ConfigProblem],
    omitted: usize,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if problem.line > 0 {
                write!(f, "{}:{}:", problem.line, problem.column)?;
            }
            write!(f, " {problem}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}
