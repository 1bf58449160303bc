//! What is said is what comes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidegate_core::{DatabaseName, Labels, ScanScope, Selector};
use tidegate_proto::v1::PlanAction;

use super::{
    super::plan::{
        self, Inventory, Owner, Registered, Seen, Sighting,
        tests::{Model, of_config, scope, sighting},
    },
    outcome::{Outcome, outcome},
    question::{Asked, Question, Stored},
};

const DATABASES: u8 = 20;
/// Scopes that a configuration may name.
const SCOPES: usize = 4;

/// AWS, by database: its tag.
type Aws = BTreeMap<u8, u8>;

/// One scan.
#[derive(Clone, Debug, Default)]
struct Fault {
    unseen: BTreeSet<u8>,
    untagged: BTreeSet<u8>,
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let some = || proptest::collection::btree_set(0..DATABASES, 0..6);
    let fault = (some(), some()).prop_map(|(unseen, untagged)| Fault { unseen, untagged });
    proptest::option::weighted(0.3, fault)
}

fn aws() -> impl Strategy<Value = Aws> {
    proptest::collection::btree_map(0..DATABASES, 0..3_u8, 0..DATABASES as usize)
}

/// The scopes that a configuration of group `prod` may name: they overlap.
fn nameable(index: usize, order: u32, config: Option<&str>) -> ScanScope {
    let selector = |values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned());
        Selector::new([("env".to_owned(), values.collect::<Vec<_>>())]).unwrap()
    };
    let mut named = scope("prod", "us-east-1", order);
    match index {
        0 => {}
        1 => named.tags = selector(&["1"]),
        2 => named.tags = selector(&["1", "2"]),
        _ => named.tags = selector(&["0"]),
    }
    match config {
        Some(config) => of_config(named, config),
        None => named,
    }
}

/// A configuration: which scopes it names, in which order.
fn named() -> impl Strategy<Value = Vec<usize>> {
    let all: Vec<usize> = (0..SCOPES).collect();
    proptest::sample::subsequence(all, 0..=SCOPES).prop_shuffle()
}

fn scopes_of(named: &[usize], config: Option<&str>) -> Vec<ScanScope> {
    let ordered = (0..).zip(named);
    ordered
        .map(|(order, index)| nameable(*index, order, config))
        .collect()
}

/// Scopes that are none of the configuration's: of resources before and behind it, of files, and of another group.
fn others() -> Vec<ScanScope> {
    let mut elsewhere = of_config(scope("lab", "us-east-1", 100), "zz");
    elsewhere.tags = Selector::everything();
    vec![
        nameable(2, 0, Some("alpha")),
        nameable(0, 7, Some("zulu")),
        nameable(1, 50, None),
        elsewhere,
    ]
}

fn identity(database: u8) -> String {
    format!("arn:{database:02}")
}

fn look(scope: &ScanScope, aws: &Aws, fault: Option<&Fault>) -> Seen {
    let mut seen = BTreeMap::new();
    for (database, env) in aws {
        let mut found: Sighting = sighting(&format!("db{database}"), &env.to_string());
        if let Some(fault) = fault {
            if fault.unseen.contains(database) {
                continue;
            }
            if fault.untagged.contains(database) {
                found.database.labels = Labels::new();
                found.tags_unknown = true;
            }
        }
        if found.tags_unknown || scope.tags.matches(&found.database.labels) {
            seen.insert(identity(*database), found);
        }
    }
    if fault.is_some() {
        Seen::Partial(seen)
    } else {
        Seen::Complete(seen)
    }
}

/// A scan as it is carried out: deletions that are held are agreed to at once.
fn publish(model: &mut Model, scope: &ScanScope, seen: &Seen) -> usize {
    let plan = model.scan_after(scope, seen, None);
    match plan.held {
        Some(held) => {
            model.scan_after(scope, seen, Some(held.digest));
            held.count
        }
        None => 0,
    }
}

