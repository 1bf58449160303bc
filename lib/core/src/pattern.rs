//! Patterns over one text, as selectors, roles and predicates write them.
//!
//! `*` is any text, `^…$` a regular expression, and everything else a glob anchored at both ends in which `*` stands for
//! any run of characters. Compiled once, matched in linear time.
//!
//! `\d`, `\w`, `\s`, their opposites and `\b` mean ASCII, as in the programs that such patterns come from.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::selector::PATTERN_CHARS_MAX;

/// Memory that matching one pattern may keep between texts, beyond the compiled pattern.
const DFA_BYTES_MAX: usize = 1 << 20;

/// A compiled pattern that knows how it was written.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    written: String,
    means: Means,
}

#[derive(Clone, Debug)]
enum Means {
    Any,
    Exactly,
    Glob(Box<Glob>),
    Expression(Regex),
}

#[derive(Clone, Debug)]
struct Glob {
    /// What stands between the stars: two parts at least.
    parts: Vec<String>,
    /// The same, for replacing.
    expression: Regex,
}

/// What became of a text that was to be rewritten.
pub(crate) enum Rewritten {
    /// The pattern is not in it.
    Unmatched,
    /// The text with every match replaced.
    To(String),
    /// The result would be longer than was allowed.
    TooLong,
}

impl Pattern {
    /// Compiles a pattern into at most `bytes_max`; the error is what the compiler of expressions said, in one line.
    pub(crate) fn new(written: &str, bytes_max: usize) -> Result<Self, String> {
        if written.len() > PATTERN_CHARS_MAX {
            return Err(format!("longer than {PATTERN_CHARS_MAX} characters"));
        }
        let means = if written == "*" {
            Means::Any
        } else if written.starts_with('^') && written.ends_with('$') {
            Means::Expression(build(&in_ascii(written), bytes_max)?)
        } else if written.contains('*') {
            let parts: Vec<String> = written.split('*').map(str::to_owned).collect();
            let escaped: Vec<String> = parts.iter().map(|part| regex::escape(part)).collect();
            let source = format!("^(?s:{})$", escaped.join("(.*)"));
            let expression = build(&source, bytes_max)?;
            Means::Glob(Box::new(Glob { parts, expression }))
        } else {
            Means::Exactly
        };
        Ok(Self {
            written: written.to_owned(),
            means,
        })
    }

    /// The pattern as it was written.
    pub(crate) fn written(&self) -> &str {
        &self.written
    }

