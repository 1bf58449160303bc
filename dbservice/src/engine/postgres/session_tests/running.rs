//! Sessions that run: bytes, audit, cancel, and every kind of end.

use super::*;
use crate::engine::postgres::cancel;

#[tokio::test]
async fn a_session_passes_bytes_and_is_audited_from_start_to_end() {
    let mut bed = Bed::new().await;
    let (mut client, mut database, key, serving) = bed.session().await;
    assert_ne!((key.process_id, &key.secret[..]), (77, &b"real"[..]));

    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    assert_eq!(message(&mut database).await, (b'Q', b"select 1\0".to_vec()));
    let answer = [
        &b"D\0\0\0\x0b\0\x01\0\0\0\x011"[..],
        b"C\0\0\0\x0dSELECT 1\0",
        &ready_for_query(TxStatus::Idle),
    ]
    .concat();
    database.write_all(&answer).await.unwrap();
    let mut got = vec![0; answer.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, answer);

    client.write_all(&frontend::terminate()).await.unwrap();
    assert_eq!(message(&mut database).await.0, b'X');
    drop(database);
    client.shutdown().await.unwrap();
    drop(client);
    tokio::time::timeout(WAIT, serving).await.unwrap().unwrap();

    let (start, query, end) = (bed.event(), bed.event(), bed.event());
    assert_eq!(
        [&start.code, &query.code, &end.code],
        ["TDB00I", "TDB02I", "TDB01I"]
    );
    assert!([&query, &end].iter().all(|event| event.sid == start.sid));
    assert_eq!(start.fields["user_agent"], "psql");
    assert_eq!(query.fields["db_query"], "select 1");
    assert_eq!(
        (
            end.fields["rows"].as_str(),
            end.fields["statements"].as_str()
        ),
        ("1", "1")
    );
    assert_eq!(end.fields["cause"], "client_terminated");
    assert_eq!(end.db_user, "reader");
}

#[tokio::test]
async fn what_a_client_sends_with_its_start_up_message_is_not_lost() {
    let bed = Bed::new().await;
    let (mut client, _) = bed.client().await;
    let words = [&startup("reader")[..], &frontend::query("select 2")].concat();
    client.write_all(&words).await.unwrap();
    let (mut database, _) = bed.welcome().await;
    assert_eq!(message(&mut database).await, (b'Q', b"select 2\0".to_vec()));
}

#[tokio::test]
async fn bulk_of_many_sizes_arrives_as_it_was_sent() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    let mut rows = Vec::new();
    for size in [0_usize, 1, 100, 16_379, 16_384, 70_000, 1 << 20] {
        rows.push(b'D');
        rows.extend_from_slice(&u32::try_from(size + 4).unwrap().to_be_bytes());
        rows.extend((0..size).map(|byte| byte.to_le_bytes()[0]));
    }
    let sent = rows.clone();
    let sending = tokio::spawn(async move {
        for chunk in sent.chunks(50_001) {
            database.write_all(chunk).await.unwrap();
        }
        database.flush().await.unwrap();
        database
    });
    let mut got = vec![0; rows.len()];
    tokio::time::timeout(WAIT, client.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert!(got == rows, "bytes differ");
    sending.await.unwrap();
}

#[tokio::test]
async fn cancel_reaches_the_database_with_its_own_key_and_only_while_a_statement_runs() {
    let bed = Bed::new().await;
    let (mut client, mut database, key, _serving) = bed.session().await;
    let idle = cancel(&bed.engine, key.process_id, &key.secret).await;
    assert_eq!(idle, "nothing runs in that session");
    let wrong = cancel(&bed.engine, key.process_id, b"nope").await;
    assert_eq!(wrong, "no session has that key");

    client
        .write_all(&frontend::query("select pg_sleep(60)"))
        .await
        .unwrap();
    message(&mut database).await;
    let asking = cancel(&bed.engine, key.process_id, &key.secret);
    let heard = async {
        let mut stream = bed.upstream().await;
        first(&mut stream).await
    };
    let (asked, heard) = tokio::join!(asking, heard);
    assert_eq!(asked, "asked the database to cancel");
    let expected = CancelRequest {
        process_id: 77,
        secret: Bytes::from_static(b"real"),
    };
    assert_eq!(heard, FirstMessage::Cancel(expected));
}

