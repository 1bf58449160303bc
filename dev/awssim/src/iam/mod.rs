//! Who may do what: policy documents, trust policies and their evaluation.
//!
//! Written from AWS's documented evaluation logic: an explicit deny wins, then any allow, else
//! no. Supported are `Action` and `Resource` with `*` and `?`, policy variables, and the condition
//! operators `StringEquals` and `StringLike`. Everything else (`NotAction`, `NotResource`,
//! `NotPrincipal`, other operators) fails when the document is read, so a policy is never
//! evaluated in part. Permissions boundaries, service control policies and session policies limit what identity policies
//! allow; resource policies are trust policies alone.

mod pattern;
mod policy;
mod trust;

use std::collections::BTreeMap;

pub use policy::{ConditionOperator, Conditions, Effect, IdentityPolicy, OneOrMany, Statement};
pub use trust::{Principal, PrincipalKinds, TrustPolicy, TrustStatement};

pub(crate) use policy::{Denial, Layer, Layers, Verdict, deciding};
pub(crate) use trust::{Asker, Trusted, TrustedCaller, evaluate_trust};

/// What conditions and policy variables can refer to. Keys match without regard to case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context(BTreeMap<String, String>);

impl Context {
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.0.insert(key.to_ascii_lowercase(), value.into());
        self
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&key.to_ascii_lowercase()).map(String::as_str)
    }
}
