//! What happened: every API call and every log-in, in order, for tests to read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::world::{ClusterId, Kind};

/// Records kept of each sort; the oldest go first.
pub const RECORDS_MAX: usize = 100_000;

/// One API call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Counts calls from 1, without gaps; it goes on when the journal is cleared.
    pub seq: u64,
    /// When it was answered, by the simulation's clock.
    pub time: Timestamp,
    /// Who signed it; absent if the signature was refused.
    pub principal: Option<String>,
    /// Account of who signed it.
    pub account: Option<String>,
    /// The access key id that the request names.
    pub access_key: Option<String>,
    /// Service of the signature's scope.
    pub service: String,
    /// Region of the signature's scope.
    pub region: String,
    /// Operation.
    pub action: String,
    /// Parameters worth looking at (`RoleArn`, `ExternalId`, `DbUser`, …), none of them secret.
    pub params: BTreeMap<String, String>,
    /// HTTP status of the answer; 0 if the connection was reset.
    pub status: u16,
    /// AWS error code of the answer.
    pub error: Option<String>,
    /// The ordered fault that struck.
    pub fault: Option<String>,
    /// Time to answer, in milliseconds.
    pub ms: u64,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
}

/// One log-in to a wire front, refused or not. Native clusters keep none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Counts log-ins from 1, without gaps; it goes on when the journal is cleared.
    pub seq: u64,
    /// When, by the simulation's clock.
    pub time: Timestamp,
    /// What was logged in to.
    pub kind: Kind,
    /// Its name.
    pub cluster: ClusterId,
    /// AWS host name of the endpoint.
    pub host: String,
    /// User as sent, with its prefix.
    pub user: String,
    /// Database as sent.
    pub database: String,
    /// Start-up parameters other than user and database.
    pub params: BTreeMap<String, String>,
    /// Inside TLS.
    pub tls: bool,
    /// SQLSTATE and message if refused.
    pub refused: Option<String>,
    /// Why, where AWS does not tell the client.
    pub why: Option<String>,
}

/// A record that is numbered when it is kept.
pub(crate) trait Record: Clone {
    fn number(&mut self, seq: u64);
    fn seq(&self) -> u64;
}

impl Record for Call {
    fn number(&mut self, seq: u64) {
        self.seq = seq;
    }

    fn seq(&self) -> u64 {
        self.seq
    }
}

impl Record for Login {
    fn number(&mut self, seq: u64) {
        self.seq = seq;
    }

    fn seq(&self) -> u64 {
        self.seq
    }
}

/// Records in order, the last [`RECORDS_MAX`] of them.
#[derive(Debug)]
pub(crate) struct Journal<R> {
    kept: Mutex<(u64, VecDeque<R>)>,
}

impl<R> Default for Journal<R> {
    fn default() -> Self {
        Self {
            kept: Mutex::new((0, VecDeque::new())),
        }
    }
}

impl<R: Record> Journal<R> {
    pub(crate) fn keep(&self, mut record: R) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        record.number(kept.0);
        if kept.1.len() == RECORDS_MAX {
            kept.1.pop_front();
        }
        kept.1.push_back(record);
    }

    /// The records after `seq`; 0 gives all.
    pub(crate) fn since(&self, seq: u64) -> Vec<R> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1
            .iter()
            .filter(|record| record.seq() > seq)
            .cloned()
            .collect()
    }

    pub(crate) fn clear(&self) {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .clear();
    }
}
