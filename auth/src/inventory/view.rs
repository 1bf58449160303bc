//! Who looks, and what they may see.

use tidegate_core::{Labels, Policy, Subject};

/// Whoever lists or watches.
#[derive(Clone, Debug)]
pub(crate) enum Viewer {
    /// Services and administrators: they see everything.
    All,
    /// A person: sees what a role allows.
    Person(Subject),
}

impl Viewer {
    /// Whether a database with these labels may be shown.
    pub(crate) fn sees(&self, policy: &Policy, labels: &Labels) -> bool {
        match self {
            Self::All => true,
            Self::Person(subject) => policy.may_see(subject, labels),
        }
    }
}
