//! `tgctl backup`, against a service that sends and takes files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Output,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tidegate_proto::v1::{
    self, BackupEntry, BackupHeader,
    backup_service_server::{BackupService, BackupServiceServer},
    restore_backup_request::Part,
};
use tidegate_service::{backup::Writer, rpc, tasks::ShutdownToken};
use tokio::process::Command;
use tokio_stream::Iter;
use tonic::{Request, Response, Status, Streaming, async_trait, service::Routes};

/// Whether by force, and the file.
type Taken = Option<(bool, Vec<u8>)>;

#[derive(Clone, Default)]
struct Site {
    sent: Arc<Mutex<Vec<u8>>>,
    taken: Arc<Mutex<Taken>>,
}

#[async_trait]
impl BackupService for Site {
    type CreateBackupStream = Iter<std::vec::IntoIter<Result<v1::CreateBackupResponse, Status>>>;

    async fn create_backup(
        &self,
        _: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let file = self.sent.lock().unwrap().clone();
        let chunks: Vec<_> = file
            .chunks(10)
            .map(|chunk| {
                Ok(v1::CreateBackupResponse {
                    chunk: chunk.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn restore_backup(
        &self,
        request: Request<Streaming<v1::RestoreBackupRequest>>,
    ) -> Result<Response<v1::RestoreBackupResponse>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Options(options)) = parts.message().await?.unwrap().part else {
            return Err(Status::invalid_argument("options first"));
        };
        if !options.force {
            return Err(Status::failed_precondition("the state is not new"));
        }
        let mut file = Vec::new();
        while let Some(message) = parts.message().await? {
            if let Some(Part::Chunk(chunk)) = message.part {
                file.extend(chunk);
            }
        }
        *self.taken.lock().unwrap() = Some((options.force, file));
        Ok(Response::new(v1::RestoreBackupResponse {
            entries: 2,
            written: 1,
            ..v1::RestoreBackupResponse::default()
        }))
    }
}

fn file() -> Vec<u8> {
    let header = BackupHeader {
        cluster: "tidegate.test".to_owned(),
        revision: 7,
        holds_private_keys: true,
        created_at: Some(prost_types::Timestamp::default()),
        ..BackupHeader::default()
    };
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for key in ["/a", "/b"] {
        let entry = BackupEntry {
            key: key.as_bytes().to_vec(),
            ..BackupEntry::default()
        };
        writer.entry(entry).unwrap();
    }
    writer.finish().unwrap()
}

fn serve(dir: &Path) -> Site {
    let site = Site::default();
    *site.sent.lock().unwrap() = file();
    let incoming = rpc::unix_incoming(&dir.join("auth.sock")).unwrap();
    let routes = Routes::new(BackupServiceServer::new(site.clone()));
    tokio::spawn(rpc::serve(routes, incoming, ShutdownToken::new()));
    site
}

async fn tgctl(dir: &TempDir, arguments: &[&str]) -> (bool, String, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_tgctl"))
        .arg("--data-dir")
        .arg(dir.path())
        .args(["backup"])
        .args(arguments)
        .env("TIDEGATE_HOME", dir.path().join("home"))
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn a_backup_is_written_checked_and_told_of_with_a_warning_about_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let _site = serve(dir.path());
    let place = dir.path().join("state");
    let name = place.to_str().unwrap();
    let (done, said, warned) = tgctl(&dir, &["create", "-o", name]).await;
    assert!(done, "{warned}");
    let told = "cluster tidegate.test at revision 7, 1970-01-01 00:00:00 UTC; 2 entries, ";
    assert!(said.contains(told), "{said}");
    assert!(
        warned.contains("private keys of the cluster's CAs"),
        "{warned}"
    );
    assert_eq!(fs::read(&place).unwrap(), file());
    let mode = fs::metadata(&place).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (done, _, errors) = tgctl(&dir, &["create", "-o", name]).await;
    assert!(!done && errors.contains("exists already"), "{errors}");
    let (done, said, _) = tgctl(&dir, &["verify", name, "--format=json"]).await;
    assert!(done && said.contains("\"entries\": 2"), "{said}");
}

#[tokio::test]
async fn what_the_service_cut_off_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let site = serve(dir.path());
    site.sent.lock().unwrap().truncate(40);
    let place = dir.path().join("state");
    let (done, said, errors) = tgctl(&dir, &["create", "-o", place.to_str().unwrap()]).await;
    assert!(!done && errors.contains("cut off"), "{errors}");
    assert_eq!((said.as_str(), place.exists()), ("", false));
}

#[tokio::test]
async fn a_restore_sends_a_sound_file_whole_and_a_damaged_one_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let site = serve(dir.path());
    let place = dir.path().join("state");
    let name = place.to_str().unwrap();
    let mut damaged = file();
    damaged[30] ^= 1;
    fs::write(&place, damaged).unwrap();
    let (done, _, errors) = tgctl(&dir, &["restore", "--force", name]).await;
    assert!(!done && errors.contains("damaged"), "{errors}");
    assert_eq!(*site.taken.lock().unwrap(), None);

    fs::write(&place, file()).unwrap();
    let (done, _, errors) = tgctl(&dir, &["restore", name]).await;
    assert!(!done && errors.contains("the state is not new"), "{errors}");
    let (done, said, told) = tgctl(&dir, &["restore", "--force", name]).await;
    assert!(done, "{told}");
    assert!(
        said.contains("2 entries, of which 1 had to be written"),
        "{said}"
    );
    assert!(told.contains("has to be started again"), "{told}");
    assert_eq!(*site.taken.lock().unwrap(), Some((true, file())));
}
