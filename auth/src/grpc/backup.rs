//! `BackupService`: the state in a file, and back.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tidegate_proto::{
    Invalid,
    v1::{self, backup_service_server::BackupService, restore_backup_request::Part},
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Api, guard::Caller, status::refuse, undecodable::received};
use crate::backup::{CHUNK_BYTES_MAX, Incoming, RestoreError};

/// How long a caller may take from one piece of a file to the next.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// The next message of a restore; `None` at its end.
async fn part(parts: &mut Streaming<v1::RestoreBackupRequest>) -> Result<Option<Part>, Status> {
    let next = tokio::time::timeout(CHUNK_TIMEOUT, received(parts)).await;
    let next = next.map_err(|_| {
        refuse(
            Code::DeadlineExceeded,
            "FRAME_TIMEOUT",
            "the next piece of the backup did not come in time",
        )
    })??;
    match next {
        None => Ok(None),
        Some(message) => match message.part {
            Some(part) => Ok(Some(part)),
            None => Err(Invalid::new("part", "is missing").into()),
        },
    }
}

/// Takes in all pieces of a file.
async fn receive(
    mut incoming: Incoming,
    mut parts: Streaming<v1::RestoreBackupRequest>,
) -> Result<Incoming, Status> {
    while let Some(part) = part(&mut parts).await? {
        let Part::Chunk(chunk) = part else {
            return Err(Invalid::new("part", "is a second set of options").into());
        };
        if chunk.len() > CHUNK_BYTES_MAX {
            let problem = format!("is larger than {CHUNK_BYTES_MAX} bytes");
            return Err(Invalid::new("chunk", problem).into());
        }
        incoming = incoming.push(Bytes::from(chunk)).await?;
    }
    Ok(incoming)
}

#[tonic::async_trait]
impl BackupService for Api {
    type CreateBackupStream =
        Pin<Box<dyn Stream<Item = Result<v1::CreateBackupResponse, Status>> + Send>>;

    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let actor = Caller::of(&request).actor();
        let chunks = self.backups.create(&actor).await?;
        let shutdown = self.shutdown.clone().cancelled_owned();
        let messages = chunks
            .map_ok(|chunk| v1::CreateBackupResponse {
                chunk: chunk.into(),
            })
            .map_err(Status::from)
            .take_until(shutdown);
        Ok(Response::new(messages.boxed()))
    }

    async fn restore_backup(
        &self,
        request: Request<Streaming<v1::RestoreBackupRequest>>,
    ) -> Result<Response<v1::RestoreBackupResponse>, Status> {
        let actor = Caller::of(&request).actor();
        let mut parts = request.into_inner();
        let Some(Part::Options(options)) = part(&mut parts).await? else {
            return Err(Invalid::new("part", "must be options first").into());
        };
        let incoming = receive(self.backups.receive()?, parts).await?;
        // It goes on when the caller hangs up: half a state helps nobody.
        let restoring = tokio::spawn(async move { incoming.restore(&actor, options.force).await });
        let restored = restoring.await.map_err(|error| {
            let fault = std::io::Error::other(error);
            Status::from(RestoreError::Spool(fault))
        })??;
        Ok(Response::new(restored))
    }
}
