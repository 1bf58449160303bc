//! Plans as people read them.

use tidegate_core::{
    AssumeRole, AwsMatcher, DatabaseKind, EndpointFilter, Regions, ScanScope, Selector,
};

use super::*;
use crate::output;

const ACCOUNT: &str = "111122223333";

fn scope(env: &str) -> Scope {
    let matcher = AwsMatcher {
        types: vec![DatabaseKind::Redshift],
        regions: Regions::These(vec!["us-east-1".parse().unwrap()]),
        tags: match env {
            "" => Selector::everything(),
            env => Selector::new([("env", [env])]).unwrap(),
        },
        endpoints: EndpointFilter::default(),
        assume_role: Some(AssumeRole {
            role_arn: format!("arn:aws:iam::{ACCOUNT}:role/discovery")
                .parse()
                .unwrap(),
            external_id: None,
        }),
    };
    let scopes = ScanScope::expand("prod", None, &[matcher], |_| Vec::new());
    v1::ScanScope::from(&scopes[0]).into()
}

fn database(cluster: &str, env: &str, owner: &Scope) -> v1::Database {
    let labels = [
        ("env", env),
        ("region", "us-east-1"),
        ("tidegate.dev/discovery-group", "prod"),
    ];
    v1::Database {
        name: format!("{cluster}-redshift-us-east-1-{ACCOUNT}"),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        origin: v1::Origin::Cloud.into(),
        protocol: "postgres".to_owned(),
        uri: format!("{cluster}.abc.us-east-1.redshift.amazonaws.com:5439"),
        aws: Some(v1::AwsMetadata {
            region: "us-east-1".to_owned(),
            account_id: ACCOUNT.to_owned(),
            redshift_cluster_id: cluster.to_owned(),
            ..v1::AwsMetadata::default()
        }),
        kind: "redshift".to_owned(),
        identity: format!("arn:aws:redshift:us-east-1:{ACCOUNT}:cluster:{cluster}"),
        scope_id: owner.id.clone(),
        ..v1::Database::default()
    }
}

fn change(
    action: PlanAction,
    before: Option<v1::Database>,
    after: Option<v1::Database>,
) -> v1::PlannedChange {
    v1::PlannedChange {
        action: action.into(),
        before,
        after,
    }
}

fn planned() -> (DiscoveryPlan, Scopes) {
    let (old, new) = (scope(""), scope("prod"));
    let scopes = Scopes::new("prod", "", vec![new.clone()], std::slice::from_ref(&old));
    let mut moved = database("users", "prod", &new);
    moved.labels.insert("team".to_owned(), "bi".to_owned());
    if let Some(aws) = &mut moved.aws {
        aws.assume_role = Some(v1::AssumeRole {
            role_arn: format!("arn:aws:iam::{ACCOUNT}:role/discovery"),
            external_id: String::new(),
        });
    }
    let kept = database("kept", "prod", &new);
    let told = [
        change(PlanAction::Add, None, Some(database("new", "prod", &new))),
        change(PlanAction::Keep, Some(kept.clone()), Some(kept)),
        change(
            PlanAction::Remove,
            Some(database("gone", "dev", &old)),
            None,
        ),
        change(
            PlanAction::Change,
            Some(database("users", "stage", &old)),
            Some(moved),
        ),
    ];
    let summary = v1::PlanSummary {
        added: 1,
        kept: 1,
        changed: 1,
        removed: 1,
        retired_scopes: 1,
        partial_scopes: 1,
        ..v1::PlanSummary::default()
    };
    let plan = DiscoveryPlan {
        group: "prod".to_owned(),
        config: String::new(),
        source: Source::Live,
        changes: told
            .iter()
            .filter_map(|change| Change::of(change, &scopes))
            .collect(),
        kept: Vec::new(),
        unseen: vec![Unseen::of(
            &new,
            ScopeFailure {
                class: "access_denied".to_owned(),
                aws_code: "AccessDenied".to_owned(),
                action: "redshift:DescribeEndpointAccess".to_owned(),
                message: "not allowed to call redshift:DescribeEndpointAccess".to_owned(),
            },
        )],
        left_out: vec![LeftOutOf {
            scope: new.id.clone(),
            what: new.sentence(),
            left_out: LeftOut {
                reason: "its engine version is too old".to_owned(),
                count: 2,
            },
        }],
        summary: Summary::of(&summary, false),
    };
    (plan, scopes)
}

