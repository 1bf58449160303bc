//! Listings other than clusters, as the AWS SDKs see them.

use aws_credential_types::Credentials;
use aws_sdk_account::types::RegionOptStatus;
use aws_sdk_rds::types::Filter;
use aws_sdk_redshift::error::ProvideErrorMetadata;
use awssim::{
    AccessKey, Cluster, ClusterId, DbCluster, DbInstance, DbProxy, DbProxyEndpoint, Fault,
    FaultKind, IdentityPolicy, Role, TrustPolicy, VpcEndpoint, Workgroup, World,
};

use crate::{EAST, Fixture, HOME, KEY, SECRET, cluster_id, worker, world};

fn code(error: &impl ProvideErrorMetadata) -> String {
    error.code().unwrap_or("none").to_owned()
}

fn listing_world() -> World {
    let mut world = world();
    world.page_records_max = Some(2);
    let endpoint = VpcEndpoint {
        vpc_id: "vpc-1".to_owned(),
        ..VpcEndpoint::default()
    };
    for n in 0..5 {
        let number = n.to_string();
        let mut workgroup = Workgroup::with([("n", number.as_str())]);
        let name = format!("private-{n}");
        workgroup.vpc_endpoints.insert(name, endpoint.clone());
        world.put(&cluster_id(HOME, &format!("etl-{n}")), workgroup);
    }
    for n in 0..5 {
        let engine = if n % 2 == 0 { "postgres" } else { "mysql" };
        let instance = DbInstance::with(engine, [("env", "prod")]);
        world.put(&cluster_id(HOME, &format!("db-{n}")), instance);
    }
    let aurora = DbCluster::with("aurora-postgresql", [("env", "prod")], ["batch"]);
    world.put(&cluster_id(HOME, "aurora"), aurora);
    world.put(&cluster_id(HOME, "docs"), DbCluster::with("docdb", [], []));
    for (name, writer) in [("aurora-1", true), ("aurora-2", false)] {
        let member = DbInstance::member("aurora", "aurora-postgresql", writer);
        world.put(&cluster_id(HOME, name), member);
    }
    let mut proxy = DbProxy::with([("team", "x")]);
    let endpoint = DbProxyEndpoint::default();
    proxy.endpoints.insert("reports".to_owned(), endpoint);
    world.put(&cluster_id(HOME, "pool"), proxy);
    world
}

#[tokio::test]
async fn workgroups_are_paged_and_their_tags_are_asked_for_by_arn() {
    let fixture = Fixture::api(listing_world()).await;
    let client = fixture.serverless();
    let pages = client.list_workgroups().into_paginator().items().send();
    let workgroups: Vec<_> = pages.collect::<Result<_, _>>().await.unwrap();
    let names: Vec<_> = workgroups.iter().map(|w| w.workgroup_name()).collect();
    let expected: Vec<_> = (0..5).map(|n| format!("etl-{n}")).collect();
    assert_eq!(
        names,
        expected
            .iter()
            .map(|n| Some(n.as_str()))
            .collect::<Vec<_>>()
    );
    assert_eq!(fixture.sim.calls().len(), 3);

    let endpoint = workgroups[3].endpoint().unwrap();
    let host = "etl-3.111111111111.us-east-1.redshift-serverless.amazonaws.com";
    assert_eq!(
        (endpoint.address(), endpoint.port()),
        (Some(host), Some(5439))
    );
    assert!(
        endpoint.vpc_endpoints()[0]
            .vpc_id()
            .unwrap()
            .starts_with("vpc-")
    );
    let arn = workgroups[3].workgroup_arn().unwrap();
    assert!(!arn.contains("etl-3"), "{arn}");
    let tags = client
        .list_tags_for_resource()
        .resource_arn(arn)
        .send()
        .await
        .unwrap();
    let [tag] = tags.tags() else {
        panic!("{tags:?}")
    };
    assert_eq!((tag.key(), tag.value()), ("n", "3"));

    let named = client
        .get_workgroup()
        .workgroup_name("etl-3")
        .send()
        .await
        .unwrap();
    assert_eq!(named.workgroup().unwrap().workgroup_arn(), Some(arn));
    let gone = client
        .get_workgroup()
        .workgroup_name("none")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&gone), "ResourceNotFoundException");
    let bad = client
        .list_workgroups()
        .max_results(101)
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&bad), "ValidationException");
}

