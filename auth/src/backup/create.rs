//! Making a backup: all keys at one revision, as the bytes of a file.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use jiff::Timestamp;
use tidegate_proto::{
    convert,
    v1::{BackupEntry, BackupHeader},
};
use tidegate_service::{backup::Writer, clock::SharedClock};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    BackupParts, Backups, CHUNK_BYTES_MAX,
    kept::{Kept, kept, shows_private_key},
};
use crate::{
    audit::event,
    keys,
    store::{Entry, PastError, Range, RangeQuery, Store, StoreUnavailable},
};

/// Entries that are read at once: as many values are in memory.
const PAGE_ENTRIES: usize = 250;

/// Why no backup could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// Another backup is made or restored here.
    #[error("another backup is being made or restored: wait for it")]
    Busy,
    /// History was given up before all of it was read.
    #[error("the state changes faster than it can be read: try again")]
    TooFast,
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
    /// Bytes in memory cannot be written, which cannot be.
    #[error("cannot write a backup")]
    Write(#[from] io::Error),
}

impl From<PastError> for CreateError {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Compacted { .. } | PastError::Future { .. } => Self::TooFast,
            PastError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

/// A backup that is being made.
struct Making {
    store: Arc<dyn Store>,
    clock: SharedClock,
    revision: u64,
    /// What comes next; `None` when all was read.
    query: Option<RangeQuery>,
    /// `None` once the end was written.
    writer: Option<Writer<Vec<u8>>>,
    ready: VecDeque<Bytes>,
    _turn: OwnedSemaphorePermit,
}

impl Backups {
    /// Makes a backup of the state as it is now; gives the file, piece by piece, as it is asked for.
    pub(crate) async fn create(
        &self,
        actor: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, CreateError>> + Send + use<>, CreateError> {
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        let turn = turn.map_err(|_| CreateError::Busy)?;
        let making = begin(&self.parts, turn).await?;
        let mut told = event::new(event::BACKUP_CREATE);
        actor.clone_into(&mut told.user);
        let revision = making.revision.to_string();
        told.fields.insert("revision".to_owned(), revision);
        self.parts.audit.record(told);
        Ok(stream::try_unfold(making, |mut making| async move {
            Ok(making.next().await?.map(|chunk| (chunk, making)))
        }))
    }
}

async fn begin(parts: &BackupParts, turn: OwnedSemaphorePermit) -> Result<Making, CreateError> {
    let look = RangeQuery {
        limit: 1,
        ..RangeQuery::prefix("")
    };
    let revision = parts.store.range(look).await?.revision;
    let cas = parts
        .store
        .range_at(RangeQuery::prefix(keys::CAS), revision)
        .await?;
    let header = BackupHeader {
        cluster: parts.cluster.to_string(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        revision,
        created_at: Some(convert::timestamp(parts.clock.now())),
        holds_private_keys: cas.entries.iter().any(|ca| shows_private_key(&ca.value)),
        ..BackupHeader::default()
    };
    Ok(Making {
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        revision,
        query: Some(RangeQuery {
            limit: PAGE_ENTRIES,
            ..RangeQuery::prefix("")
        }),
        writer: Some(Writer::new(Vec::new(), header)?),
        ready: VecDeque::new(),
        _turn: turn,
    })
}

impl Making {
    /// What comes next of the file.
    async fn next(&mut self) -> Result<Option<Bytes>, CreateError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            if let Some(query) = self.query.take() {
                let page = self.store.range_at(query.clone(), self.revision).await?;
                self.write(query, page).await?;
            } else if let Some(writer) = self.writer.take() {
                self.cut(writer.finish()?);
            } else {
                return Ok(None);
            }
        }
    }

    async fn write(&mut self, mut query: RangeQuery, page: Range) -> Result<(), CreateError> {
        query.after = page.entries.last().map(|entry| entry.key.clone());
        self.query = page.more.then_some(query);
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        for entry in page.entries {
            let now = self.clock.now();
            if let Some(entry) = written(self.store.as_ref(), entry, now).await? {
                writer.entry(entry)?;
            }
        }
        let bytes = std::mem::take(writer.get_mut());
        self.cut(bytes);
        Ok(())
    }

    fn cut(&mut self, bytes: Vec<u8>) {
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
            self.ready.push_back(chunk);
        }
    }
}

/// An entry as the file has it, if it does.
async fn written(
    store: &dyn Store,
    entry: Entry,
    now: Timestamp,
) -> Result<Option<BackupEntry>, StoreUnavailable> {
    let expires_at = match kept(&entry) {
        Kept::Always => None,
        Kept::Never => return Ok(None),
        Kept::Lease(lease) => match store.time_left(lease).await? {
            Some(left) => Some(convert::timestamp(
                now.saturating_add(left).unwrap_or(Timestamp::MAX),
            )),
            // It went since.
            None => return Ok(None),
        },
    };
    Ok(Some(BackupEntry {
        key: entry.key.into(),
        value: entry.value.into(),
        expires_at,
    }))
}
