//! `tgctl discovery plan`: what is asked, what is printed, and how it ends.

use std::{fs, process::Stdio};

use tidegate_core::{AwsMatcher, DatabaseKind, EndpointFilter, Regions, ScanScope, Selector};
use tidegate_proto::v1::{self, plan_discovery_request::Frame as Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{Cluster, database};

const SERVICE: &str = "\
discovery_service:
  enabled: yes
  discovery_group: prod
  aws:
  - types: [redshift]
    regions: [us-east-1]
    tags: {env: prod}
";

fn scope_of(regions: Regions, env: &str) -> Vec<v1::ScanScope> {
    let matcher = AwsMatcher {
        types: vec![DatabaseKind::Redshift],
        regions,
        tags: Selector::new([("env", [env])]).unwrap(),
        endpoints: EndpointFilter::default(),
        assume_role: None,
    };
    let scopes = ScanScope::expand("prod", None, &[matcher], |_| Vec::new());
    scopes.iter().map(v1::ScanScope::from).collect()
}

fn scope(env: &str) -> v1::ScanScope {
    scope_of(Regions::These(vec!["us-east-1".parse().unwrap()]), env).remove(0)
}

fn owned(name: &str, env: &str, owner: &v1::ScanScope) -> v1::Database {
    let mut owned = database(name, env);
    owned.identity = format!("arn:aws:redshift:us-east-1:111122223333:cluster:{name}");
    owned.scope_id.clone_from(&owner.id);
    owned.aws = Some(v1::AwsMetadata {
        region: "us-east-1".to_owned(),
        account_id: "111122223333".to_owned(),
        ..v1::AwsMetadata::default()
    });
    owned
}

/// A cluster whose plan has one database of each fate.
fn planning() -> (Cluster, String) {
    let cluster = Cluster::new();
    let (old, new) = (scope("dev"), scope("prod"));
    let change = |action: v1::PlanAction, before, after| v1::PlannedChange {
        action: action.into(),
        before,
        after,
    };
    let kept = owned("kept", "prod", &new);
    {
        let mut state = cluster.fake.state();
        state.scopes = vec![v1::ScopeStatus {
            scope: Some(old.clone()),
            ..v1::ScopeStatus::default()
        }];
        state.plan = vec![
            change(
                v1::PlanAction::Add,
                None,
                Some(owned("added", "prod", &new)),
            ),
            change(
                v1::PlanAction::Change,
                Some(owned("changed", "dev", &old)),
                Some(owned("changed", "prod", &new)),
            ),
            change(v1::PlanAction::Keep, Some(kept.clone()), Some(kept)),
            change(
                v1::PlanAction::Remove,
                Some(owned("gone", "dev", &old)),
                None,
            ),
        ];
        state.plan_summary = v1::PlanSummary {
            added: 1,
            kept: 1,
            changed: 1,
            removed: 1,
            retired_scopes: 1,
            ..v1::PlanSummary::default()
        };
    }
    let file = write(&cluster, "new.yaml", SERVICE);
    (cluster, file)
}

fn write(cluster: &Cluster, name: &str, text: &str) -> String {
    let file = cluster.dir.path().join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn plan<'a>(file: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["discovery", "plan", "-f", file];
    arguments.extend(rest);
    arguments
}

const LINES: &str = "
  + added  redshift in us-east-1, own identity, env=prod
  ~ changed  env: \"dev\" -> \"prod\"; owner: redshift in us-east-1, own identity, env=dev -> redshift in us-east-1, own identity, env=prod
  - gone  redshift in us-east-1, own identity, env=prod: tags: looks for env=prod, it has env=dev

1 to add, 1 to change, 1 to remove; 1 stays as it is.
1 scope is no longer named: it ends after its time of grace, and what it owned goes then.
";

#[tokio::test]
async fn a_plan_is_a_line_a_database_and_the_counts() {
    let (cluster, file) = planning();
    let heading = "for group prod, over the recorded inventory (--live looks at AWS itself):";
    assert_eq!(
        cluster.prints(&plan(&file, &[])).await,
        format!("{file}, {heading}\n{LINES}")
    );
    let verbose = cluster.prints(&plan(&file, &["-v"])).await;
    assert!(verbose.contains("it has env=dev\n    kept\n"), "{verbose}");
}

#[tokio::test]
async fn the_recorded_inventory_is_asked_with_the_files_scopes() {
    let (cluster, file) = planning();
    cluster.prints(&plan(&file, &["--group=stage"])).await;
    let asked = cluster.fake.state().planned.clone();
    let frames: Vec<Request> = asked.into_iter().filter_map(|asked| asked.frame).collect();
    let [
        Request::Header(header),
        Request::Scope(planned),
        Request::Trailer(trailer),
    ] = frames.as_slice()
    else {
        panic!("{frames:?}");
    };
    assert_eq!((header.group.as_str(), header.recorded), ("stage", true));
    let planned = planned.scope.clone().unwrap();
    assert_eq!(
        (planned.group.as_str(), planned.region.as_str()),
        ("stage", "us-east-1")
    );
    assert_eq!(trailer.items, 0);
}

#[tokio::test]
async fn programs_read_what_changes_and_why() {
    let (cluster, file) = planning();
    let json = cluster.prints(&plan(&file, &["--format=json"])).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["group"], &json["source"]),
        (&"prod".into(), &"recorded".into())
    );
    assert_eq!(
        json["summary"],
        serde_json::json!({
            "added": 1, "changed": 1, "removed": 1, "kept": 1, "held": 0, "shadowed": 0,
            "unjudged": 0, "retired_scopes": 1, "partial_scopes": 0, "complete": true
        })
    );
    let changes = json["changes"].as_array().unwrap().iter();
    let actions: Vec<_> = changes.map(|change| change["action"].clone()).collect();
    assert_eq!(actions, ["add", "change", "remove"]);
    assert_eq!(json["changes"][1]["differences"][0]["field"], "labels.env");
    assert_eq!(json["changes"][2]["owner_before"], scope("dev").id);
    assert_eq!(json["changes"][0]["after"]["metadata"]["name"], "added");
    let yaml = cluster.prints(&plan(&file, &["--format=yaml"])).await;
    assert!(
        yaml.starts_with("group: prod\nsource: recorded\n"),
        "{yaml}"
    );
}

