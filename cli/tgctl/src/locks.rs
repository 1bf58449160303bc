//! `tgctl lock`: shut somebody or something out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_console::{
    Failure, Output, Table, client::Client, resource, rpc, table::visible, when,
};
use tidegate_core::LockTarget;
use tidegate_proto::{
    convert,
    v1::{self, ListLocksRequest, UpsertLockRequest},
};

use crate::args::LockArgs;

pub(crate) async fn lock(client: &Client, args: LockArgs) -> Result<(), Failure> {
    let target = LockTarget {
        user: args.user,
        role: args.role,
        agent: args.agent,
        database: args.db,
        access_request: args.access_request,
        ..LockTarget::default()
    };
    if target.is_empty() {
        return Err(Failure::usage(
            "a lock names a user, a role, an agent, a database or an access request",
        )
        .hint("tgctl lock --user=NAME --message=WHY --ttl=12h"));
    }
    let request = UpsertLockRequest {
        lock: Some(v1::Lock {
            name: args.name.unwrap_or_default(),
            target: Some(target.into()),
            message: args.message,
            expires_at: end(args.ttl, args.expires, Timestamp::now()).map(convert::timestamp),
            ..v1::Lock::default()
        }),
    };
    let made = rpc::call("create the lock", client.access().upsert_lock(request)).await?;
    let made = resource::Lock::from(&made);
    Output::new(args.format).value(&made, || text(&made))
}

fn end(ttl: Option<Duration>, expires: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let ttl = ttl.map(|ttl| SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX));
    let after = ttl.map(|ttl| now.saturating_add(ttl).unwrap_or(Timestamp::MAX));
    after.or(expires)
}

fn text(lock: &resource::Lock) -> String {
    let until = lock
        .spec
        .expires
        .map_or("until it is removed".to_owned(), |end| {
            format!("until {}", when::utc(end))
        });
    format!(
        "Created a lock with name \"{}\": {} is shut out {until}.\n",
        visible(&lock.metadata.name),
        visible(&lock.spec.target_text()),
    )
}

pub(crate) async fn list(client: &Client) -> Result<Vec<resource::Lock>, Failure> {
    let listed = rpc::call(
        "list locks",
        client.access().list_locks(ListLocksRequest {}),
    )
    .await?;
    Ok(listed.locks.iter().map(resource::Lock::from).collect())
}

pub(crate) fn table(locks: &[resource::Lock]) -> Table {
    let mut table = Table::new(["Name", "Target", "Message", "Expires (UTC)", "Created By"])
        .shrinking("Message");
    for lock in locks {
        table.row([
            lock.metadata.name.as_str(),
            &lock.spec.target_text(),
            &lock.spec.message,
            &lock.spec.expires.map_or("never".to_owned(), when::utc),
            &lock.spec.created_by,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_after_its_time_or_at_an_instant_or_never() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(end(hour, None, at(0)), Some(at(3600)));
        assert_eq!(end(None, Some(at(5)), at(0)), Some(at(5)));
        assert_eq!(end(None, None, at(0)), None);
        assert_eq!(end(Some(Duration::MAX), None, at(0)), Some(Timestamp::MAX));
    }
}
