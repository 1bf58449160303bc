//! `tgctl discovery`, and the resource behind it.

mod plan;

use std::{fs, process::Stdio, time::Duration};

use tidegate_proto::v1;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::{Cluster, database};

const ORDERS: &str = "arn:aws:redshift:us-east-1:111122223333:cluster:orders";

fn scope(id: &str, region: &str) -> v1::ScopeStatus {
    v1::ScopeStatus {
        scope: Some(v1::ScanScope {
            id: id.to_owned(),
            group: "prod".to_owned(),
            kind: "redshift".to_owned(),
            region: region.to_owned(),
            assume_role: Some(v1::AssumeRole {
                role_arn: "arn:aws:iam::111122223333:role/discovery".to_owned(),
                external_id: String::new(),
            }),
            tags: Some(v1::Selector {
                labels: [(
                    "env".to_owned(),
                    v1::LabelValues {
                        values: vec!["prod".to_owned()],
                    },
                )]
                .into(),
            }),
            ..v1::ScanScope::default()
        }),
        held_by: "worker-1".to_owned(),
        last_success: Some(prost_types::Timestamp {
            seconds: 4_000_000_000,
            nanos: 0,
        }),
        databases: 2,
        ..v1::ScopeStatus::default()
    }
}

fn failing(mut scope: v1::ScopeStatus) -> v1::ScopeStatus {
    scope.failure = Some(v1::ScanFailure {
        class: "access_denied".to_owned(),
        aws_code: "AccessDenied".to_owned(),
        action: "redshift:DescribeClusters".to_owned(),
        message: "not allowed to call redshift:DescribeClusters".to_owned(),
    });
    scope
}

fn discovering() -> Cluster {
    let cluster = Cluster::new();
    cluster.fake.state().scopes = vec![scope("s-east", "us-east-1"), scope("s-west", "us-west-2")];
    cluster
}

#[tokio::test]
async fn status_has_a_line_a_scope_and_says_who_must_act() {
    let cluster = discovering();
    assert_eq!(
        cluster.prints(&["discovery", "status", "--check"]).await,
        "\
Group  Type      Region     Account/Role            Databases  Last Success  Held By   State
-----  --------  ---------  ----------------------  ---------  ------------  --------  -----
prod   redshift  us-east-1  111122223333/discovery  2          now           worker-1  ok
prod   redshift  us-west-2  111122223333/discovery  2          now           worker-1  ok
"
    );
    cluster.fake.state().scopes[1] = failing(scope("s-west", "us-west-2"));
    let text = cluster.prints(&["discovery", "status"]).await;
    assert!(
        text.contains("  failed access_denied (AccessDenied)\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "missing permission: redshift:DescribeClusters for arn:aws:iam::111122223333:role/discovery\n"
        ),
        "{text}"
    );
    let json = cluster
        .prints(&["discovery", "status", "--format=json"])
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[1]["state"], "failed");
    assert_eq!(json[1]["failure"]["action"], "redshift:DescribeClusters");
    let verbose = cluster.prints(&["discovery", "status", "-v"]).await;
    assert!(verbose.contains("s-west\n"), "{verbose}");
}

#[tokio::test]
async fn every_page_of_scopes_is_shown_and_what_they_left_out() {
    let cluster = Cluster::new();
    let regions = [
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
        "eu-west-1",
    ];
    let mut scopes: Vec<v1::ScopeStatus> = regions
        .iter()
        .map(|region| scope(&format!("s-{region}"), region))
        .collect();
    scopes[4].left_out = vec![v1::LeftOut {
        reason: "MariaDB before 10.6 has no IAM".to_owned(),
        count: 2,
    }];
    cluster.fake.state().scopes = scopes;
    let text = cluster.prints(&["discovery", "status"]).await;
    assert_eq!(text.matches("prod   redshift  ").count(), 5, "{text}");
    assert!(
        text.ends_with("  left out 2 databases: MariaDB before 10.6 has no IAM\n"),
        "{text}"
    );
    let json = cluster
        .prints(&["discovery", "status", "--format=json"])
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 5);
    assert_eq!(json[0]["left_out"][0]["count"], 2);
}