#[tokio::test]
async fn vpc_endpoints_of_workgroups_and_clusters_have_addresses_of_their_own() {
    let mut world = listing_world();
    let mut cluster = Cluster::listed([]);
    for n in 0..3 {
        let endpoint = VpcEndpoint::default();
        cluster.vpc_endpoints.insert(format!("bi-{n}"), endpoint);
    }
    cluster.custom_domain_name = Some("dw.example.com".to_owned());
    world.put_cluster(&cluster_id(HOME, "dw"), cluster);
    let fixture = Fixture::api(world).await;

    let client = fixture.serverless();
    let all = client
        .list_endpoint_access()
        .into_paginator()
        .items()
        .send();
    assert_eq!(all.collect::<Result<Vec<_>, _>>().await.unwrap().len(), 5);
    let one = client
        .list_endpoint_access()
        .workgroup_name("etl-2")
        .send()
        .await
        .unwrap();
    let [endpoint] = one.endpoints() else {
        panic!("{one:?}")
    };
    assert_eq!(endpoint.workgroup_name(), Some("etl-2"));
    assert_eq!(endpoint.vpc_endpoint().unwrap().vpc_id(), Some("vpc-1"));
    let host = endpoint.address().unwrap();
    assert!(host.starts_with("private-2-endpoint-"), "{host}");
    assert!(host.ends_with(".111111111111.us-east-1.redshift-serverless.amazonaws.com"));

    let client = fixture.redshift(worker());
    let pages = client.describe_endpoint_access().cluster_identifier("dw");
    let pages = pages.into_paginator().items().send();
    let endpoints: Vec<_> = pages.collect::<Result<_, _>>().await.unwrap();
    assert_eq!(endpoints.len(), 3);
    let host = endpoints[0].address().unwrap();
    assert!(host.starts_with("bi-0-endpoint-") && host.ends_with(".redshift.amazonaws.com"));
    let gone = client.describe_endpoint_access().cluster_identifier("none");
    assert_eq!(code(&gone.send().await.unwrap_err()), "ClusterNotFound");
    let domains = client
        .describe_custom_domain_associations()
        .send()
        .await
        .unwrap();
    let associated = &domains.associations()[0].certificate_associations()[0];
    assert_eq!(associated.custom_domain_name(), Some("dw.example.com"));
    assert_eq!(associated.cluster_identifier(), Some("dw"));
}

