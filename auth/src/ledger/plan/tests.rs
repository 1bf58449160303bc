use proptest::prelude::*;
use tidegate_core::{AwsMetadata, DatabaseKind, Protocol, Selector, TlsSettings};

use super::*;

/// An inventory that plans are carried out on.
#[derive(Clone, Debug, Default)]
pub(in crate::ledger) struct Model {
    pub(in crate::ledger) by_name: BTreeMap<DatabaseName, Registered>,
    /// What scopes saw and do not own.
    pub(in crate::ledger) shadows: Vec<(String, Owner)>,
    revision: u64,
}

impl Inventory for Model {
    fn owned_by(&self, scope_id: &str) -> Vec<Registered> {
        self.by_name
            .values()
            .filter(|registered| registered.owner.scope_id == scope_id)
            .cloned()
            .collect()
    }

    fn with_identity(&self, identity: &str) -> Option<Registered> {
        self.by_name
            .values()
            .find(|registered| registered.database.identity == identity)
            .cloned()
    }

    fn has_name(&self, name: &DatabaseName) -> bool {
        self.by_name.contains_key(name)
    }

    fn heir(&self, identity: &str) -> Option<Owner> {
        let shadows = self.shadows.iter();
        shadows
            .filter(|(shadowed, _)| shadowed == identity)
            .map(|(_, scope)| scope.clone())
            .min_by(|left, right| left.rank().cmp(&right.rank()))
    }
}

impl Model {
    pub(in crate::ledger) fn apply(&mut self, scope: &ScanScope, plan: &Plan) {
        self.revision += 1;
        for database in &plan.creates {
            assert!(
                !self.has_name(&database.name),
                "a create took a name in use"
            );
            assert!(self.with_identity(&database.identity).is_none());
            self.put(Owner::of(scope), database.clone());
        }
        for update in &plan.updates {
            let before = self.by_name[&update.database.name].clone();
            assert_eq!(before.revision, update.revision);
            assert_eq!(before.database.identity, update.database.identity);
            self.put(Owner::of(scope), update.database.clone());
            if let Some(taken) = &update.taken_from {
                let me = Owner::of(scope);
                let identity = &update.database.identity;
                self.shadows
                    .retain(|(shadowed, heir)| (shadowed, heir) != (identity, &me));
                if taken.claims {
                    self.shadow(&update.database.identity, taken.from.clone());
                }
            }
        }
        for given in &plan.hand_overs {
            let before = &self.by_name[&given.database.name];
            assert_eq!(before.owner.scope_id, scope.id().0);
            let identity = &given.database.identity;
            self.shadows
                .retain(|(shadowed, heir)| (shadowed, heir) != (identity, &given.to));
            self.put(given.to.clone(), given.database.clone());
        }
        for delete in &plan.deletes {
            let before = self.by_name.remove(&delete.name).unwrap();
            assert_eq!(
                before.owner.scope_id,
                scope.id().0,
                "a scope deleted what it does not own"
            );
        }
    }

    fn shadow(&mut self, identity: &str, scope: Owner) {
        let entry = (identity.to_owned(), scope);
        if !self.shadows.contains(&entry) {
            self.shadows.push(entry);
        }
    }

    fn put(&mut self, owner: Owner, database: Database) {
        self.by_name.insert(
            database.name.clone(),
            Registered {
                database,
                revision: self.revision,
                owner,
            },
        );
    }

    fn scan(&mut self, scope: &ScanScope, seen: &Seen) -> Plan {
        self.scan_after(scope, seen, None)
    }

    pub(in crate::ledger) fn scan_after(
        &mut self,
        scope: &ScanScope,
        seen: &Seen,
        held: Option<[u8; 32]>,
    ) -> Plan {
        let plan = plan(scope, self, seen, held);
        self.apply(scope, &plan);
        let me = Owner::of(scope);
        if let Seen::Complete(_) = seen {
            self.shadows.retain(|(_, heir)| *heir != me);
        }
        for shadowed in &plan.shadowed {
            self.shadow(&shadowed.identity, me.clone());
        }
        plan
    }
}