#[test]
fn a_plan_has_a_line_a_database_then_what_was_not_seen_and_the_counts() {
    let (plan, scopes) = planned();
    assert_eq!(
        text(&plan, "new.yaml", &scopes),
        "\
new.yaml, for group prod, over AWS as it is now:

  + new-redshift-us-east-1-111122223333  redshift in us-east-1, 111122223333/discovery, env=prod
  - gone-redshift-us-east-1-111122223333  redshift in us-east-1, 111122223333/discovery, env=prod: tags: looks for env=prod, it has env=dev
  ~ users-redshift-us-east-1-111122223333  env: \"stage\" -> \"prod\"; team: none -> \"bi\"; role: none -> arn:aws:iam::111122223333:role/discovery; owner: redshift in us-east-1, 111122223333/discovery -> redshift in us-east-1, 111122223333/discovery, env=prod

Not seen in full, so nothing that is missing there counts as gone:
  redshift in us-east-1, 111122223333/discovery, env=prod
    not allowed to call redshift:DescribeEndpointAccess
    missing permission: redshift:DescribeEndpointAccess for arn:aws:iam::111122223333:role/discovery

Found, and not to be listed, since no agent could serve it:
  redshift in us-east-1, 111122223333/discovery, env=prod: 2 databases: its engine version is too old

1 to add, 1 to change, 1 to remove; 1 stays as it is.
1 scope is no longer named: it ends after its time of grace, and what it owned goes then.
"
    );
}

#[test]
fn a_plan_that_changes_nothing_says_so() {
    let plan = DiscoveryPlan {
        group: "prod".to_owned(),
        config: "team".to_owned(),
        source: Source::Recorded,
        changes: Vec::new(),
        kept: vec!["orders".to_owned()],
        unseen: Vec::new(),
        left_out: Vec::new(),
        summary: Summary {
            kept: 1,
            complete: true,
            ..Summary::default()
        },
    };
    assert_eq!(
        text(&plan, "team.yaml", &Scopes::default()),
        "\
team.yaml, for discovery_config team of group prod, over the recorded inventory (--live looks at AWS itself):

    orders

Nothing to do: 1 stays as it is.
"
    );
}

#[test]
fn documents_have_both_sides_and_what_differs() {
    let (plan, _) = planned();
    let json: serde_json::Value = serde_json::from_str(&output::json(&plan).unwrap()).unwrap();
    assert_eq!(json["source"], "live");
    assert_eq!(json["summary"]["complete"], false);
    assert_eq!(json["changes"][0]["action"], "add");
    assert_eq!(json["changes"][0].get("before"), None);
    assert_eq!(json["changes"][1]["owner_before"], scope("").id);
    assert_eq!(
        json["changes"][2]["differences"][0],
        serde_json::json!({"field": "labels.env", "before": "stage", "after": "prod"})
    );
    assert_eq!(
        json["changes"][2]["after"]["metadata"]["labels"]["team"],
        "bi"
    );
    assert_eq!(json["left_out"][0]["count"], 2);
    assert_eq!(json["unseen"][0]["failure"]["class"], "access_denied");
}

#[test]
fn a_strangers_tag_cannot_steer_the_terminal_or_make_a_line() {
    let (mut plan, scopes) = planned();
    plan.changes[2].differences[0].after = Some("\u{1b}[2J\nfake".to_owned());
    let text = text(&plan, "new.yaml", &scopes);
    assert!(text.contains("\\u{1b}[2J\\nfake"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn scopes_that_read_alike_are_told_by_their_ids() {
    let (old, new) = (
        scope(""),
        Scope {
            id: "other".to_owned(),
            ..scope("")
        },
    );
    let scopes = Scopes::new("prod", "", vec![new.clone()], std::slice::from_ref(&old));
    let told = change(
        PlanAction::Change,
        Some(database("users", "prod", &old)),
        Some(database("users", "prod", &new)),
    );
    let (mut plan, _) = planned();
    plan.changes = Change::of(&told, &scopes).into_iter().collect();
    let text = text(&plan, "new.yaml", &scopes);
    assert!(
        text.contains(&format!("owner: {} -> other\n", old.id)),
        "{text}"
    );
}

#[test]
fn what_nothing_looks_for_is_told_by_its_place() {
    let old = scope("");
    let scopes = Scopes::new("prod", "", Vec::new(), std::slice::from_ref(&old));
    let told = change(
        PlanAction::Remove,
        Some(database("users", "prod", &old)),
        None,
    );
    let why = |scopes: &Scopes| Change::of(&told, scopes).unwrap().why;
    assert_eq!(why(&scopes), "nothing looks for redshift in us-east-1");
    let elsewhere = Scope {
        account_id: "444455556666".to_owned(),
        ..scope("")
    };
    let scopes = Scopes::new("prod", "", vec![elsewhere], std::slice::from_ref(&old));
    assert_eq!(
        why(&scopes),
        "nothing looks for redshift in us-east-1 of account 111122223333"
    );
}

#[test]
fn of_many_parts_that_were_not_seen_the_first_are_told_and_the_rest_is_counted() {
    let (mut plan, scopes) = planned();
    let part = plan.unseen.remove(0);
    plan.unseen = vec![part; 25];
    let text = text(&plan, "new.yaml", &scopes);
    assert_eq!(text.matches("    not allowed").count(), 20);
    assert!(
        text.contains("  and 5 more (--format=json has all)\n"),
        "{text}"
    );
}
