//! Writing: what becomes of a transaction, also when its answer is lost.
//!
//! A write whose answer was lost may have been carried out, or may be yet. It is sent again only when that cannot do
//! it twice ([`txn::is_self_fenced`]), and counts as done only when etcd says so. When it cannot be sent again, or its
//! guards do not hold any more by then, the caller is told that the outcome is not known.

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Inner,
    client::{CallError, Kind},
    failure::Failure,
    kv,
    pb::etcdserverpb::{
        Compare, PutRequest, RequestOp, TxnRequest, TxnResponse, compare, request_op,
    },
    txn::{self, Outcome},
};
use crate::store::{CommitError, Txn};

/// Times that a write without an answer is sent again, where that is safe.
const RESENDS_MAX: usize = 3;
/// Guards that are looked at in one read, to find the one that did not hold.
const GUARDS_READ_MAX: usize = 64;

impl Inner {
    /// Carries out a transaction and gives its revision.
    pub(super) async fn commit(&self, txn: Txn) -> Result<u64, CommitError> {
        txn::check(&txn)?;
        let request = txn::request(&self.names, &txn);
        let kind = if txn::is_self_fenced(&txn) {
            Kind::FencedWrite
        } else {
            Kind::Write
        };
        let deadline = Instant::now() + self.client.timeout();
        let mut resends = 0;
        loop {
            let outcome = self.write(kind, request.clone(), deadline).await;
            let failure = match outcome {
                Ok(answer) => match txn::outcome(&txn, &answer) {
                    Outcome::Done { revision, changed } => {
                        self.committed(revision, changed);
                        return Ok(revision);
                    }
                    Outcome::Fenced => return Err(fenced()),
                    // It may be our own earlier attempt that changed the key.
                    Outcome::Refused(_) if resends > 0 => return Err(in_doubt(None)),
                    Outcome::Refused(key) => return Err(CommitError::Conflict { key }),
                },
                Err(error) => error,
            };
            let is_unknown = failure.failure == Failure::Unknown;
            let may_resend = kind == Kind::FencedWrite && resends < RESENDS_MAX;
            if is_unknown && may_resend && Instant::now() < deadline {
                resends += 1;
                continue;
            }
            if is_unknown || resends > 0 {
                return Err(in_doubt(Some(failure)));
            }
            return Err(self.refusal(&txn, failure).await);
        }
    }

    async fn write(
        &self,
        kind: Kind,
        request: TxnRequest,
        deadline: Instant,
    ) -> Result<TxnResponse, CallError> {
        self.client
            .call_until(deadline, kind, request, |channel, request| async move {
                kv(channel).txn(request).await
            })
            .await
    }

    /// Tells those who have to know of a revision.
    fn committed(&self, revision: u64, changed: bool) {
        if changed {
            self.compactor.note(&self.client, revision);
        } else {
            self.told(revision);
        }
    }

    /// What it means that a transaction was refused as a whole.
    async fn refusal(&self, txn: &Txn, error: CallError) -> CommitError {
        match error.failure {
            // What a group of changes reads when its guards do not hold.
            Failure::FutureRevision => match self.conflict(txn).await {
                Ok(key) => CommitError::Conflict { key },
                Err(error) => error.unavailable("read").into(),
            },
            Failure::LeaseNotFound => match self.gone_lease(txn).await {
                Some(lease) => CommitError::LeaseGone { lease },
                None => error.unavailable("write").into(),
            },
            Failure::TooLong => CommitError::TooLong {
                bytes: txn.bytes(),
                source: error.into(),
            },
            _ => error.unavailable("write").into(),
        }
    }

    /// The guard that does not hold; when all do by now, the first.
    async fn conflict(&self, txn: &Txn) -> Result<Bytes, CallError> {
        for guards in txn.guards.chunks(GUARDS_READ_MAX) {
            let request = TxnRequest {
                success: txn::guard_reads(&self.names, guards),
                ..TxnRequest::default()
            };
            let answer = self
                .client
                .call(Kind::Read, request, |channel, request| async move {
                    kv(channel).txn(request).await
                })
                .await?;
            if let Some(key) = txn::refusing(guards, &answer.responses) {
                return Ok(key);
            }
        }
        let first = txn.guards.first().map(|guard| guard.key().clone());
        Ok(first.unwrap_or_default())
    }

    /// Writes the format of a new store, unless there is one.
    pub(super) async fn mark_format(&self, value: Bytes) -> Result<(), CommitError> {
        let key = self.names.format().clone();
        let put = PutRequest {
            key: key.clone(),
            value,
            lease: 0,
        };
        let request = TxnRequest {
            compare: vec![Compare {
                result: compare::CompareResult::Equal.into(),
                target: compare::CompareTarget::Version.into(),
                key: key.clone(),
                target_union: Some(compare::TargetUnion::Version(0)),
            }],
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestPut(put)),
            }],
            failure: Vec::new(),
        };
        // The second time it finds what the first wrote.
        let answer = self
            .write(Kind::Read, request, Instant::now() + self.client.timeout())
            .await
            .map_err(|error| error.unavailable("write"))?;
        if answer.succeeded {
            Ok(())
        } else {
            Err(CommitError::Conflict { key })
        }
    }
}

/// The store is not ours any more.
fn fenced() -> CommitError {
    let text = "the store in etcd has another format by now, or is gone: a newer program has taken it over and has to run here too, or a backup has to be restored";
    CallError::new(Failure::Refused, text)
        .unavailable("write")
        .into()
}

/// Nobody knows whether it was carried out.
fn in_doubt(cause: Option<CallError>) -> CommitError {
    let cause = cause.map_or_else(
        || "an answer was lost, and the keys were changed".to_owned(),
        |cause| cause.to_string(),
    );
    let text = format!("{cause}; whether the write was made is not known");
    CallError::new(Failure::Unknown, text)
        .unavailable("write")
        .into()
}
