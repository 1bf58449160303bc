//! Scans on their way to the service: some arrive late, some after their worker has died.

use std::{collections::BTreeSet, time::Duration};

use tidegate_identity::secret;
use tidegate_proto::{convert::timestamp, v1};
use tidegate_service::clock::Clock as _;

use super::super::super::{Begun, Header, Items, PublishError};
use crate::{
    keys,
    store::{RangeQuery, Store as _},
};

use super::{super::parts::*, World};

impl World {
    /// A worker that believes to hold a scope scans it.
    pub(in crate::ledger::lives) async fn scan(
        &mut self,
        pick: usize,
        scope: usize,
        fault: Option<Fault>,
        pace: Pace,
    ) {
        let able =
            |(_, worker): &(usize, &Process)| worker.alive && worker.grants.contains_key(&scope);
        let able: Vec<usize> = self
            .workers
            .iter()
            .enumerate()
            .filter(able)
            .map(|(index, _)| index)
            .collect();
        if able.is_empty() {
            return;
        }
        let worker = able[pick % able.len()];
        let life = self.workers[worker].life;
        // A worker has one scan of a scope on its way at a time.
        if self
            .streams
            .iter()
            .any(|stream| (stream.worker, stream.life, stream.scope) == (worker, life, scope))
        {
            return;
        }
        let stream = self.saw(worker, scope, fault);
        match pace {
            Pace::Prompt => drop(self.deliver(stream).await),
            Pace::Begun => {
                if let Some(begun) = self.begin(stream).await.err() {
                    self.streams.push(*begun);
                    self.look().await;
                }
            }
            Pace::Late => self.streams.push(stream),
        }
    }

    /// What a worker sees of AWS now.
    pub(in crate::ledger::lives) fn saw(
        &self,
        worker: usize,
        scope: usize,
        fault: Option<Fault>,
    ) -> Stream {
        let bit = |bits: u16, database: u8| bits >> database & 1 == 1;
        let mut items = Vec::new();
        let mut judged = BTreeSet::new();
        for (database, env) in &self.aws {
            if fault.is_some_and(|fault| bit(fault.unseen, *database)) {
                continue;
            }
            if fault.is_some_and(|fault| bit(fault.untagged, *database)) {
                items.push(item(*database, None));
            } else if wants(scope, *env) {
                items.push(item(*database, Some(*env)));
                judged.insert(*database);
            }
        }
        let completeness = match fault {
            Some(_) => v1::Completeness::Partial,
            None => v1::Completeness::Complete,
        };
        // No two scans of a worker start at once.
        self.clock.advance(Duration::from_millis(1));
        let now = Some(timestamp(self.clock.now()));
        let header = v1::ScanHeader {
            scope: Some(v1::ScanScope::from(&scopes()[scope])),
            epoch: self.workers[worker].grants[&scope].epoch,
            completeness: completeness.into(),
            digest: secret::digest(&format!("{items:?}")).to_vec(),
            failure: fault.map(|_| v1::ScanFailure {
                class: "throttled".to_owned(),
                ..v1::ScanFailure::default()
            }),
            started_at: now,
            finished_at: now,
            aws_calls: 1,
            left_out: Vec::new(),
        };
        let header = Header::try_from(header).unwrap();
        let mut received = Items::new(&header);
        let count = u32::try_from(items.len()).unwrap();
        for item in items {
            received.push(item).unwrap();
        }
        Stream {
            worker,
            life: self.workers[worker].life,
            scope,
            seen: received.finish(v1::ScanTrailer { items: count }).unwrap(),
            header,
            judged,
            begun: false,
            superseded: false,
        }
    }

    /// A scan that was on its way arrives.
    pub(in crate::ledger::lives) async fn arrive(&mut self, pick: usize) {
        if self.streams.is_empty() {
            return;
        }
        let stream = self.streams.remove(pick % self.streams.len());
        self.deliver(stream).await;
    }

