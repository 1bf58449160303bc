//! Finds the values of secrets among the tokens of a statement.
//!
//! Servers differ in what a backslash means, and say so to nobody: a text is read both ways, and what is a secret in
//! either is taken out. Literals, comments and dollar quotes are read again as text of their own, to [`NESTED_MAX`].

use std::{ops::Range, sync::LazyLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::{
    Redaction,
    lex::{Kind, Piece, Reading, Token},
};

/// How deep text in text is read. What is deeper goes as a whole when it speaks of secrets.
const NESTED_MAX: usize = 4;

/// What every text with a secret has in it. One pass over a statement tells that there is none, as nearly always.
const HINTS: [&str; 10] = [
    "passw",
    "identified",
    "credentials",
    "access_key",
    "session_token",
    "driver_token",
    "symmetric_key",
    "token=",
    "iam_role",
    "://",
];

static HINTED: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(HINTS)
        .expect("ten short words make a small automaton")
});

/// Where values of secrets stand in a statement, in order, apart from each other.
pub(super) fn secrets(text: &str, redaction: Redaction) -> Vec<Range<usize>> {
    if !HINTED.is_match(text) {
        return Vec::new();
    }
    let mut found = Vec::new();
    search(&Piece::of(text), redaction, 0, &mut found);
    passwords_of_urls(text, &mut found);
    merged(found)
}

/// Reads a text in each way that there is.
fn search(piece: &Piece, redaction: Redaction, depth: usize, found: &mut Vec<Range<usize>>) {
    if !HINTED.is_match(piece.bytes()) {
        return;
    }
    if depth > NESTED_MAX {
        found.push(piece.place(&(0..piece.bytes().len())));
        return;
    }
    for backslash in [false, true] {
        let reading = Reading {
            dialect: redaction.dialect,
            backslash,
        };
        let mut reader = Reader {
            piece,
            redaction,
            reading,
            depth,
            expect: Expect::Nothing,
            identified: false,
            found: &mut *found,
        };
        let mut at = 0;
        while let Some(token) = piece.token(at, reading) {
            at = reader.read(&token);
        }
    }
}

/// What may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// No secret.
    Nothing,
    /// The value of one; whether it was assigned by a sign, and so may stand without quotes in text within text.
    Value { assigned: bool },
    /// `SET PASSWORD FOR somebody =`: a value after the sign.
    Sign,
    /// More of a value: literals that are joined.
    More,
}

struct Reader<'r> {
    piece: &'r Piece,
    redaction: Redaction,
    reading: Reading,
    depth: usize,
    expect: Expect,
    /// Within `IDENTIFIED …`, where `BY`, `AS`, `USING` and `REPLACE` are followed by secrets.
    identified: bool,
    found: &'r mut Vec<Range<usize>>,
}

