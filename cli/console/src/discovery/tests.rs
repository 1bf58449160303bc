//! The texts as people read them.

use jiff::Timestamp;
use tidegate_core::{
    AssumeRole, AwsMatcher, DatabaseKind, EndpointFilter, Regions, ScanScope, Selector,
};
use tidegate_proto::{convert, v1};

use super::*;
use crate::output;

const NOW: &str = "2026-11-22T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn minutes_ago(minutes: i64) -> Option<prost_types::Timestamp> {
    let at = now() - jiff::SignedDuration::from_mins(minutes);
    Some(convert::timestamp(at))
}

/// A scope of group `prod`, scanned a minute ago.
fn scope(
    kind: DatabaseKind,
    region: &str,
    account: &str,
    tags: &[(&str, &str)],
) -> v1::ScopeStatus {
    let tags = if tags.is_empty() {
        Selector::everything()
    } else {
        Selector::new(tags.iter().map(|(key, value)| (*key, [*value]))).unwrap()
    };
    let matcher = AwsMatcher {
        types: vec![kind],
        regions: Regions::These(vec![region.parse().unwrap()]),
        tags,
        endpoints: EndpointFilter::default(),
        assume_role: (!account.is_empty()).then(|| AssumeRole {
            role_arn: format!("arn:aws:iam::{account}:role/discovery")
                .parse()
                .unwrap(),
            external_id: None,
        }),
    };
    let scopes = ScanScope::expand("prod", None, &[matcher], |_| Vec::new());
    v1::ScopeStatus {
        scope: scopes.first().map(v1::ScanScope::from),
        held_by: "worker-1".to_owned(),
        epoch: 3,
        last_attempt: minutes_ago(1),
        last_success: minutes_ago(1),
        databases: 12,
        aws_calls: 2,
        left_out: Vec::new(),
        ..v1::ScopeStatus::default()
    }
}

fn id(status: &v1::ScopeStatus) -> String {
    status.scope.clone().unwrap().id
}

const A: &str = "111111111111";
const B: &str = "222222222222";
const ORDERS: &str = "arn:aws:redshift:us-east-1:111111111111:cluster:orders";

fn all() -> Vec<v1::ScopeStatus> {
    let owner = scope(DatabaseKind::Redshift, "us-east-1", A, &[("env", "prod")]);
    let shadow = v1::ScopeStatus {
        databases: 0,
        shadowed: vec![v1::ShadowedDatabase {
            identity: ORDERS.to_owned(),
            owned_by: id(&owner),
        }],
        ..scope(DatabaseKind::Redshift, "us-east-1", A, &[])
    };
    let denied = v1::ScopeStatus {
        last_success: None,
        databases: 0,
        failure: Some(v1::ScanFailure {
            class: "access_denied".to_owned(),
            aws_code: "AccessDenied".to_owned(),
            action: "redshift:DescribeClusters".to_owned(),
            message: "not allowed to call redshift:DescribeClusters".to_owned(),
        }),
        ..scope(DatabaseKind::Redshift, "us-west-2", B, &[])
    };
    let throttled = v1::ScopeStatus {
        last_success: minutes_ago(90),
        held_deletions: 7,
        failure: Some(v1::ScanFailure {
            class: "throttled".to_owned(),
            action: "rds:DescribeDBInstances".to_owned(),
            message: "throttled after 3 attempts".to_owned(),
            ..v1::ScanFailure::default()
        }),
        ..scope(DatabaseKind::Rds, "us-east-1", "", &[])
    };
    let waiting = v1::ScopeStatus {
        held_by: String::new(),
        last_attempt: None,
        last_success: None,
        databases: 0,
        ..scope(DatabaseKind::RedshiftServerless, "us-east-1", A, &[])
    };
    let retiring = v1::ScopeStatus {
        held_by: String::new(),
        databases: 1,
        retires_at: minutes_ago(-12),
        ..scope(DatabaseKind::Rdsproxy, "us-east-1", B, &[])
    };
    vec![waiting, owner, shadow, denied, throttled, retiring]
}

