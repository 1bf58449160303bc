//! Which CAs a database's certificate is verified with, and where AWS publishes them. Pure.
//!
//! | database | trusted |
//! |---|---|
//! | with `tls.ca_cert_file` | those certificates alone |
//! | Redshift, Redshift Serverless | the system's, Amazon Trust Services, and the bundle of Redshift |
//! | RDS, Aurora | the bundle of the region alone: the roots of RDS are private |
//! | RDS Proxy | the system's and Amazon Trust Services |
//! | anything else | the system's |
//!
//! Sources: RDS user guide, "Using SSL/TLS to encrypt a connection"; Redshift management guide, "Configuring security
//! options for connections"; RDS user guide, "Using TLS/SSL with RDS Proxy".

use std::path::PathBuf;

use tidegate_core::{Database, DatabaseKind, Region, TlsMode};
use tidegate_service::settings::CaBundlePlace;

use crate::metrics::BundleOf;

/// Which CAs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TrustSource {
    /// The system's and Amazon Trust Services, and a bundle beside them for Redshift.
    Amazon(Option<BundleName>),
    /// Those that the database's author gave, in PEM.
    Given(String),
    /// Anybody: the certificate is not looked at.
    Nobody,
    /// A bundle alone.
    Rds(BundleName),
    /// The system's.
    System,
}

impl TrustSource {
    /// The trust that a database's certificate needs.
    pub(crate) fn of(database: &Database) -> Self {
        if database.tls.mode == TlsMode::Insecure {
            return Self::Nobody;
        }
        if let Some(pem) = &database.tls.ca_cert_pem {
            return Self::Given(pem.clone());
        }
        let region = database.aws.region.as_ref();
        match (database.kind, region) {
            (Some(DatabaseKind::Redshift | DatabaseKind::RedshiftServerless), region) => {
                let partition = region.map_or("aws", Region::partition);
                Self::Amazon(Some(BundleName::Redshift(partition)))
            }
            (Some(DatabaseKind::Rdsproxy), _) => Self::Amazon(None),
            (Some(DatabaseKind::Rds), Some(region)) => Self::Rds(BundleName::Rds(region.clone())),
            (Some(DatabaseKind::Rds) | None, _) => Self::System,
        }
    }

    /// The bundle that belongs to it.
    pub(crate) fn bundle(&self) -> Option<&BundleName> {
        match self {
            Self::Amazon(bundle) => bundle.as_ref(),
            Self::Rds(bundle) => Some(bundle),
            Self::Given(_) | Self::Nobody | Self::System => None,
        }
    }
}

/// A bundle that AWS publishes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum BundleName {
    /// The roots of RDS in a region.
    Rds(Region),
    /// What Redshift's certificates are signed by, in a partition.
    Redshift(&'static str),
}

/// Where one bundle is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file.
    File(PathBuf),
    /// Over HTTP, with TLS or, on this machine, without.
    Http {
        tls: bool,
        host: String,
        port: u16,
        path: String,
    },
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Http {
                tls,
                host,
                port,
                path,
            } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{scheme}://{host}:{port}{path}")
            }
        }
    }
}

impl std::fmt::Display for BundleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rds(region) => write!(f, "CA bundle of RDS in {region}"),
            Self::Redshift(partition) => {
                write!(f, "CA bundle of Redshift in partition {partition}")
            }
        }
    }
}

impl BundleName {
    /// Whose certificates it is for.
    pub(super) fn of(&self) -> BundleOf {
        match self {
            Self::Rds(_) => BundleOf::Rds,
            Self::Redshift(_) => BundleOf::Redshift,
        }
    }

    /// Its name as a file, without an ending.
    pub(crate) fn file_name(&self) -> String {
        match self {
            Self::Rds(region) => format!("rds-{region}"),
            Self::Redshift(partition) => format!("redshift-{partition}"),
        }
    }

    /// Where to fetch it; `None` where AWS publishes it at no place that is known here.
    pub(crate) fn location(&self, mirror: Option<&CaBundlePlace>) -> Option<Location> {
        let path = self.path();
        match mirror {
            Some(CaBundlePlace::Folder(folder)) => Some(Location::File(folder.join(path))),
            Some(CaBundlePlace::Host {
                tls,
                host,
                port,
                path: below,
            }) => Some(Location::Http {
                tls: *tls,
                host: host.clone(),
                port: *port,
                path: format!("{}/{path}", below.trim_end_matches('/')),
            }),
            None => self.at_aws(),
        }
    }

    /// Below a mirror; for RDS it is what AWS has it as.
    fn path(&self) -> String {
        match self {
            Self::Rds(region) => format!("{region}/{region}-bundle.pem"),
            Self::Redshift(partition) => format!("{partition}/amazon-trust-ca-bundle.crt"),
        }
    }

