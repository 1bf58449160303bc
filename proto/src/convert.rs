//! Core types to messages and back.
//!
//! Towards the wire nothing can fail. From the wire every field is checked; [`Invalid`] names the one that is wrong
//! and becomes an `INVALID_ARGUMENT` status with a field violation.

mod database;
mod discovery;
mod doctor;
mod health;
mod lock;
mod request;
mod role;
mod server;

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidegate_core::{AssumeRole, InvalidId, InvalidSelector, Labels, Selector, Traits};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1;

/// Longest text of a status, in bytes.
pub const TOLD_BYTES_MAX: usize = 1024;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// A message whose field does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct Invalid {
    /// The field, dotted from the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    /// A field that is wrong, and why.
    pub fn new(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The same, seen from the message around it.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let details =
            ErrorDetails::with_bad_request_violation(told(&invalid.field), told(&invalid.problem));
        Self::with_error_details(Code::InvalidArgument, told(&invalid.to_string()), details)
    }
}

/// An instant for the wire.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// An instant from the wire.
///
/// # Errors
///
/// When it lies outside the years that can be represented.
pub fn instant(at: &prost_types::Timestamp) -> Result<Timestamp, Invalid> {
    Timestamp::new(at.seconds, at.nanos).map_err(|_| Invalid::new("timestamp", "out of range"))
}

/// A span of time from the wire.
///
/// # Errors
///
/// When it is negative or out of range.
pub fn span(
    field: &str,
    span: Option<prost_types::Duration>,
) -> Result<Option<std::time::Duration>, Invalid> {
    let Some(span) = span else {
        return Ok(None);
    };
    // Not by the conversion of `prost-types`, which negates what has no opposite.
    match (u64::try_from(span.seconds), u32::try_from(span.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < NANOS_PER_SECOND => {
            Ok(Some(std::time::Duration::new(seconds, nanos)))
        }
        _ => Err(Invalid::new(
            field,
            "is no span of time that can be waited for",
        )),
    }
}

/// A text as a status may carry it: statuses travel in headers, and a client that gets more of them than it takes drops
/// the whole connection. What callers sent is in such texts, so they are as long as callers like.
#[must_use]
pub fn told(text: &str) -> String {
    if text.len() <= TOLD_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(TOLD_BYTES_MAX);
    format!("{}…", &text[..end])
}

fn parse<T: std::str::FromStr<Err = InvalidId>>(field: &str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|error| Invalid::new(field, error))
}

fn parse_some<T: std::str::FromStr<Err = InvalidId>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, Invalid> {
    if text.is_empty() {
        Ok(None)
    } else {
        parse(field, text).map(Some)
    }
}

fn text<T: AsRef<str>>(value: Option<&T>) -> String {
    value
        .map(|value| value.as_ref().to_owned())
        .unwrap_or_default()
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<AssumeRole> for v1::AssumeRole {
    fn from(role: AssumeRole) -> Self {
        Self {
            role_arn: role.role_arn.into(),
            external_id: text(role.external_id.as_ref()),
        }
    }
}

impl TryFrom<v1::AssumeRole> for AssumeRole {
    type Error = Invalid;

    fn try_from(role: v1::AssumeRole) -> Result<Self, Invalid> {
        Ok(Self {
            role_arn: parse("role_arn", &role.role_arn)?,
            external_id: parse_some("external_id", &role.external_id)?,
        })
    }
}

fn assume_role(field: &str, role: Option<v1::AssumeRole>) -> Result<Option<AssumeRole>, Invalid> {
    role.filter(|role| !role.role_arn.is_empty())
        .map(|role| {
            role.try_into()
                .map_err(|invalid: Invalid| invalid.within(field))
        })
        .transpose()
}

impl From<Selector> for v1::Selector {
    fn from(selector: Selector) -> Self {
        Self {
            labels: label_values(selector.written()),
        }
    }
}

impl TryFrom<v1::Selector> for Selector {
    type Error = Invalid;

    fn try_from(selector: v1::Selector) -> Result<Self, Invalid> {
        let pairs = selector
            .labels
            .into_iter()
            .map(|(key, values)| (key, values.values));
        Self::new(pairs).map_err(|error: InvalidSelector| Invalid::new("labels", error))
    }
}

/// Lists by key, such as traits, for the wire.
#[must_use]
pub fn label_values(lists: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, v1::LabelValues> {
    lists
        .iter()
        .map(|(key, values)| {
            (
                key.clone(),
                v1::LabelValues {
                    values: values.clone(),
                },
            )
        })
        .collect()
}

/// Lists by key, such as traits, from the wire.
#[must_use]
pub fn traits(lists: BTreeMap<String, v1::LabelValues>) -> Traits {
    lists
        .into_iter()
        .map(|(key, values)| (key, values.values))
        .collect()
}

/// Labels for the wire.
#[must_use]
pub fn label_map(labels: Labels) -> BTreeMap<String, String> {
    labels.into()
}

#[cfg(test)]
mod tests;
