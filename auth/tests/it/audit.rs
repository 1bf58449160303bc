//! Streams of events, searches and verification over gRPC.

use std::collections::BTreeMap;

use tidegate_proto::{
    audit::{Chain, Link, Repeats, Verifier},
    convert, v1,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::house::{Caller, House};

fn events(uids: std::ops::Range<usize>) -> Vec<v1::AuditEvent> {
    let event = |uid: usize| v1::AuditEvent {
        uid: uid.to_string(),
        event: "db.session.query".to_owned(),
        code: "TDB02I".to_owned(),
        user: if uid.is_multiple_of(2) {
            "alice"
        } else {
            "bob"
        }
        .to_owned(),
        ..v1::AuditEvent::default()
    };
    uids.map(event).collect()
}

async fn send(agent: &Caller, batches: Vec<(u64, Vec<v1::AuditEvent>)>) -> Result<Vec<u64>, Code> {
    let requests = batches
        .into_iter()
        .map(|(batch, events)| v1::EmitStreamRequest { batch, events });
    let requests: Vec<_> = requests.collect();
    let mut answers = agent
        .audit()
        .emit_stream(futures::stream::iter(requests))
        .await
        .map_err(|status| status.code())?
        .into_inner();
    let mut durable = Vec::new();
    while let Some(answer) = answers.message().await.map_err(|status| status.code())? {
        durable.push(answer.durable_batch);
    }
    Ok(durable)
}

async fn verified(house: &House) -> BTreeMap<String, Chain> {
    let mut audit = house.admin().audit();
    let request = v1::ReadRecordsRequest::default();
    let mut parts = audit.read_records(request).await.unwrap().into_inner();
    let mut verifier = Verifier::new(Repeats::Refused, BTreeMap::new());
    let mut log = String::new();
    while let Some(part) = parts.message().await.unwrap() {
        if let Some(id) = part.log {
            log = id.log;
        }
        for record in part.records {
            assert!(!record.index_differs);
            verifier.read(Link {
                log: &log,
                source: &record.source,
                sequence: record.sequence,
                hash: &record.hash,
                event: &record.event,
            });
        }
    }
    let chains = verifier.finish(&[&log]).into_iter();
    chains.map(|((_, source), chain)| (source, chain)).collect()
}

#[tokio::test]
async fn a_stream_is_acknowledged_batch_by_batch_and_may_be_sent_again() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let agent = house.known(&identity);
    let sent = send(&agent, vec![(1, events(0..200)), (2, events(200..300))]).await;
    assert_eq!(sent, Ok(vec![1, 2]));
    // After a break, with what was not acknowledged and more.
    let sent = send(&agent, vec![(1, events(200..300)), (5, events(300..310))]).await;
    assert_eq!(sent, Ok(vec![1, 5]));
    let chains = verified(&house).await;
    assert!(chains.values().all(|chain| chain.broken.is_none()));
    assert_eq!(chains[&identity.host_id].count, 310);
    assert!(
        chains.len() > 1,
        "the auth service's own events have a chain too"
    );
}

#[tokio::test]
async fn acknowledgements_come_while_the_stream_is_open() {
    let house = House::new().await;
    let agent = house.known(&house.host(&["db"]).await);
    let (sender, requests) = mpsc::channel(1);
    let mut audit = agent.audit();
    let mut answers = audit
        .emit_stream(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    for batch in 1..=3 {
        let events = events(0..1);
        sender
            .send(v1::EmitStreamRequest { batch, events })
            .await
            .unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.durable_batch, batch);
    }
}

#[tokio::test]
async fn a_stream_that_does_not_count_up_or_brings_too_much_is_refused() {
    let house = House::new().await;
    let agent = house.known(&house.host(&["db"]).await);
    for batches in [
        vec![(0, events(0..1))],
        vec![(1, events(0..1)), (1, events(1..2))],
        vec![(1, events(0..257))],
    ] {
        assert_eq!(send(&agent, batches).await, Err(Code::InvalidArgument));
    }
    let person = house.known(&house.person("otto", &["editor"]).await);
    let refused = send(&person, vec![(1, events(0..1))]).await;
    assert_eq!(refused, Err(Code::PermissionDenied));
}

#[tokio::test]
async fn any_event_is_taken_and_none_keeps_the_others_out() {
    let house = House::new().await;
    let agent = house.known(&house.host(&["db"]).await);
    let poison = v1::AuditEvent {
        error: "x\0".repeat(200_000),
        sequence: 99,
        server_id: "somebody-else".to_owned(),
        ..v1::AuditEvent::default()
    };
    let batch = vec![poison, events(7..8).remove(0)];
    assert_eq!(send(&agent, vec![(1, batch)]).await, Ok(vec![1]));
    let chains = verified(&house).await;
    assert!(chains.values().all(|chain| chain.broken.is_none()));
}

#[tokio::test]
async fn a_search_pages_to_its_end_and_a_token_of_another_is_refused() {
    let house = House::new().await;
    let agent = house.known(&house.host(&["db"]).await);
    assert_eq!(send(&agent, vec![(1, events(0..100))]).await, Ok(vec![1]));
    let mut audit = house.admin().audit();
    let mut request = v1::ListEventsRequest {
        event: "db.session.query".to_owned(),
        user: "alice".to_owned(),
        limit: 20,
        ..v1::ListEventsRequest::default()
    };
    let mut uids = Vec::new();
    let mut first_token = String::new();
    loop {
        let page = audit
            .list_events(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(!page.log.unwrap().log.is_empty());
        uids.extend(page.events.into_iter().rev().map(|event| event.uid));
        request.page_token = page.next_page_token;
        if first_token.is_empty() {
            first_token.clone_from(&request.page_token);
        }
        if request.page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = (0..100)
        .rev()
        .filter(|uid| uid % 2 == 0)
        .map(|uid| uid.to_string())
        .collect();
    assert_eq!(uids, expected);
    let refusal = async |request: v1::ListEventsRequest| {
        let mut audit = house.admin().audit();
        audit.list_events(request).await.unwrap_err().code()
    };
    for bad in [
        v1::ListEventsRequest {
            user: "bob".to_owned(),
            page_token: first_token,
            ..request.clone()
        },
        v1::ListEventsRequest {
            page_token: "zz".to_owned(),
            ..request.clone()
        },
        v1::ListEventsRequest {
            limit: -1,
            ..request.clone()
        },
        v1::ListEventsRequest {
            db_service: "x".repeat(300),
            ..request.clone()
        },
        v1::ListEventsRequest {
            from: Some(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            }),
            ..request.clone()
        },
    ] {
        assert_eq!(refusal(bad).await, Code::InvalidArgument);
    }
    let future = convert::timestamp("2099-01-01T00:00:00Z".parse().unwrap());
    let none = v1::ListEventsRequest {
        from: Some(future),
        ..v1::ListEventsRequest::default()
    };
    assert!(
        audit
            .list_events(none)
            .await
            .unwrap()
            .into_inner()
            .events
            .is_empty()
    );
}