    /// Whether the text is meant.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match &self.means {
            Means::Any => true,
            Means::Exactly => self.written == text,
            Means::Glob(glob) => is_glob(&glob.parts, text),
            Means::Expression(expression) => expression.is_match(text),
        }
    }

    /// Replaces every match by `replacement`, in which `$1` and `${name}` stand for what a group matched.
    pub(crate) fn replace(&self, text: &str, replacement: &str, bytes_max: usize) -> Rewritten {
        let expression = match &self.means {
            Means::Expression(expression) => Some(expression),
            Means::Glob(glob) => Some(&glob.expression),
            Means::Any | Means::Exactly => None,
        };
        let Some(expression) = expression else {
            return match (self.matches(text), replacement.len() > bytes_max) {
                (false, _) => Rewritten::Unmatched,
                (true, true) => Rewritten::TooLong,
                (true, false) => Rewritten::To(replacement.to_owned()),
            };
        };
        let mut rewritten = String::new();
        let mut copied_to = 0;
        let mut matched = false;
        for captures in expression.captures_iter(text) {
            matched = true;
            let Some(whole) = captures.get(0) else {
                continue;
            };
            rewritten.push_str(text.get(copied_to..whole.start()).unwrap_or_default());
            captures.expand(replacement, &mut rewritten);
            copied_to = whole.end();
            if rewritten.len() > bytes_max {
                return Rewritten::TooLong;
            }
        }
        if !matched {
            return Rewritten::Unmatched;
        }
        rewritten.push_str(text.get(copied_to..).unwrap_or_default());
        if rewritten.len() > bytes_max {
            return Rewritten::TooLong;
        }
        Rewritten::To(rewritten)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Whether a text starts with the first part, ends with the last, and has the others in order between them. Selectors
/// ask this of every row, and an expression takes several times as long.
fn is_glob(parts: &[String], text: &str) -> bool {
    let [first, between @ .., last] = parts else {
        return false;
    };
    let rest = text.strip_prefix(first.as_str());
    let Some(mut rest) = rest.and_then(|rest| rest.strip_suffix(last.as_str())) else {
        return false;
    };
    for part in between {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The expression with each class by letter written out, inside brackets and outside.
fn in_ascii(written: &str) -> String {
    let mut source = String::with_capacity(written.len());
    let mut characters = written.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            source.push(c);
            continue;
        }
        match characters.next() {
            Some('d') => source.push_str("[0-9]"),
            Some('D') => source.push_str("[^0-9]"),
            Some('w') => source.push_str("[0-9A-Za-z_]"),
            Some('W') => source.push_str("[^0-9A-Za-z_]"),
            Some('s') => source.push_str(r"[\t\n\f\r ]"),
            Some('S') => source.push_str(r"[^\t\n\f\r ]"),
            Some('b') => source.push_str(r"(?-u:\b)"),
            escaped => {
                source.push('\\');
                source.extend(escaped);
            }
        }
    }
    source
}

fn build(source: &str, bytes_max: usize) -> Result<Regex, String> {
    RegexBuilder::new(source)
        .size_limit(bytes_max)
        .dfa_size_limit(DFA_BYTES_MAX)
        .build()
        .map_err(|error| {
            let said = error.to_string();
            said.lines().last().unwrap_or_default().trim().to_owned()
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_glob_is_what_its_expression_is(pattern in "[ab*é]{0,6}[*][ab]{0,2}", text in "[abé]{0,8}") {
            let pattern = Pattern::new(&pattern, BYTES).unwrap();
            if let Means::Glob(glob) = &pattern.means {
                prop_assert_eq!(pattern.matches(&text), glob.expression.is_match(&text));
            }
        }
    }

    const BYTES: usize = 1 << 16;

    fn replaced(pattern: &str, text: &str, replacement: &str) -> Option<String> {
        match Pattern::new(pattern, BYTES)
            .unwrap()
            .replace(text, replacement, 64)
        {
            Rewritten::To(text) => Some(text),
            Rewritten::Unmatched | Rewritten::TooLong => None,
        }
    }

    #[test]
    fn globs_are_anchored_and_only_framed_texts_are_expressions() {
        let matches =
            |pattern: &str, text: &str| Pattern::new(pattern, BYTES).unwrap().matches(text);
        assert!(matches("*", ""));
        assert!(matches("dw-*", "dw-1"));
        assert!(!matches("dw-*", "a dw-1"));
        assert!(!matches("a.c", "abc"));
        assert!(matches("^a.c$", "abc"));
        assert!(!matches("^", "anything"));
        assert!(Pattern::new("^(a$", BYTES).is_err());
        assert!(Pattern::new(&"x".repeat(PATTERN_CHARS_MAX + 1), BYTES).is_err());
    }

    #[test]
    fn classes_by_letter_are_ascii_inside_brackets_and_outside() {
        for (pattern, text, expected) in [
            (r"^team-\d+$", "team-42", true),
            (r"^team-\d+$", "team-٤", false),
            (r"^[\d-]+$", "4-2", true),
            (r"^[^\d]+$", "ab", true),
            (r"^[^\d]+$", "a1", false),
            (r"^\w+\s\S\W\D$", "a_1 x-y", true),
            (r"^.*\bprod\b.*$", "a-prod-b", true),
            (r"^.*\bprod\b.*$", "aprodb", false),
            (r"^a\\d$", r"a\d", true),
            (r"^\.\*$", ".*", true),
            (r"^(?i)PROD$", "prod", true),
        ] {
            let matches = Pattern::new(pattern, BYTES).unwrap().matches(text);
            assert_eq!(matches, expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_too_much_memory_is_refused() {
        assert!(Pattern::new("^(a{100}){100}$", BYTES).is_err());
    }

    #[test]
    fn a_replacement_takes_groups_and_drops_what_does_not_match() {
        assert_eq!(
            replaced("^env-(.*)$", "env-prod", "$1").as_deref(),
            Some("prod")
        );
        assert_eq!(
            replaced("^env-(?P<e>.*)$", "env-x", "${e}!").as_deref(),
            Some("x!")
        );
        assert_eq!(replaced("team-*", "team-bi", "$1").as_deref(), Some("bi"));
        assert_eq!(replaced("prod", "prod", "p").as_deref(), Some("p"));
        assert_eq!(replaced("^env-(.*)$", "prod", "$1"), None);
    }

    #[test]
    fn a_replacement_does_not_grow_past_what_is_allowed() {
        let ten_fold = "$1".repeat(10);
        let pattern = Pattern::new("^(.*)$", BYTES).unwrap();
        assert!(matches!(
            pattern.replace("0123456789", &ten_fold, 64),
            Rewritten::TooLong
        ));
    }
}
