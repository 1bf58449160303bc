//! Keys of KMS.

use serde::{Deserialize, Serialize};

use super::is_no;

/// A symmetric KMS key that encrypts and decrypts. `KmsKey::default()` is enabled and has no alias. Who may use it say
/// identity policies alone: its key policy lets the account decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KmsKey {
    /// Its alias, with `alias/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Whether somebody disabled it: every call with it fails.
    #[serde(skip_serializing_if = "is_no")]
    pub disabled: bool,
}
