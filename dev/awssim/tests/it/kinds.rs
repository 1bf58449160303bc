//! Log-ins to everything but provisioned clusters: workgroups, RDS, Aurora and RDS Proxy, with stock `psql` and passwords
//! that the AWS SDK asked for or signed.

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config};
use awssim::{
    AuthCode, Certificate, Cluster, DbCluster, DbInstance, DbProxy, DbProxyEndpoint, Endpoint,
    IdentityPolicy, Kind, Manner, ResourceId, Role, TrustPolicy, VpcEndpoint, Workgroup, World,
};

use crate::login::{psql, run};
use crate::{AWAY, EAST, Fixture, HOME, cluster_id, worker, world};

/// Past the end of a token, in seconds.
const TOKEN_IS_OVER: i64 = 901;
/// What PostgreSQL says to every token that is no good.
const PAM: &str = "FATAL:  PAM authentication failed for user \"alice\"";

/// A token for an endpoint, signed by the SDK.
pub(crate) async fn token(
    credentials: Credentials,
    region: &'static str,
    at: &Endpoint,
    user: &str,
) -> String {
    let config = Config::builder()
        .hostname(&at.host)
        .port(u64::from(at.port))
        .username(user)
        .build()
        .unwrap();
    let sdk = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(credentials)
        .load()
        .await;
    let token = AuthTokenGenerator::new(config).auth_token(&sdk).await;
    token.unwrap().to_string()
}

fn home(kind: Kind, id: &str) -> ResourceId {
    ResourceId::new(kind, &cluster_id(HOME, id))
}

/// The worker's account with databases of every kind; the worker may sign for alice on all of them.
fn kinds() -> World {
    let mut world = world();
    let connect = IdentityPolicy::allow(
        ["rds-db:connect"],
        ["arn:aws:rds-db:us-east-1:111111111111:dbuser:*/alice"],
    );
    let worker = world.account(HOME).users.get_mut("worker").unwrap();
    worker.policies.push(connect);
    let alice = || ["alice".to_owned()].into();
    world.put(
        &cluster_id(HOME, "shop"),
        DbInstance {
            db_users: alice(),
            db_name: Some("sales".to_owned()),
            ..DbInstance::default()
        },
    );
    world.put(
        &cluster_id(HOME, "orders"),
        DbCluster {
            db_users: alice(),
            ..DbCluster::with("aurora-postgresql", [], ["batch"])
        },
    );
    let member = DbInstance::member("orders", "aurora-postgresql", true);
    world.put(&cluster_id(HOME, "orders-1"), member);
    let multi_az = DbCluster {
        db_users: alice(),
        multi_az: true,
        ..DbCluster::with("postgres", [], [])
    };
    world.put(&cluster_id(HOME, "ledger"), multi_az);
    world.put(
        &cluster_id(HOME, "gateway"),
        DbProxy {
            target: Some("orders".to_owned()),
            endpoints: [("reports".to_owned(), DbProxyEndpoint::default())].into(),
            ..DbProxy::default()
        },
    );
    world
}

async fn log_in(
    fixture: &Fixture,
    at: &Endpoint,
    user: &str,
    password: &str,
) -> Result<String, String> {
    let psql = psql(fixture, at, user, password, "postgres");
    run(psql, "SELECT current_user").await
}

