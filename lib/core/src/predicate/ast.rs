//! A predicate as checked: every node has the type that its place needs, so evaluation cannot meet a wrong one.
//!
//! `Display` gives the canonical spelling, which parses back to the same tree.

use std::fmt::{self, Write as _};

use crate::pattern::Pattern;

/// The canonical name of a field.
pub(super) type Path = &'static str;

/// Something that holds or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    All(Vec<Test>),
    Always(bool),
    Any(Vec<Test>),
    Contains(List, Text),
    ContainsAll(List, List),
    ContainsAny(List, List),
    Exists(Place),
    Flag(Path),
    HasPrefix(Text, Text),
    Matches(List, Pattern),
    Not(Box<Test>),
    /// Two texts are equal, or, with `equal` unset, differ.
    Same {
        left: Text,
        right: Text,
        equal: bool,
    },
    Search(Vec<Text>),
}

/// What `exists` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Label(Path, Text),
    List(Path),
    Text(Path),
    Trait(Path, Text),
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Field(Path),
    Label(Path, Box<Text>),
    Literal(String),
    Mapped(Mapping, Box<Text>),
}

/// Texts. A text stands for the list that holds it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum List {
    Field(Path),
    LabelsMatching(Path, Pattern),
    Mapped(Mapping, Box<List>),
    One(Text),
    Set(Vec<Text>),
    Split(Text, Text),
    Trait(Path, Text),
}

/// What is done to a text, or to each text of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    EmailLocal,
    Lower,
    Replace(Pattern, String),
    Upper,
}

impl Test {
    /// Adds the labels and values without which the test cannot hold.
    pub(super) fn required_labels<'t>(&'t self, required: &mut Vec<(&'t str, &'t str)>) {
        match self {
            Self::All(tests) => tests.iter().for_each(|test| test.required_labels(required)),
            Self::Same {
                left: Text::Label(_, key),
                right: Text::Literal(value),
                equal: true,
            }
            | Self::Same {
                left: Text::Literal(value),
                right: Text::Label(_, key),
                equal: true,
            } => {
                // A label that is absent reads as the empty text.
                if let Text::Literal(key) = &**key
                    && !value.is_empty()
                {
                    required.push((key, value));
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(tests) => joined(f, tests, " && "),
            Self::Always(value) => write!(f, "{value}"),
            Self::Any(tests) => joined(f, tests, " || "),
            Self::Contains(list, item) => write!(f, "contains({list}, {item})"),
            Self::ContainsAll(list, items) => write!(f, "contains_all({list}, {items})"),
            Self::ContainsAny(list, items) => write!(f, "contains_any({list}, {items})"),
            Self::Exists(place) => write!(f, "exists({place})"),
            Self::Flag(path) => f.write_str(path),
            Self::HasPrefix(text, prefix) => write!(f, "hasPrefix({text}, {prefix})"),
            Self::Matches(list, pattern) => {
                write!(f, "regexp.match({list}, {})", Quoted(pattern.written()))
            }
            Self::Not(test) => {
                f.write_char('!')?;
                match **test {
                    Self::Same { .. } => write!(f, "({test})"),
                    _ => grouped(f, test),
                }
            }
            Self::Same { left, right, equal } => {
                write!(f, "{left} {} {right}", if *equal { "==" } else { "!=" })
            }
            Self::Search(words) => {
                f.write_str("search(")?;
                listed(f, words)?;
                f.write_char(')')
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(path) | Self::Text(path) => f.write_str(path),
            Self::Label(path, key) | Self::Trait(path, key) => write!(f, "{path}[{key}]"),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(path) => f.write_str(path),
            Self::Label(path, key) => write!(f, "{path}[{key}]"),
            Self::Literal(text) => write!(f, "{}", Quoted(text)),
            Self::Mapped(mapping, text) => mapping.print(f, text),
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(path) => f.write_str(path),
            Self::LabelsMatching(_, pattern) => {
                write!(f, "labels_matching({})", Quoted(pattern.written()))
            }
            Self::Mapped(mapping, list) => mapping.print(f, list),
            Self::One(text) => write!(f, "{text}"),
            Self::Set(texts) => {
                f.write_str("set(")?;
                listed(f, texts)?;
                f.write_char(')')
            }
            Self::Split(text, separator) => write!(f, "split({text}, {separator})"),
            Self::Trait(path, key) => write!(f, "{path}[{key}]"),
        }
    }
}

impl Mapping {
    fn print(&self, f: &mut fmt::Formatter<'_>, of: &dyn fmt::Display) -> fmt::Result {
        match self {
            Self::EmailLocal => write!(f, "email.local({of})"),
            Self::Lower => write!(f, "strings.lower({of})"),
            Self::Replace(pattern, by) => write!(
                f,
                "regexp.replace({of}, {}, {})",
                Quoted(pattern.written()),
                Quoted(by)
            ),
            Self::Upper => write!(f, "strings.upper({of})"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, tests: &[Test], operator: &str) -> fmt::Result {
    for (index, test) in tests.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        grouped(f, test)?;
    }
    Ok(())
}

/// A test with parentheses where it could be read otherwise without.
fn grouped(f: &mut fmt::Formatter<'_>, test: &Test) -> fmt::Result {
    match test {
        Test::All(_) | Test::Any(_) => write!(f, "({test})"),
        _ => write!(f, "{test}"),
    }
}

fn listed(f: &mut fmt::Formatter<'_>, texts: &[Text]) -> fmt::Result {
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{text}")?;
    }
    Ok(())
}

/// A text as it is written in a predicate.
struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                // Control characters lie below U+00A0, so four digits hold them.
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
