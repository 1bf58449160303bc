//! Watches over several kinds.

use tonic::Streaming;

use super::*;

/// A watch's events as short texts.
struct Events(Streaming<v1::WatchResourcesResponse>, u64);

impl Events {
    async fn next(&mut self) -> String {
        use v1::watch_resources_response::Event;
        let event = self.0.message().await.unwrap().unwrap();
        if event.revision > 0 {
            assert!(event.revision >= self.1, "revisions only grow");
            self.1 = event.revision;
        }
        match event.event.unwrap() {
            Event::Upserted(resource) => format!("+{}/{}", resource.kind, resource.name),
            Event::Deleted(key) => format!("-{}/{}", key.kind, key.name),
            Event::Synced(_) => "synced".to_owned(),
            Event::Bookmark(_) => "bookmark".to_owned(),
        }
    }

    async fn until_synced(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                event if event == "synced" => return events,
                event => events.push(event),
            }
        }
    }
}

fn filter(kind: &str, filter: &str) -> v1::ResourceFilter {
    v1::ResourceFilter {
        kind: kind.to_owned(),
        filter: filter.to_owned(),
        ..v1::ResourceFilter::default()
    }
}

async fn watch(
    caller: &Caller,
    kinds: &[v1::ResourceFilter],
    after_revision: u64,
) -> Result<Events, Status> {
    let request = v1::WatchResourcesRequest {
        kinds: kinds.to_vec(),
        after_revision,
    };
    let watched = caller.resources().watch_resources(request).await?;
    Ok(Events(watched.into_inner(), 0))
}

async fn update_user(house: &House, name: &str, roles: &[&str]) {
    let user = v1::User {
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..v1::User::default()
    };
    let request = v1::UpdateUserRequest { user: Some(user) };
    house.admin().access().update_user(request).await.unwrap();
}

async fn delete_user(house: &House, name: &str) {
    let request = v1::DeleteUserRequest {
        name: name.to_owned(),
    };
    house.admin().access().delete_user(request).await.unwrap();
}

#[tokio::test]
async fn a_watch_of_several_kinds_lists_then_tells_changes_in_order() {
    let house = House::new().await;
    house.add_user("alice", &["access"]).await;
    house.add_user("bob", &["editor"]).await;
    let kinds = [
        filter("user", "contains(roles, \"access\")"),
        filter("lock", ""),
    ];
    let mut events = watch(&house.admin(), &kinds, 0).await.unwrap();
    assert_eq!(events.until_synced().await, ["+user/alice"]);
    lock(&house, "l1", "alice").await;
    // Not of a kind that is watched, and not one that matches.
    house.add_database("orders", "prod").await;
    house.add_user("carol", &["editor"]).await;
    update_user(&house, "bob", &["access"]).await;
    update_user(&house, "alice", &["editor"]).await;
    delete_user(&house, "carol").await;
    unlock(&house, "l1").await;
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(events.next().await);
    }
    assert_eq!(told, ["+lock/l1", "+user/bob", "-user/alice", "-lock/l1"]);
}

#[tokio::test]
async fn a_watch_resumes_with_what_became_of_each_also_over_a_restart() {
    let house = House::new().await;
    house.add_user("alice", &["access"]).await;
    house.add_user("bob", &["access"]).await;
    let kinds = [
        filter("user", "contains(roles, \"access\")"),
        filter("lock", ""),
    ];
    let mut events = watch(&house.admin(), &kinds, 0).await.unwrap();
    events.until_synced().await;
    lock(&house, "l1", "alice").await;
    assert_eq!(events.next().await, "+lock/l1");
    let seen = events.1;
    unlock(&house, "l1").await;
    lock(&house, "l2", "bob").await;
    update_user(&house, "alice", &["editor"]).await;
    house.add_user("dave", &["editor"]).await;
    delete_user(&house, "dave").await;
    update_user(&house, "bob", &["access", "editor"]).await;
    let missed = ["-lock/l1", "+lock/l2", "-user/alice", "+user/bob"];
    let mut again = watch(&house.admin(), &kinds, seen).await.unwrap();
    assert_eq!(again.until_synced().await, missed);
    let house = house.restart().await;
    let mut again = watch(&house.admin(), &kinds, seen).await.unwrap();
    assert_eq!(again.until_synced().await, missed);
    lock(&house, "l3", "x").await;
    assert_eq!(again.next().await, "+lock/l3");
}

