//! Listings against an AWS of a few lines on the loopback: what is asked, and what is read out of the answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use axum::http::{HeaderMap, StatusCode};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, Limits, RoleChain, SessionTag,
    describe::{Described, Listing, Page},
};
use tidegate_core::{DatabaseKind, Region};

/// What was asked: the action, and the rest of the request.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

struct Aws {
    factory: AwsFactory,
    asked: Asked,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Aws {
    /// Answers every request with this.
    async fn saying(status: StatusCode, answer: &'static str) -> Self {
        let asked = Asked::default();
        let journal = Arc::clone(&asked);
        let app =
            axum::Router::new().fallback(move |headers: HeaderMap, body: String| async move {
                let target = headers.get("x-amz-target").and_then(|it| it.to_str().ok());
                let action = target.map_or_else(
                    || {
                        let mut fields = body.split('&');
                        let action = fields.find_map(|field| field.strip_prefix("Action="));
                        action.unwrap_or_default().to_owned()
                    },
                    str::to_owned,
                );
                journal
                    .lock()
                    .expect("no test panics with it")
                    .push((action, body));
                (status, answer)
            });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let server = tokio::spawn(async move {
            axum::serve(listener, app)
                .await
                .expect("serves until dropped")
        });
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("AKIAOWN", "secret", None, None, "test"))
            .endpoint_url(url);
        let limits = Limits {
            attempts_max: 1,
            operation_timeout: Duration::from_secs(5),
            ..Limits::default()
        };
        let factory = AwsFactory::builder()
            .limits(limits)
            .loader(loader)
            .load()
            .await;
        Self {
            factory,
            asked,
            server,
        }
    }

    async fn page(
        &self,
        listing: Listing,
        name: Option<&str>,
        marker: Option<&str>,
    ) -> Result<Page, tidegate_aws::AwsFailure> {
        let (chain, session) = (RoleChain::default(), SessionTag::new("test"));
        let region: Region = "us-east-1".parse().expect("a region");
        let marker = marker.map(str::to_owned);
        self.factory
            .describe(&chain, &region, &session, listing, name, marker)
            .await
    }

    fn asked(&self) -> (String, String) {
        let asked = self.asked.lock().expect("no test panics with it");
        asked.last().cloned().expect("a call was made")
    }
}

/// The only one on a page.
fn only(page: Page) -> Described {
    assert_eq!(page.items.len(), 1, "{page:?}");
    page.items.into_iter().next().expect("there is one")
}

fn at(described: &Described) -> Vec<(String, Option<u16>, &'static str)> {
    let endpoints = described.endpoints.iter();
    endpoints
        .map(|one| (one.host.clone(), one.port, one.endpoint_type))
        .collect()
}

const CLUSTERS: &str = r#"<DescribeClustersResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><DescribeClustersResult>
<Clusters><Cluster><ClusterIdentifier>orders</ClusterIdentifier><ClusterStatus>Paused</ClusterStatus>
<Endpoint><Address>orders.abc.us-east-1.redshift.amazonaws.com</Address><Port>5439</Port></Endpoint>
<ClusterNamespaceArn>arn:aws:redshift:us-east-1:111122223333:namespace:ns-1</ClusterNamespaceArn>
<VpcId>vpc-1</VpcId><Encrypted>true</Encrypted>
<Tags><Tag><Key>env</Key><Value>prod</Value></Tag></Tags></Cluster></Clusters><Marker>m2</Marker>
</DescribeClustersResult></DescribeClustersResponse>"#;

#[tokio::test]
async fn a_cluster_is_read_with_its_account_its_address_and_its_tags() {
    let aws = Aws::saying(StatusCode::OK, CLUSTERS).await;
    let page = aws
        .page(Listing::RedshiftClusters, None, Some("m1"))
        .await
        .unwrap();
    assert_eq!(page.next.as_deref(), Some("m2"));
    let (action, body) = aws.asked();
    assert_eq!(action, "DescribeClusters");
    assert!(
        body.contains("Marker=m1") && body.contains("MaxRecords=100"),
        "{body}"
    );
    let cluster = only(page);
    assert_eq!(
        (cluster.kind, cluster.status.as_str()),
        (DatabaseKind::Redshift, "paused")
    );
    assert_eq!(cluster.account.as_ref().unwrap().as_str(), "111122223333");
    let host = "orders.abc.us-east-1.redshift.amazonaws.com".to_owned();
    assert_eq!(at(&cluster), [(host, Some(5439), "cluster")]);
    assert_eq!(
        cluster.tags,
        Some(vec![("env".to_owned(), "prod".to_owned())])
    );
    for label in [
        ("namespace", "ns-1"),
        ("vpc-id", "vpc-1"),
        ("encrypted", "true"),
    ] {
        let label = (label.0, label.1.to_owned());
        assert!(cluster.labels.contains(&label), "{:?}", cluster.labels);
    }
}

