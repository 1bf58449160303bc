//! Every record arrives at least once and in order, whatever fails.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::Credentials;
use tidegate_proto::{
    audit::{Link, ReadLine, Repeats, Verifier},
    v1::AuditEvent,
};
use tidegate_service::{
    admin::Readiness,
    clock::SystemClock,
    metrics::Metrics,
    settings::{AuditTarget, S3Target},
    tasks::Tasks,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use super::{Batch, ExportError, s3::Bucket, start};
use crate::audit::{AuditLog, event};

fn log(directory: &Path) -> AuditLog {
    AuditLog::open(directory, Arc::new(SystemClock)).unwrap()
}

fn events(count: usize) -> Vec<AuditEvent> {
    (0..count).map(|_| event::new(event::LOGIN)).collect()
}

/// The records that lines hold, repeats left out, if their chain is sound.
fn records_in(text: &str) -> u64 {
    let mut verifier = Verifier::new(Repeats::Allowed, BTreeMap::new());
    for line in text.lines() {
        let line: ReadLine = line.parse().unwrap();
        assert!(line.is_faithful);
        verifier.read(Link {
            log: &line.log,
            source: &line.event.server_id,
            sequence: line.event.sequence,
            hash: &line.hash,
            event: &line.record,
        });
    }
    let chains = verifier.finish(&[]);
    assert!(chains.values().all(|chain| chain.broken.is_none()));
    chains.values().map(|chain| chain.count).sum()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_file_gets_everything_also_what_came_while_it_could_not_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("exports");
    let file = folder.join("audit.jsonl");
    let log = log(directory.path());
    let (tasks, readiness) = (Tasks::new(), Readiness::new());
    log.append("host-1", events(3)).await.unwrap();
    let targets = [AuditTarget::File(file.clone())];
    start(&log, &targets, &Metrics::new(), &readiness, &tasks);
    let count = || records_in(&std::fs::read_to_string(&file).unwrap_or_default());
    // Its folder is not there yet; the writer is not held up.
    for _ in 0..4 {
        log.append("host-1", events(250)).await.unwrap();
    }
    assert!(readiness.is_ready(), "a target that fails degrades");
    std::fs::create_dir(&folder).unwrap();
    until("all events are in the file", || count() == 1003).await;

    tasks
        .close_and_wait(std::time::Duration::from_secs(5))
        .await;
    log.append("host-1", events(5)).await.unwrap();
    let tasks = Tasks::new();
    start(&log, &targets, &Metrics::new(), &readiness, &tasks);
    until("it goes on where it was", || count() == 1008).await;
    let lines = std::fs::read_to_string(&file).unwrap().lines().count();
    assert_eq!(lines, 1008, "nothing comes twice when nothing failed");
    tasks
        .close_and_wait(std::time::Duration::from_secs(5))
        .await;
}

/// Answers each request with the next of `answers`, and tells what it was asked.
async fn bucket_service(answers: Vec<&'static str>) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            loop {
                stream.read_buf(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .unwrap();
                if body.len() >= length.parse().unwrap() {
                    told.send(text).unwrap();
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_bucket_gets_a_batch_as_one_object_whose_name_is_the_same_again() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let denied =
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 33\r\n\r\n<Error><Code>NoWay</Code></Error>";
    let (port, mut asked) = bucket_service(vec![denied, ok]).await;
    let credentials = Credentials::new("AKIAEXAMPLE", "secret", None, None, "test");
    let loader = ConfigLoader::default()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(credentials);
    let aws = tidegate_aws::AwsFactory::builder()
        .loader(loader)
        .load()
        .await;
    let place = S3Target {
        bucket: "logs".to_owned(),
        prefix: "tidegate/audit".to_owned(),
        region: "eu-central-1".parse().unwrap(),
        endpoint: Some(format!("http://127.0.0.1:{port}")),
    };
    let bucket = Bucket::new(&place, Some(aws));
    let directory = tempfile::tempdir().unwrap();
    let log = log(directory.path());
    log.append("host-1", events(3)).await.unwrap();
    let batch = Batch::read(&log, 0).await.unwrap();
    let refused = bucket.put(&batch).await.unwrap_err();
    assert!(
        matches!(&refused, ExportError::Refused { status: 403, code, .. } if code == "NoWay"),
        "{refused}"
    );
    bucket.put(&batch).await.unwrap();
    let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
    let line = |text: &str| text.lines().next().unwrap().to_owned();
    assert_eq!(line(&first), line(&second));
    let log_id = &log.id().log;
    assert!(
        line(&first).starts_with("PUT /logs/tidegate/audit/20"),
        "{}",
        line(&first)
    );
    assert!(line(&first).contains(&format!("/{log_id}-0000000000000000000.jsonl ")));
    assert!(first.contains("authorization: AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/"));
    let (_, body) = second.split_once("\r\n\r\n").unwrap();
    assert_eq!(records_in(body), 3);
}