impl Reader<'_> {
    /// Takes one token in; the answer is where to go on.
    fn read(&mut self, token: &Token) -> usize {
        match token.kind {
            Kind::Space => {}
            Kind::Comment => self.nested(&self.piece.part(token.inner.clone())),
            Kind::Word => return self.word(token),
            Kind::Quoted(quote) => self.quoted(token, quote),
            Kind::Dollars => {
                if matches!(self.expect, Expect::Value { .. }) {
                    self.take(token.inner.clone());
                    self.expect = Expect::More;
                } else {
                    self.nested(&self.piece.part(token.inner.clone()));
                    self.expect = Expect::Nothing;
                }
            }
            Kind::Symbol(symbol) => return self.symbol(token, symbol),
        }
        token.end
    }

    fn word(&mut self, token: &Token) -> usize {
        let text = &self.piece.bytes()[token.inner.clone()];
        let next = self.piece.bytes().get(token.end);
        let is = |words: &[&str]| {
            words
                .iter()
                .any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        };
        self.expect = match self.expect {
            // `E'…'`, `_utf8'…'`
            expect @ (Expect::Value { .. } | Expect::More)
                if next == Some(&b'\'') || text[0] == b'_' && !self.names_secret(text) =>
            {
                expect
            }
            // Before the words for secrets: `password=password1` is no second clause.
            Expect::Value { assigned: true } if self.depth > 0 => return self.bare(token),
            expect if is(&["for"]) && matches!(expect, Expect::Value { .. }) => Expect::Sign,
            _ if self.names_secret(text) => Expect::Value { assigned: false },
            _ if is(&["identified"]) => {
                self.identified = true;
                Expect::Nothing
            }
            _ if self.identified && is(&["by", "as", "using", "replace"]) => {
                Expect::Value { assigned: false }
            }
            expect @ Expect::Value { .. }
                if is(&["as", "to", "by", "is", "not", "like", "ilike"]) =>
            {
                expect
            }
            Expect::Sign => Expect::Sign,
            _ => Expect::Nothing,
        };
        token.end
    }

    fn quoted(&mut self, token: &Token, quote: u8) {
        let inner = token.inner.clone();
        let is_value = match self.expect {
            Expect::Value { .. } => quote != b'`',
            Expect::More => quote == b'\'',
            Expect::Nothing | Expect::Sign => false,
        };
        let meant = self.piece.unquoted(inner.clone(), quote, self.reading);
        if is_value && !self.is_a_role_alone(meant.bytes()) {
            self.take(inner);
            self.expect = Expect::More;
            return;
        }
        if self.expect != Expect::Sign {
            // A name in quotes, as in `"password" = 'x'` and in JSON.
            self.expect = if self.names_secret(meant.bytes()) {
                Expect::Value { assigned: false }
            } else {
                Expect::Nothing
            };
        }
        self.nested(&meant);
    }

    fn symbol(&mut self, token: &Token, symbol: u8) -> usize {
        self.expect = match (self.expect, symbol) {
            (Expect::Value { .. } | Expect::Sign, b'=') | (Expect::Value { .. }, b':') => {
                Expect::Value { assigned: true }
            }
            (expect @ Expect::Value { .. }, b'(' | b'<' | b'>' | b'!' | b'~')
            | (expect @ Expect::More, b'|') => expect,
            (Expect::Value { assigned: true }, _) if self.depth > 0 && !ends_bare(symbol) => {
                return self.bare(token);
            }
            (Expect::Sign, symbol) if symbol != b';' => Expect::Sign,
            (_, b';') => {
                self.identified = false;
                Expect::Nothing
            }
            _ => Expect::Nothing,
        };
        token.end
    }

    /// A value without quotes, in text within text.
    fn bare(&mut self, token: &Token) -> usize {
        let rest = &self.piece.bytes()[token.inner.start..];
        let len = rest.iter().take_while(|byte| !ends_bare(**byte)).count();
        let end = token.inner.start + len;
        self.take(token.inner.start..end);
        self.expect = Expect::Nothing;
        end
    }

    fn nested(&mut self, piece: &Piece) {
        search(piece, self.redaction, self.depth + 1, self.found);
    }

    fn take(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.found.push(self.piece.place(&range));
        }
    }

    /// Whether a secret stands after this word.
    fn names_secret(&self, word: &[u8]) -> bool {
        let ends = |with: &str| {
            word.len()
                .checked_sub(with.len())
                .is_some_and(|at| word[at..].eq_ignore_ascii_case(with.as_bytes()))
        };
        let always = [
            "password",
            "passwd",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "driver_token",
            "symmetric_key",
        ];
        always.iter().any(|with| ends(with))
            || word.eq_ignore_ascii_case(b"credentials")
            || self.depth > 0 && word.eq_ignore_ascii_case(b"token")
            || self.redaction.iam_roles && ends("iam_role")
    }

    /// `CREDENTIALS 'aws_iam_role=…'` holds a name and no secret.
    fn is_a_role_alone(&self, text: &[u8]) -> bool {
        !self.redaction.iam_roles
            && text.starts_with(b"aws_iam_role=")
            && !text.iter().any(|byte| b";&".contains(byte))
    }
}

/// What ends a value without quotes: of a connection string, of `key=value;key=value`, of a URL's query.
fn ends_bare(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b";&'\"`".contains(&byte)
}

/// `scheme://user:password@host`, wherever it stands (RFC 3986, section 3.2.1).
fn passwords_of_urls(text: &str, found: &mut Vec<Range<usize>>) {
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        let rest = &text[start..];
        let ends = |byte: char| byte.is_whitespace() || "/?#'\"`\\".contains(byte);
        let authority = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let Some(host) = authority.rfind('@') else {
            continue;
        };
        if let Some(colon) = authority[..host].find(':').filter(|at| at + 1 < host) {
            found.push(start + colon + 1..start + host);
        }
    }
}

fn merged(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_by_key(|range| (range.start, range.end));
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::{super::Dialect, *};

    fn clean(dialect: Dialect, text: &str) -> String {
        let redaction = Redaction {
            dialect,
            iam_roles: false,
        };
        redaction.apply(text).into_owned()
    }

    #[test]
    fn a_text_without_secrets_is_not_copied() {
        let redaction = Redaction {
            dialect: Dialect::Postgres,
            iam_roles: false,
        };
        let text = "select 'it''s' from t where a = $1 -- don't";
        assert!(matches!(
            redaction.apply(text),
            std::borrow::Cow::Borrowed(_)
        ));
    }

    #[test]
    fn nested_deeper_than_is_read_goes_as_a_whole() {
        let mut text = "password=hunter2 ".to_owned();
        for _ in 0..6 {
            text = format!("x '{}'", text.replace('\'', "''"));
        }
        assert!(!clean(Dialect::Postgres, &text).contains("hunter2"));
    }
}