#[tokio::test]
async fn ci_is_told_by_the_exit_code() {
    let (cluster, file) = planning();
    let code = async |rest: &[&str]| cluster.run(&plan(&file, rest)).await.status.code();
    assert_eq!(code(&[]).await, Some(0));
    assert_eq!(code(&["--fail-on=change"]).await, Some(3));
    assert_eq!(code(&["--fail-on=remove"]).await, Some(3));
    cluster.fake.state().plan_summary.removed = 0;
    assert_eq!(code(&["--fail-on=change"]).await, Some(3));
    assert_eq!(code(&["--fail-on=remove"]).await, Some(0));
    {
        let mut state = cluster.fake.state();
        state.plan = Vec::new();
        state.plan_summary = v1::PlanSummary {
            partial_scopes: 1,
            ..v1::PlanSummary::default()
        };
    }
    assert_eq!(code(&[]).await, Some(0));
    let unseen = cluster.run(&plan(&file, &["--fail-on=remove"])).await;
    assert_eq!(unseen.status.code(), Some(4));
    assert_eq!(String::from_utf8(unseen.stderr).unwrap(), "");
    let told = String::from_utf8(unseen.stdout).unwrap();
    assert!(told.contains("plan with --live"), "{told}");
    assert_eq!(code(&["--fail-on=never"]).await, Some(2));
}

#[tokio::test]
async fn a_file_that_cannot_be_planned_is_refused_with_its_line() {
    let (cluster, _) = planning();
    for (text, problem) in [
        (SERVICE.replace("redshift", "redshft"), "bad.yaml:5:"),
        (
            "db_service: {enabled: yes}\n".to_owned(),
            "has no `discovery_service`",
        ),
        (
            "discovery_service: {enabled: yes, discovery_group: prod}\n".to_owned(),
            "has no matchers to plan",
        ),
    ] {
        let file = write(&cluster, "bad.yaml", &text);
        let (code, errors) = cluster.fails(&plan(&file, &["--fail-on=change"])).await;
        assert_eq!(code, 1, "{errors}");
        assert!(errors.contains(problem), "{errors}");
    }
    assert_eq!(cluster.fails(&plan("/nonexistent", &[])).await.0, 1);
    assert!(cluster.fake.state().planned.is_empty());
}