#[tokio::test]
async fn a_token_of_the_sdk_opens_every_rds_endpoint_and_no_other() {
    let fixture = Fixture::whole(kinds()).await;
    let sim = &fixture.sim;
    let mut endpoints = Vec::new();
    for (kind, id, count) in [
        (Kind::DbInstance, "shop", 1),
        (Kind::DbCluster, "orders", 3),
        (Kind::DbInstance, "orders-1", 1),
        (Kind::DbCluster, "ledger", 2),
        (Kind::DbProxy, "gateway", 2),
    ] {
        let of_it = sim.endpoints_of(&home(kind, id)).await;
        assert_eq!(of_it.len(), count, "{id}");
        endpoints.extend(of_it);
    }
    for endpoint in &endpoints {
        let token = token(worker(), EAST, endpoint, "alice").await;
        let rows = log_in(&fixture, endpoint, "alice", &token).await;
        assert_eq!(rows.as_deref(), Ok("alice"), "{}", endpoint.host);
    }
    // One database behind a writer, a reader, a member and a proxy.
    let orders = home(Kind::DbCluster, "orders");
    let seed = "CREATE TABLE t AS SELECT 42 AS n; GRANT SELECT ON t TO alice";
    sim.sql_of(&orders, Some("postgres"), seed).await.unwrap();
    for endpoint in endpoints
        .iter()
        .filter(|it| it.cluster.id != "shop" && it.cluster.id != "ledger")
    {
        let token = token(worker(), EAST, endpoint, "alice").await;
        let psql = psql(&fixture, endpoint, "alice", &token, "postgres");
        assert_eq!(run(psql, "SELECT n FROM t").await.as_deref(), Ok("42"));
    }

    let [writer, reader, ..] = &sim.endpoints_of(&orders).await[..] else {
        panic!("no reader");
    };
    let for_reader = token(worker(), EAST, reader, "alice").await;
    let refused = log_in(&fixture, writer, "alice", &for_reader)
        .await
        .unwrap_err();
    assert!(refused.contains(PAM), "{refused}");
    let login = sim.logins().pop().unwrap();
    assert_eq!((login.kind, &login.host), (Kind::DbCluster, &writer.host));
    assert!(login.why.unwrap().contains(&reader.host));
    sim.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_user_region_key_and_fifteen_minutes() {
    let fixture = Fixture::whole(kinds()).await;
    let sim = &fixture.sim;
    let shop = sim
        .endpoints_of(&home(Kind::DbInstance, "shop"))
        .await
        .remove(0);
    let why = async |user: &str, password: &str| {
        let refused = log_in(&fixture, &shop, user, password).await.unwrap_err();
        assert!(refused.contains(PAM), "{refused}");
        sim.logins().pop().unwrap().why.unwrap()
    };
    let good = token(worker(), EAST, &shop, "alice").await;
    log_in(&fixture, &shop, "alice", &good).await.unwrap();
    // The SDK leaves some letters as they are that others encode.
    let encoded = good.replace("DBUser=alice", "DBUser=%61lice");
    log_in(&fixture, &shop, "alice", &encoded).await.unwrap();

    let wrong_key = Credentials::new(crate::KEY, "other", None, None, "it");
    for (password, reason) in [
        ("secret".to_owned(), "malformed"),
        (good.replace("DBUser=alice", "DBUser=bob"), "user bob"),
        (token(worker(), EAST, &shop, "bob").await, "user bob"),
        (
            token(worker(), "us-west-2", &shop, "alice").await,
            "region us-west-2",
        ),
        (token(wrong_key, EAST, &shop, "alice").await, "signature"),
        (good.replace("Expires=900", "Expires=9000"), "signature"),
    ] {
        let why = why("alice", &password).await;
        assert!(why.contains(reason), "{why} instead of {reason}");
    }
    sim.advance_clock(TOKEN_IS_OVER);
    assert!(why("alice", &good).await.contains("expired"));
    sim.set_clock_offset(-TOKEN_IS_OVER);
    assert!(why("alice", &good).await.contains("future"));
    sim.set_clock_offset(0);

    // A user without rds_iam is asked for a password, which is in other words.
    let refused = log_in(&fixture, &shop, "carol", &good).await.unwrap_err();
    assert!(
        refused.contains("password authentication failed for user \"carol\""),
        "{refused}"
    );
    let mut instance = DbInstance {
        iam_auth: false,
        db_users: ["alice".to_owned()].into(),
        ..DbInstance::default()
    };
    sim.put_db_instance(&cluster_id(HOME, "shop"), instance.clone())
        .await
        .unwrap();
    assert!(why("alice", &good).await.contains("not enabled"));
    instance.iam_auth = true;
    instance.status = "stopped".to_owned();
    sim.put_db_instance(&cluster_id(HOME, "shop"), instance)
        .await
        .unwrap();
    assert!(
        log_in(&fixture, &shop, "alice", &good)
            .await
            .unwrap_err()
            .contains("refused")
    );
    sim.stop().await;
}

#[tokio::test]
async fn policies_and_the_session_of_the_signer_decide() {
    let mut world = kinds();
    let shop_alone = IdentityPolicy::allow(
        ["rds-db:connect"],
        ["arn:aws:rds-db:us-east-1:111111111111:dbuser:db-SHOP/alice"],
    );
    let role = Role::new(TrustPolicy::allow([HOME]), vec![shop_alone]);
    let home_account = world.account(HOME);
    home_account.put_role("access", role);
    let worker_may = IdentityPolicy::allow(["sts:AssumeRole"], ["*"]);
    let user = home_account.users.get_mut("worker").unwrap();
    user.policies.push(worker_may);
    let shop = home_account
        .regions
        .get_mut(EAST)
        .unwrap()
        .db_instances
        .get_mut("shop")
        .unwrap();
    shop.resource_id = Some("db-SHOP".to_owned());
    let fixture = Fixture::whole(world).await;
    let sim = &fixture.sim;

    let session = fixture
        .assume(worker(), "arn:aws:iam::111111111111:role/access")
        .await;
    let shop = sim
        .endpoints_of(&home(Kind::DbInstance, "shop"))
        .await
        .remove(0);
    let orders = sim
        .endpoints_of(&home(Kind::DbCluster, "orders"))
        .await
        .remove(0);
    let for_shop = token(session.clone(), EAST, &shop, "alice").await;
    log_in(&fixture, &shop, "alice", &for_shop).await.unwrap();
    let for_orders = token(session, EAST, &orders, "alice").await;
    log_in(&fixture, &orders, "alice", &for_orders)
        .await
        .unwrap_err();
    let why = sim.logins().pop().unwrap().why.unwrap();
    assert!(
        why.contains("assumed-role/access/it may not rds-db:connect"),
        "{why}"
    );

    // Of another account: its policies do not matter.
    let away = fixture.assume(worker(), crate::ACCESS).await;
    let for_shop = token(away, EAST, &shop, "alice").await;
    log_in(&fixture, &shop, "alice", &for_shop)
        .await
        .unwrap_err();
    assert!(sim.logins().pop().unwrap().why.unwrap().contains(AWAY));
    sim.stop().await;
}

#[tokio::test]
async fn a_proxy_refuses_in_words_of_its_own() {
    let fixture = Fixture::whole(kinds()).await;
    let sim = &fixture.sim;
    let gateway = cluster_id(HOME, "gateway");
    let at = sim
        .endpoints_of(&home(Kind::DbProxy, "gateway"))
        .await
        .remove(0);
    let good = token(worker(), EAST, &at, "alice").await;
    let refused = log_in(&fixture, &at, "alice", "secret").await.unwrap_err();
    assert!(
        refused.contains("The IAM authentication failed for the role alice."),
        "{refused}"
    );
    let refused = log_in(&fixture, &at, "carol", &good).await.unwrap_err();
    assert!(
        refused.contains("This RDS proxy has no credentials for the role carol."),
        "{refused}"
    );

    let with = |iam_auth: &str| DbProxy {
        target: Some("orders".to_owned()),
        iam_auth: iam_auth.to_owned(),
        ..DbProxy::default()
    };
    sim.put(&gateway, with("DISABLED")).await.unwrap();
    let refused = log_in(&fixture, &at, "alice", &good).await.unwrap_err();
    assert!(refused.contains("The password that was provided for the role alice is wrong."));
    sim.put(&gateway, with("REQUIRED")).await.unwrap();
    let stopped = DbCluster {
        status: "stopped".to_owned(),
        db_users: ["alice".to_owned()].into(),
        ..DbCluster::default()
    };
    sim.put(&cluster_id(HOME, "orders"), stopped).await.unwrap();
    let refused = log_in(&fixture, &at, "alice", &good).await.unwrap_err();
    assert!(
        refused.contains("Timed-out waiting to acquire database connection"),
        "{refused}"
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_workgroup_takes_its_iam_identities_at_all_its_endpoints() {
    let mut world = world();
    let etl = Workgroup {
        auth: AuthCode::Md5,
        vpc_endpoints: [("private".to_owned(), VpcEndpoint::default())].into(),
        ..Workgroup::default()
    };
    world.put(&cluster_id(HOME, "etl"), etl);
    let clusters = Cluster {
        vpc_endpoints: [("bi".to_owned(), VpcEndpoint::default())].into(),
        ..Cluster::default()
    };
    // A cluster of the same name is somewhere else.
    world.put_cluster(&cluster_id(HOME, "etl"), clusters);
    let fixture = Fixture::whole(world).await;
    let sim = &fixture.sim;
    let client = fixture.serverless();
    let request = client
        .get_credentials()
        .workgroup_name("etl")
        .db_name("dev");
    let given = request.send().await.unwrap();
    let (user, password) = (given.db_user().unwrap(), given.db_password().unwrap());
    assert_eq!(user, "IAM:worker");
    let etl = home(Kind::Workgroup, "etl");
    let endpoints = sim.endpoints_of(&etl).await;
    assert_eq!(endpoints.len(), 2);
    assert_eq!(
        endpoints[0].host,
        "etl.111111111111.us-east-1.redshift-serverless.amazonaws.com"
    );
    for endpoint in &endpoints {
        let psql = psql(&fixture, endpoint, user, password, "dev");
        assert_eq!(
            run(psql, "SELECT current_user").await.as_deref(),
            Ok("IAM:worker")
        );
    }
    let cluster = sim.endpoints_of(&home(Kind::Cluster, "etl")).await;
    assert_eq!(cluster.len(), 2);
    let psql_there = psql(&fixture, &cluster[0], user, password, "dev");
    assert!(run(psql_there, "SELECT 1").await.is_err());

    let absent = client
        .get_credentials()
        .workgroup_name("none")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        absent.into_service_error().meta().code(),
        Some("ResourceNotFoundException")
    );
    sim.advance_clock(TOKEN_IS_OVER);
    let psql_late = psql(&fixture, &endpoints[0], user, password, "dev");
    assert!(
        run(psql_late, "SELECT 1")
            .await
            .unwrap_err()
            .contains("authentication failed")
    );
    sim.remove_workgroup(&cluster_id(HOME, "etl"))
        .await
        .unwrap();
    assert!(sim.endpoints_of(&etl).await.is_empty());
    let hosts = std::fs::read_to_string(sim.hosts_file()).unwrap();
    assert!(!hosts.contains("redshift-serverless"));
    sim.stop().await;
}

#[tokio::test]
async fn certificates_and_addresses_change_while_a_front_runs() {
    let fixture = Fixture::whole(kinds()).await;
    let sim = &fixture.sim;
    let of = home(Kind::DbInstance, "shop");
    let shop = sim.endpoints_of(&of).await.remove(0);
    let token = token(worker(), EAST, &shop, "alice").await;
    log_in(&fixture, &shop, "alice", &token).await.unwrap();
    let unknown_ca = Certificate {
        unknown_ca: true,
        ..Certificate::default()
    };
    let other_host = Certificate {
        host: Some("db.example.com".to_owned()),
        ..Certificate::default()
    };
    for (certificate, says) in [
        (Certificate::with_days(-1), "certificate verify failed"),
        (other_host, "does not match host name"),
        (unknown_ca, "certificate verify failed"),
    ] {
        sim.show_certificate(&of, &certificate).await.unwrap();
        let refused = log_in(&fixture, &shop, "alice", &token).await.unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
    let other_ca = Certificate {
        other_ca: true,
        ..Certificate::default()
    };
    for certificate in [Certificate::with_days(3), other_ca] {
        sim.show_certificate(&of, &certificate).await.unwrap();
        log_in(&fixture, &shop, "alice", &token).await.unwrap();
    }

    let moved = sim.readdress(&of).await.unwrap().remove(0);
    assert_eq!(moved.host, shop.host);
    assert_ne!(moved.address, shop.address);
    assert!(
        log_in(&fixture, &shop, "alice", &token)
            .await
            .unwrap_err()
            .contains("refused")
    );
    log_in(&fixture, &moved, "alice", &token).await.unwrap();
    let hosts = std::fs::read_to_string(sim.hosts_file()).unwrap();
    assert!(hosts.contains(&format!("{} {}\n", moved.address, moved.host)));
    sim.stop().await;
}

#[tokio::test]
async fn fronts_go_silent_refuse_tls_and_lose_their_names_when_told_to() {
    let fixture = Fixture::whole(kinds()).await;
    let sim = &fixture.sim;
    let of = home(Kind::DbInstance, "shop");
    let shop = sim.endpoints_of(&of).await.remove(0);
    let token = token(worker(), EAST, &shop, "alice").await;
    let log_in = || log_in(&fixture, &shop, "alice", &token);
    sim.behave(&of, Manner::WithoutTls).await.unwrap();
    assert!(
        log_in()
            .await
            .unwrap_err()
            .contains("server does not support SSL")
    );
    sim.behave(&of, Manner::Reset).await.unwrap();
    assert!(log_in().await.is_err());
    sim.behave(&of, Manner::Silent).await.unwrap();
    let waited = tokio::time::timeout(std::time::Duration::from_millis(300), log_in()).await;
    assert!(waited.is_err(), "{waited:?}");
    sim.behave(&of, Manner::Slow { ms: 1 }).await.unwrap();
    log_in().await.unwrap();

    let names = || std::fs::read_to_string(sim.hosts_file()).unwrap();
    sim.set_named(&of, false).await.unwrap();
    assert!(!names().contains(&shop.host));
    sim.set_named(&of, true).await.unwrap();
    assert!(names().contains(&shop.host));
    sim.set_status_of(&of, "stopped").await.unwrap();
    assert!(log_in().await.unwrap_err().contains("refused"));
    sim.set_status_of(&of, "available").await.unwrap();
    log_in().await.unwrap();
    sim.stop().await;
}

#[tokio::test]
async fn a_renamed_cluster_keeps_its_data_its_ids_and_what_refers_to_it() {
    let fixture = Fixture::whole(kinds()).await;
    let sim = &fixture.sim;
    let orders = home(Kind::DbCluster, "orders");
    let before = sim.endpoints_of(&orders).await.remove(0);
    let seed = "CREATE TABLE t AS SELECT 42 AS n; GRANT SELECT ON t TO alice";
    sim.sql_of(&orders, None, seed).await.unwrap();
    let ids = async || {
        let answer = fixture.rds().describe_db_clusters().send().await.unwrap();
        let all = answer.db_clusters.unwrap_or_default().into_iter();
        all.filter(|it| it.engine() == Some("aurora-postgresql"))
            .map(|it| it.db_cluster_resource_id.unwrap())
            .collect::<Vec<_>>()
    };
    let id = ids().await;
    let after = sim.rename(&orders, "bookings").await.unwrap();
    assert_eq!(after.len(), 3);
    assert_eq!(ids().await, id);
    assert!(sim.endpoints_of(&orders).await.is_empty());
    let bookings = sim
        .endpoints_of(&home(Kind::DbCluster, "bookings"))
        .await
        .remove(0);
    assert_ne!(bookings.host, before.host);
    let gateway = sim
        .endpoints_of(&home(Kind::DbProxy, "gateway"))
        .await
        .remove(0);
    for endpoint in [&bookings, &gateway] {
        let token = token(worker(), EAST, endpoint, "alice").await;
        let psql = psql(&fixture, endpoint, "alice", &token, "postgres");
        assert_eq!(run(psql, "SELECT n FROM t").await.as_deref(), Ok("42"));
    }
    assert!(
        sim.rename(&home(Kind::DbCluster, "bookings"), "ledger")
            .await
            .is_err()
    );
    assert!(
        sim.rename(&home(Kind::DbProxy, "gateway"), "door")
            .await
            .is_err()
    );
    sim.stop().await;
}