pub(in crate::ledger) fn scope(group: &str, region: &str, order: u32) -> ScanScope {
    ScanScope {
        group: group.to_owned(),
        kind: DatabaseKind::Redshift,
        region: region.parse().unwrap(),
        assume_role: None,
        tags: Selector::everything(),
        endpoints: tidegate_core::EndpointFilter::default(),
        config: None,
        order,
    }
}

pub(in crate::ledger) fn sighting(base: &str, env: &str) -> Sighting {
    Sighting {
        database: Database {
            name: "unnamed".parse().unwrap(),
            description: String::new(),
            labels: [("env", env)].into_iter().collect(),
            origin: Origin::Cloud,
            protocol: Protocol::Postgres,
            uri: "host.example.com:5439".parse().unwrap(),
            tls: TlsSettings::default(),
            aws: AwsMetadata::default(),
            kind: Some(DatabaseKind::Redshift),
            identity: String::new(),
            discovered_name: String::new(),
            unavailable: String::new(),
        },
        base: base.to_owned(),
        tagged: false,
        endpoint: String::new(),
        suffix: vec!["redshift".to_owned(), "us-east-1".to_owned()],
        tags_unknown: false,
    }
}

fn sightings(bases: &[&str]) -> BTreeMap<String, Sighting> {
    bases
        .iter()
        .map(|base| (format!("arn:{base}"), sighting(base, "prod")))
        .collect()
}

fn complete(bases: &[&str]) -> Seen {
    Seen::Complete(sightings(bases))
}

fn partial(bases: &[&str]) -> Seen {
    Seen::Partial(sightings(bases))
}

fn numbered(count: usize) -> BTreeMap<String, Sighting> {
    (0..count)
        .map(|index| {
            (
                format!("arn:{index:04}"),
                sighting(&format!("db{index}"), "prod"),
            )
        })
        .collect()
}

#[test]
fn a_first_scan_creates_with_names_and_the_ledgers_labels() {
    let scope = scope("prod", "us-east-1", 0);
    let plan = plan(&scope, &Model::default(), &complete(&["orders"]), None);
    let created = &plan.creates[0];
    assert_eq!(created.name.as_str(), "orders-redshift-us-east-1");
    assert_eq!(created.discovered_name, "orders");
    assert_eq!(created.identity, "arn:orders");
    for (key, value) in [
        (ORIGIN, "cloud"),
        (DISCOVERY_GROUP, "prod"),
        (DISCOVERY_TYPE, "redshift"),
        ("env", "prod"),
    ] {
        assert_eq!(created.labels.get(key), Some(value), "{key}");
    }
}

#[test]
fn a_partial_scan_creates_and_updates_and_never_deletes() {
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    model.scan(&scope, &complete(&["orders", "users"]));
    let mut seen = sightings(&["new"]);
    seen.insert("arn:orders".to_owned(), sighting("orders", "dev"));
    let plan = model.scan(&scope, &Seen::Partial(seen));
    assert_eq!((plan.creates.len(), plan.updates.len()), (1, 1));
    assert_eq!((plan.deletes.len(), plan.held), (0, None));
    assert_eq!(model.by_name.len(), 3);
}

#[test]
fn a_complete_scan_deletes_what_is_gone() {
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    model.scan(&scope, &complete(&["orders", "users"]));
    let plan = model.scan(&scope, &complete(&["orders"]));
    assert_eq!(plan.deletes.len(), 1);
    assert_eq!(plan.deletes[0].identity, "arn:users");
}

#[test]
fn a_mass_deletion_waits_for_a_second_scan_that_agrees() {
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    model.scan(&scope, &Seen::Complete(numbered(20)));

    let first = plan(&scope, &model, &Seen::Complete(numbered(13)), None);
    let held = first.held.clone().unwrap();
    assert_eq!((held.count, first.deletes.len()), (7, 0));

    let other = plan(
        &scope,
        &model,
        &Seen::Complete(numbered(12)),
        Some(held.digest),
    );
    assert_eq!(
        other.deletes.len(),
        0,
        "other deletions were held than these"
    );

    let second = plan(
        &scope,
        &model,
        &Seen::Complete(numbered(13)),
        Some(held.digest),
    );
    assert_eq!((second.deletes.len(), second.held), (7, None));
}

