//! Log-ins to RDS for MariaDB and MySQL with the stock client, and passwords that the AWS SDK signed.

use std::process::Stdio;

use awssim::{DbInstance, DbProxy, Endpoint, IdentityPolicy, Kind, ResourceId, World};
use tokio::process::Command;

use crate::kinds::token;
use crate::{EAST, Fixture, HOME, cluster_id, worker, world};

fn shop() -> World {
    let mut world = world();
    let connect = IdentityPolicy::allow(
        ["rds-db:connect"],
        ["arn:aws:rds-db:us-east-1:111111111111:dbuser:*/alice"],
    );
    let worker = world.account(HOME).users.get_mut("worker").unwrap();
    worker.policies.push(connect);
    world.put(
        &cluster_id(HOME, "shop"),
        DbInstance {
            db_users: ["alice".to_owned(), "bob".to_owned()].into(),
            db_name: Some("sales".to_owned()),
            ..DbInstance::with("mariadb", [])
        },
    );
    world
}

async fn mariadb(
    at: &Endpoint,
    user: &str,
    password: &str,
    tls: bool,
    sql: &str,
) -> Result<String, String> {
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--batch", "--skip-column-names"])
        .arg(format!("--host={}", at.address))
        .arg(format!("--port={}", at.port))
        .arg(format!("--user={user}"))
        .arg(if tls { "--ssl" } else { "--skip-ssl" })
        .args(["--execute", sql, "sales"])
        .env("MYSQL_PWD", password)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

#[tokio::test]
async fn a_token_opens_a_mariadb_and_everything_else_is_denied_in_its_words() {
    let fixture = Fixture::whole(shop()).await;
    let of = ResourceId::new(Kind::DbInstance, &cluster_id(HOME, "shop"));
    let at = fixture.sim.endpoints_of(&of).await.remove(0);
    let seed = "CREATE TABLE t AS SELECT 42 AS n";
    fixture.sim.sql_of(&of, None, seed).await.unwrap();

    let good = token(worker(), EAST, &at, "alice").await;
    let rows = mariadb(
        &at,
        "alice",
        &good,
        true,
        "SELECT n, substring_index(current_user(), '@', 1) FROM t",
    )
    .await;
    assert_eq!(rows.as_deref(), Ok("42\talice"));

    let for_bob = token(worker(), EAST, &at, "bob").await;
    for (user, password, tls) in [
        ("alice", "wrong", true),
        ("bob", for_bob.as_str(), true),
        ("alice", for_bob.as_str(), true),
        ("nobody", good.as_str(), true),
        ("alice", good.as_str(), false),
    ] {
        let denied = mariadb(&at, user, password, tls, "SELECT 1")
            .await
            .unwrap_err();
        assert!(denied.contains("ERROR 1045 (28000)"), "{user}: {denied}");
    }
    let logins = fixture.sim.logins();
    assert!(
        logins
            .iter()
            .any(|login| login.refused.is_none() && login.tls && login.database == "sales")
    );
    let rows = fixture
        .sim
        .sql_of(&of, None, "SELECT n FROM t")
        .await
        .unwrap();
    assert_eq!(rows, [[Some("42".to_owned())]]);
}

#[tokio::test]
async fn a_proxy_takes_tokens_for_itself_over_tls_and_refuses_in_words_of_its_own() {
    let mut world = shop();
    let gateway = |iam_auth: &str| DbProxy {
        engine_family: "MYSQL".to_owned(),
        iam_auth: iam_auth.to_owned(),
        target: Some("shop".to_owned()),
        ..DbProxy::default()
    };
    world.put(&cluster_id(HOME, "gateway"), gateway("REQUIRED"));
    world.put(&cluster_id(HOME, "passwords"), gateway("DISABLED"));
    let fixture = Fixture::whole(world).await;
    let at = async |kind, name: &str| {
        let of = ResourceId::new(kind, &cluster_id(HOME, name));
        fixture.sim.endpoints_of(&of).await.remove(0)
    };
    let shop = at(Kind::DbInstance, "shop").await;
    let gateway = at(Kind::DbProxy, "gateway").await;
    let passwords = at(Kind::DbProxy, "passwords").await;

    let good = token(worker(), EAST, &gateway, "alice").await;
    let who = "SELECT substring_index(current_user(), '@', 1)";
    let rows = mariadb(&gateway, "alice", &good, true, who).await;
    assert_eq!(rows.as_deref(), Ok("alice"));

    let for_shop = token(worker(), EAST, &shop, "alice").await;
    let unasked = token(worker(), EAST, &passwords, "alice").await;
    for (at, user, password, tls, words) in [
        (&gateway, "alice", &for_shop, true, "ERROR 1045 (28000)"),
        (&gateway, "carol", &good, true, "ERROR 1045 (28000)"),
        (&gateway, "alice", &good, false, "ERROR 3159 (HY000)"),
        (&passwords, "alice", &unasked, true, "ERROR 1045 (28000)"),
    ] {
        let refused = mariadb(at, user, password, tls, who).await.unwrap_err();
        assert!(refused.contains(words), "{user}: {refused}");
    }
    let stopped = DbInstance {
        status: "stopped".to_owned(),
        db_users: ["alice".to_owned()].into(),
        ..DbInstance::with("mariadb", [])
    };
    let put = fixture.sim.put(&cluster_id(HOME, "shop"), stopped).await;
    put.unwrap();
    let refused = mariadb(&gateway, "alice", &good, true, who).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("ERROR 9501 (HY000)"), "{refused}");
}
