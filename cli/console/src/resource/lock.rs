//! `kind: lock`: who or what is shut out.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_core::LockTarget;
use tidegate_proto::v1;

use super::{Metadata, Resource, instant};

/// Who is shut out, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LockSpec {
    /// Every part that is named has to fit.
    pub target: LockTarget,
    /// What those who are struck may read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Until when; absent is until it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
}

impl LockSpec {
    /// The target in one line: `user=alice,db=orders`.
    #[must_use]
    pub fn target_text(&self) -> String {
        let target = &self.target;
        let parts = [
            ("user", &target.user),
            ("role", &target.role),
            ("agent", &target.agent),
            ("db", &target.database),
            ("access_request", &target.access_request),
        ];
        let named: Vec<String> = parts
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}")))
            .collect();
        named.join(",")
    }
}

impl From<&v1::Lock> for super::Lock {
    fn from(lock: &v1::Lock) -> Self {
        Resource {
            kind: "lock",
            version: "v2",
            metadata: Metadata::named(&lock.name, lock.revision),
            spec: LockSpec {
                target: lock.target.clone().unwrap_or_default().into(),
                message: lock.message.clone(),
                expires: instant(lock.expires_at.as_ref()),
                created_at: instant(lock.created_at.as_ref()),
                created_by: lock.created_by.clone(),
            },
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_lock_is_printed_in_the_known_shape() {
        let lock = v1::Lock {
            name: "stolen".to_owned(),
            target: Some(v1::LockTarget {
                user: "alice".to_owned(),
                database: "orders".to_owned(),
                ..v1::LockTarget::default()
            }),
            message: "laptop stolen".to_owned(),
            created_at: Some(prost_types::Timestamp::default()),
            expires_at: Some(prost_types::Timestamp {
                seconds: 3600,
                nanos: 0,
            }),
            created_by: "eve".to_owned(),
            revision: 7,
        };
        let lock = resource::Lock::from(&lock);
        assert_eq!(lock.spec.target_text(), "user=alice,db=orders");
        assert_eq!(
            output::yaml(&lock).unwrap(),
            "\
kind: lock
version: v2
metadata:
  name: stolen
  revision: \"7\"
spec:
  target:
    user: alice
    database: orders
  message: laptop stolen
  expires: \"1970-01-01T01:00:00Z\"
  created_at: \"1970-01-01T00:00:00Z\"
  created_by: eve
"
        );
    }
}