#[tokio::test]
async fn instances_and_scopes_are_watched_as_one_though_they_are_kept_in_parts() {
    let house = House::new().await;
    let kinds = [filter("instance", ""), filter("discovery_scope", "")];
    let mut events = watch(&house.admin(), &kinds, 0).await.unwrap();
    assert_eq!(events.next().await, "synced");
    let before = events.1;
    let agent = house.host(&["db"]).await;
    let presence = serve(&house, &agent, &["a"]).await;
    let up = format!("+instance/{}", agent.host_id);
    assert_eq!(events.next().await, up);
    let worker = Worker::start(&house, "prod", 0).await;
    let scope = format!("+discovery_scope/{}", worker.scope.id);
    assert_eq!(events.next().await, scope);
    worker.publish(true, 1, items(&["dw"])).await.unwrap();
    assert_eq!(events.next().await, scope);
    let mut again = watch(&house.admin(), &kinds, before).await.unwrap();
    assert_eq!(again.until_synced().await, [up, scope]);
    drop(presence);
}

#[tokio::test]
async fn databases_are_watched_alone_with_a_filter() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    house.add_database("lab", "dev").await;
    let mut kind = filter("db", "name != \"lab\"");
    let mut events = watch(&house.admin(), &[kind.clone()], 0).await.unwrap();
    assert_eq!(events.until_synced().await, ["+db/orders"]);
    house.add_database("new", "prod").await;
    assert_eq!(events.next().await, "+db/new");
    kind.selector = Some(Selector::new([("env", ["dev"])]).unwrap().into());
    kind.filter = String::new();
    let mut events = watch(&house.admin(), &[kind], 0).await.unwrap();
    assert_eq!(events.until_synced().await, ["+db/lab"]);
    let agent = house.host(&["db"]).await;
    let presence = serve(&house, &agent, &["a"]).await;
    let mut events = watch(&house.admin(), &[filter("db_server", "")], 0)
        .await
        .unwrap();
    let server = format!("+db_server/a/{}", agent.host_id);
    assert_eq!(events.until_synced().await, [server]);
    drop(presence);
}

#[tokio::test]
async fn a_watch_that_cannot_be_is_refused() {
    let house = House::new().await;
    let admin = house.admin();
    let user = || filter("user", "");
    for (kinds, problem) in [
        (vec![], "is empty"),
        (vec![user(), user()], "holds `user` twice"),
        (vec![user(), filter("db", "")], "watch it alone"),
        (vec![filter("usr", "")], "did you mean `user`"),
        (vec![filter("user", "nmae == \"x\"")], "did you mean `name`"),
        (vec![user(); 33], "are more than 32"),
    ] {
        let refused = watch(&admin, &kinds, 0).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(problem), "{refused}");
    }
    let never = watch(&admin, &[user()], 1_000_000).await.err().unwrap();
    assert_eq!(never.code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_watch_that_roles_decide_ends_when_they_change() {
    let house = House::new().await;
    let own = "hasPrefix(resource.metadata.name, \"dev-\")";
    put_role(&house, "lead", vec![rule("user", own)]).await;
    house.add_user("boss", &["editor"]).await;
    let lead = house.known(&house.person("dev-lead", &["lead"]).await);
    let mut events = watch(&lead, &[filter("user", "")], 0).await.unwrap();
    assert_eq!(events.until_synced().await, ["+user/dev-lead"]);
    let seen = events.1;
    house.add_user("dev-a", &["access"]).await;
    assert_eq!(events.next().await, "+user/dev-a");
    put_role(&house, "lead", vec![rule("user", "")]).await;
    house.add_user("dev-b", &["access"]).await;
    assert_eq!(code(events.0.message().await), Code::OutOfRange);
    let refused = watch(&lead, &[filter("user", "")], seen).await;
    assert_eq!(refused.err().unwrap().code(), Code::OutOfRange);
    let mut again = watch(&lead, &[filter("user", "")], 0).await.unwrap();
    let all = ["boss", "dev-a", "dev-b", "dev-lead"].map(|name| format!("+user/{name}"));
    assert_eq!(again.until_synced().await, all);
}
