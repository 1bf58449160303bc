//! Every kind of database that speaks PostgreSQL: discovered, listed, served, and used with a stock `psql`; and every way
//! in which an agent gets the AWS identity that it does so with.

use anyhow::{Context, Result, ensure};
use awssim::{
    Account, Cluster, ClusterId, CredentialSource, DbCluster, DbInstance, DbProxy, DbProxyEndpoint,
    IdentityPolicy, Kind, Login, Machine, OidcProvider, ResourceId, Role, TrustPolicy, VpcEndpoint,
    Workgroup, World,
};
use tidegate_e2e::{Lab, Part};

pub(crate) const HOME: &str = "111111111111";
const EAST: &str = "us-east-1";
/// What the agent assumes for everything in the account.
pub(crate) const ACCESS: &str = "tidegate-access-a";
/// A role that people name as the user of a database.
const READER: &str = "role/tidegate-reader";
const READER_ARN: &str = "arn:aws:iam::111111111111:role/tidegate-reader";
pub(crate) const PROD: [(&str, &str); 1] = [("env", "prod")];
/// An issuer of tokens for pods.
const ISSUER: &str = "oidc.eks.us-east-1.amazonaws.com/id/A1B2";
const SUBJECT: &str = "system:serviceaccount:data:agent";

pub(crate) fn id(name: &str) -> ClusterId {
    ClusterId::new(HOME, EAST, name)
}

/// The demo's accounts and roles without its databases. What the agent assumes may log in to every kind, on its own or as
/// [`READER`].
pub(crate) fn bare() -> Result<World> {
    let mut world = World::from_json(tidegate_e2e::DEMO_WORLD)?;
    for account in world.accounts.values_mut() {
        for region in account.regions.values_mut() {
            *region = awssim::Region::default();
        }
    }
    let account = world.account(HOME);
    let access = account.roles.get_mut(ACCESS).context("no such role")?;
    access.policies.push(IdentityPolicy::allow(
        ["rds-db:connect"],
        ["arn:aws:rds-db:us-east-1:111111111111:dbuser:*/reader"],
    ));
    let become_reader = IdentityPolicy::allow(["sts:AssumeRole"], [READER_ARN]);
    access.policies.push(become_reader);
    let access_arn = format!("arn:aws:iam::{HOME}:role/{ACCESS}");
    let log_in = [
        "redshift-serverless:GetCredentials",
        "redshift:GetClusterCredentialsWithIAM",
    ];
    let reader = Role::new(
        TrustPolicy::allow([access_arn.as_str()]),
        vec![IdentityPolicy::allow(log_in, ["*"])],
    );
    account.put_role("tidegate-reader", reader);
    Ok(world)
}

/// A system with these databases and one agent, once it serves exactly those that are listed.
pub(crate) async fn served(world: World, names: &[&str]) -> Result<Lab> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
    let lab = Lab::start_in(world, &parts).await?;
    lab.wait_for_databases(names).await?;
    lab.wait_for_servers(names, 1).await?;
    Ok(lab)
}

/// The log-ins that AWS let in, as `HOST USER`.
fn let_in(lab: &Lab) -> Vec<String> {
    let logins = lab.aws().logins().into_iter();
    let admitted = logins.filter(|login| login.refused.is_none() && login.tls);
    admitted
        .map(|Login { host, user, .. }| format!("{host} {user}"))
        .collect()
}