#[test]
fn a_few_deletions_are_never_held() {
    assert_eq!(deletions_max(0), 5);
    assert_eq!(deletions_max(16), 5);
    assert_eq!(deletions_max(100), 30);
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    model.scan(&scope, &Seen::Complete(numbered(5)));
    let plan = plan(&scope, &model, &Seen::Complete(numbered(0)), None);
    assert_eq!(plan.deletes.len(), 5);
}

#[test]
fn the_first_scope_of_a_group_owns_and_the_second_takes_over_when_it_lets_go() {
    let (first, second) = (scope("prod", "us-east-1", 0), scope("prod", "us-west-2", 1));
    let mut model = Model::default();
    model.scan(&second, &complete(&["orders"]));
    let plan = model.scan(&first, &complete(&["orders"]));
    assert!(plan.updates[0].taken_from.is_some());

    let plan = model.scan(&second, &complete(&["orders"]));
    assert_eq!(plan.shadowed[0].identity, "arn:orders");
    assert_eq!(plan.shadowed[0].owned_by, first.id().0);
    assert_eq!(plan.deletes, []);

    let plan = model.scan(&first, &complete(&[]));
    assert_eq!((plan.deletes.len(), plan.hand_overs.len()), (0, 1));
    assert_eq!(plan.hand_overs[0].to, Owner::of(&second));
    let plan = model.scan(&second, &complete(&["orders"]));
    assert_eq!(plan, Plan::default());
}

#[test]
fn across_groups_the_first_to_claim_owns_whatever_the_order() {
    let (one, other) = (scope("one", "us-east-1", 5), scope("other", "us-east-1", 0));
    let mut model = Model::default();
    model.scan(&one, &complete(&["orders"]));
    let plan = model.scan(&other, &complete(&["orders"]));
    assert_eq!(plan.shadowed.len(), 1);
    assert!(plan.updates.is_empty());
}

#[test]
fn two_identities_of_one_name_both_stay_and_the_holder_keeps_its_name() {
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    let mut seen = BTreeMap::from([("arn:b".to_owned(), sighting("dw-redshift", "prod"))]);
    model.scan(&scope, &Seen::Complete(seen.clone()));
    seen.insert("arn:a".to_owned(), sighting("dw-redshift", "prod"));
    seen.insert("arn:c".to_owned(), sighting("dw-redshift", "prod"));
    model.scan(&scope, &Seen::Complete(seen.clone()));
    let name = |model: &Model, identity| model.with_identity(identity).unwrap().database.name;
    assert_eq!(name(&model, "arn:b").as_str(), "dw-redshift-us-east-1");
    assert_eq!(model.by_name.len(), 3);
    let before = model.by_name.keys().cloned().collect::<Vec<_>>();
    assert_eq!(model.scan(&scope, &Seen::Complete(seen)), Plan::default());
    assert_eq!(model.by_name.keys().cloned().collect::<Vec<_>>(), before);
}

/// A random scan of one of two scopes in one group or of one in another group.
fn any_scan() -> impl Strategy<Value = (usize, bool, BTreeMap<u8, u8>)> {
    (
        0..3_usize,
        any::<bool>(),
        proptest::collection::btree_map(0..30_u8, 0..3_u8, 0..25),
    )
}

fn seen_of(whole: bool, items: &BTreeMap<u8, u8>) -> Seen {
    let sightings = items
        .iter()
        // Few bases, so that names collide.
        .map(|(id, env)| {
            (
                format!("arn:{id}"),
                sighting(&format!("db{}", id % 7), &env.to_string()),
            )
        })
        .collect();
    if whole {
        Seen::Complete(sightings)
    } else {
        Seen::Partial(sightings)
    }
}

