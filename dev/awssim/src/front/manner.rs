//! How a front treats connections, which can change while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The longest delay of a log-in that can be ordered, in milliseconds (ten minutes).
pub(crate) const DELAY_MS_MAX: u64 = 600_000;

/// How fronts treat connections that begin from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Manner {
    /// As AWS does.
    #[default]
    Usual,
    /// The connection is reset as soon as it is there.
    Reset,
    /// The connection is taken, and nothing is ever said.
    Silent,
    /// Everything as usual, so much later.
    Slow {
        /// By how many milliseconds, at most 600000.
        ms: u64,
    },
    /// TLS is refused: PostgreSQL's `N`.
    WithoutTls,
}

/// What one front goes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners(Arc<Mutex<Manner>>);

impl Manners {
    pub(crate) fn set(&self, manner: Manner) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    pub(super) fn now(&self) -> Manner {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
