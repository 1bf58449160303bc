//! Which roles are assumed in turn, and what AWS calls the session.
//!
//! Invariant: at most [`HOPS_MAX`] hops, and an external id on the first one only: it belongs to
//! the trust between the owner of that role and this cluster, and must not be shown to others.

use std::fmt;

use tidegate_core::{AssumeRole, RoleArn};

/// The most roles in a chain: the effective role of a database, and a role named as database user.
pub const HOPS_MAX: usize = 2;

/// The longest session name that AWS takes.
pub const SESSION_NAME_CHARS_MAX: usize = 64;

/// The shortest session name that AWS takes.
const SESSION_NAME_CHARS_MIN: usize = 2;

const HASH_DIGITS: usize = 16;

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
        let second =
            second.filter(|role| first.as_ref().is_none_or(|first| first.role_arn != *role));
        let second = second.map(|role_arn| AssumeRole {
            role_arn,
            external_id: None,
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

/// What assumed-role sessions are called in CloudTrail and in `aws:userid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionTag {
    name: String,
    source_identity: Option<String>,
}

impl SessionTag {
    /// A session named after `name`, in the 2 to 64 characters of `[\w+=,.@-]` that AWS takes.
    ///
    /// Other characters become `-`. A name that had to be changed or cut ends in a hash of the
    /// whole, since policies may grant by session name: two people never share one by accident.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: sanitised(name),
            source_identity: None,
        }
    }

    /// Also sets the source identity, which later hops inherit and cannot change. Each role's trust
    /// policy must then allow `sts:SetSourceIdentity`, so it is off unless asked for.
    #[must_use]
    pub fn with_source_identity(self, identity: &str) -> Self {
        Self {
            source_identity: Some(sanitised(identity)),
            ..self
        }
    }

    /// The session name as AWS gets it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The source identity as AWS gets it, where one is wanted.
    #[must_use]
    pub fn source_identity(&self) -> Option<&str> {
        self.source_identity.as_deref()
    }
}

fn sanitised(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if name.chars().all(allowed)
        && (SESSION_NAME_CHARS_MIN..=SESSION_NAME_CHARS_MAX).contains(&name.len())
    {
        return name.to_owned();
    }
    let prefix_max = SESSION_NAME_CHARS_MAX - HASH_DIGITS - 1;
    let prefix: String = name
        .chars()
        .take(prefix_max)
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    format!("{prefix}-{:016x}", fnv1a_64(name.as_bytes()))
}

/// FNV-1a with 64 bits: stable over versions and machines, which the standard hasher is not.
fn fnv1a_64(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
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

    #[test]
    fn a_session_name_that_aws_takes_stays_as_it_is() {
        for name in [
            "alice",
            "alice@example.com",
            "a+b=c,d.e_f-g",
            &"x".repeat(64),
        ] {
            assert_eq!(SessionTag::new(name).name(), name);
        }
    }

    #[test]
    fn a_session_name_that_aws_would_refuse_is_made_to_fit_and_stays_distinct() {
        let long = SessionTag::new(&"x".repeat(65));
        assert_eq!(long.name().len(), 64);
        assert_ne!(long, SessionTag::new(&"x".repeat(66)));

        let spaced = SessionTag::new("ali ce");
        assert!(spaced.name().starts_with("ali-ce-"), "{spaced:?}");
        assert_ne!(spaced, SessionTag::new("ali/ce"));
        for short in ["", "a", "ü"] {
            assert!((2..=64).contains(&SessionTag::new(short).name().len()));
        }
    }
}
