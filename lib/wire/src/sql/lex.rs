//! Cuts a statement into tokens. No text is an error: what is left open ends with the text.

use std::ops::Range;

use super::Dialect;

/// Text that is read: as it was sent, or what a literal in it means, with the place in the statement of each byte.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Vec<u8>,
    /// One more than bytes: the last is where the text ends.
    places: Vec<usize>,
}

impl Piece {
    /// A whole statement.
    pub(super) fn of(text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
            places: (0..=text.len()).collect(),
        }
    }

    /// A part, as it is written.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        Self {
            places: self.places[range.start..=range.end].to_vec(),
            bytes: self.bytes[range].to_vec(),
        }
    }

    /// What a part that stands between quotes means.
    pub(super) fn unquoted(&self, range: Range<usize>, quote: u8, reading: Reading) -> Self {
        let mut meant = Self {
            bytes: Vec::with_capacity(range.len()),
            places: Vec::with_capacity(range.len() + 1),
        };
        let end = range.end;
        let mut at = range.start;
        while at < end {
            let escapes = self.bytes[at] == b'\\' && reading.backslash;
            let escaped = escapes || self.bytes[at] == quote;
            let byte = match self.bytes.get(at + 1).filter(|_| escaped && at + 1 < end) {
                Some(b'n' | b'r' | b't' | b'0') if escapes => b' ',
                Some(&next) if escapes || next == quote => next,
                _ => self.bytes[at],
            };
            meant.bytes.push(byte);
            meant.places.push(self.places[at]);
            at = if escaped && at + 1 < end {
                at + 2
            } else {
                at + 1
            };
        }
        meant.places.push(self.places[end]);
        meant
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where a part stands in the statement.
    pub(super) fn place(&self, range: &Range<usize>) -> Range<usize> {
        self.places[range.start]..self.places[range.end]
    }

    /// Its tokens, from a byte on.
    pub(super) fn token(&self, at: usize, reading: Reading) -> Option<Token> {
        Lexer {
            text: &self.bytes,
            reading,
        }
        .token(at)
    }
}

/// What a server may be set to, and a proxy cannot know: text is read in each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) dialect: Dialect,
    /// Whether a backslash in a literal escapes what follows. It does in MySQL but for `NO_BACKSLASH_ESCAPES`, in
    /// Redshift and `E''`, and not in PostgreSQL with `standard_conforming_strings`.
    pub(super) backslash: bool,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// White space.
    Space,
    /// A comment.
    Comment,
    /// A keyword, name or number.
    Word,
    /// Between two of this character.
    Quoted(u8),
    /// Between `$tag$` and `$tag$`.
    Dollars,
    /// Any other byte.
    Symbol(u8),
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// What stands between its delimiters; all of it where there are none.
    pub(super) inner: Range<usize>,
    /// Where the next token begins.
    pub(super) end: usize,
}

struct Lexer<'t> {
    text: &'t [u8],
    reading: Reading,
}

impl Lexer<'_> {
    fn token(&self, at: usize) -> Option<Token> {
        let rest = self.text.get(at..)?;
        let first = *rest.first()?;
        let token = match first {
            _ if first.is_ascii_whitespace() => {
                self.run(Kind::Space, at, |byte| byte.is_ascii_whitespace())
            }
            b'\'' | b'"' | b'`' => self.quoted(at, first),
            b'-' if rest.starts_with(b"--") => self.line_comment(at, 2),
            b'#' if self.reading.dialect == Dialect::Mysql => self.line_comment(at, 1),
            b'/' if rest.starts_with(b"/*") => self.block_comment(at),
            b'$' => self.dollars(at).unwrap_or(Token {
                kind: Kind::Symbol(b'$'),
                inner: at..at + 1,
                end: at + 1,
            }),
            _ if is_word(first) => self.run(Kind::Word, at, |byte| is_word(byte) || byte == b'$'),
            _ => Token {
                kind: Kind::Symbol(first),
                inner: at..at + 1,
                end: at + 1,
            },
        };
        Some(token)
    }

    fn run(&self, kind: Kind, at: usize, belongs: impl Fn(u8) -> bool) -> Token {
        let more = self.text[at..].iter().take_while(|byte| belongs(**byte));
        let end = at + more.count();
        Token {
            kind,
            inner: at..end,
            end,
        }
    }

    fn quoted(&self, start: usize, quote: u8) -> Token {
        let mut at = start + 1;
        let mut inner_end = self.text.len();
        while let Some(&byte) = self.text.get(at) {
            if byte == b'\\' && self.reading.backslash {
                at += 2;
            } else if byte != quote {
                at += 1;
            } else if self.text.get(at + 1) == Some(&quote) {
                at += 2;
            } else {
                inner_end = at;
                at += 1;
                break;
            }
        }
        Token {
            kind: Kind::Quoted(quote),
            inner: start + 1..inner_end,
            end: at.min(self.text.len()),
        }
    }

    fn line_comment(&self, start: usize, mark: usize) -> Token {
        let line = self.text[start..].iter().position(|byte| *byte == b'\n');
        let end = line.map_or(self.text.len(), |at| start + at);
        Token {
            kind: Kind::Comment,
            inner: start + mark..end,
            end,
        }
    }

    /// Comments nest in PostgreSQL and not in MySQL.
    fn block_comment(&self, start: usize) -> Token {
        let mut depth = 1_u32;
        let mut at = start + 2;
        while at < self.text.len() {
            let rest = &self.text[at..];
            if rest.starts_with(b"*/") {
                depth -= 1;
                if depth == 0 {
                    return Token {
                        kind: Kind::Comment,
                        inner: start + 2..at,
                        end: at + 2,
                    };
                }
                at += 2;
            } else if rest.starts_with(b"/*") && self.reading.dialect == Dialect::Postgres {
                depth += 1;
                at += 2;
            } else {
                at += 1;
            }
        }
        Token {
            kind: Kind::Comment,
            inner: start + 2..self.text.len(),
            end: self.text.len(),
        }
    }

    /// `$tag$ … $tag$`; a tag is empty or a name without `$`. Nothing of the sort for `$1`.
    fn dollars(&self, start: usize) -> Option<Token> {
        let after = &self.text[start + 1..];
        let tag = after.iter().take_while(|byte| is_word(**byte)).count();
        let is_tag = after.get(tag) == Some(&b'$') && !after[0].is_ascii_digit();
        if !is_tag {
            return None;
        }
        let mark = &self.text[start..start + tag + 2];
        let inner = start + mark.len();
        let close = self.text[inner..]
            .windows(mark.len())
            .position(|window| window == mark);
        let inner_end = close.map_or(self.text.len(), |at| inner + at);
        Some(Token {
            kind: Kind::Dollars,
            inner: inner..inner_end,
            end: close.map_or(self.text.len(), |at| inner + at + mark.len()),
        })
    }
}

/// Bytes of names and numbers; every byte beyond ASCII is one.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