#[tokio::test]
async fn rds_instances_are_paged_and_filtered_by_engine_and_cluster() {
    let mut world = listing_world();
    let region = world.account(HOME).regions.get_mut(EAST).unwrap();
    region.unknown_engines.insert("mariadb".to_owned());
    let fixture = Fixture::api(world).await;
    let client = fixture.rds();
    let pages = client
        .describe_db_instances()
        .into_paginator()
        .items()
        .send();
    assert_eq!(pages.collect::<Result<Vec<_>, _>>().await.unwrap().len(), 7);
    assert_eq!(fixture.sim.calls().len(), 4);

    let filter = |name: &str, values: &[&str]| {
        let filter = Filter::builder().name(name);
        values
            .iter()
            .fold(filter, |filter, value| filter.values(*value))
            .build()
    };
    let named = |filter: Filter| {
        let pages = client.describe_db_instances().filters(filter);
        let pages = pages.into_paginator().items().send();
        async {
            let found = pages.collect::<Result<Vec<_>, _>>().await?;
            let names = found.into_iter().filter_map(|it| it.db_instance_identifier);
            Ok::<Vec<String>, aws_sdk_rds::error::SdkError<_>>(names.collect())
        }
    };
    let found = named(filter("engine", &["mysql", "postgres"]))
        .await
        .unwrap();
    assert_eq!(found, ["db-0", "db-1", "db-2", "db-3", "db-4"]);
    let found = named(filter("db-cluster-id", &["aurora"])).await.unwrap();
    assert_eq!(found, ["aurora-1", "aurora-2"]);
    for engine in ["mariadb", "no-such-engine"] {
        let refused = named(filter("engine", &["mysql", engine]))
            .await
            .unwrap_err();
        assert_eq!(code(&refused), "InvalidParameterValue");
    }
    assert!(named(filter("colour", &["red"])).await.is_err());
    let gone = client
        .describe_db_instances()
        .db_instance_identifier("none");
    assert_eq!(code(&gone.send().await.unwrap_err()), "DBInstanceNotFound");

    let one = client
        .describe_db_instances()
        .db_instance_identifier("DB-1");
    let one = one.send().await.unwrap();
    let [db] = one.db_instances() else {
        panic!("{one:?}")
    };
    let endpoint = db.endpoint().unwrap();
    assert!(
        endpoint
            .address()
            .unwrap()
            .ends_with(".us-east-1.rds.amazonaws.com")
    );
    assert_eq!(
        (endpoint.port(), db.iam_database_authentication_enabled()),
        (Some(3306), Some(true))
    );
    assert!(db.db_subnet_group().unwrap().vpc_id().is_some());
    assert_eq!(db.tag_list()[0].value(), Some("prod"));
    assert!(
        db.db_instance_arn()
            .unwrap()
            .ends_with(":111111111111:db:db-1")
    );
}

#[tokio::test]
async fn an_aurora_cluster_has_its_endpoints_and_its_members() {
    let fixture = Fixture::api(listing_world()).await;
    let client = fixture.rds();
    let aurora = Filter::builder()
        .name("engine")
        .values("aurora-postgresql")
        .build();
    let found = client
        .describe_db_clusters()
        .filters(aurora)
        .send()
        .await
        .unwrap();
    let [cluster] = found.db_clusters() else {
        panic!("{found:?}")
    };
    let label = |host: &str| host.split('.').take(2).collect::<Vec<_>>().join(".");
    assert!(label(cluster.endpoint().unwrap()).starts_with("aurora.cluster-"));
    assert!(label(cluster.reader_endpoint().unwrap()).starts_with("aurora.cluster-ro-"));
    assert!(label(&cluster.custom_endpoints()[0]).starts_with("batch.cluster-custom-"));
    assert_eq!(
        (cluster.port(), cluster.engine_mode()),
        (Some(5432), Some("provisioned"))
    );
    let members = cluster.db_cluster_members().iter();
    let members: Vec<_> = members
        .map(|m| {
            (
                m.db_instance_identifier().unwrap(),
                m.is_cluster_writer().unwrap(),
            )
        })
        .collect();
    assert_eq!(members, [("aurora-1", true), ("aurora-2", false)]);

    fixture
        .sim
        .remove_db_cluster(&cluster_id(HOME, "aurora"))
        .await
        .unwrap();
    let left = client.describe_db_clusters().send().await.unwrap();
    assert_eq!(left.db_clusters()[0].engine(), Some("docdb"));
    let member = client
        .describe_db_instances()
        .db_instance_identifier("aurora-1");
    assert_eq!(
        code(&member.send().await.unwrap_err()),
        "DBInstanceNotFound"
    );
}