    pub(in crate::ledger::lives) async fn deliver(
        &mut self,
        stream: Stream,
    ) -> Option<v1::PublishResult> {
        if stream.begun {
            return self.apply(stream).await;
        }
        let sender = (stream.worker, stream.life);
        match self.begin(stream).await {
            Ok(done) => done,
            Err(stream) => {
                let worker = &self.workers[sender.0];
                // The dead send no items.
                if worker.alive && worker.life == sender.1 {
                    self.apply(*stream).await
                } else {
                    None
                }
            }
        }
    }

    pub(in crate::ledger::lives) async fn is_current(&self, stream: &Stream) -> bool {
        let key = keys::scope_holder(&stream.header.message.id);
        let holder = self.house().store.get(key).await.unwrap();
        holder.is_some_and(|holder| holder.created == stream.header.epoch)
    }

    /// Sends a header: the result when that ends it, or the stream that goes on.
    pub(in crate::ledger::lives) async fn begin(
        &mut self,
        mut stream: Stream,
    ) -> Result<Option<v1::PublishResult>, Box<Stream>> {
        let host = self.workers[stream.worker].host;
        let current = self.is_current(&stream).await;
        let begun = self.house().ledger.begin(host, &stream.header).await;
        assert_eq!(begun.is_ok(), current, "{begun:?}");
        match begun {
            Err(PublishError::NotHolder { .. }) => Ok(None),
            Err(error) => panic!("{error:?}"),
            Ok(answer) => {
                for other in &mut self.streams {
                    other.superseded |= other.begun && other.scope == stream.scope;
                }
                match answer {
                    Begun::Unchanged(result) => Ok(Some(result)),
                    Begun::SendItems => {
                        stream.begun = true;
                        Err(Box::new(stream))
                    }
                }
            }
        }
    }

    /// The service looks at the items.
    pub(in crate::ledger::lives) async fn apply(
        &mut self,
        stream: Stream,
    ) -> Option<v1::PublishResult> {
        let host = self.workers[stream.worker].host;
        let current = self.is_current(&stream).await && !stream.superseded;
        let before = if current {
            None
        } else {
            Some(self.state().await)
        };
        let ledger = &self.house().ledger;
        match ledger.apply(host, &stream.header, &stream.seen).await {
            Ok(result) => {
                assert!(
                    current,
                    "a scan counted that came too late: {:?}",
                    stream.header
                );
                self.take_claims(&stream);
                self.look().await;
                Some(result)
            }
            Err(PublishError::NotHolder { .. } | PublishError::Superseded { .. }) if !current => {
                assert_eq!(
                    Some(self.state().await),
                    before,
                    "a scan that was refused left something behind"
                );
                self.look().await;
                None
            }
            // What was done of it stays.
            Err(PublishError::Unavailable(_)) => {
                if stream.header.complete {
                    let claims = self.claims.entry(stream.scope).or_default();
                    claims.retain(|database| stream.judged.contains(database));
                }
                self.catch_up().await;
                self.look().await;
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// All that can be seen of the service's state.
    pub(in crate::ledger::lives) async fn state(&self) -> (u64, Vec<v1::ScopeStatus>) {
        let house = self.house();
        let newest = house.store.range(RangeQuery::prefix(keys::CLUSTER));
        let revision = newest.await.unwrap().revision;
        let all = v1::ListScopesRequest::default();
        let statuses = house.ledger.list_scopes(&all).await.unwrap();
        (revision, statuses.scopes)
    }

    pub(in crate::ledger::lives) fn take_claims(&mut self, stream: &Stream) {
        let listed = self.listed();
        let claims = self.claims.entry(stream.scope).or_default();
        if stream.header.complete {
            claims.clear();
        }
        let others = stream.judged.iter().filter(|database| {
            let row = listed.get(database);
            row.is_some_and(|row| row.owner != stream.scope)
        });
        claims.extend(others);
    }
}
