//! Which roles are assumed in turn.
//!
//! Invariant: at most [`HOPS_MAX`] hops, and an external id on the first one only: it belongs to
//! the trust between the owner of that role and this cluster, and must not be shown to others.

use std::fmt;

use tidegate_core::{AssumeRole, ExternalId, RoleArn};

/// The most roles in a chain: the effective role of a database, and a role named as database user.
pub const HOPS_MAX: usize = 2;

/// Why roles cannot be assumed one after the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidChain {
    /// An external id on another hop than the first.
    #[error("external id for {role}: only the first role of a chain is assumed with one")]
    ExternalIdOnLaterHop {
        /// The role that it was meant for.
        role: RoleArn,
    },

    /// Too many roles.
    #[error("role chain of {hops} roles; at most {HOPS_MAX} are assumed in turn")]
    TooLong {
        /// How many.
        hops: usize,
    },
}

/// Roles to assume in turn; none at all is this process's own identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleChain {
    hops: Vec<AssumeRole>,
}

impl RoleChain {
    /// First the effective role of a database, then a role named as database user, as far as given.
    /// The same role twice is one hop.
    #[must_use]
    pub fn new(first: Option<AssumeRole>, second: Option<RoleArn>) -> Self {
        Self::with_external_id(first, second, None)
    }

    /// As [`Self::new`]; `external_id` is shown to the second role when there is no first one, since it is then the
    /// first hop. A first role has its own.
    #[must_use]
    pub fn with_external_id(
        first: Option<AssumeRole>,
        second: Option<RoleArn>,
        external_id: Option<ExternalId>,
    ) -> Self {
        let second =
            second.filter(|role| first.as_ref().is_none_or(|first| first.role_arn != *role));
        let external_id = external_id.filter(|_| first.is_none());
        let second = second.map(|role_arn| AssumeRole {
            role_arn,
            external_id,
        });
        Self {
            hops: first.into_iter().chain(second).collect(),
        }
    }

    /// A chain from a list.
    ///
    /// # Errors
    ///
    /// [`InvalidChain`] when it is too long, or has an external id behind its first role.
    pub fn from_hops(hops: Vec<AssumeRole>) -> Result<Self, InvalidChain> {
        if hops.len() > HOPS_MAX {
            return Err(InvalidChain::TooLong { hops: hops.len() });
        }
        match hops.iter().skip(1).find(|hop| hop.external_id.is_some()) {
            Some(hop) => Err(InvalidChain::ExternalIdOnLaterHop {
                role: hop.role_arn.clone(),
            }),
            None => Ok(Self { hops }),
        }
    }

    /// The roles in the order in which they are assumed.
    #[must_use]
    pub fn hops(&self) -> &[AssumeRole] {
        &self.hops
    }

    /// The role that makes the calls in the end; `None` is this process's own identity.
    #[must_use]
    pub fn last(&self) -> Option<&RoleArn> {
        self.hops.last().map(|hop| &hop.role_arn)
    }
}

impl fmt::Display for RoleChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.hops.split_first() else {
            return f.write_str("own identity");
        };
        write!(f, "{}", first.role_arn)?;
        rest.iter()
            .try_for_each(|hop| write!(f, " -> {}", hop.role_arn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> RoleArn {
        format!("arn:aws:iam::123456789012:role/{name}")
            .parse()
            .unwrap()
    }

    fn hop(name: &str, external_id: Option<&str>) -> AssumeRole {
        AssumeRole {
            role_arn: role(name),
            external_id: external_id.map(|id| id.parse().unwrap()),
        }
    }

    #[test]
    fn a_chain_assumes_the_database_role_before_the_users_role() {
        let chain = RoleChain::new(Some(hop("dba", Some("xyz"))), Some(role("reader")));

        assert_eq!(chain.hops(), [hop("dba", Some("xyz")), hop("reader", None)]);
        assert_eq!(chain.last(), Some(&role("reader")));
    }

    #[test]
    fn an_external_id_goes_to_a_users_role_only_when_that_is_the_first_hop() {
        let id = || Some("xyz".parse().unwrap());
        let alone = RoleChain::with_external_id(None, Some(role("reader")), id());
        assert_eq!(alone.hops(), [hop("reader", Some("xyz"))]);

        let behind =
            RoleChain::with_external_id(Some(hop("dba", None)), Some(role("reader")), id());
        assert_eq!(behind.hops(), [hop("dba", None), hop("reader", None)]);
    }

    #[test]
    fn the_same_role_twice_is_one_hop() {
        let chain = RoleChain::new(Some(hop("dba", Some("xyz"))), Some(role("dba")));

        assert_eq!(chain.hops(), [hop("dba", Some("xyz"))]);
    }

    #[test]
    fn no_role_is_the_own_identity() {
        assert_eq!(RoleChain::new(None, None), RoleChain::default());
        assert_eq!(RoleChain::default().to_string(), "own identity");
    }

    #[test]
    fn an_external_id_is_for_the_first_hop_only() {
        assert_eq!(
            RoleChain::from_hops(vec![hop("a", Some("xyz")), hop("b", Some("xyz"))]),
            Err(InvalidChain::ExternalIdOnLaterHop { role: role("b") })
        );
    }

    #[test]
    fn a_chain_has_at_most_two_hops() {
        let hops = vec![hop("a", None), hop("b", None), hop("c", None)];

        assert_eq!(
            RoleChain::from_hops(hops),
            Err(InvalidChain::TooLong { hops: 3 })
        );
    }
}
