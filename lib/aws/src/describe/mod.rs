//! What AWS says of databases that are known already: where they listen, what they are called, and their tags.
//!
//! One call gives one page, of everything of a sort in an account and region, or of the one that is named. How often,
//! and how many pages, is its caller's. What the SDK gives becomes [`Described`] here and goes no further.
//!
//! Not here: finding databases (`tidegate-discovery`), which asks for more of each and keeps count of what it missed.

mod rds;
mod redshift;
mod serverless;

use aws_sdk_sts::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use tidegate_core::{AccountId, AwsMetadata, DatabaseKind, Region};

use crate::{AwsErrorClass, AwsFactory, AwsFailure, RoleChain, SessionTag, classify};

/// Entries of a page, the most that every one of the listings gives.
pub const PAGE_RECORDS: i32 = 100;

/// A sort of thing that AWS lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listing {
    /// Aurora and Multi-AZ clusters.
    RdsClusters,
    /// RDS instances.
    RdsInstances,
    /// RDS Proxies.
    RdsProxies,
    /// Endpoints of RDS Proxies.
    RdsProxyEndpoints,
    /// Provisioned Redshift clusters.
    RedshiftClusters,
    /// VPC endpoints of Redshift clusters.
    RedshiftEndpoints,
    /// VPC endpoints of workgroups.
    ServerlessEndpoints,
    /// Redshift Serverless workgroups.
    ServerlessWorkgroups,
}

impl Listing {
    /// The action that a policy has to allow, for all of them or for the one that is named.
    #[must_use]
    pub const fn action(self, is_named: bool) -> &'static str {
        match (self, is_named) {
            (Self::RdsClusters, _) => "rds:DescribeDBClusters",
            (Self::RdsInstances, _) => "rds:DescribeDBInstances",
            (Self::RdsProxies, _) => "rds:DescribeDBProxies",
            (Self::RdsProxyEndpoints, _) => "rds:DescribeDBProxyEndpoints",
            (Self::RedshiftClusters, _) => "redshift:DescribeClusters",
            (Self::RedshiftEndpoints, _) => "redshift:DescribeEndpointAccess",
            (Self::ServerlessEndpoints, _) => "redshift-serverless:ListEndpointAccess",
            (Self::ServerlessWorkgroups, false) => "redshift-serverless:ListWorkgroups",
            (Self::ServerlessWorkgroups, true) => "redshift-serverless:GetWorkgroup",
        }
    }
}

/// One of what AWS lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The kind of database.
    pub kind: DatabaseKind,
    /// What it is called; AWS does not mind case.
    pub name: String,
    /// Its ARN, where AWS tells one.
    pub arn: Option<String>,
    /// Whose it is, where AWS tells.
    pub account: Option<AccountId>,
    /// Where it listens; none while it is being made.
    pub endpoints: Vec<DescribedEndpoint>,
    /// What it is called and its ids, without region, account and role.
    pub aws: AwsMetadata,
    /// Generated labels, as discovery names them, without those of region and account.
    pub labels: Vec<(&'static str, String)>,
    /// AWS tags; `None` where another call has to be made for them.
    pub tags: Option<Vec<(String, String)>>,
    /// Its status as AWS tells it, in lower case.
    pub status: String,
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedEndpoint {
    /// The host.
    pub host: String,
    /// The port, where AWS tells it.
    pub port: Option<u16>,
    /// What sort of endpoint, as the label `endpoint-type` has it.
    pub endpoint_type: &'static str,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of AWS.
    pub items: Vec<Described>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

impl AwsFactory {
    /// One page of a listing, as the last role of `chain`: all, or with `name` that one. What is named and not there is
    /// an empty page. VPC endpoints of workgroups are always listed.
    ///
    /// # Errors
    ///
    /// [`AwsFailure`], of class `AccessDenied` when the role may not ask.
    ///
    /// Source: API references of Amazon Redshift, Redshift Serverless and RDS.
    pub async fn describe(
        &self,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
        listing: Listing,
        name: Option<&str>,
        marker: Option<String>,
    ) -> Result<Page, AwsFailure> {
        let name = name.map(str::to_owned);
        let config = self.config(chain, region, session).await;
        let page = match listing {
            Listing::RedshiftClusters | Listing::RedshiftEndpoints => {
                let client = self.redshift(chain, region, session).await;
                redshift::page(&client, listing, name, marker).await
            }
            Listing::ServerlessWorkgroups | Listing::ServerlessEndpoints => {
                let client = aws_sdk_redshiftserverless::Client::new(&config);
                serverless::page(&client, listing, name, marker).await
            }
            Listing::RdsClusters
            | Listing::RdsInstances
            | Listing::RdsProxies
            | Listing::RdsProxyEndpoints => {
                let client = aws_sdk_rds::Client::new(&config);
                rds::page(&client, listing, name, marker).await
            }
        };
        match page {
            Err(failure) if failure.class == AwsErrorClass::NotFound => Ok(Page::default()),
            page => page,
        }
    }

    /// The tags of a workgroup or an RDS Proxy, which their listings leave out.
    ///
    /// # Errors
    ///
    /// As [`Self::describe`].
    pub async fn tags_of(
        &self,
        chain: &RoleChain,
        region: &Region,
        session: &SessionTag,
        kind: DatabaseKind,
        arn: &str,
    ) -> Result<Vec<(String, String)>, AwsFailure> {
        let config = self.config(chain, region, session).await;
        match kind {
            DatabaseKind::Redshift | DatabaseKind::RedshiftServerless => {
                let client = aws_sdk_redshiftserverless::Client::new(&config);
                serverless::tags_of(&client, arn).await
            }
            DatabaseKind::Rds | DatabaseKind::Rdsproxy => {
                let client = aws_sdk_rds::Client::new(&config);
                rds::tags_of(&client, arn).await
            }
        }
    }
}

/// What went wrong in a call for a listing.
fn failed<E>(listing: Listing, is_named: bool, error: SdkError<E, HttpResponse>) -> AwsFailure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    classify(listing.action(is_named), error)
}

/// The account in an ARN.
fn account_of(arn: Option<&str>) -> Option<AccountId> {
    arn?.split(':').nth(4)?.parse().ok()
}

fn text(value: Option<&str>) -> Option<String> {
    value.filter(|value| !value.is_empty()).map(str::to_owned)
}

fn lower(value: Option<&str>) -> String {
    value.unwrap_or_default().to_ascii_lowercase()
}

/// Labels of what AWS told.
fn labels<const N: usize>(
    told: [(&'static str, Option<String>); N],
) -> Vec<(&'static str, String)> {
    let told = told.into_iter();
    told.filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

fn yes_or_no(value: Option<bool>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn endpoint(
    host: Option<&str>,
    port: Option<i32>,
    endpoint_type: &'static str,
) -> Option<DescribedEndpoint> {
    Some(DescribedEndpoint {
        host: text(host)?,
        port: port.and_then(|port| u16::try_from(port).ok()),
        endpoint_type,
    })
}
