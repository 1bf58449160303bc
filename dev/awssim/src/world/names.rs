//! AWS's names: partitions, host names of endpoints, ids that stay the same in every run.

use crate::crypto::{hex, sha256};

/// Regions that every account has from the start.
pub(crate) const DEFAULT_REGIONS: [&str; 17] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
];
/// Regions that an account has to opt in to.
pub(crate) const OPT_IN_REGIONS: [&str; 15] = [
    "af-south-1",
    "ap-east-1",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-7",
    "ca-west-1",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
];

/// The partition of a region, as ARNs name it.
pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The end of every host name of a region.
pub(crate) fn dns_suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
pub(crate) fn arn(service: &str, region: &str, account: &str, resource: &str) -> String {
    let partition = partition(region);
    format!("arn:{partition}:{service}:{region}:{account}:{resource}")
}

/// The hash in endpoint names, the same for an account and region in every run.
pub(crate) fn host_hash(account: &str, region: &str) -> String {
    let digest = hex(&sha256(format!("{account}/{region}").as_bytes()));
    format!("c{}", &digest[..11])
}

/// A UUID that is always the same for the same name.
pub(crate) fn derived_uuid(name: &str) -> String {
    let digest = sha256(name.as_bytes());
    let bytes: [u8; 16] = std::array::from_fn(|i| digest[i]);
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// `PREFIX` and 17 hexadecimal digits (`vpce-…`, `prx-…`), always the same for the same name.
pub(crate) fn derived_hex(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", &hex(&sha256(name.as_bytes()))[..17])
}