#[tokio::test]
async fn a_cancel_request_inside_tls_needs_no_start_up() {
    let bed = Bed::new().await;
    let (mut client, mut database, key, _serving) = bed.session().await;
    client
        .write_all(&frontend::query("select pg_sleep(60)"))
        .await
        .unwrap();
    message(&mut database).await;
    let (mut second, handled) = bed.client_as(None, "orders").await;
    let request = CancelRequest {
        process_id: key.process_id,
        secret: key.secret.clone(),
    };
    second.write_all(&request.encode()).await.unwrap();
    let mut stream = bed.upstream().await;
    assert!(matches!(first(&mut stream).await, FirstMessage::Cancel(_)));
    drop(stream);
    tokio::time::timeout(WAIT, handled).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_database_that_dies_is_told_to_the_client() {
    let mut bed = Bed::new().await;
    let (mut client, database, _, serving) = bed.session().await;
    drop(database);
    assert_eq!(error(&mut client).await.code.as_str(), "08006");
    drop(client);
    serving.await.unwrap();
    bed.event();
    assert!(bed.event().fields["cause"].starts_with("database_"));
}

#[tokio::test]
async fn the_databases_own_last_words_are_the_only_ones() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    let words = ErrorResponse::fatal(tidegate_wire::SqlState::ADMIN_SHUTDOWN, "bye").encode();
    database.write_all(&words).await.unwrap();
    database.shutdown().await.unwrap();
    assert_eq!(error(&mut client).await.message, "bye");
    assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn at_shutdown_an_idle_session_ends_at_once_with_57p01() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    bed.engine.shutdown.cancel();
    assert_eq!(error(&mut client).await.code.as_str(), "57P01");
    assert_eq!(message(&mut database).await.0, b'X');
}

#[tokio::test]
async fn at_shutdown_a_statement_is_finished_first() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    message(&mut database).await;
    bed.engine.shutdown.cancel();
    database.write_all(b"C\0\0\0\x0dSELECT 1\0").await.unwrap();
    assert_eq!(message(&mut client).await.0, b'C');
    database
        .write_all(&ready_for_query(TxStatus::Idle))
        .await
        .unwrap();
    assert_eq!(message(&mut client).await.0, b'Z');
    assert_eq!(error(&mut client).await.code.as_str(), "57P01");
}

#[tokio::test]
async fn a_database_that_is_served_no_longer_ends_its_sessions() {
    let bed = Bed::new().await;
    let (mut client, _database, _, _serving) = bed.session().await;
    bed.serving.ended.cancel();
    assert_eq!(error(&mut client).await.code.as_str(), "57P01");
}

#[tokio::test]
async fn audit_never_holds_a_password_or_a_token() {
    let mut bed = Bed::new().await;
    let (mut client, mut database, _, serving) = bed.session().await;
    for statement in [
        "alter user bob password 'hunter2'",
        "copy t from 's3://b/k' iam_role 'arn:aws:iam::1:role/r' secret_access_key 'hunter2'",
    ] {
        client.write_all(&frontend::query(statement)).await.unwrap();
        client.flush().await.unwrap();
        let (_, text) = message(&mut database).await;
        assert_eq!(text, [statement.as_bytes(), b"\0"].concat(), "what is sent");
    }
    drop((client, database));
    serving.await.unwrap();
    let mut seen = String::new();
    while let Ok(event) = bed.events.try_recv() {
        seen.push_str(&format!("{event:?}"));
    }
    assert!(seen.contains("TDB01I"));
    assert!(!seen.contains("minted") && !seen.contains("IAM:reader"));
    assert!(seen.contains("alter user bob password '***'"), "{seen}");
    assert!(seen.contains("arn:aws:iam::1:role/r") && !seen.contains("hunter2"));
}
