//! Evaluates predicates, and counts what it costs.

use std::borrow::Cow;

use super::{
    PATTERN_COST, STEP_BYTES, STEPS_MAX,
    ast::{List, Mapping, Place, Test, Text},
    fields::Fields,
};
use crate::{
    labels::Labels,
    pattern::{Pattern, Rewritten},
};

/// An evaluation would take more than [`STEPS_MAX`] steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("evaluation takes more than {STEPS_MAX} steps")]
pub struct OverBudget;

/// One evaluation: what it looks at, and the steps it has left.
pub(super) struct Run<'r> {
    fields: &'r dyn Fields,
    left: u32,
}

impl<'r> Run<'r> {
    pub(super) const fn new(fields: &'r dyn Fields, steps: u32) -> Self {
        Self {
            fields,
            left: steps,
        }
    }

    pub(super) const fn left(&self) -> u32 {
        self.left
    }

    pub(super) fn test(&mut self, test: &'r Test) -> Result<bool, OverBudget> {
        self.spend(0)?;
        match test {
            Test::All(tests) => {
                for test in tests {
                    if !self.test(test)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Test::Always(holds) => Ok(*holds),
            Test::Any(tests) => {
                for test in tests {
                    if self.test(test)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::Contains(list, item) => {
                let wanted = self.text(item)?;
                let list = self.list(list)?;
                self.holds(&list, &wanted)
            }
            Test::ContainsAll(list, items) => {
                let (list, items) = (self.list(list)?, self.list(items)?);
                for item in &items {
                    if !self.holds(&list, item)? {
                        return Ok(false);
                    }
                }
                // Asking for nothing must not let everybody in.
                Ok(!items.is_empty())
            }
            Test::ContainsAny(list, items) => {
                let (list, items) = (self.list(list)?, self.list(items)?);
                for item in &items {
                    if self.holds(&list, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::Exists(place) => self.exists(place),
            Test::Flag(path) => Ok(self.fields.flag(path)),
            Test::HasPrefix(text, prefix) => {
                let (text, prefix) = (self.text(text)?, self.text(prefix)?);
                Ok(text.starts_with(&*prefix))
            }
            Test::Matches(list, pattern) => {
                for text in self.list(list)? {
                    self.spend(text.len().saturating_mul(PATTERN_COST))?;
                    if pattern.matches(&text) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::Not(test) => self.test(test).map(|holds| !holds),
            Test::Same { left, right, equal } => {
                let (left, right) = (self.text(left)?, self.text(right)?);
                Ok((left == right) == *equal)
            }
            Test::Search(words) => self.search(words),
        }
    }

    pub(super) fn list(&mut self, list: &'r List) -> Result<Vec<Cow<'r, str>>, OverBudget> {
        self.spend(0)?;
        let fields = self.fields;
        match list {
            List::Field(path) => {
                let texts = fields.list(path);
                self.spend_on(&texts)?;
                Ok(texts)
            }
            List::LabelsMatching(path, pattern) => self.labels_matching(path, pattern),
            List::Mapped(mapping, list) => {
                let mut mapped = Vec::new();
                for text in self.list(list)? {
                    mapped.extend(self.map(mapping, &text)?);
                }
                Ok(mapped)
            }
            List::One(text) => Ok(vec![self.text(text)?]),
            List::Set(texts) => texts.iter().map(|text| self.text(text)).collect(),
            List::Split(text, separator) => {
                let (text, separator) = (self.text(text)?, self.text(separator)?);
                self.split(text, &separator)
            }
            List::Trait(path, key) => {
                let key = self.text(key)?;
                let values = fields
                    .traits(path)
                    .and_then(|traits| traits.get(&*key))
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let values: Vec<Cow<'r, str>> =
                    values.iter().map(|value| value.as_str().into()).collect();
                self.spend_on(&values)?;
                Ok(values)
            }
        }
    }

    fn text(&mut self, text: &'r Text) -> Result<Cow<'r, str>, OverBudget> {
        let fields = self.fields;
        let value = match text {
            Text::Field(path) => fields.text(path).unwrap_or_default(),
            Text::Label(path, key) => {
                let key = self.text(key)?;
                let value = fields.labels(path).and_then(|labels| labels.get(&key));
                value.unwrap_or_default().into()
            }
            Text::Literal(text) => text.as_str().into(),
            Text::Mapped(mapping, text) => {
                let text = self.text(text)?;
                self.map(mapping, &text)?.unwrap_or_default()
            }
        };
        self.spend(value.len())?;
        Ok(value)
    }

    fn exists(&mut self, place: &'r Place) -> Result<bool, OverBudget> {
        let fields = self.fields;
        Ok(match place {
            Place::Label(path, key) => {
                let key = self.text(key)?;
                fields
                    .labels(path)
                    .is_some_and(|labels| labels.get(&key).is_some())
            }
            Place::List(path) => !fields.list(path).is_empty(),
            Place::Text(path) => fields.text(path).is_some(),
            Place::Trait(path, key) => {
                let key = self.text(key)?;
                fields
                    .traits(path)
                    .and_then(|traits| traits.get(&*key))
                    .is_some_and(|values| !values.is_empty())
            }
        })
    }

    fn holds(&mut self, list: &[Cow<'r, str>], item: &str) -> Result<bool, OverBudget> {
        for text in list {
            self.spend(text.len().min(item.len()))?;
            if text == item {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether every word is in some searched text, in any case.
    fn search(&mut self, words: &'r [Text]) -> Result<bool, OverBudget> {
        let fields = self.fields;
        for word in words {
            let word = self.text(word)?.to_lowercase();
            let mut outcome = Ok(());
            let found = fields.any_searched(&mut |text| {
                outcome = self.spend(text.len());
                outcome.is_err() || contains_ignoring_case(text, &word)
            });
            outcome?;
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn labels_matching(
        &mut self,
        path: &str,
        pattern: &Pattern,
    ) -> Result<Vec<Cow<'r, str>>, OverBudget> {
        let fields = self.fields;
        let mut values = Vec::new();
        for (key, value) in fields.labels(path).into_iter().flat_map(Labels::iter) {
            self.spend(key.len().saturating_mul(PATTERN_COST))?;
            if pattern.matches(key) {
                values.push(value.into());
            }
        }
        Ok(values)
    }

    fn split(
        &mut self,
        text: Cow<'r, str>,
        separator: &str,
    ) -> Result<Vec<Cow<'r, str>>, OverBudget> {
        if separator.is_empty() {
            return Ok(vec![text]);
        }
        let mut parts = Vec::new();
        for part in text.split(separator) {
            self.spend(part.len())?;
            parts.push(part.to_owned().into());
        }
        Ok(parts)
    }

    /// The text as changed; `None` when the change does not apply to it.
    fn map(&mut self, mapping: &Mapping, text: &str) -> Result<Option<Cow<'r, str>>, OverBudget> {
        let cost = match mapping {
            Mapping::EmailLocal | Mapping::Lower | Mapping::Upper => 1,
            Mapping::Replace(..) => PATTERN_COST,
        };
        self.spend(text.len().saturating_mul(cost))?;
        let mapped = match mapping {
            Mapping::EmailLocal => email_local(text).map(str::to_owned),
            Mapping::Lower => Some(text.to_lowercase()),
            Mapping::Replace(pattern, by) => match pattern.replace(text, by, self.bytes_left()) {
                Rewritten::To(text) => Some(text),
                Rewritten::TooLong => return Err(OverBudget),
                Rewritten::Unmatched => None,
            },
            Mapping::Upper => Some(text.to_uppercase()),
        };
        self.spend(mapped.as_ref().map_or(0, String::len))?;
        Ok(mapped.map(Cow::Owned))
    }

    fn bytes_left(&self) -> usize {
        usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .saturating_mul(STEP_BYTES)
    }

    fn spend_on(&mut self, texts: &[Cow<'_, str>]) -> Result<(), OverBudget> {
        texts.iter().try_for_each(|text| self.spend(text.len()))
    }

    /// Pays for one part and for the text that it reads or makes.
    fn spend(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let left = u32::try_from(1 + bytes / STEP_BYTES)
            .ok()
            .and_then(|steps| self.left.checked_sub(steps));
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(OverBudget)
    }
}

/// The part of an address before its last `@`.
fn email_local(address: &str) -> Option<&str> {
    address
        .rsplit_once('@')
        .filter(|(local, domain)| !local.is_empty() && !domain.is_empty())
        .map(|(local, _)| local)
}

/// Whether the word, in lower case already, is in the text in any case.
fn contains_ignoring_case(text: &str, lower: &str) -> bool {
    if !text.is_ascii() || !lower.is_ascii() {
        return text.to_lowercase().contains(lower);
    }
    let (text, lower) = (text.as_bytes(), lower.as_bytes());
    let Some(first) = lower.first() else {
        return true;
    };
    // Most places are ruled out by their first character.
    let begins = |window: &[u8]| window.first().map(u8::to_ascii_lowercase).as_ref() == Some(first);
    text.windows(lower.len())
        .any(|window| begins(window) && window.eq_ignore_ascii_case(lower))
}
