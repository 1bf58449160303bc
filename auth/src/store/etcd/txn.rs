//! Our transactions as etcd's, and what its answers mean. Pure.
//!
//! etcd takes as many comparisons or operations in one list as `--max-txn-ops` says, 128 unless it is told otherwise,
//! and we need more. A larger transaction is therefore written as a list of small ones inside one: etcd decides all
//! comparisons on one state before it writes anything, and carries out all or nothing. A group whose guards do not
//! hold takes its other branch, which reads at a revision that cannot be; etcd checks that before writing too, and
//! refuses the whole. With groups of about the square root a list is nowhere longer than 65 for [`TXN_OPS_MAX`]
//! changes.
//!
//! Every transaction also compares the store's format: once a newer program has taken the store over, or it is gone,
//! nothing is written any more.

use bytes::Bytes;

use super::{
    convert::{lease_number, signed, unsigned},
    format,
    namespace::Namespace,
    pb::etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
        ResponseOp, TxnRequest, TxnResponse, compare, request_op, response_op,
    },
};
use crate::store::{CommitError, Guard, LeaseId, Op, TXN_OPS_MAX, Txn};

/// Guards or changes up to which a transaction is one list.
const FLAT_MAX: usize = 64;
/// Most guards: groups of 64 in a list of 64 are what `--max-txn-ops=128` allows.
const GUARDS_MAX: usize = FLAT_MAX * FLAT_MAX;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Carried out; the store's revision after it, and whether it changed anything.
    Done {
        /// The store's revision after it.
        revision: u64,
        /// Whether that is its own.
        changed: bool,
    },
    /// The store has another format by now, or none.
    Fenced,
    /// A guard did not hold; this one.
    Refused(Bytes),
}

/// Finds what is a fault of ours, before etcd is asked.
pub(super) fn check(txn: &Txn) -> Result<(), CommitError> {
    if txn.ops.len() > TXN_OPS_MAX || txn.guards.len() > GUARDS_MAX {
        let ops = txn.ops.len().max(txn.guards.len());
        return Err(CommitError::TooLarge { ops });
    }
    let mut keys: Vec<&Bytes> = txn.ops.iter().map(Op::key).collect();
    keys.sort_unstable();
    if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CommitError::Duplicate {
            key: twice[0].clone(),
        });
    }
    // No key was ever written at revision 0; to etcd that would mean that there is none.
    match txn
        .guards
        .iter()
        .find(|guard| matches!(guard, Guard::At(_, 0)))
    {
        Some(guard) => Err(CommitError::Conflict {
            key: guard.key().clone(),
        }),
        None => Ok(()),
    }
}

/// Whether a transaction, once carried out, cannot be carried out again: it changes a key that it expects to be at
/// a certain revision, and no key comes back to an earlier revision.
pub(super) fn is_self_fenced(txn: &Txn) -> bool {
    txn.guards.iter().any(|guard| match guard {
        Guard::At(key, _) => txn.ops.iter().any(|op| op.key() == key),
        Guard::Absent(_) => false,
    })
}

/// The leases that a transaction's keys are to live with.
pub(super) fn leases(txn: &Txn) -> Vec<LeaseId> {
    let mut leases: Vec<LeaseId> = txn
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete(_) => None,
        })
        .collect();
    leases.sort_unstable();
    leases.dedup();
    leases
}

/// The request that carries out a transaction.
pub(super) fn request(names: &Namespace, txn: &Txn) -> TxnRequest {
    let longest = txn.ops.len().max(txn.guards.len());
    if longest > FLAT_MAX {
        return grouped(names, txn, ceil_sqrt(longest));
    }
    let mut success: Vec<RequestOp> = txn.ops.iter().map(|op| change(names, op)).collect();
    if success.is_empty() {
        // Without any operation a member would answer from what it has, which may be old.
        success.push(read(names.format().clone(), 0));
    }
    TxnRequest {
        compare: std::iter::once(fence(names))
            .chain(txn.guards.iter().map(|guard| compare(names, guard)))
            .collect(),
        success,
        failure: guard_reads(names, &txn.guards),
    }
}

/// Reads where the keys of some guards stand.
pub(super) fn guard_reads(names: &Namespace, guards: &[Guard]) -> Vec<RequestOp> {
    guards
        .iter()
        .map(|guard| read(names.data(guard.key()), 0))
        .collect()
}

fn grouped(names: &Namespace, txn: &Txn, size: usize) -> TxnRequest {
    let mut guards = txn.guards.chunks(size);
    let mut ops = txn.ops.chunks(size);
    let mut groups = Vec::with_capacity(size);
    loop {
        let (guards, ops) = (guards.next(), ops.next());
        if guards.is_none() && ops.is_none() {
            break;
        }
        let group = TxnRequest {
            compare: guards
                .unwrap_or_default()
                .iter()
                .map(|guard| compare(names, guard))
                .collect(),
            success: ops
                .unwrap_or_default()
                .iter()
                .map(|op| change(names, op))
                .collect(),
            failure: vec![read(names.format().clone(), i64::MAX)],
        };
        groups.push(RequestOp {
            request: Some(request_op::Request::RequestTxn(group)),
        });
    }
    TxnRequest {
        compare: vec![fence(names)],
        success: groups,
        failure: Vec::new(),
    }
}

fn ceil_sqrt(number: usize) -> usize {
    let root = number.isqrt();
    if root * root < number { root + 1 } else { root }
}