#[tokio::test]
async fn one_is_asked_for_by_its_name_and_not_found_is_an_empty_page() {
    let aws = Aws::saying(StatusCode::OK, CLUSTERS).await;
    aws.page(Listing::RedshiftClusters, Some("orders"), None)
        .await
        .unwrap();
    let (_, body) = aws.asked();
    assert!(body.contains("ClusterIdentifier=orders"), "{body}");
    assert!(!body.contains("MaxRecords"), "{body}");

    let gone = r#"<ErrorResponse><Error><Type>Sender</Type><Code>ClusterNotFound</Code><Message>no</Message></Error></ErrorResponse>"#;
    let aws = Aws::saying(StatusCode::NOT_FOUND, gone).await;
    let page = aws
        .page(Listing::RedshiftClusters, Some("orders"), None)
        .await;
    assert_eq!(page.unwrap(), Page::default());
}

#[tokio::test]
async fn a_refusal_names_the_action_that_a_policy_has_to_allow() {
    let denied = r#"{"__type":"AccessDeniedException","message":"no"}"#;
    let aws = Aws::saying(StatusCode::BAD_REQUEST, denied).await;
    for (name, action) in [
        (None, "redshift-serverless:ListWorkgroups"),
        (Some("w"), "redshift-serverless:GetWorkgroup"),
    ] {
        let failure = aws
            .page(Listing::ServerlessWorkgroups, name, None)
            .await
            .unwrap_err();
        assert_eq!(
            (failure.class, failure.action),
            (AwsErrorClass::AccessDenied, action)
        );
    }
}

#[tokio::test]
async fn a_workgroup_tells_everything_but_its_tags() {
    let arn = "arn:aws:redshift-serverless:us-east-1:111122223333:workgroup/id-1";
    let aws = Aws::saying(
        StatusCode::OK,
        r#"{"workgroup":{"workgroupName":"w","workgroupArn":"arn:aws:redshift-serverless:us-east-1:111122223333:workgroup/id-1",
        "namespaceName":"ns","status":"AVAILABLE","publiclyAccessible":false,
        "endpoint":{"address":"w.111122223333.us-east-1.redshift-serverless.amazonaws.com","port":5439,"vpcEndpoints":[{"vpcId":"vpc-1"}]}}}"#,
    )
    .await;
    let page = aws
        .page(Listing::ServerlessWorkgroups, Some("w"), None)
        .await
        .unwrap();
    let workgroup = only(page);
    assert_eq!(aws.asked().0, "RedshiftServerless.GetWorkgroup");
    assert_eq!(
        (workgroup.tags.as_ref(), workgroup.arn.as_deref()),
        (None, Some(arn))
    );
    assert_eq!(
        workgroup.aws.redshift_serverless_workgroup.as_deref(),
        Some("w")
    );
    assert!(workgroup.labels.contains(&("vpc-id", "vpc-1".to_owned())));
}

