//! Reads the ARNs that AWS gives: whose a resource is, and in which partition.
//!
//! Partition and account are always taken from AWS's own answers, so that China and GovCloud need no list here.

use tidegate_core::AccountId;

/// What an ARN says of its resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arn<'a> {
    pub(super) partition: &'a str,
    pub(super) account: AccountId,
    /// What follows the account.
    pub(super) resource: &'a str,
}

/// Reads `arn:<partition>:<service>:<region>:<account>:<resource>`; `None` when it is anything else.
pub(super) fn read<'a>(arn: &'a str, service: &str) -> Option<Arn<'a>> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, named, _, account, resource] = parts.as_slice() else {
        return None;
    };
    (*named == service && partition.starts_with("aws") && !resource.is_empty()).then_some(())?;
    Some(Arn {
        partition,
        account: account.parse().ok()?,
        resource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_of_any_partition_tells_its_account() {
        for partition in ["aws", "aws-cn", "aws-us-gov", "aws-eusc", "aws-iso-b"] {
            let text = format!("arn:{partition}:rds:us-east-1:111122223333:db:orders");
            let arn = read(&text, "rds").unwrap();
            assert_eq!((arn.partition, arn.resource), (partition, "db:orders"));
            assert_eq!(arn.account.as_str(), "111122223333");
        }
        for bad in [
            "",
            "arn:aws:rds:us-east-1:1:db:x",
            "arn:aws:redshift:us-east-1:111122223333:db:x",
            "arn:azure:rds:us-east-1:111122223333:db:x",
            "arn:aws:rds:us-east-1:111122223333:",
        ] {
            assert_eq!(read(bad, "rds"), None, "{bad}");
        }
    }
}
