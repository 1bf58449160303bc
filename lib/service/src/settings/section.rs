//! A cursor over the positioned tree: sections whose unknown keys are refused, and values that say where they stand.
//!
//! Reading never stops at the first mistake. Whatever is wrong goes to the [`Report`] with its place and key path,
//! and the reader goes on with `None` or a default; a report with errors in it never becomes settings.
//!
//! Errors quote values except where the caller says that they are secret, which is why [`Item::text`] itself quotes
//! nothing.

use std::{fmt::Display, str::FromStr};

use tidegate_core::ids::InvalidId;

use super::{
    ConfigProblem,
    report::Report,
    words::{listed, nearest, quote, shortened},
    yaml::{Key, Node, Position, Value},
};

/// One value, where it stands, and what it is the value of.
#[derive(Clone)]
pub(super) struct Item<'t> {
    node: &'t Node,
    path: String,
    report: &'t Report,
}

impl<'t> Item<'t> {
    pub(super) fn root(node: &'t Node, report: &'t Report) -> Self {
        Self {
            node,
            path: String::new(),
            report,
        }
    }

    /// The same value, with another report to tell of it.
    pub(super) fn reporting_to<'r>(&self, report: &'r Report) -> Item<'r>
    where
        't: 'r,
    {
        Item {
            node: self.node,
            path: self.path.clone(),
            report,
        }
    }

    pub(super) fn report(&self) -> &'t Report {
        self.report
    }

    pub(super) fn line(&self) -> u64 {
        self.node.at.line
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// Whether anything is written here: an empty text counts as absent where Teleport's defaults are empty texts.
    pub(super) fn is_given(&self) -> bool {
        !matches!(&self.node.value, Value::Text(text) if text.is_empty()) && !self.is_null()
    }

    /// Whether this is nothing, an empty text, list or mapping: how Teleport writes what is not set.
    pub(super) fn holds_nothing(&self) -> bool {
        match &self.node.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
        }
    }

    /// A problem at this place, to add to and hand to the report.
    pub(super) fn problem(&self, problem: impl Into<String>) -> ConfigProblem {
        problem_at(self.node.at, &self.path, problem.into())
    }

    pub(super) fn error(&self, problem: impl Into<String>) {
        self.report.error(self.problem(problem));
    }

    pub(super) fn error_expected(&self, problem: impl Into<String>, expected: impl Into<String>) {
        self.report.error(ConfigProblem {
            expected: Some(expected.into()),
            ..self.problem(problem)
        });
    }

    /// The same about no one place.
    pub(super) fn blocker_unplaced(&self, problem: &str) {
        let problem = problem_at(Position::default(), "", problem.to_owned());
        self.report.blocker(problem);
    }

    pub(super) fn blocker(&self, problem: impl Into<String>) {
        self.report.blocker(self.problem(problem));
    }

    pub(super) fn warn(&self, message: impl Display) {
        let message = if self.path.is_empty() {
            message.to_string()
        } else {
            format!("{}: {message}", self.path)
        };
        self.report.warn(self.node.at, message);
    }

    /// Says what is as it should be and worth knowing.
    pub(super) fn note(&self, message: impl Display) {
        self.report
            .note(self.node.at, format!("{}: {message}", self.path));
    }

    /// A mapping.
    pub(super) fn section(&self) -> Option<Section<'t>> {
        match &self.node.value {
            Value::Mapping(entries) => Some(Section {
                item: self.clone(),
                entries,
                known: Vec::new(),
            }),
            _ => self.wrong_type("a mapping"),
        }
    }

    /// What `enabled` says in a section that nothing else is read of.
    pub(super) fn enabled_flag(&self) -> Option<&'t str> {
        let Value::Mapping(entries) = &self.node.value else {
            return None;
        };
        let (_, flag) = entries.iter().find(|(key, _)| key.name == "enabled")?;
        match &flag.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A mapping of free keys, such as labels.
    pub(super) fn pairs(&self) -> Option<Vec<(&'t str, Self)>> {
        let Value::Mapping(entries) = &self.node.value else {
            return self.wrong_type("a mapping");
        };
        let pair = |(key, node): &'t (Key, Node)| {
            let path = format!("{}[{:?}]", self.path, key.name);
            (key.name.as_str(), self.child(node, path))
        };
        Some(entries.iter().map(pair).collect())
    }

    /// A list.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        match &self.node.value {
            Value::List(items) => Some(self.numbered(items)),
            _ => self.wrong_type("a list"),
        }
    }

    /// A list, or one value that stands for a list of one.
    pub(super) fn one_or_many(&self) -> Vec<Self> {
        match &self.node.value {
            Value::List(items) => self.numbered(items),
            _ => vec![self.clone()],
        }
    }

    /// A text; numbers and such are the text that was written.
    pub(super) fn text(&self) -> Option<&'t str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong_type("text"),
        }
    }

    /// A text that is not empty.
    pub(super) fn full_text(&self) -> Option<&'t str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.error("is empty");
            return None;
        }
        Some(text)
    }

    /// A text with a type of its own.
    pub(super) fn parse<T: FromStr<Err = InvalidId>>(&self) -> Option<T> {
        let text = self.text()?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(invalid) => {
                let InvalidId { what, expected, .. } = invalid;
                self.error_expected(format!("{} is not a valid {what}", quote(text)), expected);
                None
            }
        }
    }

    /// `yes`, `no` and their kin.
    pub(super) fn boolean(&self) -> Option<bool> {
        let text = self.text()?;
        match text.to_ascii_lowercase().as_str() {
            "yes" | "y" | "true" | "on" | "1" => Some(true),
            "no" | "n" | "false" | "off" | "0" => Some(false),
            _ => {
                self.error_expected(
                    format!("{} is neither yes nor no", quote(text)),
                    "`yes` or `no`",
                );
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = choices
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
        {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.not_one_of(text, &names);
        None
    }

    /// Reports a word that is not one of those known.
    pub(super) fn not_one_of(&self, text: &str, names: &[&str]) {
        self.report.error(ConfigProblem {
            expected: Some(listed(names)),
            nearest: nearest(text, names.iter().copied()),
            ..self.problem(format!("unknown value {}", quote(text)))
        });
    }

    fn numbered(&self, items: &'t [Node]) -> Vec<Self> {
        let item = |(index, node)| self.child(node, format!("{}[{index}]", self.path));
        items.iter().enumerate().map(item).collect()
    }

    fn child(&self, node: &'t Node, path: String) -> Self {
        Item {
            node,
            path,
            report: self.report,
        }
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match self.node.value {
            Value::Null => "is empty",
            Value::Text(_) => "is a single value",
            Value::List(_) => "is a list",
            Value::Mapping(_) => "is a mapping",
        };
        self.error_expected(found, expected);
        None
    }
}

/// A mapping whose keys are all known in the end.
pub(super) struct Section<'t> {
    item: Item<'t>,
    entries: &'t [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// The section itself, for problems that are about no one key.
    pub(super) fn item(&self) -> &Item<'t> {
        &self.item
    }

    /// The value of a key; a key without a value counts as absent.
    pub(super) fn get(&mut self, name: &'static str) -> Option<Item<'t>> {
        self.known.push(name);
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        let item = self.item.child(node, self.path_of(&key.name));
        (!item.is_null()).then_some(item)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&mut self, name: &'static str) -> Option<Item<'t>> {
        let found = self.get(name);
        if found.is_none() {
            let key = self.path_of(name);
            let problem = problem_at(self.item.node.at, &key, "is required".to_owned());
            self.item.report.error(problem);
        }
        found
    }

    /// The text of a key.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.get(name)?.text().map(str::to_owned)
    }

    /// Keys that Teleport knows and we leave alone; each that is there gives a warning.
    pub(super) fn ignore(&mut self, names: &[&'static str]) {
        for name in names {
            if let Some(item) = self.get(name) {
                item.warn("ignored: Tidegate has no such setting");
            }
        }
    }

    /// Refuses every key that nothing asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries {
            if !self.known.contains(&key.name.as_str()) {
                self.item.report.error(ConfigProblem {
                    nearest: nearest(&key.name, self.known.iter().copied()),
                    ..problem_at(
                        key.at,
                        &self.path_of(&shortened(&key.name)),
                        "unknown key".to_owned(),
                    )
                });
            }
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.item.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.item.path)
        }
    }
}

fn problem_at(at: Position, key: &str, problem: String) -> ConfigProblem {
    ConfigProblem {
        line: at.line,
        column: at.column,
        key: key.to_owned(),
        problem,
        expected: None,
        nearest: None,
    }
}
