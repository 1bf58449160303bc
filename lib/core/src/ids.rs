//! Identifiers that cannot be wrong once parsed.
//!
//! Each type has one constructor, [`FromStr`], that refuses what AWS or Tidegate would refuse, and prints back
//! exactly what it was made of.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not the identifier it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {what}: expected {expected}")]
pub struct InvalidId {
    /// The kind of identifier, as people call it.
    pub what: &'static str,
    /// The text as it was given.
    pub value: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { what: $what, value: text.to_owned(), expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// An AWS account: exactly 12 digits.
    AccountId, "AWS account id", "12 digits", |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
);

text_id!(
    /// An AWS region, by syntax alone (`us-east-1`, `us-gov-west-1`, `cn-north-1`): a hard-coded list would refuse new ones.
    Region, "AWS region", "a region name such as `us-east-1`", is_region
);

text_id!(
    /// The ARN of an IAM role, any partition: `arn:<partition>:iam::<12 digits>:role/<path and name>`.
    RoleArn, "IAM role ARN", "`arn:aws:iam::<12-digit account>:role/<name>`", is_role_arn
);

text_id!(
    /// The external id that a role's trust policy may ask for (2 to 1224 characters of `[\w+=,.@:/-]`).
    ///
    /// Source: AWS STS API reference, `AssumeRole`, parameter `ExternalId`.
    ExternalId, "external id", "2 to 1224 characters of letters, digits and _+=,.@:/-",
    |text| (2..=1224).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b))
);

text_id!(
    /// The name of a deployment; also its DNS domain: agents answer for `*.db.<cluster name>`.
    ClusterName, "cluster name", "a DNS name such as `tidegate.example.com`", is_dns_name
);

text_id!(
    /// The name of a database in the inventory: a letter, then letters, digits and hyphens, not ending in a hyphen.
    DatabaseName, "database name", "a letter, then letters, digits or hyphens, ending in a letter or digit",
    is_database_name
);

text_id!(
    /// The identity of one process that joined the cluster; made at join time, kept in its data directory.
    HostId, "host id", "1 to 64 letters, digits or hyphens",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
);

/// Longest database name, so that no list, label or certificate grows without bound.
pub const DATABASE_NAME_CHARS_MAX: usize = 253;

fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return false;
    };
    // Two letters are a country or a continent; `eusc` is the European Sovereign Cloud.
    (first.len() == 2 || *first == "eusc")
        && (1..=3).contains(&middle.len())
        && first.bytes().all(|b| b.is_ascii_lowercase())
        && middle
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase()))
        && (1..=2).contains(&last.len())
        && last.bytes().all(|b| b.is_ascii_digit())
}

fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", _, account, resource] = parts.as_slice() else {
        return false;
    };
    partition.starts_with("aws")
        && AccountId::from_str(account).is_ok()
        && resource.strip_prefix("role/").is_some_and(|name| {
            !name.is_empty()
                && !name.ends_with('/')
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b))
        })
        && (20..=2048).contains(&text.len())
}

fn is_dns_name(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_database_name(text: &str) -> bool {
    text.len() <= DATABASE_NAME_CHARS_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl RoleArn {
    /// The account that owns the role.
    #[must_use]
    pub fn account(&self) -> AccountId {
        let account = self.0.split(':').nth(4).unwrap_or_default();
        AccountId(account.to_owned())
    }

    /// The partition: `aws`, `aws-cn`, `aws-us-gov`, …
    #[must_use]
    pub fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or("aws")
    }

    /// The role's own name, without its path.
    #[must_use]
    pub fn role_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl Region {
    /// The partition that the region is in, as ARNs name it.
    ///
    /// Source: `partitions.json` of the AWS SDKs; regions of all partitions but `aws` are told by how they begin.
    #[must_use]
    pub fn partition(&self) -> &'static str {
        const BEGINNINGS: [(&str, &str); 8] = [
            ("cn-", "aws-cn"),
            ("eu-isoe-", "aws-iso-e"),
            ("eu-isof-", "aws-iso-f"),
            ("eusc-", "aws-eusc"),
            ("us-gov-", "aws-us-gov"),
            ("us-iso-", "aws-iso"),
            ("us-isob-", "aws-iso-b"),
            ("us-isof-", "aws-iso-f"),
        ];
        BEGINNINGS
            .into_iter()
            .find(|(beginning, _)| self.as_str().starts_with(beginning))
            .map_or("aws", |(_, partition)| partition)
    }

    /// What names of AWS's endpoints in the region's partition end in.
    ///
    /// Source: `partitions.json` of the AWS SDKs.
    #[must_use]
    pub fn dns_suffix(&self) -> &'static str {
        match self.partition() {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            "aws-iso-e" => "cloud.adc-e.uk",
            "aws-iso-f" => "csp.hci.ic.gov",
            _ => "amazonaws.com",
        }
    }

    /// The host of the Security Token Service in the region.
    #[must_use]
    pub fn sts_host(&self) -> String {
        format!("sts.{self}.{}", self.dns_suffix())
    }
}

/// A role to assume, with the external id that its trust policy asks for, if any.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssumeRole {
    /// The role.
    pub role_arn: RoleArn,
    /// Sent on the hop that assumes this role, and on no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<ExternalId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_security_token_service_is_under_its_partitions_own_domain() {
        for (region, host) in [
            ("us-east-1", "sts.us-east-1.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
        ] {
            assert_eq!(region.parse::<Region>().unwrap().sts_host(), host);
        }
    }

    #[test]
    fn a_region_tells_its_partition() {
        for (region, partition) in [
            ("us-east-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            let region: Region = region.parse().unwrap();
            assert_eq!(region.partition(), partition);
        }
    }

    #[test]
    fn role_arns_are_checked_by_shape_and_tell_their_account() {
        let role: RoleArn = "arn:aws:iam::123456789012:role/team/reader"
            .parse()
            .unwrap();
        assert_eq!(
            (role.account().as_str(), role.role_name(), role.partition()),
            ("123456789012", "reader", "aws")
        );
        for bad in [
            "arn:aws:not valid",
            "arn:aws:iam::123:role/x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::123456789012:role/",
            "",
        ] {
            assert!(bad.parse::<RoleArn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn regions_are_checked_by_syntax_and_not_by_a_list() {
        for good in [
            "us-east-1",
            "us-gov-west-1",
            "cn-north-1",
            "us-isob-east-1",
            "il-central-1",
            "eusc-de-east-1",
            "xx-new-99",
        ] {
            assert!(good.parse::<Region>().is_ok(), "{good}");
        }
        for bad in [
            "us-east",
            "useast1",
            "*",
            "us_east_1",
            "",
            "us-east-1a",
            "usea-west-1",
        ] {
            assert!(bad.parse::<Region>().is_err(), "{bad}");
        }
    }

    #[test]
    fn database_names_start_with_a_letter_and_hold_no_dots() {
        assert!("a-1".parse::<DatabaseName>().is_ok());
        for bad in ["", "1a", "a-", "a.b", "a_b", "-a"] {
            assert!(bad.parse::<DatabaseName>().is_err(), "{bad}");
        }
    }
}
