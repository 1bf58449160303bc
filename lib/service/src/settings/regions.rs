//! The AWS regions that this version knows, to catch slips of the pen. A region that is not here is still used.
//!
//! It is for spelling alone and no authority: whether a region exists is for AWS to say.

use super::words::nearest;

const KNOWN: [&str; 40] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eusc-de-east-1",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-iso-east-1",
    "us-west-1",
    "us-west-2",
];

/// Whether this version has heard of the region.
pub(super) fn is_known(region: &str) -> bool {
    KNOWN.contains(&region)
}

/// The known region that is nearest to what was written.
pub(super) fn nearest_known(region: &str) -> Option<String> {
    nearest(region, KNOWN.into_iter())
}