    fn at_aws(&self) -> Option<Location> {
        let (host, path) = match self {
            Self::Rds(region) => {
                let host = match region.partition() {
                    "aws" => "truststore.pki.rds.amazonaws.com",
                    "aws-us-gov" => "truststore.pki.us-gov-west-1.rds.amazonaws.com",
                    "aws-cn" => "rds-truststore.s3.cn-north-1.amazonaws.com.cn",
                    _ => return None,
                };
                (host, format!("/{}", self.path()))
            }
            Self::Redshift("aws" | "aws-us-gov") => (
                "s3.amazonaws.com",
                "/redshift-downloads/amazon-trust-ca-bundle.crt".to_owned(),
            ),
            Self::Redshift("aws-cn") => (
                "s3.cn-north-1.amazonaws.com.cn",
                "/redshift-downloads-cn/amazon-trust-ca-bundle.crt".to_owned(),
            ),
            Self::Redshift(_) => return None,
        };
        Some(Location::Http {
            tls: true,
            host: host.to_owned(),
            port: 443,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::AwsMetadata;

    use super::*;
    use crate::testing::redshift;

    fn of(kind: Option<DatabaseKind>, region: Option<&str>) -> TrustSource {
        let mut database = redshift("orders", &[]);
        database.kind = kind;
        database.aws = AwsMetadata {
            region: region.map(|region| region.parse().unwrap()),
            ..AwsMetadata::default()
        };
        TrustSource::of(&database)
    }

    #[test]
    fn each_kind_is_verified_with_the_cas_that_sign_for_it() {
        use DatabaseKind::{Rds, Rdsproxy, Redshift, RedshiftServerless};
        let redshift = |partition| TrustSource::Amazon(Some(BundleName::Redshift(partition)));
        let rds = |region: &str| TrustSource::Rds(BundleName::Rds(region.parse().unwrap()));
        for (kind, region, expected) in [
            (Some(Redshift), Some("us-east-1"), redshift("aws")),
            (
                Some(RedshiftServerless),
                Some("cn-north-1"),
                redshift("aws-cn"),
            ),
            (Some(Redshift), None, redshift("aws")),
            (Some(Rds), Some("us-gov-west-1"), rds("us-gov-west-1")),
            (Some(Rds), None, TrustSource::System),
            (Some(Rdsproxy), Some("us-east-1"), TrustSource::Amazon(None)),
            (None, Some("us-east-1"), TrustSource::System),
        ] {
            assert_eq!(of(kind, region), expected, "{kind:?} in {region:?}");
        }
    }

    #[test]
    fn what_the_author_says_comes_before_the_kind() {
        let mut database = redshift("orders", &[]);
        database.tls.ca_cert_pem = Some("pem".to_owned());
        assert_eq!(
            TrustSource::of(&database),
            TrustSource::Given("pem".to_owned())
        );
        database.tls.mode = TlsMode::Insecure;
        assert_eq!(TrustSource::of(&database), TrustSource::Nobody);
    }

    #[test]
    fn bundles_are_where_aws_documents_them_in_each_partition() {
        let rds = |region: &str| BundleName::Rds(region.parse().unwrap());
        for (bundle, url) in [
            (
                rds("eu-west-1"),
                "https://truststore.pki.rds.amazonaws.com:443/eu-west-1/eu-west-1-bundle.pem",
            ),
            (
                rds("us-gov-east-1"),
                "https://truststore.pki.us-gov-west-1.rds.amazonaws.com:443/us-gov-east-1/us-gov-east-1-bundle.pem",
            ),
            (
                rds("cn-northwest-1"),
                "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn:443/cn-northwest-1/cn-northwest-1-bundle.pem",
            ),
            (
                BundleName::Redshift("aws"),
                "https://s3.amazonaws.com:443/redshift-downloads/amazon-trust-ca-bundle.crt",
            ),
            (
                BundleName::Redshift("aws-cn"),
                "https://s3.cn-north-1.amazonaws.com.cn:443/redshift-downloads-cn/amazon-trust-ca-bundle.crt",
            ),
        ] {
            assert_eq!(bundle.location(None).unwrap().to_string(), url);
        }
        assert_eq!(rds("us-iso-east-1").location(None), None);
    }

    #[test]
    fn a_mirror_holds_all_of_them_below_one_place() {
        let bundle = BundleName::Rds("eu-west-1".parse().unwrap());
        let mirror = CaBundlePlace::Host {
            tls: true,
            host: "mirror".to_owned(),
            port: 8443,
            path: "/ca/".to_owned(),
        };
        assert_eq!(
            bundle.location(Some(&mirror)).unwrap().to_string(),
            "https://mirror:8443/ca/eu-west-1/eu-west-1-bundle.pem"
        );
        let folder = CaBundlePlace::Folder(PathBuf::from("/etc/ca"));
        assert_eq!(
            bundle.location(Some(&folder)).unwrap().to_string(),
            "file:///etc/ca/eu-west-1/eu-west-1-bundle.pem"
        );
    }
}