#[tokio::test]
async fn proxies_show_endpoints_and_their_tags_by_arn() {
    let fixture = Fixture::api(listing_world()).await;
    let client = fixture.rds();
    let found = client.describe_db_proxies().send().await.unwrap();
    let [proxy] = found.db_proxies() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (proxy.engine_family(), proxy.require_tls()),
        (Some("POSTGRESQL"), Some(true))
    );
    let arn = proxy.db_proxy_arn().unwrap();
    let tags = client
        .list_tags_for_resource()
        .resource_name(arn)
        .send()
        .await
        .unwrap();
    assert_eq!(tags.tag_list()[0].key(), Some("team"));
    let endpoints = client.describe_db_proxy_endpoints().db_proxy_name("pool");
    let endpoints = endpoints.send().await.unwrap();
    let [default, reports] = endpoints.db_proxy_endpoints() else {
        panic!("{endpoints:?}")
    };
    assert_eq!(
        (default.is_default(), default.endpoint()),
        (Some(true), proxy.endpoint())
    );
    let host = reports.endpoint().unwrap();
    assert!(host.starts_with("reports.endpoint.proxy-"), "{host}");
    assert_eq!(reports.target_role().unwrap().as_str(), "READ_ONLY");
    let gone = client
        .describe_db_proxies()
        .db_proxy_name("none")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&gone), "DBProxyNotFoundFault");
}

#[tokio::test]
async fn regions_of_the_account_are_enabled_and_the_others_are_not() {
    let mut world = world();
    world.account(HOME).enable_region("af-south-1");
    let fixture = Fixture::api(world).await;
    let client = fixture.account();
    let pages = client
        .list_regions()
        .max_results(5)
        .into_paginator()
        .items()
        .send();
    let regions: Vec<_> = pages.collect::<Result<_, _>>().await.unwrap();
    assert!(regions.len() > 30 && fixture.sim.calls().len() > 6);
    let status = |name| {
        let region = regions
            .iter()
            .find(|region| region.region_name() == Some(name));
        region
            .and_then(|region| region.region_opt_status())
            .unwrap()
            .clone()
    };
    assert_eq!(status(EAST), RegionOptStatus::EnabledByDefault);
    assert_eq!(status("af-south-1"), RegionOptStatus::Enabled);
    assert_eq!(status("me-south-1"), RegionOptStatus::Disabled);

    let enabled = client
        .list_regions()
        .region_opt_status_contains(RegionOptStatus::Enabled)
        .region_opt_status_contains(RegionOptStatus::EnabledByDefault);
    assert_eq!(enabled.send().await.unwrap().regions().len(), 2);
    let denied = Fault::new(FaultKind::AccessDenied).on("account", "ListRegions");
    fixture.sim.fault(denied).unwrap();
    let denied = client.list_regions().send().await.unwrap_err();
    assert_eq!(code(&denied), "AccessDeniedException");
    assert!(denied.into_service_error().is_access_denied_exception());
}

#[tokio::test]
async fn json_services_spell_refusals_their_own_way() {
    let mut world = listing_world();
    let worker = world.account(HOME).users.get_mut("worker").unwrap();
    worker.policies = vec![IdentityPolicy::allow(["rds:*"], ["*"])];
    let fixture = Fixture::api(world).await;
    let client = fixture.serverless();
    let denied = client.list_workgroups().send().await.unwrap_err();
    assert_eq!(code(&denied), "AccessDeniedException");
    assert_eq!(denied.raw_response().unwrap().status().as_u16(), 400);
    let message = "User: arn:aws:iam::111111111111:user/worker is not authorized to perform: \
                   redshift-serverless:ListWorkgroups on resource: * because no identity-based \
                   policy allows the redshift-serverless:ListWorkgroups action";
    assert_eq!(denied.message(), Some(message));

    let nobody = Credentials::new("AKIANOBODY", "x", None, None, "it");
    let nobody =
        aws_sdk_redshiftserverless::config::Builder::default().credentials_provider(nobody);
    let request = client.list_workgroups().customize().config_override(nobody);
    let unknown = request.send().await.unwrap_err();
    assert_eq!(code(&unknown), "UnrecognizedClientException");
    let fault = Fault::new(FaultKind::Throttling).on("redshift-serverless", "ListWorkgroups");
    fixture.sim.fault(fault).unwrap();
    let throttled = client.list_workgroups().send().await.unwrap_err();
    assert_eq!(code(&throttled), "ThrottlingException");
    let calls = fixture.sim.calls();
    assert_eq!(calls[2].action, "ListWorkgroups");
    assert_eq!(calls[2].fault.as_deref(), Some("Throttling"));
}