/// What the ledger would know beside the inventory.
fn question(model: &Model, config: Option<&str>, asked: Vec<Asked>) -> Question {
    let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
    let owners = model.by_name.values().map(|row| &row.owner);
    for owner in owners.chain(model.shadows.iter().map(|(_, heir)| heir)) {
        let Owner {
            scope_id,
            group,
            order,
            config,
        } = owner.clone();
        let scope = Stored {
            group,
            config,
            order,
            held: None,
        };
        stored.insert(scope_id, scope);
    }
    let mut question = Question::new("prod".to_owned(), config.map(str::to_owned), asked, &stored);
    let partial: BTreeSet<String> = question
        .scopes
        .iter()
        .filter(|asked| matches!(asked.seen, Seen::Partial(_)))
        .map(|asked| asked.scope.id().0)
        .collect();
    for (identity, heir) in &model.shadows {
        let asked = heir.group == "prod" && heir.config == question.config;
        if asked && !partial.contains(&heir.scope_id) {
            continue;
        }
        let heir = question.placed_owner(heir.clone());
        let known = question.other_heirs.get(identity);
        let key = |owner: &Owner| {
            let (of_resource, order, id) = owner.rank();
            (owner.group != "prod", of_resource, order, id.to_owned())
        };
        if known.is_none_or(|known| key(&heir) < key(known)) {
            question.other_heirs.insert(identity.clone(), heir);
        }
    }
    question
}

/// The workers take the configuration up: they scan, what is named no more ends, they scan again.
fn carry_out(mut model: Model, question: &Question) -> (Model, usize) {
    for row in model.by_name.values_mut() {
        row.owner = question.placed_owner(row.owner.clone());
    }
    for (_, heir) in &mut model.shadows {
        *heir = question.placed_owner(heir.clone());
    }
    model
        .shadows
        .retain(|(_, heir)| !question.retired.contains(&heir.scope_id));
    // Each has had a look, as when workers scan side by side: what one lets go of another has seen.
    for asked in &question.scopes {
        let in_part = Seen::Partial(asked.seen.sightings().clone());
        publish(&mut model, &asked.scope, &in_part);
    }
    let mut held = 0;
    for asked in &question.scopes {
        held += publish(&mut model, &asked.scope, &asked.seen);
    }
    for scope_id in &question.retired {
        let rows: Vec<Registered> = model.owned_by(scope_id);
        let Some(owner) = rows.first().map(|row| row.owner.clone()) else {
            continue;
        };
        let scope = all_scopes()
            .into_iter()
            .find(|scope| scope.id().0 == owner.scope_id)
            .unwrap();
        let plan = plan::retire(scope_id, &model);
        model.apply(&scope, &plan);
    }
    for asked in &question.scopes {
        publish(&mut model, &asked.scope, &asked.seen);
    }
    (model, held)
}

fn all_scopes() -> Vec<ScanScope> {
    let configs = [None, Some("alpha"), Some("team"), Some("zulu")];
    let of = |config| (0..SCOPES).map(move |index| nameable(index, 0, config));
    configs.into_iter().flat_map(of).chain(others()).collect()
}

type Shown = BTreeMap<DatabaseName, (String, Labels, String)>;

fn shown<'r>(rows: impl Iterator<Item = &'r Registered>) -> Shown {
    rows.map(|row| {
        let database = row.database.clone();
        let about = (
            database.identity,
            database.labels,
            row.owner.scope_id.clone(),
        );
        (database.name, about)
    })
    .collect()
}

