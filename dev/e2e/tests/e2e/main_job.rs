//! The main job: discover, serve with the right role, connect, and see it in the audit log and over reflection.

use anyhow::{Context, Result, ensure};
use awssim::{Cluster, ClusterId};
use prost_types::FileDescriptorProto;
use serde_json::json;
use tidegate_e2e::{Lab, Part};
use tokio_stream::StreamExt;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// What agents serve: the Redshift clusters with the tag.
pub(crate) const SERVED: [&str; 3] = ["analytics", "finance", "reporting"];
/// What is listed: these, and every other kind with the tag.
pub(crate) const LISTED: [&str; 14] = [
    "analytics",
    "analytics-bi",
    "etl",
    "etl-private",
    "finance",
    "gateway",
    "gateway-reports",
    "ledger",
    "ledger-reader",
    "orders",
    "orders-custom-batch",
    "orders-reader",
    "reporting",
    "shop",
];

/// [`LISTED`] with some more and without others.
pub(crate) fn listed(more: &[&'static str], without: &[&str]) -> Vec<&'static str> {
    let mut names: Vec<&str> = LISTED
        .iter()
        .chain(more)
        .copied()
        .filter(|name| !without.contains(name))
        .collect();
    names.sort_unstable();
    names
}

pub(crate) fn cluster(account: &str, region: &str, id: &str) -> ClusterId {
    ClusterId::new(account, region, id)
}

/// Roles that were assumed by an agent's user, with the external id that was sent.
fn assumed(lab: &Lab, user: &str) -> Vec<(String, Option<String>)> {
    let by = format!("user/{user}");
    let calls = lab.aws().calls();
    let made = calls
        .iter()
        .filter(|call| call.action == "AssumeRole" && call.error.is_none());
    made.filter(|call| {
        call.principal
            .as_ref()
            .is_some_and(|principal| principal.ends_with(&by))
    })
    .map(|call| {
        (
            call.params["RoleArn"].clone(),
            call.params.get("ExternalId").cloned(),
        )
    })
    .collect()
}

#[tokio::test]
async fn a_stock_psql_gets_its_rows_with_the_role_of_the_override() -> Result<()> {
    let lab = Lab::start_in(
        world()?,
        &[Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA],
    )
    .await?;
    lab.wait_for_databases(&LISTED).await?;
    lab.wait_for_servers(&SERVED, 1).await?;
    let alice = lab.person("alice", "*", "*").await?;

    // The override of agent A's first entry beats the role that discovery used.
    ensure!(
        lab.query(&alice, "analytics", "reader", "SELECT 40 + 2")
            .await?
            == "42"
    );
    // A second entry without a role inherits discovery's, with its external id.
    ensure!(
        lab.query(&alice, "finance", "reader", "SELECT current_user")
            .await?
            == "reader"
    );
    // The cluster that asks with Redshift's digest.
    ensure!(
        lab.query(&alice, "reporting", "reader", "SELECT 'digest'")
            .await?
            == "digest"
    );

    let roles = assumed(&lab, "tidegate-agent-a");
    ensure!(
        roles.contains(&(
            "arn:aws:iam::111111111111:role/tidegate-access-a".to_owned(),
            None
        )),
        "{roles:?}"
    );
    ensure!(
        roles.contains(&(
            "arn:aws:iam::222222222222:role/tidegate-discovery".to_owned(),
            Some("tidegate-discovery-2f9c".to_owned())
        )),
        "{roles:?}"
    );
    ensure!(
        !roles
            .iter()
            .any(|(role, _)| role == "arn:aws:iam::111111111111:role/tidegate-discovery"),
        "{roles:?}"
    );

    let started = tidegate_e2e::wait::until("the audit of three sessions", || async {
        let events = lab
            .audit("db.session.end")
            .await
            .map_err(|error| format!("{error:#}"))?;
        if events.len() == 3 {
            lab.audit("db.session.start")
                .await
                .map_err(|error| format!("{error:#}"))
        } else {
            Err(format!("{events:?}"))
        }
    })
    .await?;
    ensure!(
        started.iter().all(|event| event.success
            && event.user == "alice"
            && event.db_user == "reader"
            && event.code == "TDB00I"),
        "{started:?}"
    );
    lab.stop().await
}

#[tokio::test]
async fn clusters_and_tags_that_change_in_aws_change_in_the_inventory() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    let before = lab.wait_for_databases(&LISTED).await?;
    let analytics = before
        .iter()
        .find(|database| database.discovered_name == "analytics")
        .context("analytics")?;
    ensure!(
        analytics.name == "analytics-redshift-us-east-1-111111111111",
        "{}",
        analytics.name
    );
    for (key, value) in [
        ("account-id", "111111111111"),
        ("region", "us-east-1"),
        ("env", "prod"),
        ("tidegate.dev/origin", "cloud"),
        ("tidegate.dev/discovery-group", "prod"),
    ] {
        ensure!(
            analytics.labels.get(key).map(String::as_str) == Some(value),
            "{key}: {:?}",
            analytics.labels
        );
    }

    lab.aws()
        .add_cluster(
            &cluster("222222222222", "us-west-2", "marketing"),
            Cluster::with([("env", "prod")], ["reader"]),
        )
        .await?;
    lab.wait_for_databases(&listed(&["marketing"], &[])).await?;
    lab.aws()
        .remove_cluster(&cluster("111111111111", "us-west-2", "reporting"))
        .await?;
    lab.wait_for_databases(&listed(&["marketing"], &["reporting"]))
        .await?;
    lab.aws()
        .set_tags(
            &cluster("222222222222", "us-east-1", "finance"),
            [("env".to_owned(), "dev".to_owned())].into(),
        )
        .await?;
    lab.wait_for_databases(&listed(&["marketing"], &["reporting", "finance"]))
        .await?;
    lab.stop().await
}

#[tokio::test]
async fn a_database_of_the_agent_s_file_is_served_without_discovery() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy]).await?;
    let endpoint = lab
        .aws()
        .endpoint(&cluster("111111111111", "us-east-1", "sandbox"))
        .await
        .context("sandbox")?;
    let database = json!({
        "name": "my-redshift",
        "protocol": "postgres",
        "uri": format!("{}:{}", endpoint.host, endpoint.port),
        "static_labels": { "env": "test" },
        "aws": { "assume_role_arn": "arn:aws:iam::111111111111:role/tidegate-access-a" },
    });
    lab.configure(
        Part::AgentA,
        json!({ "db_service": { "resources": null, "databases": [database] } }),
    );
    lab.start_part(Part::AgentA).await?;
    tidegate_e2e::wait::until("the agent to serve its database", || async {
        let servers = lab
            .database_servers()
            .await
            .map_err(|error| format!("{error:#}"))?;
        let names: Vec<String> = servers
            .into_iter()
            .filter_map(|server| Some(server.database?.name))
            .collect();
        if names == ["my-redshift"] {
            Ok(())
        } else {
            Err(format!("it serves {names:?}"))
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))?;
    let alice = lab.person("alice", "*", "*").await?;
    ensure!(
        lab.query(&alice, "my-redshift", "reader", "SELECT 7")
            .await?
            == "7"
    );
    ensure!(
        lab.databases().await?.is_empty(),
        "it lives with its agent only"
    );
    lab.stop().await
}