fn fence(names: &Namespace) -> Compare {
    Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Value.into(),
        key: names.format().clone(),
        target_union: Some(compare::TargetUnion::Value(format::value())),
    }
}

fn compare(names: &Namespace, guard: &Guard) -> Compare {
    let revision = match guard {
        Guard::Absent(_) => 0,
        Guard::At(_, revision) => signed(*revision),
    };
    Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: names.data(guard.key()),
        target_union: Some(compare::TargetUnion::ModRevision(revision)),
    }
}

fn change(names: &Namespace, op: &Op) -> RequestOp {
    let request = match op {
        Op::Put { key, value, lease } => request_op::Request::RequestPut(PutRequest {
            key: names.data(key),
            value: value.clone(),
            lease: lease_number(*lease),
        }),
        Op::Delete(key) => request_op::Request::RequestDeleteRange(DeleteRangeRequest {
            key: names.data(key),
            range_end: Bytes::new(),
        }),
    };
    RequestOp {
        request: Some(request),
    }
}

fn read(key: Bytes, revision: i64) -> RequestOp {
    let request = RangeRequest {
        key,
        revision,
        keys_only: true,
        ..RangeRequest::default()
    };
    RequestOp {
        request: Some(request_op::Request::RequestRange(request)),
    }
}

/// Reads an answer to [`request`].
pub(super) fn outcome(txn: &Txn, answer: &TxnResponse) -> Outcome {
    if !answer.succeeded {
        // When no guard is contradicted it was the format.
        return refusing(&txn.guards, &answer.responses).map_or(Outcome::Fenced, Outcome::Refused);
    }
    Outcome::Done {
        revision: revision(answer),
        changed: has_changed(&answer.responses),
    }
}

/// The store's revision that an answer tells.
fn revision(answer: &TxnResponse) -> u64 {
    answer
        .header
        .as_ref()
        .map_or(0, |header| unsigned(header.revision))
}

/// The first guard that what was read contradicts.
pub(super) fn refusing(guards: &[Guard], reads: &[ResponseOp]) -> Option<Bytes> {
    let found = reads.iter().map(|read| match &read.response {
        Some(response_op::Response::ResponseRange(range)) => modified(range),
        _ => None,
    });
    guards
        .iter()
        .zip(found)
        .find(|(guard, found)| match guard {
            Guard::Absent(_) => found.is_some(),
            Guard::At(_, revision) => *found != Some(*revision),
        })
        .map(|(guard, _)| guard.key().clone())
}

fn modified(range: &RangeResponse) -> Option<u64> {
    range.kvs.first().map(|found| unsigned(found.mod_revision))
}

fn has_changed(responses: &[ResponseOp]) -> bool {
    responses.iter().any(|response| match &response.response {
        Some(response_op::Response::ResponsePut(_)) => true,
        Some(response_op::Response::ResponseDeleteRange(deleted)) => deleted.deleted > 0,
        Some(response_op::Response::ResponseTxn(group)) => has_changed(&group.responses),
        Some(response_op::Response::ResponseRange(_)) | None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> Bytes {
        Bytes::from(format!("/k/{index}"))
    }

    fn txn(guards: usize, ops: usize) -> Txn {
        let txn = (0..guards).fold(Txn::new(), |txn, index| txn.at(key(index), 7));
        (0..ops).fold(txn, |txn, index| txn.put(key(index), "v".into()))
    }

    /// What etcd's own check asks of `--max-txn-ops`: a nested list may have what its outer lists leave.
    fn ops_needed(request: &TxnRequest) -> usize {
        let own = request
            .compare
            .len()
            .max(request.success.len())
            .max(request.failure.len());
        let inner = request.success.iter().filter_map(|op| match &op.request {
            Some(request_op::Request::RequestTxn(group)) => Some(ops_needed(group)),
            _ => None,
        });
        own + inner.max().unwrap_or(0)
    }

    #[test]
    fn a_transaction_of_any_allowed_size_fits_an_etcd_as_it_comes() {
        let names = Namespace::new("/t");
        for (guards, ops, most) in [
            (0, 1, 64),
            (64, 64, 65),
            (65, 1, 64),
            (0, TXN_OPS_MAX, 64),
            (800, 800, 64),
            (GUARDS_MAX, 2, 128),
        ] {
            let request = request(&names, &txn(guards, ops));
            assert!(ops_needed(&request) <= most, "{guards} guards, {ops} ops");
        }
    }

    #[test]
    fn only_what_cannot_happen_twice_is_self_fenced() {
        let at = Txn::new().at(key(1), 5);
        assert!(is_self_fenced(&at.clone().put(key(1), Bytes::new())));
        assert!(is_self_fenced(&at.clone().delete(key(1))));
        assert!(!is_self_fenced(&at.put(key(2), Bytes::new())));
        let absent = Txn::new().absent(key(1)).put(key(1), Bytes::new());
        assert!(!is_self_fenced(&absent)); // it could be deleted in between
    }

    #[test]
    fn faults_of_ours_are_found_before_etcd_is_asked() {
        let twice = txn(0, 2).delete(key(0));
        assert!(matches!(check(&twice), Err(CommitError::Duplicate { .. })));
        let large = txn(0, TXN_OPS_MAX + 1);
        assert!(matches!(check(&large), Err(CommitError::TooLarge { .. })));
        let never = Txn::new().at(key(0), 0);
        assert!(matches!(check(&never), Err(CommitError::Conflict { .. })));
        assert!(check(&txn(3, 3)).is_ok());
    }
}