#[tokio::test]
async fn a_check_ends_with_3_when_a_scope_fails_and_still_prints() {
    let cluster = discovering();
    cluster.fake.state().scopes[1] = failing(scope("s-west", "us-west-2"));
    let output = cluster.run(&["discovery", "status", "--check"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("failed access_denied")
    );
}

#[tokio::test]
async fn without_scopes_it_is_said_how_to_get_some() {
    let cluster = Cluster::new();
    let output = cluster.run(&["discovery", "status"]).await;
    assert!(output.status.success());
    let remark = String::from_utf8(output.stderr).unwrap();
    assert!(remark.contains("discovery_service"), "{remark}");
}

#[tokio::test]
async fn a_watched_status_shows_changes_until_interrupted() {
    let cluster = discovering();
    let mut watching = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("--data-dir")
        .arg(cluster.dir.path())
        .args(["discovery", "status", "--watch"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.ends_with("ok") {
                cluster.fake.state().scopes[0] = failing(scope("s-east", "us-east-1"));
            }
            seen.push_str(&line);
            if line.contains("missing permission") {
                return true;
            }
        }
        false
    });
    assert!(found.await.unwrap(), "{seen}");
    let pid = watching.id().unwrap().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(killed.unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(60), watching.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_rescan_asks_for_all_scopes_or_for_these() {
    let cluster = discovering();
    assert_eq!(
        cluster.prints(&["discovery", "rescan"]).await,
        "Asked for a scan of 2 scopes now.\n"
    );
    assert_eq!(
        cluster.prints(&["discovery", "rescan", "s-west"]).await,
        "Asked for a scan of 1 scope now.\n"
    );
    assert_eq!(
        cluster.fake.state().rescans,
        [vec![], vec!["s-west".to_owned()]]
    );
    let output = cluster.run(&["discovery", "rescan", "s-north"]).await;
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("No live worker holds such a scope")
    );
}

#[tokio::test]
async fn a_group_that_nobody_names_is_adopted_and_another_is_not() {
    let cluster = discovering();
    let adopt = ["discovery", "adopt", "--from=prod", "--to=production"];
    let (code, errors) = cluster.fails(&adopt).await;
    assert_eq!(code, 1);
    assert_eq!(
        errors,
        "ERROR: could not hand over the databases of group `prod`: live workers name group `prod`\n"
    );
    for scope in &mut cluster.fake.state().scopes {
        scope.held_by.clear();
    }
    assert_eq!(
        cluster.prints(&adopt).await,
        "4 databases of group \"prod\" went to group \"production\".\n"
    );
    let same = ["discovery", "adopt", "--from=a", "--to=a"];
    assert_eq!(cluster.fails(&same).await.0, 2);
}

fn with_orders(cluster: &Cluster) {
    let name = "orders-redshift-us-east-1-111122223333";
    let mut orders = database(name, "prod");
    orders.identity = ORDERS.to_owned();
    orders.scope_id = "s-east".to_owned();
    for (key, value) in [("region", "us-east-1"), ("account-id", "111122223333")] {
        orders.labels.insert(key.to_owned(), value.to_owned());
    }
    orders.aws = Some(v1::AwsMetadata {
        region: "us-east-1".to_owned(),
        account_id: "111122223333".to_owned(),
        redshift_cluster_id: "orders".to_owned(),
        ..v1::AwsMetadata::default()
    });
    cluster
        .fake
        .state()
        .databases
        .insert(name.to_owned(), orders);
}

#[tokio::test]
async fn a_database_is_explained_by_name_and_by_arn() {
    let cluster = discovering();
    with_orders(&cluster);
    let by_name = cluster
        .prints(&["discovery", "explain", "orders-redshift-us-e"])
        .await;
    assert!(by_name.contains("Identity  arn:aws:redshift"), "{by_name}");
    assert!(
        by_name.contains("configuration file  owns it\n"),
        "{by_name}"
    );
    assert!(
        by_name.contains("region: looks for us-west-2, it is us-east-1\n"),
        "{by_name}"
    );
    assert_eq!(
        cluster.prints(&["discovery", "explain", ORDERS]).await,
        by_name
    );
    let json = cluster
        .prints(&["discovery", "explain", ORDERS, "--format=json"])
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["database"]["owner"], "s-east");
    assert_eq!(json["scopes"][0]["verdict"], "owns");
    assert_eq!(json["scopes"][1]["clauses"][1]["outcome"], "fails");
    assert_eq!(json["name"]["given"]["rule"], "usual");
}