#[test]
fn status_shows_every_scope_and_then_what_somebody_should_know() {
    assert_eq!(
        status_text(&scopes(all()), now(), false, None),
        "\
Group  Type                 Region     Account/Role            Databases  Last Success  Held By   State
-----  -------------------  ---------  ----------------------  ---------  ------------  --------  -----------------------------------
prod   rds                  us-east-1  own identity            12         1h30m ago     worker-1  failed throttled
prod   rdsproxy             us-east-1  222222222222/discovery  1          1m ago        -         retires in 12m
prod   redshift             us-east-1  111111111111/discovery  0          1m ago        worker-1  ok
prod   redshift             us-east-1  111111111111/discovery  12         1m ago        worker-1  ok
prod   redshift             us-west-2  222222222222/discovery  0          never         worker-1  failed access_denied (AccessDenied)
prod   redshift-serverless  us-east-1  111111111111/discovery  0          never         -         never

rds in us-east-1, own identity (group prod):
  throttled after 3 attempts
  call: rds:DescribeDBInstances
  last tried 1m ago; nothing is deleted meanwhile
  7 deletions are held back until the next complete scan agrees

rdsproxy in us-east-1, 222222222222/discovery (group prod):
  no live worker names it: it goes at 2026-11-22 12:12:00 UTC, with 1 database

redshift in us-east-1, 111111111111/discovery (group prod):
  also found arn:aws:redshift:us-east-1:111111111111:cluster:orders, owned by group prod: redshift in us-east-1, 111111111111/discovery, env=prod

redshift in us-west-2, 222222222222/discovery (group prod):
  not allowed to call redshift:DescribeClusters
  missing permission: redshift:DescribeClusters for arn:aws:iam::222222222222:role/discovery
  last tried 1m ago; nothing is deleted meanwhile
"
    );
}

#[test]
fn the_ids_of_scopes_are_shown_on_request_and_in_documents() {
    let scopes = scopes(all());
    let text = status_text(&scopes, now(), true, None);
    assert!(text.contains(&id(&all()[0])), "{text}");
    let json: serde_json::Value = serde_json::from_str(&output::json(&scopes).unwrap()).unwrap();
    assert_eq!(
        json[5],
        serde_json::json!({
            "id": id(&all()[0]),
            "group": "prod",
            "type": "redshift-serverless",
            "region": "us-east-1",
            "account_id": A,
            "assume_role_arn": format!("arn:aws:iam::{A}:role/discovery"),
            "tags": {"*": ["*"]},
            "state": "never",
            "databases": 0,
            "epoch": 3,
            "aws_calls": 2,
            "held_deletions": 0,
        })
    );
    assert_eq!(json[4]["failure"]["aws_code"], "AccessDenied");
    assert_eq!(json[2]["shadowed"][0]["identity"], ORDERS);
    assert_eq!(json[1]["retires_at"], "2026-11-22T12:12:00Z");
}

#[test]
fn what_no_agent_could_serve_is_told_with_its_reason() {
    let reasons = [
        "MariaDB before 10.6",
        "no endpoint",
        "3",
        "4",
        "5",
        "6",
        "7",
    ];
    let scope = v1::ScopeStatus {
        left_out: (1..)
            .zip(reasons)
            .map(|(count, reason)| v1::LeftOut {
                reason: reason.to_owned(),
                count,
            })
            .collect(),
        ..all().remove(1)
    };
    let scopes = scopes(vec![scope]);
    let text = status_text(&scopes, now(), false, None);
    assert!(
        text.ends_with(
            "env=prod (group prod):
  left out 1 database: MariaDB before 10.6
  left out 2 databases: no endpoint
  left out 3 databases: 3
  left out 4 databases: 4
  left out 5 databases: 5
  and 13 more for other reasons
"
        ),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&output::json(&scopes).unwrap()).unwrap();
    assert_eq!(
        json[0]["left_out"][1],
        serde_json::json!({"reason": "no endpoint", "count": 2})
    );
}

#[test]
fn a_failing_hop_to_the_role_is_the_workers_to_mend() {
    let mut denied = all().remove(3);
    if let Some(failure) = &mut denied.failure {
        failure.action = "sts:AssumeRole".to_owned();
    }
    let text = status_text(&scopes(vec![denied]), now(), false, None);
    assert!(
        text.contains("missing permission: sts:AssumeRole for the worker, for arn:aws:iam::222222222222:role/discovery"),
        "{text}"
    );
}

#[test]
fn what_a_worker_reports_never_steers_a_terminal() {
    let mut denied = all().remove(3);
    if let Some(failure) = &mut denied.failure {
        failure.message = "\u{1b}[2J".to_owned();
    }
    assert!(!status_text(&scopes(vec![denied]), now(), false, None).contains('\u{1b}'));
}

