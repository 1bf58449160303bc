//! The functions of the predicate language, each with its spellings and how it is called.

use super::{
    ast::{List, Mapping, Place, Test, Text},
    error::{PredicateError, PredicateProblem},
    parser::{Operand, Parser, Typed},
};

/// A function: how it is called, and what makes the node of a call.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) also: &'static [&'static str],
    pub(super) usage: &'static str,
    /// Fewest and most values that it takes.
    pub(super) takes: (usize, usize),
    pub(super) build: Build,
}

type Build = fn(&mut Parser<'_>, Arguments) -> Result<Typed, PredicateError>;

/// The values of a call, counted already.
pub(super) struct Arguments {
    pub(super) call: usize,
    values: std::vec::IntoIter<Operand>,
    end: usize,
}

impl Arguments {
    pub(super) fn new(call: usize, values: Vec<Operand>, end: usize) -> Self {
        Self {
            call,
            values: values.into_iter(),
            end,
        }
    }

    /// The next value. The count was checked against [`Function::takes`], so the stand-in is never seen.
    fn next(&mut self) -> Operand {
        self.values.next().unwrap_or(Operand {
            offset: self.end,
            typed: Typed::List(List::Set(Vec::new())),
        })
    }
}

const MANY: usize = super::NODES_MAX;

/// Every function, in the order of their names.
pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "contains",
        also: &[],
        usage: "`contains(list, text)`",
        takes: (2, 2),
        build: |parser, mut given| {
            let list = parser.list(given.next())?;
            let item = parser.text(given.next())?;
            Ok(Typed::Test(Test::Contains(list, item)))
        },
    },
    Function {
        name: "contains_all",
        also: &["containsAll"],
        usage: "`contains_all(list, items)`",
        takes: (2, 2),
        build: |parser, mut given| {
            let list = parser.list(given.next())?;
            let items = parser.list(given.next())?;
            Ok(Typed::Test(Test::ContainsAll(list, items)))
        },
    },
    Function {
        name: "contains_any",
        also: &["containsAny"],
        usage: "`contains_any(list, items)`",
        takes: (2, 2),
        build: |parser, mut given| {
            let list = parser.list(given.next())?;
            let items = parser.list(given.next())?;
            Ok(Typed::Test(Test::ContainsAny(list, items)))
        },
    },
    Function {
        name: "email.local",
        also: &[],
        usage: "`email.local(text or list)`",
        takes: (1, 1),
        build: |parser, mut given| parser.mapped(Mapping::EmailLocal, given.next()),
    },
    Function {
        name: "equals",
        also: &[],
        usage: "`equals(text, text)`",
        takes: (2, 2),
        build: |parser, mut given| {
            let left = parser.text(given.next())?;
            let right = parser.text(given.next())?;
            Ok(Typed::Test(Test::Same {
                left,
                right,
                equal: true,
            }))
        },
    },
    Function {
        name: "exists",
        also: &[],
        usage: "`exists(labels[\"key\"])`",
        takes: (1, 1),
        build: |parser, mut given| {
            let operand = given.next();
            let place = match operand.typed {
                Typed::Text(Text::Field(path)) => Place::Text(path),
                Typed::Text(Text::Label(path, key)) => Place::Label(path, *key),
                Typed::List(List::Field(path)) => Place::List(path),
                Typed::List(List::Trait(path, key)) => Place::Trait(path, key),
                other => {
                    return Err(parser.wrong_type(
                        operand.offset,
                        "a label, trait or field",
                        &other,
                    ));
                }
            };
            Ok(Typed::Test(Test::Exists(place)))
        },
    },
    Function {
        name: "hasPrefix",
        also: &["has_prefix"],
        usage: "`hasPrefix(text, prefix)`",
        takes: (2, 2),
        build: |parser, mut given| {
            let text = parser.text(given.next())?;
            let prefix = parser.text(given.next())?;
            Ok(Typed::Test(Test::HasPrefix(text, prefix)))
        },
    },
    Function {
        name: "labels_matching",
        also: &["labelsMatching"],
        usage: "`labels_matching(\"pattern of keys\")`",
        takes: (1, 1),
        build: |parser, mut given| {
            let pattern = parser.pattern(given.next())?;
            let labels = parser.labels(given.call)?;
            Ok(Typed::List(List::LabelsMatching(labels, pattern)))
        },
    },
    Function {
        name: "regexp.match",
        also: &[],
        usage: "`regexp.match(text or list, \"pattern\")`",
        takes: (2, 2),
        build: |parser, mut given| {
            let list = parser.list(given.next())?;
            let pattern = parser.pattern(given.next())?;
            Ok(Typed::Test(Test::Matches(list, pattern)))
        },
    },
    Function {
        name: "regexp.replace",
        also: &[],
        usage: "`regexp.replace(text or list, \"pattern\", \"replacement\")`",
        takes: (3, 3),
        build: |parser, mut given| {
            let subject = given.next();
            let pattern = parser.pattern(given.next())?;
            let replacement = parser.literal(given.next())?;
            parser.mapped(Mapping::Replace(pattern, replacement), subject)
        },
    },
    Function {
        name: "search",
        also: &[],
        usage: "`search(\"word\", …)`",
        takes: (1, MANY),
        build: |parser, given| {
            parser.searchable(given.call)?;
            let words = given
                .values
                .map(|operand| parser.text(operand))
                .collect::<Result<_, _>>()?;
            Ok(Typed::Test(Test::Search(words)))
        },
    },
    Function {
        name: "set",
        also: &[],
        usage: "`set(\"text\", …)`",
        takes: (0, MANY),
        build: |parser, given| {
            let texts = given
                .values
                .map(|operand| parser.text(operand))
                .collect::<Result<_, _>>()?;
            Ok(Typed::List(List::Set(texts)))
        },
    },
    Function {
        name: "split",
        also: &[],
        usage: "`split(text, separator)`",
        takes: (2, 2),
        build: |parser, mut given| {
            let text = parser.text(given.next())?;
            let separator = parser.text(given.next())?;
            Ok(Typed::List(List::Split(text, separator)))
        },
    },
    Function {
        name: "strings.lower",
        also: &[],
        usage: "`strings.lower(text or list)`",
        takes: (1, 1),
        build: |parser, mut given| parser.mapped(Mapping::Lower, given.next()),
    },
    Function {
        name: "strings.upper",
        also: &[],
        usage: "`strings.upper(text or list)`",
        takes: (1, 1),
        build: |parser, mut given| parser.mapped(Mapping::Upper, given.next()),
    },
];

/// The function of this name.
pub(super) fn named(name: &str) -> Option<&'static Function> {
    FUNCTIONS
        .iter()
        .find(|function| function.name == name || function.also.contains(&name))
}

/// Refuses a call with the wrong number of values.
pub(super) fn count(function: &Function, given: usize) -> Result<(), PredicateProblem> {
    if (function.takes.0..=function.takes.1).contains(&given) {
        Ok(())
    } else {
        Err(PredicateProblem::Arguments {
            function: function.name,
            given,
            usage: function.usage,
        })
    }
}