#[tokio::test]
async fn every_kind_is_found_with_its_endpoints_and_labels() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    let found = lab.wait_for_databases(&LISTED).await?;
    for (name, kind, endpoint_type, protocol) in [
        ("analytics", "redshift", "cluster", "postgres"),
        ("analytics-bi", "redshift", "vpc-endpoint", "postgres"),
        ("etl", "redshift-serverless", "workgroup", "postgres"),
        (
            "etl-private",
            "redshift-serverless",
            "vpc-endpoint",
            "postgres",
        ),
        ("orders", "rds", "primary", "postgres"),
        ("orders-reader", "rds", "reader", "postgres"),
        ("orders-custom-batch", "rds", "custom", "postgres"),
        ("ledger", "rds", "primary", "postgres"),
        ("ledger-reader", "rds", "reader", "postgres"),
        ("shop", "rds", "instance", "mysql"),
        ("gateway", "rdsproxy", "proxy", "postgres"),
        ("gateway-reports", "rdsproxy", "READ_ONLY", "postgres"),
    ] {
        let database = found
            .iter()
            .find(|database| database.discovered_name == name)
            .context(name)?;
        let label = |key: &str| database.labels.get(key).map(String::as_str);
        ensure!(
            database.kind == kind && database.protocol == protocol,
            "{database:?}"
        );
        ensure!(
            label("endpoint-type") == Some(endpoint_type),
            "{database:?}"
        );
        ensure!(label("env") == Some("prod"), "{database:?}");
    }
    lab.stop().await
}

#[tokio::test]
async fn a_discovery_config_is_scanned_within_seconds_and_status_tells_each_scope() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    lab.wait_for_databases(&LISTED).await?;
    let file = lab.dir().join("config.yaml");
    std::fs::write(
        &file,
        "kind: discovery_config\nversion: v1\nmetadata:\n  name: scratch\nspec:\n  discovery_group: prod\n  aws:\n  \
         - types: [redshift]\n    regions: [us-west-2]\n    tags: {env: [dev]}\n    assume_role:\n      \
         role_arn: arn:aws:iam::222222222222:role/tidegate-discovery\n      external_id: tidegate-discovery-2f9c\n",
    )?;
    let file = file
        .to_str()
        .context("a temporary folder with an odd name")?;
    lab.tgctl(&["create", "-f", file]).await?;
    lab.wait_for_databases(&listed(&["scratch"], &[])).await?;

    let status = lab.tgctl(&["discovery", "status"]).await?;
    ensure!(
        status.contains("us-west-2") && status.contains("ok") && !status.contains("failed"),
        "{status}"
    );
    let configs = lab.tgctl(&["get", "discovery_config"]).await?;
    ensure!(configs.contains("name: scratch"), "{configs}");
    lab.tgctl(&["rm", "discovery_config/scratch"]).await?;
    lab.stop().await
}

#[tokio::test]
async fn reflection_lists_the_contract() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth]).await?;
    let ask = |message| {
        let mut client = ServerReflectionClient::new(lab.admin());
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        async move {
            let mut answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await?
                .into_inner();
            answers
                .next()
                .await
                .context("no answer")??
                .message_response
                .context("an empty answer")
        }
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await?
    else {
        anyhow::bail!("reflection answered something else");
    };
    let names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for service in [
        "InventoryService",
        "DiscoveryService",
        "PresenceService",
        "AccessService",
        "SessionService",
        "TrustService",
        "AuditService",
    ] {
        ensure!(
            names.contains(&format!("tidegate.v1.{service}")),
            "{names:?}"
        );
    }
    let symbol = MessageRequest::FileContainingSymbol("tidegate.v1.InventoryService".to_owned());
    let MessageResponse::FileDescriptorResponse(files) = ask(symbol).await? else {
        anyhow::bail!("reflection answered something else");
    };
    let file: FileDescriptorProto =
        prost::Message::decode(files.file_descriptor_proto[0].as_slice())?;
    ensure!(file.package() == "tidegate.v1");
    lab.stop().await
}

pub(crate) fn world() -> Result<awssim::World> {
    Ok(awssim::World::from_json(tidegate_e2e::DEMO_WORLD)?)
}