fn orders() -> v1::Database {
    let labels = [
        ("account-id", A),
        ("aws/region", "moon"),
        ("endpoint-type", "cluster"),
        ("env", "prod"),
        ("region", "us-east-1"),
        ("tidegate.dev/origin", "cloud"),
    ];
    v1::Database {
        name: format!("orders-redshift-us-east-1-{A}"),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        origin: v1::Origin::Cloud.into(),
        protocol: "postgres".to_owned(),
        uri: "orders.abc.us-east-1.redshift.amazonaws.com:5439".to_owned(),
        aws: Some(v1::AwsMetadata {
            region: "us-east-1".to_owned(),
            account_id: A.to_owned(),
            redshift_cluster_id: "orders".to_owned(),
            ..v1::AwsMetadata::default()
        }),
        kind: "redshift".to_owned(),
        identity: ORDERS.to_owned(),
        discovered_name: "orders".to_owned(),
        unavailable: "paused".to_owned(),
        scope_id: id(&all()[1]),
        ..v1::Database::default()
    }
}

fn explained(database: &v1::Database, listed: Vec<v1::ScopeStatus>) -> String {
    let listed = scopes(listed);
    explain::text(&explain::database(database, &listed), &listed, now())
}

#[test]
fn a_database_is_explained_by_owner_name_labels_and_every_scope() {
    let mut listed = all();
    listed.push(scope(
        DatabaseKind::Redshift,
        "us-east-1",
        A,
        &[("env", "dev")],
    ));
    listed.push(scope(
        DatabaseKind::Redshift,
        "us-east-1",
        A,
        &[("team", "bi")],
    ));
    listed.push(scope(DatabaseKind::Redshift, "us-east-1", "", &[]));
    let mut only_serverless = scope(DatabaseKind::Redshift, "us-east-1", A, &[]);
    if let Some(scope) = &mut only_serverless.scope {
        scope.config = "team".to_owned();
        scope.id = "team's".to_owned();
        scope.endpoints = Some(v1::EndpointFilter {
            include: vec!["vpc-endpoint".to_owned()],
            exclude: Vec::new(),
        });
    }
    listed.push(only_serverless);
    assert_eq!(explained(&orders(), listed), "\
Database  orders-redshift-us-east-1-111111111111
Identity  arn:aws:redshift:us-east-1:111111111111:cluster:orders
Type      redshift
Address   orders.abc.us-east-1.redshift.amazonaws.com:5439
Origin    cloud
Status    cannot be connected to: paused
Owner     redshift in us-east-1, 111111111111/discovery, env=prod, configuration file; last success 1m ago

Name
  Base      orders (the identifier in AWS)
  Suffix    redshift, us-east-1, 111111111111
  Given     as usual: parts that the name has already are left out

Label                Value         From
-------------------  ------------  ----------------------------------------------
account-id           111111111111  generated
aws/region           moon          tag region, shadowed: that key is not for tags
endpoint-type        cluster       generated
env                  prod          tag
region               us-east-1     generated
tidegate.dev/origin  cloud         generated

Group  Type                 Region     Account/Role            Tags      Asked By               Verdict
-----  -------------------  ---------  ----------------------  --------  ---------------------  -----------------------------------------------------------------------------------------------------
prod   redshift             us-east-1  111111111111/discovery  env=prod  configuration file     owns it
prod   redshift             us-east-1  111111111111/discovery  *         configuration file     found it too; takes over when the owner lets go
prod   redshift             us-east-1  own identity            *         configuration file     may match (account of the worker's own identity is not known here), but its last scan did not find it
prod   redshift             us-east-1  111111111111/discovery  *         discovery_config team  endpoints: looks for vpc-endpoint, it is cluster
prod   redshift             us-east-1  111111111111/discovery  env=dev   configuration file     tags: looks for env=dev, it has env=prod
prod   redshift             us-east-1  111111111111/discovery  team=bi   configuration file     tags: looks for team=bi, it has no team
prod   redshift             us-west-2  222222222222/discovery  *         configuration file     region: looks for us-west-2, it is us-east-1
prod   rds                  us-east-1  own identity            *         configuration file     type: looks for rds, it is redshift
prod   rdsproxy             us-east-1  222222222222/discovery  *         configuration file     type: looks for rdsproxy, it is redshift
prod   redshift-serverless  us-east-1  111111111111/discovery  *         configuration file     type: looks for redshift-serverless, it is redshift
");
}

#[test]
fn an_arn_that_was_never_found_is_explained_as_far_as_it_tells() {
    let listed = scopes(all());
    let arn = "arn:aws:redshift:us-west-2:222222222222:cluster:new";
    assert_eq!(
        explain::text(&explain::absent(arn, &listed), &listed, now()),
        "\
The inventory has no database arn:aws:redshift:us-west-2:222222222222:cluster:new

Group  Type                 Region     Account/Role            Tags      Asked By            Verdict
-----  -------------------  ---------  ----------------------  --------  ------------------  --------------------------------------------------------------
prod   redshift             us-west-2  222222222222/discovery  *         configuration file  matches, but its last scan failed access_denied (AccessDenied)
prod   redshift             us-east-1  111111111111/discovery  *         configuration file  region: looks for us-east-1, it is us-west-2
prod   redshift             us-east-1  111111111111/discovery  env=prod  configuration file  region: looks for us-east-1, it is us-west-2
prod   rds                  us-east-1  own identity            *         configuration file  type: looks for rds, it is redshift
prod   rdsproxy             us-east-1  222222222222/discovery  *         configuration file  type: looks for rdsproxy, it is redshift
prod   redshift-serverless  us-east-1  111111111111/discovery  *         configuration file  type: looks for redshift-serverless, it is redshift
"
    );
}

fn name_of(change: impl FnOnce(&mut v1::Database)) -> NameStory {
    let mut database = orders();
    change(&mut database);
    explain::database(&database, &[]).name.unwrap()
}

#[test]
fn each_way_to_a_name_is_told() {
    let usual = format!("orders-redshift-us-east-1-{A}");
    let story = name_of(|_| {});
    assert_eq!(
        (story.given, story.base_source),
        (Given::Usual, BaseSource::Identifier)
    );
    assert_eq!(story.suffix, ["redshift", "us-east-1", A]);

    let story = name_of(|database| {
        database.name = "etl-prod-private".to_owned();
        database.discovered_name = "etl-prod-private".to_owned();
        database.labels.insert(
            "aws/teleport.dev/database_name".to_owned(),
            "etl prod".to_owned(),
        );
    });
    assert_eq!(story.given, Given::Usual);
    assert_eq!(
        story.base_source,
        BaseSource::Tag("teleport.dev/database_name".to_owned())
    );
    assert_eq!(
        (story.endpoint.as_str(), story.suffix.len()),
        ("private", 0)
    );

    let story = name_of(|database| {
        database.name = format!("foo-redshift-redshift-us-east-1-{A}");
        database.discovered_name = "foo-redshift".to_owned();
        database.aws.as_mut().unwrap().redshift_cluster_id = "foo-redshift".to_owned();
    });
    assert_eq!(
        story.given,
        Given::Full(Some(format!("foo-redshift-us-east-1-{A}")))
    );

    let story = name_of(|database| {
        let parts = tidegate_core::naming::NameParts {
            base: "orders",
            tagged: false,
            endpoint: "",
            suffix: &["redshift", "us-east-1", A],
        };
        database.name = tidegate_core::naming::hashed(&parts, ORDERS).to_string();
    });
    assert_eq!(story.given, Given::Hashed(Some(usual.clone())));

    let story = name_of(|database| database.name = "dw".to_owned());
    assert_eq!(story.given, Given::Earlier(Some(usual)));

    let story = name_of(|database| {
        database.kind = "rds".to_owned();
        database.name = format!("orders-reader-rds-aurora-us-east-1-{A}");
        database.discovered_name = "orders-reader".to_owned();
        let aws = database.aws.as_mut().unwrap();
        aws.redshift_cluster_id.clear();
        aws.rds_cluster_id = "orders".to_owned();
    });
    assert_eq!(story.given, Given::Usual);
    assert_eq!(story.endpoint, "reader");
    assert_eq!(story.suffix, ["rds", "aurora", "us-east-1", A]);
}

#[test]
fn a_database_that_somebody_wrote_has_no_scopes() {
    let text = explained(
        &v1::Database {
            name: "pg".to_owned(),
            origin: v1::Origin::Dynamic.into(),
            uri: "pg.internal:5432".to_owned(),
            labels: [("env".to_owned(), "dev".to_owned())].into(),
            ..v1::Database::default()
        },
        all(),
    );
    assert_eq!(
        text,
        "\
Database  pg
Address   pg.internal:5432
Origin    dynamic
Owner     whoever created it

Label  Value  From
-----  -----  -------
env    dev    written
"
    );
}

#[test]
fn only_the_nearest_of_many_scopes_are_shown() {
    let accounts: Vec<String> = (0..30).map(|n| format!("3{n:011}")).collect();
    let listed = accounts
        .iter()
        .map(|account| scope(DatabaseKind::Redshift, "us-east-1", account, &[]))
        .collect();
    let text = explained(&orders(), listed);
    assert!(
        text.ends_with("and 10 more scopes that do not match (--format=json has all)\n"),
        "{text}"
    );
}
