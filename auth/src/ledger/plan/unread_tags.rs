//! What happens to databases whose tags could not be read.

use super::*;

pub(super) fn without_tags(base: &str) -> Sighting {
    let mut sighting = sighting(base, "prod");
    sighting.database.labels = [("region", "us-east-1")].into_iter().collect();
    sighting.tags_unknown = true;
    sighting
}

#[test]
fn labels_that_could_not_be_read_keep_their_last_known_value() {
    let scope = scope("prod", "us-east-1", 0);
    let mut model = Model::default();
    let mut known = sighting("orders", "prod");
    known.database.labels.insert("region", "somewhere else");
    known.tagged = true;
    model.scan(
        &scope,
        &Seen::Complete([("arn:orders".to_owned(), known)].into()),
    );

    let seen = [("arn:orders".to_owned(), without_tags("id-of-orders"))].into();
    let plan = model.scan(&scope, &Seen::Complete(seen));
    let labels = &plan.updates[0].database.labels;
    assert_eq!(labels.get("env"), Some("prod"));
    assert_eq!(
        labels.get("region"),
        Some("us-east-1"),
        "what could be read is news"
    );
    assert_eq!(plan.updates[0].database.discovered_name, "orders");

    let mut read_again = sighting("orders", "prod");
    read_again.database.labels = [("owner", "alice")].into_iter().collect();
    let plan = model.scan(
        &scope,
        &Seen::Complete([("arn:orders".to_owned(), read_again)].into()),
    );
    let labels = &plan.updates[0].database.labels;
    assert_eq!(
        (labels.get("env"), labels.get("owner")),
        (None, Some("alice"))
    );
}

#[test]
fn a_new_database_without_tags_is_left_out_unless_the_scope_takes_everything() {
    let seen = Seen::Partial([("arn:orders".to_owned(), without_tags("orders"))].into());
    let everything = scope("prod", "us-east-1", 0);
    assert_eq!(
        plan(&everything, &Model::default(), &seen, None)
            .creates
            .len(),
        1
    );

    let mut selective = scope("prod", "us-east-1", 0);
    selective.tags = Selector::new([("env".to_owned(), vec!["prod".to_owned()])]).unwrap();
    let left_out = plan(&selective, &Model::default(), &seen, None);
    assert_eq!((left_out.creates.len(), left_out.unjudged), (0, 1));

    let mut model = Model::default();
    model.scan(&scope("prod", "us-west-2", 5), &complete(&["orders"]));
    let guess = plan(&selective, &model, &seen, None);
    assert_eq!(
        (guess.updates.len(), guess.shadowed.len(), guess.unjudged),
        (0, 0, 1),
        "what cannot be judged is neither taken over nor claimed for later"
    );
}
