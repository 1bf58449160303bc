//! What the agent's own file says, and what happens when it says something else while the agent runs.

use std::time::Duration;

use tidegate_core::{Database, ResourceMatcher, Selector};
use tidegate_proto::v1::{self, control_request, control_response};
use tidegate_service::settings::LabelCommand;
use tokio::sync::oneshot;

use crate::world::{World, patiently, role};

fn upserted<'d>(delta: &'d v1::AnnounceDelta, name: &str) -> Option<&'d v1::DatabaseServer> {
    let is = |server: &&v1::DatabaseServer| {
        server
            .database
            .as_ref()
            .is_some_and(|database| database.name == name)
    };
    delta.upserted.iter().find(is)
}

/// The database of the agent's file, under another name.
fn another(world: &World, name: &str) -> Database {
    let mut database = world.settings.borrow().databases[0].clone();
    database.name = name.parse().unwrap();
    database
}

#[tokio::test]
async fn databases_of_the_file_come_and_go_while_the_agent_runs() {
    let mut world = World::start().await;
    world.until_announced(|delta| delta.full).await;
    let second = another(&world, "second");
    world
        .settings
        .send_modify(|settings| settings.databases.push(second));
    world
        .until_announced(|delta| upserted(delta, "second").is_some())
        .await;
    world.settings.send_modify(|settings| {
        settings.databases.remove(0);
    });
    world
        .until_announced(|delta| {
            assert!(!delta.full, "what stayed is not announced again");
            delta.removed == ["own"]
        })
        .await;
}

#[tokio::test]
async fn other_selectors_ask_the_inventory_anew_and_a_role_alone_does_not() {
    let mut world = World::start().await;
    let (first, _watch) = patiently(world.seen.watches.recv()).await.unwrap();
    assert!(first.selectors[0].labels.contains_key("env"));
    world.settings.send_modify(|settings| {
        settings.resources[0].assume_role = Some(role("other"));
    });
    world.settings.send_modify(|settings| {
        settings.resources = vec![ResourceMatcher {
            labels: Selector::new([("team", ["bi"])]).unwrap(),
            assume_role: None,
            line: 1,
        }];
    });
    let (second, _watch) = patiently(world.seen.watches.recv()).await.unwrap();
    assert!(second.selectors[0].labels.contains_key("team"));
    assert_eq!(second.after_revision, 0);
}

#[tokio::test]
async fn a_label_that_a_command_prints_is_announced_and_so_is_its_change() {
    let mut world = World::start().await;
    world.until_announced(|delta| delta.full).await;
    let file = std::env::temp_dir().join(format!("tidegate-it-label-{}", std::process::id()));
    std::fs::write(&file, "blue").unwrap();
    let labelled = another(&world, "labelled");
    let command = LabelCommand {
        label: "colour".to_owned(),
        command: vec!["/bin/cat".to_owned(), file.display().to_string()],
        period: Duration::from_millis(50),
    };
    world.settings.send_modify(|settings| {
        let name = labelled.name.clone();
        settings.label_commands.insert(name, vec![command]);
        settings.databases.push(labelled);
    });
    let colour = |delta: &v1::AnnounceDelta| {
        let server = upserted(delta, "labelled")?;
        let labels = &server.database.as_ref()?.labels;
        // It is announced only once the command has run: labels say who may use it.
        Some(labels.get("colour").expect("has its label").clone())
    };
    world
        .until_announced(|delta| colour(delta).as_deref() == Some("blue"))
        .await;
    std::fs::write(&file, "green").unwrap();
    world
        .until_announced(|delta| colour(delta).as_deref() == Some("green"))
        .await;
    std::fs::remove_file(&file).unwrap();
    world
        .until_announced(|delta| {
            upserted(delta, "labelled").is_some_and(|server| {
                server
                    .remarks
                    .iter()
                    .any(|remark| remark.contains("label `colour`"))
                    && colour(delta).as_deref() == Some("green")
            })
        })
        .await;
}

#[tokio::test]
async fn an_agent_that_starts_while_the_control_plane_is_away_lets_nobody_in_and_recovers_by_itself()
 {
    let (answer, answers) = oneshot::channel();
    let mut world = World::start_while_away(async { drop(answers.await) }).await;
    let mut line = world.line().await;
    line.tell(control_response::Message::Dial(v1::Dial {
        token: vec![7; 16],
        route: "own".to_owned(),
        client_addr: "192.0.2.7:5000".to_owned(),
        greeted_as: 0,
        last: false,
    }));
    let control_request::Message::DialRefused(refused) = line.next().await else {
        panic!("nobody is let in without roles")
    };
    assert!(
        refused.reason.contains("no certificate for clients yet"),
        "the database is served: {}",
        refused.reason
    );
    assert!(!world.readiness.is_ready());

    answer.send(()).unwrap();
    world
        .until_announced(|delta| delta.full && upserted(delta, "own").is_some())
        .await;
    patiently(async {
        while !world.readiness.is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
