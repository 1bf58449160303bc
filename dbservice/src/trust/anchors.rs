//! CA certificates that are compiled in: the fallback while no bundle of AWS was downloaded.
//!
//! Where they come from is in `ca/README.md`. Each block of the files stands below a comment with its subject's
//! common name, which for RDS names the region.

use rustls_pki_types::CertificateDer;
use tidegate_core::Region;
use tidegate_identity::tls;

const RDS: &str = include_str!("ca/rds.pem");
const AMAZON_TRUST: &str = include_str!("ca/amazon-trust.pem");

/// What a common name of an RDS root begins with, before its region.
const RDS_NAME: &str = "Amazon RDS ";

/// The roots of Amazon Trust Services, which sign for Redshift, Redshift Serverless and RDS Proxy.
pub(super) fn amazon_trust() -> Vec<CertificateDer<'static>> {
    tls::certificates(AMAZON_TRUST).expect("compiled in; a test reads it")
}

/// The roots that sign for RDS in a region; none for a region that this program knows none of.
pub(super) fn rds(region: &Region) -> Vec<CertificateDer<'static>> {
    let wanted = |(name, _): &(&str, &str)| {
        let rest = name.strip_prefix(RDS_NAME);
        rest.and_then(|rest| rest.split(' ').next()) == Some(region.as_str())
    };
    blocks(RDS)
        .filter(wanted)
        .flat_map(|(_, pem)| tls::certificates(pem).expect("compiled in; a test reads it"))
        .collect()
}

/// Each comment, and what follows it up to the next.
fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("# ")
        .filter_map(|block| block.split_once('\n'))
        .map(|(name, pem)| (name.trim(), pem))
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use tidegate_identity::CertificateFacts;

    use super::*;

    /// Regions that the README says are covered.
    const REGIONS: [&str; 27] = [
        "af-south-1",
        "ap-east-1",
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ap-south-1",
        "ap-south-2",
        "ap-southeast-1",
        "ap-southeast-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "ca-central-1",
        "eu-central-1",
        "eu-central-2",
        "eu-north-1",
        "eu-south-1",
        "eu-south-2",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "me-central-1",
        "me-south-1",
        "sa-east-1",
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
    ];

    fn facts(pem: &str) -> CertificateFacts {
        let der = tls::certificates(pem).unwrap();
        assert_eq!(der.len(), 1);
        CertificateFacts::read(&der[0]).unwrap()
    }

    #[test]
    fn every_compiled_in_certificate_is_a_root_that_lasts_and_is_what_its_comment_says() {
        let soon = Timestamp::now() + SignedDuration::from_hours(24 * 365);
        let all = [RDS, AMAZON_TRUST].into_iter().flat_map(blocks);
        let mut count = 0;
        for (name, pem) in all {
            let facts = facts(pem);
            assert!(facts.is_ca && facts.is_self_signed, "{name}");
            assert!(facts.not_after > soon, "{name} ends {}", facts.not_after);
            assert!(
                facts.subject.contains(&format!("CN={name}")),
                "{name}: {}",
                facts.subject
            );
            count += 1;
        }
        assert_eq!(count, 27 * 3 + 5);
    }

    #[test]
    fn every_region_that_is_covered_has_its_three_roots_and_no_other_region_s() {
        for region in REGIONS {
            let roots = rds(&region.parse().unwrap());
            assert_eq!(roots.len(), 3, "{region}");
            for root in roots {
                let facts = CertificateFacts::read(&root).unwrap();
                assert!(facts.subject.contains(region), "{}", facts.subject);
            }
        }
        for unknown in ["us-gov-west-1", "cn-north-1", "us-east-9"] {
            assert!(rds(&unknown.parse().unwrap()).is_empty(), "{unknown}");
        }
    }
}