#[tokio::test]
async fn faults_damage_json_as_they_damage_xml() {
    let fixture = Fixture::api(listing_world()).await;
    let client = fixture.serverless();
    let order = |kind: FaultKind| {
        let fault = Fault::new(kind).on("redshift-serverless", "ListWorkgroups");
        fixture.sim.fault(fault.times(1)).unwrap();
        client.list_workgroups().send()
    };
    let field = FaultKind::MalformedField {
        element: "port".to_owned(),
        text: Some("z".to_owned()),
    };
    assert!(order(field).await.is_err());
    assert!(order(FaultKind::TruncatedBody).await.is_err());
    let empty = order(FaultKind::EmptyPage).await.unwrap();
    assert!(empty.workgroups().is_empty() && empty.next_token().is_some());
    let rest = client.list_workgroups().set_next_token(empty.next_token);
    assert_eq!(rest.send().await.unwrap().workgroups().len(), 2);

    let again = order(FaultKind::RepeatedToken).await.unwrap();
    let same = client.list_workgroups().set_next_token(again.next_token);
    assert_eq!(
        same.send().await.unwrap().workgroups(),
        again.workgroups.as_slice()
    );
}

#[tokio::test]
async fn china_has_a_partition_and_a_domain_of_its_own() {
    let mut world = World::new();
    let (away, region) = ("222222222222", "cn-north-1");
    let key = AccessKey {
        id: KEY.to_owned(),
        secret: SECRET.to_owned(),
    };
    let home = world.account(HOME);
    home.enable_region(region);
    home.put_user("worker", key, vec![IdentityPolicy::allow(["sts:*"], ["*"])]);
    let list = IdentityPolicy::allow(["redshift:*"], ["arn:aws-cn:redshift:*"]);
    let trust = TrustPolicy::allow(["arn:aws-cn:iam::111111111111:root"]);
    let role = Role::new(trust, vec![list]);
    world.account(away).put_role("discover", role);
    let cluster = Cluster::listed([]);
    world.put_cluster(&ClusterId::new(away, region, "dw"), cluster);
    let fixture = Fixture::api(world).await;

    let region = aws_sdk_sts::config::Region::new(region);
    let config = fixture.sts(worker()).config().to_builder();
    let sts = aws_sdk_sts::Client::from_conf(config.region(region.clone()).build());
    let ask = |role: &str| {
        let request = sts.assume_role().role_session_name("it");
        request.role_arn(role).send()
    };
    let wrong = ask("arn:aws:iam::222222222222:role/discover").await;
    assert_eq!(code(&wrong.unwrap_err()), "AccessDenied");
    let given = ask("arn:aws-cn:iam::222222222222:role/discover")
        .await
        .unwrap();
    let user = given.assumed_role_user.unwrap();
    assert_eq!(
        user.arn,
        "arn:aws-cn:sts::222222222222:assumed-role/discover/it"
    );
    let given = given.credentials.unwrap();
    let (id, secret) = (given.access_key_id, given.secret_access_key);
    let session = Credentials::new(id, secret, Some(given.session_token), None, "it");
    let config = fixture.redshift(session).config().to_builder();
    let client = aws_sdk_redshift::Client::from_conf(config.region(region).build());
    let answer = client.describe_clusters().send().await.unwrap();
    let cluster = &answer.clusters()[0];
    let host = cluster.endpoint().unwrap().address().unwrap();
    assert!(
        host.ends_with(".cn-north-1.redshift.amazonaws.com.cn"),
        "{host}"
    );
    let namespace = cluster.cluster_namespace_arn().unwrap();
    assert!(namespace.starts_with("arn:aws-cn:redshift:cn-north-1:222222222222:namespace:"));
}