/// Asks each database who it takes the caller for, and that AWS let that user in at the endpoint of that name.
async fn ask_each(
    lab: &Lab,
    of: &ResourceId,
    names: &[&str],
    db_user: &str,
    is: &str,
) -> Result<()> {
    let alice = lab.person("alice", "*", "*").await?;
    for name in names {
        let who = lab
            .query(&alice, name, db_user, "SELECT current_user")
            .await;
        let who = who.with_context(|| format!("{name}: {:#?}", lab.aws().logins().last()))?;
        ensure!(who == is, "{name} says {who}");
    }
    let admitted = let_in(lab);
    for endpoint in lab.aws().endpoints_of(of).await {
        let wanted = format!("{} {is}", endpoint.host);
        ensure!(admitted.contains(&wanted), "no {wanted} in {admitted:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_workgroup_and_its_vpc_endpoint_are_used_as_a_role() -> Result<()> {
    let mut world = bare()?;
    let etl = Workgroup {
        vpc_endpoints: [("private".to_owned(), VpcEndpoint::default())].into(),
        ..Workgroup::with(PROD)
    };
    world.put(&id("etl"), etl);
    let lab = served(world, &["etl", "etl-private"]).await?;
    let of = ResourceId::new(Kind::Workgroup, &id("etl"));
    let user = "IAMR:tidegate-reader";
    ask_each(&lab, &of, &["etl", "etl-private"], READER, user).await?;
    lab.stop().await
}

#[tokio::test]
async fn a_provisioned_cluster_is_used_through_its_vpc_endpoint_and_as_a_role() -> Result<()> {
    let mut world = bare()?;
    let analytics = Cluster {
        vpc_endpoints: [("bi".to_owned(), VpcEndpoint::default())].into(),
        ..Cluster::with(PROD, ["reader"])
    };
    world.put_cluster(&id("analytics"), analytics);
    let names = ["analytics", "analytics-bi"];
    let lab = served(world, &names).await?;
    let of = ResourceId::cluster(&id("analytics"));
    ask_each(&lab, &of, &names, READER, "IAMR:tidegate-reader").await?;
    lab.stop().await
}

#[tokio::test]
async fn an_rds_instance_takes_tokens_for_its_own_endpoint() -> Result<()> {
    let mut world = bare()?;
    world.put(&id("shop"), with_reader(DbInstance::with("postgres", PROD)));
    let lab = served(world, &["shop"]).await?;
    let of = ResourceId::new(Kind::DbInstance, &id("shop"));
    ask_each(&lab, &of, &["shop"], "reader", "reader").await?;
    lab.stop().await
}

pub(crate) fn with_reader(instance: DbInstance) -> DbInstance {
    DbInstance {
        db_name: Some("dev".to_owned()),
        db_users: ["reader".to_owned()].into(),
        ..instance
    }
}

pub(crate) fn aurora() -> DbCluster {
    DbCluster {
        database_name: Some("dev".to_owned()),
        db_users: ["reader".to_owned()].into(),
        ..DbCluster::with("aurora-postgresql", PROD, ["batch"])
    }
}

#[tokio::test]
async fn an_aurora_cluster_is_used_by_writer_reader_and_custom_endpoint() -> Result<()> {
    let mut world = bare()?;
    world.put(&id("orders"), aurora());
    for (name, writer) in [("orders-1", true), ("orders-2", false)] {
        let member = DbInstance::member("orders", "aurora-postgresql", writer);
        world.put(&id(name), member);
    }
    let names = ["orders", "orders-custom-batch", "orders-reader"];
    let lab = served(world, &names).await?;
    let of = ResourceId::new(Kind::DbCluster, &id("orders"));
    ask_each(&lab, &of, &names, "reader", "reader").await?;
    lab.stop().await
}

#[tokio::test]
async fn a_multi_az_cluster_is_used_by_writer_and_reader() -> Result<()> {
    let mut world = bare()?;
    let ledger = DbCluster {
        engine: "postgres".to_owned(),
        multi_az: true,
        custom_endpoints: [].into(),
        ..aurora()
    };
    world.put(&id("ledger"), ledger);
    for (name, writer) in [("ledger-1", true), ("ledger-2", false), ("ledger-3", false)] {
        world.put(&id(name), DbInstance::member("ledger", "postgres", writer));
    }
    let names = ["ledger", "ledger-reader"];
    let lab = served(world, &names).await?;
    let of = ResourceId::new(Kind::DbCluster, &id("ledger"));
    ask_each(&lab, &of, &names, "reader", "reader").await?;
    lab.stop().await
}

#[tokio::test]
async fn a_proxy_is_used_by_both_its_endpoints() -> Result<()> {
    let mut world = bare()?;
    // Not tagged: only the proxy is found.
    let orders = DbCluster {
        tags: [].into(),
        ..aurora()
    };
    world.put(&id("orders"), orders);
    let gateway = DbProxy {
        target: Some("orders".to_owned()),
        endpoints: [("reports".to_owned(), DbProxyEndpoint::default())].into(),
        ..DbProxy::with(PROD)
    };
    world.put(&id("gateway"), gateway);
    let names = ["gateway", "gateway-reports"];
    let lab = served(world, &names).await?;
    let of = ResourceId::new(Kind::DbProxy, &id("gateway"));
    ask_each(&lab, &of, &names, "reader", "reader").await?;
    lab.stop().await
}

/// A machine that an agent runs on, whose role may become what the agent assumes.
fn machine(account: &mut Account, trust: TrustPolicy, source: CredentialSource) -> Machine {
    let access = account.roles.get_mut(ACCESS).expect("the demo has it");
    access.trust = TrustPolicy::allow([HOME]);
    let go_on = IdentityPolicy::allow(["sts:*"], ["*"]);
    account.put_role("agent", Role::new(trust, vec![go_on]));
    Machine::new(&format!("arn:aws:iam::{HOME}:role/agent"), source)
}

#[tokio::test]
async fn an_agent_gets_its_identity_from_an_instance_a_pod_or_a_service_account() -> Result<()> {
    let mut world = bare()?;
    world.put_cluster(&id("analytics"), Cluster::with(PROD, ["reader"]));
    let parts = [Part::Auth, Part::Proxy, Part::Discovery];
    let mut lab = Lab::start_in(world.clone(), &parts).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let account = world.account(HOME);
    let service = TrustPolicy::allow_service;
    let machines = [
        (
            service("ec2.amazonaws.com"),
            CredentialSource::Instance {
                beyond_hop_limit: false,
            },
        ),
        (
            service("pods.eks.amazonaws.com"),
            CredentialSource::EksPod { tags: [].into() },
        ),
        (
            service("ecs-tasks.amazonaws.com"),
            CredentialSource::EcsTask {},
        ),
        (
            TrustPolicy::allow_web_identity(HOME, ISSUER, SUBJECT),
            CredentialSource::ServiceAccount {
                issuer: ISSUER.to_owned(),
                subject: SUBJECT.to_owned(),
            },
        ),
    ];
    let audiences = ["sts.amazonaws.com".to_owned()].into();
    lab.aws()
        .put_oidc_provider(HOME, ISSUER, OidcProvider { audiences })?;
    for (trust, source) in machines {
        let told = format!("{source:?}");
        let machine = machine(account, trust, source);
        for role in ["agent", ACCESS] {
            lab.aws()
                .put_role(HOME, role, account.roles[role].clone())?;
        }
        lab.aws().put_machine("box", machine)?;
        lab.aws().clear_journal();
        lab.run_on(Part::AgentA, "box");
        lab.start_part(Part::AgentA).await?;
        lab.wait_for_servers(&["analytics"], 1)
            .await
            .context(told.clone())?;
        let who = lab
            .query(&alice, "analytics", "reader", "SELECT current_user")
            .await;
        ensure!(who.context(told.clone())? == "reader");
        let calls = lab.aws().calls();
        let by = |principal: &String| principal.contains("assumed-role/agent/");
        let assumed = |call: &&awssim::Call| call.action == "AssumeRole" && call.error.is_none();
        let mut assumed = calls
            .iter()
            .filter(assumed)
            .filter_map(|call| call.principal.as_ref());
        ensure!(assumed.any(by), "{told}: {calls:#?}");
        lab.stop_part(Part::AgentA).await?;
    }
    lab.stop().await
}