#[tokio::test]
async fn tags_of_a_workgroup_are_a_call_of_their_own() {
    let aws = Aws::saying(StatusCode::OK, r#"{"tags":[{"key":"env","value":"prod"}]}"#).await;
    let (chain, session) = (RoleChain::default(), SessionTag::new("test"));
    let region = "us-east-1".parse().unwrap();
    let kind = DatabaseKind::RedshiftServerless;
    let tags = aws
        .factory
        .tags_of(&chain, &region, &session, kind, "arn:x")
        .await;
    assert_eq!(tags.unwrap(), [("env".to_owned(), "prod".to_owned())]);
    assert_eq!(aws.asked().0, "RedshiftServerless.ListTagsForResource");
}

#[tokio::test]
async fn a_cluster_of_rds_listens_at_all_its_endpoints() {
    let aws = Aws::saying(
        StatusCode::OK,
        r#"<DescribeDBClustersResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><DescribeDBClustersResult><DBClusters><DBCluster>
        <DBClusterIdentifier>c</DBClusterIdentifier><DBClusterArn>arn:aws:rds:us-east-1:111122223333:cluster:c</DBClusterArn>
        <Endpoint>c.cluster-abc.us-east-1.rds.amazonaws.com</Endpoint><ReaderEndpoint>c.cluster-ro-abc.us-east-1.rds.amazonaws.com</ReaderEndpoint>
        <CustomEndpoints><member>x.cluster-custom-abc.us-east-1.rds.amazonaws.com</member></CustomEndpoints><Port>5432</Port>
        <IAMDatabaseAuthenticationEnabled>true</IAMDatabaseAuthenticationEnabled><DbClusterResourceId>cluster-ID</DbClusterResourceId>
        <Status>available</Status></DBCluster></DBClusters></DescribeDBClustersResult></DescribeDBClustersResponse>"#,
    )
    .await;
    let cluster = only(aws.page(Listing::RdsClusters, None, None).await.unwrap());
    let types: Vec<_> = at(&cluster)
        .into_iter()
        .map(|(_, port, kind)| (port, kind))
        .collect();
    assert_eq!(
        types,
        [
            (Some(5432), "primary"),
            (Some(5432), "reader"),
            (Some(5432), "custom")
        ]
    );
    assert_eq!(cluster.aws.rds_iam_auth, Some(true));
    assert_eq!(cluster.aws.rds_resource_id.as_deref(), Some("cluster-ID"));
}

#[tokio::test]
async fn an_instance_tells_the_cluster_that_it_is_a_member_of() {
    let aws = Aws::saying(
        StatusCode::OK,
        r#"<DescribeDBInstancesResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><DescribeDBInstancesResult><DBInstances><DBInstance>
        <DBInstanceIdentifier>i</DBInstanceIdentifier><Engine>postgres</Engine><DBInstanceStatus>available</DBInstanceStatus>
        <Endpoint><Address>i.abc.us-east-1.rds.amazonaws.com</Address><Port>5432</Port></Endpoint><DBClusterIdentifier>c</DBClusterIdentifier>
        <DbiResourceId>db-ID</DbiResourceId><DBInstanceArn>arn:aws:rds:us-east-1:111122223333:db:i</DBInstanceArn>
        <TagList><Tag><Key>env</Key><Value>prod</Value></Tag></TagList>
        </DBInstance></DBInstances></DescribeDBInstancesResult></DescribeDBInstancesResponse>"#,
    )
    .await;
    let instance = only(
        aws.page(Listing::RdsInstances, Some("i"), None)
            .await
            .unwrap(),
    );
    assert!(aws.asked().1.contains("DBInstanceIdentifier=i"));
    assert_eq!(instance.aws.rds_instance_id.as_deref(), Some("i"));
    assert_eq!(instance.aws.rds_cluster_id.as_deref(), Some("c"));
    assert_eq!(
        instance.tags,
        Some(vec![("env".to_owned(), "prod".to_owned())])
    );
}

#[tokio::test]
async fn a_proxy_tells_no_port_and_no_tags() {
    let aws = Aws::saying(
        StatusCode::OK,
        r#"<DescribeDBProxiesResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><DescribeDBProxiesResult><DBProxies><member>
        <DBProxyName>p</DBProxyName><DBProxyArn>arn:aws:rds:us-east-1:111122223333:db-proxy:prx-1</DBProxyArn><Status>available</Status>
        <EngineFamily>POSTGRESQL</EngineFamily><Endpoint>p.proxy-abc.us-east-1.rds.amazonaws.com</Endpoint>
        </member></DBProxies></DescribeDBProxiesResult></DescribeDBProxiesResponse>"#,
    )
    .await;
    let proxy = only(aws.page(Listing::RdsProxies, None, None).await.unwrap());
    let host = "p.proxy-abc.us-east-1.rds.amazonaws.com".to_owned();
    assert_eq!(
        (at(&proxy), proxy.tags),
        (vec![(host, None, "proxy")], None)
    );
    assert_eq!(proxy.aws.rdsproxy_name.as_deref(), Some("p"));
}