#[tokio::test]
async fn what_was_never_found_is_explained_too() {
    let cluster = discovering();
    let arn = ORDERS.replace("orders", "new");
    let text = cluster.prints(&["discovery", "explain", &arn]).await;
    assert!(
        text.starts_with("The inventory has no database arn:"),
        "{text}"
    );
    assert!(
        text.contains("may match (tags are not known), but its last scan did not find it"),
        "{text}"
    );
    assert_eq!(cluster.fails(&["discovery", "explain", "arn:x"]).await.0, 2);
}

#[tokio::test]
async fn a_discovery_config_is_created_shown_and_removed() {
    let cluster = discovering();
    let file = cluster.dir.path().join("team.yaml");
    let text = "\
kind: discovery_config
version: v1
metadata: {name: team}
spec:
  discovery_group: prod
  aws:
  - types: [redshift]
    regions: ['*']
    tags: {env: prod}
    assume_role: {role_arn: 'arn:aws:iam::111122223333:role/discovery'}
";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let created = "Discovery configuration \"team\" has been created.\n";
    assert_eq!(cluster.prints(&["create", file]).await, created);
    let (code, errors) = cluster.fails(&["create", file]).await;
    assert_eq!(code, 1);
    assert!(
        errors.contains("already\n  hint: `tgctl create -f"),
        "{errors}"
    );
    assert_eq!(cluster.prints(&["create", "-f", file]).await, created);
    {
        let mut state = cluster.fake.state();
        if let Some(scope) = &mut state.scopes[0].scope {
            scope.config = "team".to_owned();
        }
        assert_eq!(state.configs["team"].aws[0].regions, ["*"]);
    }
    assert_eq!(
        cluster
            .prints(&["get", "discovery_config", "--format=text"])
            .await,
        "\
Name  Group  Matchers  Databases  State
----  -----  --------  ---------  -------
team  prod   1         2          running
"
    );
    let json = cluster
        .prints(&["get", "discovery_config/team", "--format=json"])
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["spec"]["aws"][0]["tags"]["env"][0], "prod");
    assert_eq!(json[0]["status"]["state"], "DISCOVERY_CONFIG_STATE_RUNNING");
    assert_eq!(
        cluster.prints(&["rm", "discovery_config/team"]).await,
        "Discovery configuration \"team\" has been removed.\n"
    );
    assert_eq!(cluster.fails(&["get", "discovery_config/team"]).await.0, 1);
    assert_eq!(cluster.fails(&["rm", "discovery_config/team"]).await.0, 1);
}

#[tokio::test]
async fn a_region_that_nobody_knows_is_a_warning_with_its_line() {
    let cluster = Cluster::new();
    let file = cluster.dir.path().join("team.yaml");
    let text = "\
---
kind: discovery_config
version: v1
metadata: {name: team}
spec:
  discovery_group: prod
  aws: [{types: [rds], regions: [us-eats-1]}]
";
    fs::write(&file, text).unwrap();
    let output = cluster.run(&["create", file.to_str().unwrap()]).await;
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "{}:7: warning: spec.aws[0].regions[0]: `us-eats-1` is not a region that this version knows, did you mean `us-east-1`?\n",
            file.display()
        )
    );
}