proptest! {
    #[test]
    fn whatever_is_scanned_the_rules_hold(scans in proptest::collection::vec(any_scan(), 1..12)) {
        let scopes = [
            scope("prod", "us-east-1", 0),
            scope("prod", "us-west-2", 1),
            scope("other", "us-east-1", 0),
        ];
        let mut model = Model::default();
        let mut held = [None, None, None];
        for (index, whole, items) in scans {
            let scope = &scopes[index];
            let seen = seen_of(whole, &items);
            let before = model.clone();
            let owned_before = before.owned_by(&scope.id().0).len();
            let plan = plan(scope, &model, &seen, held[index]);
            model.apply(scope, &plan);

            prop_assert!(whole || (plan.deletes.is_empty() && plan.held.is_none()));
            let guarded = plan.deletes.len() > deletions_max(owned_before);
            prop_assert!(!guarded || held[index].is_some());
            if whole {
                held[index] = plan.held.as_ref().map(|held| held.digest);
            }
            for (name, registered) in &before.by_name {
                if let Some(now) = model.by_name.get(name) {
                    prop_assert_eq!(&now.database.identity, &registered.database.identity);
                } else {
                    prop_assert!(!seen.sightings().contains_key(&registered.database.identity));
                }
            }
            let shadowed: Vec<&String> =
                plan.shadowed.iter().map(|shadowed| &shadowed.identity).collect();
            for identity in seen.sightings().keys() {
                let owner = model.with_identity(identity).unwrap().owner.scope_id;
                prop_assert_eq!(owner == scope.id().0, !shadowed.contains(&identity));
            }
            let again = super::plan(scope, &model, &seen, held[index]);
            prop_assert!(again.creates.is_empty() && again.updates.is_empty());
        }
    }
}

#[test]
fn nothing_seen_in_part_changes_nothing() {
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    model.scan(&scope, &complete(&["orders"]));
    assert_eq!(plan(&scope, &model, &partial(&[]), None), Plan::default());
}

pub(in crate::ledger) fn of_config(mut scope: ScanScope, config: &str) -> ScanScope {
    scope.config = Some(config.to_owned());
    scope
}

#[test]
fn a_file_owns_before_a_resource_whatever_their_order() {
    let file = scope("prod", "us-east-1", 9);
    let resource = of_config(scope("prod", "us-east-1", 0), "team");
    let mut model = Model::default();
    let created = model.scan(&resource, &complete(&["orders"]));
    let labels = &created.creates[0].labels;
    assert_eq!(labels.get(DISCOVERY_CONFIG), Some("team"));

    let taken = model.scan(&file, &complete(&["orders"]));
    let update = &taken.updates[0];
    assert_eq!(
        update.taken_from,
        Some(Taken {
            from: Owner::of(&resource),
            claims: true
        })
    );
    assert_eq!(update.database.labels.get(DISCOVERY_CONFIG), None);
    let plan = model.scan(&resource, &complete(&["orders"]));
    assert_eq!(plan.shadowed.len(), 1);
}

#[test]
fn what_is_handed_over_is_no_deletion_and_keeps_its_name_and_revision_guard() {
    let (first, second) = (scope("prod", "us-east-1", 0), scope("lab", "us-east-1", 0));
    let mut model = Model::default();
    model.scan(&first, &Seen::Complete(numbered(20)));
    model.scan(&second, &Seen::Complete(numbered(20)));
    let names: Vec<DatabaseName> = model.by_name.keys().cloned().collect();

    let plan = model.scan(&first, &complete(&[]));
    assert_eq!((plan.hand_overs.len(), plan.deletes.len()), (20, 0));
    assert_eq!(plan.held, None);
    let given = &plan.hand_overs[0];
    assert_eq!(given.database.labels.get(DISCOVERY_GROUP), Some("lab"));
    assert_eq!(model.by_name.keys().cloned().collect::<Vec<_>>(), names);
}

#[test]
fn a_retired_scope_hands_over_what_others_see_and_deletes_the_rest() {
    let (first, second) = (scope("prod", "us-east-1", 0), scope("prod", "us-west-2", 1));
    let mut model = Model::default();
    model.scan(&first, &Seen::Complete(numbered(20)));
    model.scan(&second, &Seen::Complete(numbered(5)));
    let plan = retire(&first.id().0, &model);
    assert_eq!((plan.hand_overs.len(), plan.deletes.len()), (5, 15));
}

#[path = "history.rs"]
mod history;
#[path = "unread_tags.rs"]
mod unread_tags;
