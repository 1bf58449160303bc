//! Why a command did not do what it was asked, as a person reads it: one line, and a hint that says what to do next.
//!
//! Every error type of the programs turns into a [`Failure`] in one place, where the hint is decided; printing it is
//! [`crate::program`]'s. No backtrace and no source error is ever printed.

use std::fmt;

/// The exit code of a command that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exit {
    /// The command was understood and could not be carried out: 1.
    #[default]
    Failed,
    /// The command was carried out, and what it was asked to check could not be seen in full: 4, and nothing more is
    /// printed.
    Incomplete,
    /// The command was carried out, and what it was asked to check is not well: 3, and nothing more is printed.
    Unwell,
    /// Whoever read the output went away (`| head`): 0, and nothing is printed.
    Quiet,
    /// The command was not understood: 2.
    Usage,
}

impl Exit {
    /// The code that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Quiet => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unwell => 3,
            Self::Incomplete => 4,
        }
    }
}

/// A failure that ends the program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// What could not be done, and why, in one line.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            hint: None,
            exit: Exit::Failed,
        }
    }

    /// The command line asks for something that cannot be meant.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(message)
        }
    }

    /// Nobody reads the output any more.
    pub const fn quiet() -> Self {
        Self {
            message: String::new(),
            hint: None,
            exit: Exit::Quiet,
        }
    }

    /// What was to be checked is not well; the output has said so.
    pub const fn unwell() -> Self {
        Self {
            message: String::new(),
            hint: None,
            exit: Exit::Unwell,
        }
    }

    /// What was to be checked could not be seen in full; the output has said so.
    pub const fn incomplete() -> Self {
        Self {
            message: String::new(),
            hint: None,
            exit: Exit::Incomplete,
        }
    }

    /// Says what to do next.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Puts what was being done before the message: `could not <doing>: …`.
    pub fn within(mut self, doing: &str) -> Self {
        self.message = format!("could not {doing}: {}", self.message);
        self
    }

    /// What failed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, if anything is known to help.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// How the program ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_a_hint() {
        let failure = Failure::new("no route to host")
            .within("list databases")
            .hint("check the proxy's address");
        assert_eq!(
            failure.to_string(),
            "ERROR: could not list databases: no route to host\n  hint: check the proxy's address"
        );
        assert_eq!(failure.exit().code(), 1);
        assert_eq!(Failure::usage("x").exit().code(), 2);
    }
}
