//! Statements that are stopped over a connection of the agent's own.

use tidegate_wire::mysql::{
    command::{Code, command},
    reply,
};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    session_tests::{
        Client, Database, THREAD, answer, bed, connect_as, greets, next, send, session, welcomes,
    },
    stopping::Owner,
};
use crate::engine::postgres::session_tests::{Bed, WAIT};

/// What a proxy gave a client.
const NUMBER: u32 = 0x8000_0007;

/// A session of a client that a proxy greeted.
async fn greeted_session(bed: &Bed, number: u32) -> (Client, Database, JoinHandle<()>) {
    let (mut client, serving) = connect_as(bed, false, true, number).await;
    send(&mut client, &answer("reader", Some("app")).encode(2)).await;
    let database = greets(bed).await;
    let (database, _) = welcomes(bed, database).await;
    assert_eq!(next(&mut client).await.payload[0], reply::OK);
    (client, database, serving)
}

/// Begins a statement that the database does not answer.
async fn begin(client: &mut Client, database: &mut Database) {
    send(client, &command(Code::QUERY, "SELECT SLEEP(1000)")).await;
    assert_eq!(next(database).await.payload[0], Code::QUERY);
}

/// What the agent asks over its next connection, and the database consents.
async fn asked(bed: &Bed) -> String {
    let stream = timeout(WAIT, greets(bed)).await.unwrap();
    let (mut database, _) = welcomes(bed, stream).await;
    let packet = next(&mut database).await;
    send(&mut database, &reply::ok(1)).await;
    String::from_utf8(packet.payload[1..].to_vec()).unwrap()
}

#[tokio::test]
async fn what_a_client_leaves_running_is_ended_at_the_database() {
    let bed = bed().await;
    let (mut client, mut database, serving) = session(&bed).await;
    begin(&mut client, &mut database).await;
    drop(client);
    assert_eq!(asked(&bed).await, format!("KILL CONNECTION {THREAD}"));
    drop(database);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_nothing_running_costs_no_further_connection() {
    let bed = bed().await;
    let (mut client, mut database, serving) = session(&bed).await;
    begin(&mut client, &mut database).await;
    send(&mut database, &reply::ok(1)).await;
    next(&mut client).await;
    drop(client);
    assert_eq!(next(&mut database).await.payload[0], Code::QUIT);
    drop(database);
    serving.await.unwrap();
    let accepting = bed.database.accept();
    assert!(timeout(std::time::Duration::ZERO, accepting).await.is_err());
}

#[tokio::test]
async fn the_number_of_a_proxy_stops_the_statement_of_its_session_and_the_kill_passes_as_it_came() {
    let bed = bed().await;
    let (mut client, mut database, _serving) = greeted_session(&bed, NUMBER).await;
    begin(&mut client, &mut database).await;
    let (mut second, mut beside, _also) = greeted_session(&bed, NUMBER + 1).await;
    let kill = format!("KILL QUERY {NUMBER}");
    send(&mut second, &command(Code::QUERY, &kill)).await;
    assert_eq!(&next(&mut beside).await.payload[1..], kill.as_bytes());
    assert_eq!(asked(&bed).await, format!("KILL QUERY {THREAD}"));
}

#[tokio::test]
async fn a_statement_that_is_over_in_the_meantime_does_not_cost_the_next_one() {
    let bed = bed().await;
    let (mut client, mut database, _serving) = greeted_session(&bed, NUMBER).await;
    begin(&mut client, &mut database).await;
    let (mut second, mut beside, _also) = greeted_session(&bed, NUMBER + 1).await;
    send(
        &mut second,
        &command(Code::QUERY, &format!("KILL QUERY {NUMBER}")),
    )
    .await;
    next(&mut beside).await;
    let killing = greets(&bed).await;
    send(&mut database, &reply::ok(1)).await;
    next(&mut client).await;
    begin(&mut client, &mut database).await;
    let (mut killing, _) = welcomes(&bed, killing).await;
    assert_eq!(next(&mut killing).await.payload[0], Code::QUIT);
}

#[tokio::test]
async fn a_number_is_good_for_its_owner_alone_and_for_as_long_as_the_session_runs() {
    let bed = bed().await;
    let (client, database, serving) = greeted_session(&bed, NUMBER).await;
    let numbers = &bed.engine.mysql_numbers;
    let owner = |person: &str, db_user: &str| Owner {
        person: person.to_owned(),
        database: "orders".to_owned(),
        db_user: db_user.to_owned(),
    };
    assert!(numbers.find(NUMBER, &owner("alice", "reader")).is_some());
    assert!(numbers.find(NUMBER, &owner("bob", "reader")).is_none());
    assert!(numbers.find(NUMBER, &owner("alice", "writer")).is_none());
    assert!(
        numbers
            .find(NUMBER + 1, &owner("alice", "reader"))
            .is_none()
    );
    drop((client, database));
    serving.await.unwrap();
    assert!(numbers.find(NUMBER, &owner("alice", "reader")).is_none());
}