#[tokio::test]
async fn a_resource_is_planned_from_standard_input() {
    let (cluster, _) = planning();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("--data-dir")
        .arg(cluster.dir.path())
        .args(["discovery", "plan", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let resource = "\
kind: discovery_config
version: v1
metadata: {name: team}
spec:
  discovery_group: prod
  aws: [{types: [redshift], regions: ['*']}]
";
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(resource.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.starts_with("standard input, for discovery_config team of group prod,"),
        "{told}"
    );
    let asked = cluster.fake.state().planned.clone();
    let Some(Request::Header(header)) = asked[0].frame.clone() else {
        panic!("{asked:?}");
    };
    assert_eq!(header.config, "team");
    let Some(Request::Scope(planned)) = asked[1].frame.clone() else {
        panic!("{asked:?}");
    };
    assert_eq!(
        planned.scope.unwrap().region,
        "us-east-1",
        "where the group looks now"
    );
}

/// Answers as Redshift does in an account with one cluster, and denies everything else.
async fn aws() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    endpoint
}

async fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    loop {
        let mut some = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut some).await else {
            return;
        };
        request.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap_or("0");
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        if body.len() >= length {
            let (status, text) = if body.contains("Action=DescribeClusters") {
                ("200 OK", CLUSTERS)
            } else if body.contains("Action=DescribeEndpointAccess") {
                ("200 OK", NO_ENDPOINTS)
            } else {
                ("403 Forbidden", DENIED)
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            return;
        }
    }
}

const DENIED: &str = r#"{"__type": "AccessDeniedException", "message": "no"}"#;
const NO_ENDPOINTS: &str = "\
<DescribeEndpointAccessResponse xmlns=\"http://redshift.amazonaws.com/doc/2012-12-01/\"><DescribeEndpointAccessResult>\
<EndpointAccessList/></DescribeEndpointAccessResult></DescribeEndpointAccessResponse>";
const CLUSTERS: &str = "\
<DescribeClustersResponse xmlns=\"http://redshift.amazonaws.com/doc/2012-12-01/\"><DescribeClustersResult><Clusters><Cluster>\
<ClusterIdentifier>orders</ClusterIdentifier><ClusterStatus>available</ClusterStatus>\
<ClusterNamespaceArn>arn:aws:redshift:us-east-1:111122223333:namespace:0a1b2c3d-0000-4000-8000-000000000001</ClusterNamespaceArn>\
<Endpoint><Address>orders.abc.us-east-1.redshift.amazonaws.com</Address><Port>5439</Port></Endpoint>\
<Tags><Tag><Key>env</Key><Value>prod</Value></Tag></Tags>\
</Cluster></Clusters></DescribeClustersResult></DescribeClustersResponse>";

#[tokio::test]
async fn a_live_plan_looks_at_aws_with_the_callers_credentials() {
    let (cluster, _) = planning();
    let other_kind = "  - {types: [redshift-serverless], regions: [us-east-1]}\n";
    let file = write(&cluster, "live.yaml", &format!("{SERVICE}{other_kind}"));
    let output = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("--data-dir")
        .arg(cluster.dir.path())
        .args(plan(&file, &["--live", "--format=json"]))
        .env("AWS_ENDPOINT_URL", aws().await)
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["source"], "live");
    assert_eq!(
        json["unseen"][0]["failure"]["class"], "access_denied",
        "{json}"
    );
    assert_eq!(json["summary"]["complete"], false);
    let asked = cluster.fake.state().planned.clone();
    let frames: Vec<Request> = asked.into_iter().filter_map(|asked| asked.frame).collect();
    let [
        Request::Header(header),
        Request::Scope(redshift),
        Request::Items(items),
        Request::Scope(serverless),
        Request::Trailer(trailer),
    ] = frames.as_slice()
    else {
        panic!("{frames:?}");
    };
    assert!(!header.recorded);
    assert_eq!(redshift.scope.clone().unwrap(), scope("prod"));
    let found = items.items[0].database.clone().unwrap();
    assert_eq!(
        found.identity,
        "arn:aws:redshift:us-east-1:111122223333:cluster:orders"
    );
    assert_eq!(found.labels["env"], "prod");
    assert_eq!(serverless.completeness(), v1::Completeness::Partial);
    assert_eq!(serverless.failure.clone().unwrap().class, "access_denied");
    assert_eq!(trailer.items, 1);
}
