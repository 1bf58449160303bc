//! Who looks, and what they may see.

use tidegate_core::{Labels, Policy, Subject, access::Grants};

/// Whoever lists or watches.
#[derive(Clone, Debug)]
pub(crate) enum Viewer {
    /// Services and administrators of the host: they see everything.
    All,
    /// A person who sees everything by a rule of a role.
    AllByRule,
    /// A person: sees what a role allows.
    Person(Subject),
}

impl Viewer {
    /// What may be shown under these roles, ready to be asked about many databases.
    pub(crate) fn view<'v>(&'v self, policy: &'v Policy) -> View<'v> {
        match self {
            Self::All | Self::AllByRule => View::All,
            Self::Person(subject) => View::Granted(policy.grants(subject)),
        }
    }

    /// Whether other roles may show something else.
    pub(crate) const fn depends_on_roles(&self) -> bool {
        matches!(self, Self::AllByRule | Self::Person(_))
    }

    /// Whether everything is shown.
    pub(crate) const fn sees_everything(&self) -> bool {
        matches!(self, Self::All | Self::AllByRule)
    }

    /// Whether one database with these labels may be shown.
    pub(crate) fn sees(&self, policy: &Policy, labels: &Labels) -> bool {
        self.view(policy).sees(labels)
    }
}

/// What a viewer may see under the roles of one moment.
#[derive(Debug)]
pub(crate) enum View<'v> {
    /// Everything.
    All,
    /// What these roles allow.
    Granted(Grants<'v>),
}

impl View<'_> {
    /// Whether a database with these labels may be shown.
    pub(crate) fn sees(&self, labels: &Labels) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grants) => grants.may_see(labels),
        }
    }
}
