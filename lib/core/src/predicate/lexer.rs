//! Splits a predicate into tokens. It never looks back and never fails without a place.

use super::error::{PredicateError, PredicateProblem};

/// One token and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) offset: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    And,
    CloseBracket,
    CloseParen,
    Comma,
    Differs,
    Dot,
    End,
    Equals,
    Not,
    OpenBracket,
    OpenParen,
    Or,
    Text(String),
    Word(String),
}

impl Kind {
    /// The token as an error names it.
    pub(super) fn describe(&self) -> String {
        let sign = match self {
            Self::End => return "the end".to_owned(),
            Self::Text(text) => return format!("the text {text:?}"),
            Self::Word(word) => word,
            Self::And => "&&",
            Self::CloseBracket => "]",
            Self::CloseParen => ")",
            Self::Comma => ",",
            Self::Differs => "!=",
            Self::Dot => ".",
            Self::Equals => "==",
            Self::Not => "!",
            Self::OpenBracket => "[",
            Self::OpenParen => "(",
            Self::Or => "||",
        };
        format!("`{sign}`")
    }
}

/// Reads tokens from the front of a text.
pub(super) struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    pub(super) const fn new(source: &'s str) -> Self {
        Self { source, at: 0 }
    }

    /// The next token; [`Kind::End`] for ever once the text is over.
    pub(super) fn next(&mut self) -> Result<Token, PredicateError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let offset = self.at;
        let kind = self.token(offset)?;
        Ok(Token { offset, kind })
    }

    fn token(&mut self, offset: usize) -> Result<Kind, PredicateError> {
        const SIGNS: [(&str, Kind); 11] = [
            ("&&", Kind::And),
            ("||", Kind::Or),
            ("==", Kind::Equals),
            ("!=", Kind::Differs),
            ("!", Kind::Not),
            ("(", Kind::OpenParen),
            (")", Kind::CloseParen),
            ("[", Kind::OpenBracket),
            ("]", Kind::CloseBracket),
            (",", Kind::Comma),
            (".", Kind::Dot),
        ];
        let rest = self.rest();
        for (sign, kind) in SIGNS {
            if rest.starts_with(sign) {
                self.at += sign.len();
                return Ok(kind);
            }
        }
        match rest.chars().next() {
            None => Ok(Kind::End),
            Some('"') => self.quoted(offset),
            Some('`') => self.raw(offset),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => Ok(self.word()),
            Some(c) => Err(self.stray(offset, c)),
        }
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// A name. Hyphens belong to it: there is no subtraction, and label keys are full of them.
    fn word(&mut self) -> Kind {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-')
            .count();
        self.at += length;
        Kind::Word(rest.get(..length).unwrap_or_default().to_owned())
    }

    /// A text in backquotes: everything up to the next one, as it stands.
    fn raw(&mut self, offset: usize) -> Result<Kind, PredicateError> {
        let rest = self.rest().get(1..).unwrap_or_default();
        let Some((text, _)) = rest.split_once('`') else {
            return Err(self.error(offset, PredicateProblem::UnterminatedText));
        };
        self.at += text.len() + 2;
        Ok(Kind::Text(text.to_owned()))
    }

    /// A text in double quotes, with the escapes `\"`, `\\`, `\n`, `\r`, `\t` and `\u` with four hexadecimal digits.
    fn quoted(&mut self, offset: usize) -> Result<Kind, PredicateError> {
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(Kind::Text(text));
                }
                '\\' => {
                    let Some((_, escape)) = characters.next() else {
                        break;
                    };
                    let unknown =
                        || self.error(offset + at, PredicateProblem::UnknownEscape { escape });
                    text.push(match escape {
                        '"' | '\\' => escape,
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'u' => {
                            let digits: String = characters
                                .by_ref()
                                .take(4)
                                .map(|(_, digit)| digit)
                                .collect();
                            unicode(&digits).ok_or_else(unknown)?
                        }
                        _ => return Err(unknown()),
                    });
                }
                _ => text.push(c),
            }
        }
        Err(self.error(offset, PredicateProblem::UnterminatedText))
    }

    fn stray(&self, offset: usize, c: char) -> PredicateError {
        let expected = match c {
            '&' => "`&&`",
            '|' => "`||`",
            '=' => "`==`",
            '\'' => "a text in double quotes",
            _ => "a name, a text in double quotes or an operator",
        };
        self.error(
            offset,
            PredicateProblem::Expected {
                expected: expected.to_owned(),
                found: format!("{c:?}"),
            },
        )
    }

    fn error(&self, offset: usize, problem: PredicateProblem) -> PredicateError {
        PredicateError::new(self.source, offset, problem)
    }
}

fn unicode(digits: &str) -> Option<char> {
    (digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
        .and_then(char::from_u32)
}