/// The inventory that an outcome leads to.
fn after(model: &Model, outcome: &Outcome) -> Shown {
    let kept = model.by_name.values();
    let kept = kept.filter(|row| !outcome.changed.contains_key(&row.database.identity));
    shown(kept.chain(outcome.changed.values().flatten()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_said_is_what_publishing_the_same_scans_leads_to(
        config in prop_oneof![Just(None), Just(Some("team"))],
        old in named(),
        new in named(),
        history in proptest::collection::vec((0..SCOPES + 4, aws(), fault()), 0..8),
        now in aws(),
        faults in proptest::collection::vec(fault(), SCOPES),
    ) {
        let mut model = Model::default();
        let mut known = scopes_of(&old, config);
        known.extend(others());
        for (pick, aws, fault) in &history {
            let scope = &known[pick % known.len()];
            publish(&mut model, scope, &look(scope, aws, fault.as_ref()));
        }
        let asked = scopes_of(&new, config).into_iter().zip(&faults).map(|(scope, fault)| Asked {
            seen: look(&scope, &now, fault.as_ref()),
            scope,
        });
        let question = question(&model, config, asked.collect());
        let said = outcome(&model, &question);
        let (came, held) = carry_out(model.clone(), &question);
        prop_assert_eq!(after(&model, &said), shown(came.by_name.values()));
        if model.shadows.is_empty() {
            // Otherwise scopes hold back what others handed them by what they saw before.
            prop_assert_eq!(said.summary.held as usize, held);
        }

        let before = shown(model.by_name.values());
        let after = shown(came.by_name.values());
        for ((name, identity), action) in &said.fates {
            let find = |shown: &Shown| shown.iter().find(|(_, about)| about.0 == *identity).map(|(name, about)| (name.clone(), about.clone()));
            let expected = match (find(&before), find(&after)) {
                (None, Some(_)) => PlanAction::Add,
                (Some(_), None) => PlanAction::Remove,
                (before, after) if before == after => PlanAction::Keep,
                _ => PlanAction::Change,
            };
            prop_assert_eq!(*action, expected, "{}", name);
        }
        for (name, about) in before.iter().chain(&after) {
            if before.get(name) != after.get(name) {
                let key = (name.to_string(), about.0.clone());
                prop_assert!(said.fates.contains_key(&key), "{name} changed and is not told");
            }
        }
    }
}

fn asked(scope: ScanScope, aws: &Aws) -> Asked {
    Asked {
        seen: look(&scope, aws, None),
        scope,
    }
}

fn actions(said: &Outcome) -> Vec<(&str, PlanAction)> {
    let fates = said.fates.iter();
    fates
        .map(|((name, _), action)| (name.as_str(), *action))
        .collect()
}

#[test]
fn a_narrower_matcher_keeps_what_still_matches_and_removes_the_rest() {
    let aws = Aws::from([(1, 0), (2, 1)]);
    let mut model = Model::default();
    let wide = nameable(0, 0, None);
    publish(&mut model, &wide, &look(&wide, &aws, None));
    let question = question(&model, None, vec![asked(nameable(1, 0, None), &aws)]);
    let said = outcome(&model, &question);
    assert_eq!(
        actions(&said),
        [
            ("db1-redshift-us-east-1", PlanAction::Remove),
            ("db2-redshift-us-east-1", PlanAction::Change),
        ]
    );
    assert_eq!(said.summary.retired_scopes, 1);
    assert_eq!((said.summary.removed, said.summary.held), (1, 0));
}

#[test]
fn deletions_that_a_scan_would_hold_are_told_and_those_that_it_agreed_to_are_not() {
    let aws: Aws = (0..DATABASES).map(|database| (database, 0)).collect();
    let mut model = Model::default();
    let wide = nameable(0, 0, None);
    publish(&mut model, &wide, &look(&wide, &aws, None));
    let few: Aws = aws.into_iter().take(4).collect();
    let mut question = question(&model, None, vec![asked(wide.clone(), &few)]);
    let said = outcome(&model, &question);
    assert_eq!((said.summary.removed, said.summary.held), (16, 16));

    let held = plan::plan(&wide, &model, &look(&wide, &few, None), None).held;
    question.held = [(wide.id().0, held.unwrap().digest)].into();
    let said = outcome(&model, &question);
    assert_eq!((said.summary.removed, said.summary.held), (16, 0));
}

#[test]
fn resources_rank_by_name_wherever_the_planned_one_comes() {
    let aws = Aws::from([(1, 1)]);
    for (stored, wins) in [("alpha", false), ("zulu", true)] {
        let mut model = Model::default();
        let other = nameable(2, 3, Some(stored));
        publish(&mut model, &other, &look(&other, &aws, None));
        let mine = nameable(0, 9, Some("team"));
        let question = question(&model, Some("team"), vec![asked(mine, &aws)]);
        let said = outcome(&model, &question);
        assert_eq!(said.summary.changed, u32::from(wins), "{stored}");
        assert_eq!(said.summary.shadowed, u32::from(!wins), "{stored}");
        assert_eq!(said.summary.retired_scopes, 0);
    }
}

#[test]
fn what_another_group_owns_stays_there_and_is_counted() {
    let aws = Aws::from([(1, 1)]);
    let mut model = Model::default();
    let elsewhere = others().pop().unwrap();
    publish(&mut model, &elsewhere, &look(&elsewhere, &aws, None));
    let question = question(&model, None, vec![asked(nameable(0, 0, None), &aws)]);
    let said = outcome(&model, &question);
    assert_eq!(actions(&said), []);
    assert_eq!(said.summary.shadowed, 1);
}
