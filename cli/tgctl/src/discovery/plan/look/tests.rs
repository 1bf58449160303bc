use tidegate_core::{DatabaseKind, EndpointFilter, Selector};

use super::*;

fn matcher(regions: &[&str], role: &str) -> AwsMatcher {
    AwsMatcher {
        types: vec![DatabaseKind::Redshift],
        regions: match regions {
            ["*"] => Regions::Enabled,
            these => Regions::These(these.iter().map(|region| region.parse().unwrap()).collect()),
        },
        tags: Selector::everything(),
        endpoints: EndpointFilter::default(),
        assume_role: (!role.is_empty()).then(|| AssumeRole {
            role_arn: format!("arn:aws:iam::111122223333:role/{role}")
                .parse()
                .unwrap(),
            external_id: None,
        }),
    }
}

fn wanted(matchers: Vec<AwsMatcher>) -> Wanted {
    Wanted {
        group: "prod".to_owned(),
        config: None,
        matchers,
    }
}

fn stored(group: &str, regions: &[&str], role: &str) -> Vec<v1::ScopeStatus> {
    let scopes = ScanScope::expand(group, None, &[matcher(regions, role)], |_| Vec::new());
    scopes
        .iter()
        .map(|scope| v1::ScopeStatus {
            scope: Some(scope.into()),
            ..v1::ScopeStatus::default()
        })
        .collect()
}

fn places(looked: &Looked) -> Vec<(String, bool)> {
    let planned = looked.planned.iter();
    planned
        .map(|planned| {
            let region = planned.scope.scope.clone().unwrap().region;
            let whole = planned.scope.completeness() == v1::Completeness::Complete;
            (region, whole)
        })
        .collect()
}

#[test]
fn every_region_is_where_anything_of_that_account_can_be_recorded() {
    let mut known = stored("prod", &["us-west-2", "us-east-1"], "a");
    known.extend(stored("lab", &["eu-west-1"], "b"));
    known.extend(stored("lab", &["eu-west-2"], ""));
    let regions = |known: &[v1::ScopeStatus]| {
        let mut matcher = matcher(&["*"], "a");
        matcher.tags = Selector::new([("env", ["prod"])]).unwrap();
        let looked = recorded(&wanted(vec![matcher]), known).unwrap();
        assert_eq!(looked.unseen, []);
        places(&looked)
    };
    let whole = |region: &str| (region.to_owned(), true);
    assert_eq!(
        regions(&known),
        ["eu-west-1", "us-east-1", "us-west-2"].map(whole)
    );
    known.extend(stored("prod", &["us-west-1"], ""));
    assert_eq!(
        regions(&known),
        ["eu-west-1", "us-east-1", "us-west-1", "us-west-2"].map(whole)
    );
}

#[test]
fn regions_that_nobody_listed_yet_are_told() {
    let looked = recorded(&wanted(vec![matcher(&["*"], "a")]), &[]).unwrap();
    assert_eq!(looked.planned.len(), 0);
    assert_eq!(looked.unseen[0].what, "every region of 111122223333/a");
    assert_eq!(looked.unseen[0].failure.class, "unknown_regions");
}

#[test]
fn scopes_of_an_account_that_does_not_tell_its_regions_are_planned_as_seen_in_part() {
    let wanted = wanted(vec![
        matcher(&["*"], "silent"),
        matcher(&["us-east-1"], "told"),
    ]);
    let known = known(&wanted, &stored("prod", &["us-west-2"], "silent"));
    let there = ScanScope::expand("prod", None, &wanted.matchers[1..], |_| Vec::new());
    let failure = |class: &str| v1::ScanFailure {
        class: class.to_owned(),
        ..v1::ScanFailure::default()
    };
    let seen = Seen {
        scopes: vec![SeenScope {
            scope: there[0].clone(),
            items: vec![v1::ScanItem::default()],
            failure: None,
            left_out: [("too old", 2)].into(),
        }],
        silent: vec![(
            wanted.matchers[0].assume_role.clone(),
            failure("access_denied"),
        )],
    };
    let looked = merged(&wanted, &known, seen);
    assert_eq!(
        places(&looked),
        [
            ("us-west-2".to_owned(), false),
            ("us-east-1".to_owned(), true)
        ],
        "in the order of the configuration"
    );
    assert_eq!(
        looked.planned[0].scope.failure,
        Some(failure("access_denied"))
    );
    assert_eq!(looked.planned[1].items.len(), 1);
    assert_eq!(looked.unseen.len(), 1);
    assert_eq!(looked.left_out[0].left_out.count, 2);
}

#[test]
fn too_many_scopes_are_refused_before_anybody_is_asked() {
    let regions: Vec<String> = (0..100).map(|n| format!("us-east-{n}")).collect();
    let regions: Vec<&str> = regions.iter().map(String::as_str).collect();
    let matchers = (0..101).map(|n| matcher(&regions, &format!("role{n}")));
    let failure = recorded(&wanted(matchers.collect()), &[]).unwrap_err();
    assert!(failure.message().contains("10100 scan scopes"), "{failure}");
}
