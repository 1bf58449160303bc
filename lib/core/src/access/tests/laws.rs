//! What holds for any roles.

use super::*;

const ENVS: [&str; 3] = ["prod", "dev", "*"];
const VALUES: [&str; 5] = ["a", "b", "*", "{{internal.db_users}}", "{{broken"];

fn values() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(&VALUES[..]), 0..3)
        .prop_map(|values| values.into_iter().map(str::to_owned).collect())
}

fn expression() -> impl Strategy<Value = Option<LabelExpression>> {
    prop::option::weighted(
        0.3,
        prop::sample::select(vec![
            r#"labels["env"] == "prod""#,
            r#"contains(user.spec.traits["db_users"], "a")"#,
            "false",
        ])
        .prop_map(|text| text.parse().unwrap()),
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let kind = prop::sample::select(vec!["db", "token", "*"]);
    let verb = prop::sample::select(vec![
        VerbPattern::One(Verb::List),
        VerbPattern::One(Verb::Delete),
        VerbPattern::ANY,
    ]);
    prop::collection::vec(
        (kind, verb).prop_map(|(kind, verb)| Rule::new(&[kind], &[verb])),
        0..2,
    )
}

fn side() -> impl Strategy<Value = RoleConditions> {
    let labels = prop::option::of(prop::sample::select(&ENVS[..]));
    (labels, expression(), values(), values(), rules()).prop_map(
        |(env, db_labels_expression, db_users, db_names, rules)| RoleConditions {
            db_labels: env.map_or_else(Selector::default, |env| {
                Selector::new([("env", [env])]).unwrap()
            }),
            db_labels_expression,
            db_users,
            db_names,
            rules,
            ..RoleConditions::default()
        },
    )
}

/// Roles `r0`, `r1`, …; about every second one denies something.
fn roles() -> impl Strategy<Value = Vec<Role>> {
    let deny = prop_oneof![Just(RoleConditions::default()), side()];
    prop::collection::vec((side(), deny), 0..4).prop_map(|sides| {
        sides
            .into_iter()
            .enumerate()
            .map(|(number, (allow, deny))| Role {
                name: format!("r{number}"),
                allow,
                deny,
                ..Role::default()
            })
            .collect()
    })
}

fn holder(roles: &[Role]) -> Subject {
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    subject(&names, &["a"], &[])
}

/// Every question there is over the values above, and whether it is allowed.
fn answers(roles: &[Role], alice: &Subject) -> Vec<bool> {
    let policy = Policy::new(roles.to_vec());
    let grants = policy.grants(alice);
    let mut answers = Vec::new();
    for env in ["prod", "dev"] {
        let database = database(env);
        answers.push(grants.may_see(&database.labels));
        for db_user in ["a", "b"] {
            for db_name in ["a", "b"] {
                let request = Request {
                    database: &database,
                    db_user,
                    db_name,
                };
                let decided = grants.decide(request, Provisioning::Unable);
                assert_eq!(decided.decision.is_ok(), decided.explanation.allowed());
                answers.push(decided.explanation.allowed());
            }
        }
    }
    for kind in [kinds::DATABASE, kinds::TOKEN] {
        for verb in [Verb::List, Verb::Delete] {
            answers.push(grants.may(Target::kind(kind), verb).allowed());
        }
    }
    answers
}

fn nowhere_more(less: &[bool], more: &[bool]) -> bool {
    less.iter().zip(more).all(|(less, more)| !less || *more)
}

proptest! {
    #[test]
    fn adding_a_deny_never_grants(roles in roles(), deny in side()) {
        let alice = holder(&roles);
        let before = answers(&roles, &alice);
        for index in 0..roles.len() {
            let mut stricter = roles.clone();
            stricter[index].deny.db_users.extend(deny.db_users.clone());
            stricter[index].deny.db_names.extend(deny.db_names.clone());
            stricter[index].deny.rules.extend(deny.rules.clone());
            if stricter[index].deny.db_labels.is_empty() {
                stricter[index].deny.db_labels = deny.db_labels.clone();
            }
            prop_assert!(nowhere_more(&answers(&stricter, &alice), &before));
        }
    }

    #[test]
    fn another_role_takes_nothing_away_unless_it_denies(roles in roles(), another in side()) {
        let before = answers(&roles, &holder(&roles));
        let mut more = roles;
        more.push(Role {
            name: "another".to_owned(),
            allow: another,
            ..Role::default()
        });
        prop_assert!(nowhere_more(&before, &answers(&more, &holder(&more))));
    }

    #[test]
    fn the_order_of_roles_does_not_matter(roles in roles(), turn in 0_usize..4) {
        let alice = holder(&roles);
        let before = answers(&roles, &alice);
        let mut turned = alice;
        let by = turn % turned.roles.len().max(1);
        turned.roles.rotate_left(by);
        prop_assert_eq!(&answers(&roles, &turned), &before);
        turned.roles.reverse();
        prop_assert_eq!(&answers(&roles, &turned), &before);
    }

    #[test]
    fn what_is_allowed_is_allowed_by_one_role_alone(roles in roles()) {
        let alice = holder(&roles);
        let undenied: Vec<Role> = roles
            .iter()
            .map(|role| Role { deny: RoleConditions::default(), ..role.clone() })
            .collect();
        let together = answers(&undenied, &alice);
        let mut alone = vec![false; together.len()];
        for role in &undenied {
            let one = std::slice::from_ref(role);
            for (some, by) in alone.iter_mut().zip(answers(one, &holder(one))) {
                *some |= by;
            }
        }
        prop_assert_eq!(together, alone);
    }

    #[test]
    fn who_may_use_a_database_may_see_it_and_is_told_the_user(roles in roles()) {
        let policy = Policy::new(roles.clone());
        let alice = holder(&roles);
        let grants = policy.grants(&alice);
        let database = database("prod");
        for db_user in ["a", "b"] {
            let request = Request { database: &database, db_user, db_name: "a" };
            if grants.decide(request, Provisioning::Unable).explanation.allowed() {
                prop_assert!(grants.may_see(&database.labels));
                let users = grants.db_users(&database.labels);
                prop_assert!(users.values.iter().any(|user| user == "*" || user == db_user));
                prop_assert!(!users.except.iter().any(|user| user == "*" || user == db_user));
            }
        }
    }
}
