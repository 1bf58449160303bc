//! The whole state in a file, and back.

use std::time::Duration;

use tidegate_proto::v1::{
    self, backup_service_client::BackupServiceClient, restore_backup_request::Part,
};
use tidegate_service::tasks::TaskFailure;
use tonic::{Code, Status, transport::Channel};

use crate::house::{Caller, House, PASSWORD, code};

/// How long what happens by itself may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn backups(caller: &Caller) -> BackupServiceClient<Channel> {
    BackupServiceClient::new(caller.0.clone())
}

/// A backup's bytes.
pub(crate) async fn backup(caller: &Caller) -> Result<Vec<u8>, Status> {
    let request = v1::CreateBackupRequest {};
    let mut chunks = backups(caller).create_backup(request).await?.into_inner();
    let mut file = Vec::new();
    while let Some(message) = chunks.message().await? {
        file.extend(message.chunk);
    }
    Ok(file)
}

async fn restore(
    caller: &Caller,
    file: &[u8],
    force: bool,
) -> Result<v1::RestoreBackupResponse, Status> {
    let options = Part::Options(v1::RestoreOptions { force });
    let chunks = file
        .chunks(100_000)
        .map(|chunk| Part::Chunk(chunk.to_vec()));
    let parts: Vec<_> = std::iter::once(options)
        .chain(chunks)
        .map(|part| v1::RestoreBackupRequest { part: Some(part) })
        .collect();
    let restored = backups(caller)
        .restore_backup(tokio_stream::iter(parts))
        .await;
    restored.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn after_a_restore_people_and_hosts_are_known_as_before() {
    let old = House::new().await;
    let alice = old.person("alice", &["access"]).await;
    let agent = old.host(&["db"]).await;
    let token = old.join_token(&["db"]).await;
    old.add_database("orders", "prod").await;
    let file = backup(&old.admin()).await.unwrap();
    let pin = old.handle.ca_pin;

    let new = House::new().await;
    assert_ne!(new.handle.ca_pin, pin);
    let restored = restore(&new.admin(), &file, false).await.unwrap();
    assert!(restored.written >= 4, "{restored:?}");
    // It ends by itself, since its CAs are others now, and is started again by whoever supervises it.
    let failure = tokio::time::timeout(PATIENCE, new.ended()).await.unwrap();
    let name = "auth_restores";
    assert_eq!(failure, Some(TaskFailure::Ended { name }));
    let new = new.started_again().await;
    assert_eq!(new.handle.ca_pin, pin);

    new.login("alice", PASSWORD).await.unwrap();
    let wrong = new.login("alice", "not the password").await;
    assert_eq!(wrong.err().unwrap().code(), Code::Unauthenticated);
    // Certificates of before are as good as they were, and so is a token.
    let mut inventory = new.known(&alice).inventory();
    let request = v1::ListDatabasesRequest::default();
    inventory.list_databases(request).await.unwrap();
    assert_eq!(new.known(&agent).database_names().await, ["orders"]);
    new.join(&token, &["db"], "").await.unwrap();

    // A watch that knew the other store starts anew.
    let request = v1::WatchDatabasesRequest {
        after_revision: 1,
        ..v1::WatchDatabasesRequest::default()
    };
    let resumed = new.known(&agent).inventory().watch_databases(request).await;
    assert_eq!(resumed.err().unwrap().code(), Code::OutOfRange);
}

#[tokio::test]
async fn what_is_in_use_or_damaged_is_refused_and_goes_on_as_it_was() {
    let old = House::new().await;
    old.add_database("orders", "prod").await;
    let file = backup(&old.admin()).await.unwrap();
    let new = House::new().await;
    new.add_database("billing", "prod").await;
    let admin = new.admin();
    let refused = restore(&admin, &file, false).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    let cut_off = restore(&admin, &file[..file.len() / 2], true).await;
    assert_eq!(code(cut_off), Code::InvalidArgument);
    let nothing = restore(&admin, &[], true).await;
    assert_eq!(code(nothing), Code::InvalidArgument);
    assert_eq!(admin.database_names().await, ["billing"]);
}

#[tokio::test]
async fn only_administrators_on_the_host_see_or_replace_the_state() {
    let house = House::new().await;
    let editor = house.known(&house.person("eve", &["editor"]).await);
    let agent = house.known(&house.host(&["db"]).await);
    for caller in [&editor, &agent] {
        let seen = backup(caller).await;
        assert_eq!(seen.err().unwrap().code(), Code::PermissionDenied);
        let refused = restore(caller, b"", true).await;
        assert_eq!(code(refused), Code::PermissionDenied);
    }
    let stranger = backup(&house.stranger()).await;
    assert_eq!(stranger.err().unwrap().code(), Code::Unauthenticated);
}
