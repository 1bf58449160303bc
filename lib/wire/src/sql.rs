//! Statements, as far as a proxy has to understand them: enough to keep secrets out of what is written down.
//!
//! What must hold: the value that stands after a word for a secret never comes out, however the text is quoted, nested,
//! commented or cut off; and as little as possible is taken out beside it, since what is taken out is lost to audit too.
//! Nothing here changes what is sent to a database.
//!
//! [`Redaction`] is the whole of it; `lex` cuts text into tokens and `redact` knows after which of them secrets stand.

mod lex;
mod redact;

use std::borrow::Cow;

/// Whose rules of quoting a statement follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL and Redshift.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

/// What is taken out of statements before they are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// How statements are read.
    pub dialect: Dialect,
    /// Whether the ARNs of `IAM_ROLE` clauses are taken out too. They are names and no secrets.
    pub iam_roles: bool,
}

impl Redaction {
    /// What stands for a value that was taken out.
    pub const MARK: &str = "***";

    /// The text without its secrets: each value is replaced by [`Self::MARK`], its quotes stay. A text that names none
    /// is given back as it is. The text may end anywhere, also within a value.
    ///
    /// Taken out are values after `PASSWORD` and words that end in it, `IDENTIFIED BY`, `CREDENTIALS`, `ACCESS_KEY_ID`,
    /// `SECRET_ACCESS_KEY`, `SESSION_TOKEN`, `MASTER_SYMMETRIC_KEY` and `DRIVER_TOKEN`, as clauses, as names in text
    /// within text (`'password=…'`, `'{"password": …}'`), and passwords in URLs.
    ///
    /// Sources: Amazon Redshift Database Developer Guide, "Authorization parameters" of COPY, `CREATE USER`; PostgreSQL
    /// manual, "Lexical Structure" and libpq's "Connection Strings"; MySQL Reference Manual, "String Literals", `CREATE USER`,
    /// `SET PASSWORD`.
    #[must_use]
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        let found = redact::secrets(text, self);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = String::with_capacity(text.len());
        let mut done = 0;
        for value in found {
            clean.push_str(&text[done..value.start]);
            clean.push_str(Self::MARK);
            done = value.end;
        }
        clean.push_str(&text[done..]);
        Cow::Owned(clean)
    }
}
