//! What is known of the databases that are wanted, and when to ask again.
//!
//! Shared by the reconciler, which asks of each database that it decides on, and the task that asks AWS. Nothing here
//! waits or calls anybody. Whoever is learned something of is decided on again.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidegate_aws::{AwsErrorClass, AwsFailure, describe::Listing};
use tidegate_core::{Database, DatabaseName, EffectiveRole, Origin};
use tidegate_service::{rpc::Backoff, telemetry::SaidOnce};
use tokio::{sync::Notify, time::Instant};
use tracing::{info, warn};

use super::{
    facts::{Known, completed},
    place::{Place, question},
    verdict::{Listed, Verdict, judge},
};
use crate::{
    metrics::{VerdictCounts, VerdictLabel, VerdictWord},
    names::Names,
    wanted::{EndpointError, Facts, Refusal, believable},
};

/// How long a database that discovery found waits for AWS before its address's form alone decides.
pub(crate) const HOLD: Duration = Duration::from_secs(2);

/// How long what AWS said is good: a paused database, another setting, new tags are seen within this time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// How soon AWS is asked again where it contradicted a record: its lists lag behind changes.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a refusal of AWS is believed.
const DENIED_INTERVAL: Duration = Duration::from_secs(900);

/// Waits after a call that failed in another way.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// All verdicts: one that no database has any more counts none.
const WORDS: [VerdictWord; 6] = [
    VerdictWord::Absent,
    VerdictWord::Awaited,
    VerdictWord::Confirmed,
    VerdictWord::Contradicted,
    VerdictWord::Denied,
    VerdictWord::Unchecked,
];

/// What AWS answered in a place.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// By list; a list that was read in part counts as failed.
    pub(super) listed: HashMap<Listing, Result<Listed, AwsFailure>>,
    /// By ARN, where a list leaves them out.
    pub(super) tags: HashMap<String, Vec<(String, String)>>,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    state: Mutex<State>,
    /// Databases of which something was learned.
    again: Arc<Names>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<DatabaseName, Row>,
    places: HashMap<Place, PlaceState>,
}

/// One database.
#[derive(Clone, Debug)]
struct Row {
    /// As its record has it, with what its host name tells.
    database: Arc<Database>,
    place: Option<Place>,
    verdict: Verdict,
    /// While it is awaited: until when.
    hold_until: Instant,
    known: Option<Arc<Known>>,
}

#[derive(Debug)]
struct PlaceState {
    due: Instant,
    is_asked: bool,
    /// Databases came while it was being asked.
    is_stale: bool,
    /// The last answer was none: nobody waits for the next one.
    outcome: Outcome,
    backoff: Backoff,
    said: SaidOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Denied,
    Failed,
    New,
}

/// A place to ask about, and the databases there.
pub(super) type Due = (Place, Vec<Arc<Database>>);

impl Facts for Book {
    /// What AWS is known to say. One that discovery found is believed as [`Verdict`] says.
    fn complete(
        &self,
        database: &Arc<Database>,
        effective: &EffectiveRole,
    ) -> Result<Arc<Database>, Refusal> {
        let by_name = completed(database, None);
        if believable(&by_name).is_err() {
            // It is refused for that, and nobody is asked about it.
            return Ok(Arc::clone(database));
        }
        let place = Place::of(&by_name, effective.role.as_ref());
        let (verdict, known) = self.look_up(by_name.into_owned(), place, Instant::now());
        match verdict {
            Verdict::Awaited => Err(Refusal::Awaited),
            Verdict::Contradicted(said) => Err(Refusal::Endpoint(EndpointError::Contradicted {
                address: database.uri.to_string(),
                said,
            })),
            Verdict::Absent | Verdict::Confirmed | Verdict::Denied | Verdict::Unchecked => {
                Ok(match completed(database, known.as_deref()) {
                    Cow::Borrowed(_) => Arc::clone(database),
                    Cow::Owned(whole) => Arc::new(whole),
                })
            }
        }
    }

    fn forget(&self, name: &DatabaseName) {
        self.state().forget(name);
        // To be counted no longer.
        self.wake.notify_one();
    }
}

impl Book {
    /// Nothing known. Names of databases of which something is learned are added to `again`.
    pub(crate) fn new(again: Arc<Names>) -> Self {
        Self {
            state: Mutex::default(),
            again,
            wake: Notify::new(),
        }
    }

    /// What is known of a record, which is written down when it is new. What was known stays while the record says the
    /// same of where and what the database is.
    fn look_up(
        &self,
        database: Database,
        place: Option<Place>,
        now: Instant,
    ) -> (Verdict, Option<Arc<Known>>) {
        let mut state = self.state();
        let before = state.rows.get(&database.name);
        let same = before.filter(|row| says_the_same(&row.database, &database));
        if let Some(row) = same.filter(|row| row.place == place) {
            return (row.verdict.clone(), row.known.clone());
        }
        // Another role may be told more or less: until it is asked, what the last one was told counts.
        let carried = same.map(|row| (row.verdict.clone(), row.known.clone()));
        let name = database.name.clone();
        let mut row = state.begin(database, place, now);
        if let Some((verdict, known)) = carried {
            (row.verdict, row.known) = (verdict, known);
        }
        let found = (row.verdict.clone(), row.known.clone());
        let left = state.rows.insert(name, row).and_then(|before| before.place);
        state.leave(left);
        drop(state);
        self.wake.notify_one();
        found
    }

    /// Places that have to be asked about now, at most `most`; each has to be answered before it comes again.
    pub(super) fn take_due(&self, most: usize, now: Instant) -> Vec<Due> {
        let mut state = self.state();
        let mut due: Vec<(Instant, Place)> = state
            .places
            .iter()
            .filter(|(_, place)| !place.is_asked && place.due <= now)
            .map(|(place, state)| (state.due, place.clone()))
            .collect();
        due.sort_by_key(|(due, _)| *due);
        due.truncate(most);
        due.into_iter()
            .map(|(_, place)| {
                if let Some(state) = state.places.get_mut(&place) {
                    (state.is_asked, state.is_stale) = (true, false);
                }
                let databases = state.of(&place).map(|row| Arc::clone(&row.database));
                let databases = databases.collect();
                (place, databases)
            })
            .collect()
    }

    /// Lets go whom AWS keeps waiting for too long, and says when to look again.
    pub(super) fn tick(&self, now: Instant) -> Instant {
        let mut state = self.state();
        let mut let_go = Vec::new();
        let mut next = now + REFRESH_INTERVAL;
        for (name, row) in &mut state.rows {
            if row.verdict != Verdict::Awaited {
                continue;
            }
            if row.hold_until <= now {
                row.verdict = Verdict::Unchecked;
                let_go.push(name.clone());
            } else {
                next = next.min(row.hold_until);
            }
        }
        let waiting = state.places.values().filter(|place| !place.is_asked);
        next = waiting.map(|place| place.due).fold(next, Instant::min);
        drop(state);
        self.again.add(let_go);
        next
    }

    /// Counts the databases that discovery found by their verdicts.
    pub(super) fn count(&self, counts: &VerdictCounts) {
        let mut found = WORDS.map(|verdict| (verdict, 0));
        let state = self.state();
        let discovered = state.rows.values();
        for row in discovered.filter(|row| row.database.origin == Origin::Cloud) {
            let word = row.verdict.word();
            for (_, count) in found.iter_mut().filter(|(verdict, _)| *verdict == word) {
                *count += 1;
            }
        }
        drop(state);
        for (verdict, count) in found {
            counts.get_or_create(&VerdictLabel { verdict }).set(count);
        }
    }

    /// Woken when a database came or went.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Writes down what AWS said of the databases that were asked about.
    pub(super) fn answered(
        &self,
        place: &Place,
        asked: &[Arc<Database>],
        answer: &Answer,
        now: Instant,
    ) {
        let mut state = self.state();
        let mut learned = Vec::new();
        let mut contradicted = false;
        for database in asked {
            let Some(row) = state.rows.get_mut(&database.name) else {
                continue;
            };
            // Another record by now: it is asked about by itself.
            if !Arc::ptr_eq(&row.database, database) {
                continue;
            }
            if row.take(answer) {
                learned.push(database.name.clone());
            }
            contradicted |= matches!(row.verdict, Verdict::Contradicted(_));
        }
        if let Some(place_state) = state.places.get_mut(place) {
            place_state.answered(place, answer, contradicted, now);
        }
        drop(state);
        self.again.add(learned);
    }

    #[cfg(test)]
    pub(super) fn verdict(&self, name: &DatabaseName) -> Option<Verdict> {
        let state = self.state();
        state.rows.get(name).map(|row| row.verdict.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Rows are whole values: a panic elsewhere leaves none half-made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A database of which nothing is known yet; its place is asked about at once.
    fn begin(&mut self, database: Database, place: Option<Place>, now: Instant) -> Row {
        let outcome = place.clone().map(|place| {
            let state = self
                .places
                .entry(place)
                .or_insert_with(|| PlaceState::new(now));
            state.came(now);
            state.outcome
        });
        let verdict = match outcome {
            _ if database.origin != Origin::Cloud => Verdict::Unchecked,
            None | Some(Outcome::Failed) => Verdict::Unchecked,
            Some(Outcome::Denied) => Verdict::Denied,
            Some(Outcome::Answered | Outcome::New) => Verdict::Awaited,
        };
        Row {
            database: Arc::new(database),
            place,
            verdict,
            hold_until: now + HOLD,
            known: None,
        }
    }

    fn forget(&mut self, name: &DatabaseName) {
        let left = self.rows.remove(name).and_then(|row| row.place);
        self.leave(left);
    }

    /// A database was there, and is not any more: a place without any is not asked about.
    fn leave(&mut self, place: Option<Place>) {
        if let Some(place) = place
            && self.of(&place).next().is_none()
        {
            self.places.remove(&place);
        }
    }

    fn of<'s>(&'s self, place: &'s Place) -> impl Iterator<Item = &'s Row> {
        self.rows
            .values()
            .filter(move |row| row.place.as_ref() == Some(place))
    }
}

impl Row {
    /// Takes in what was said of it; whether that is news.
    fn take(&mut self, answer: &Answer) -> bool {
        let listing = question(&self.database).map(|(listing, _)| listing);
        let Some(said) = listing.and_then(|listing| answer.listed.get(&listing)) else {
            return false;
        };
        let is_discovered = self.database.origin == Origin::Cloud;
        match said {
            Ok(listed) if is_discovered => self.becomes(judge(&self.database, listed)),
            Ok(listed) => {
                let database = &self.database;
                let found = listed
                    .at(database)
                    .or_else(|| listed.behind_alias(database));
                let known = found.map(|found| {
                    let tags = found.arn.as_ref().and_then(|arn| answer.tags.get(arn));
                    Arc::new(Known::new(&self.database, found, tags.cloned()))
                });
                let is_news = known.is_some() && known != self.known;
                // What is no longer listed may be out of sight for a moment: what was known of it stays.
                self.known = known.or(self.known.take());
                is_news
            }
            Err(failure) if is_discovered => match (failure.class, &self.verdict) {
                (
                    AwsErrorClass::AccessDenied,
                    Verdict::Awaited | Verdict::Unchecked | Verdict::Absent,
                ) => self.becomes(Verdict::Denied),
                (_, Verdict::Awaited) => self.becomes(Verdict::Unchecked),
                _ => false,
            },
            Err(_) => false,
        }
    }

    fn becomes(&mut self, verdict: Verdict) -> bool {
        if self.verdict == verdict {
            return false;
        }
        if verdict == Verdict::Absent {
            info!(db.name = %self.database.name, "AWS lists no such database there; its address alone decides whether it is served");
        }
        self.verdict = verdict;
        true
    }
}

impl PlaceState {
    fn new(now: Instant) -> Self {
        Self {
            due: now,
            is_asked: false,
            is_stale: false,
            outcome: Outcome::New,
            backoff: Backoff::between(RETRY_MIN, RETRY_MAX),
            said: SaidOnce::new(),
        }
    }

    /// A database came. A place that does not answer is not asked sooner for it.
    fn came(&mut self, now: Instant) {
        if matches!(self.outcome, Outcome::Answered | Outcome::New) {
            (self.due, self.is_stale) = (now, true);
        }
    }

    fn answered(&mut self, place: &Place, answer: &Answer, contradicted: bool, now: Instant) {
        self.is_asked = false;
        let failures = answer
            .listed
            .values()
            .filter_map(|said| said.as_ref().err());
        let mut is_denied = false;
        let mut failed = None;
        for failure in failures {
            if failure.class == AwsErrorClass::AccessDenied {
                is_denied = true;
                if self.said.is_new(&kind_of(failure)) {
                    warn!(%place, error = %failure, hint = failure.hint(), "AWS may not be asked about databases; their addresses' form alone decides whether they are served");
                }
            } else {
                failed = Some(failure);
            }
        }
        let wait = match failed {
            Some(failure) => {
                if self.said.is_new(&kind_of(failure)) {
                    warn!(%place, error = %failure, "cannot ask AWS about databases; going on with what is known");
                }
                self.outcome = Outcome::Failed;
                let is_lasting = failure.class == AwsErrorClass::InvalidRequest;
                if is_lasting {
                    DENIED_INTERVAL
                } else {
                    self.backoff.next()
                }
            }
            None if is_denied => {
                self.outcome = Outcome::Denied;
                DENIED_INTERVAL
            }
            None => {
                self.outcome = Outcome::Answered;
                self.backoff.reset();
                self.said.clear();
                match (self.is_stale, contradicted) {
                    (true, _) => Duration::ZERO,
                    (false, true) => RECHECK_INTERVAL,
                    (false, false) => REFRESH_INTERVAL,
                }
            }
        };
        self.due = now + wait;
    }
}

/// What makes a failure another one than the last: the ids of requests, which are in its text, do not.
fn kind_of(failure: &AwsFailure) -> String {
    let hop = failure.hop.as_ref().map(ToString::to_string);
    let code = failure.code.as_deref().unwrap_or_default();
    format!(
        "{} {} {code} {}",
        failure.action,
        failure.class,
        hop.unwrap_or_default()
    )
}

/// Whether two records say the same of where and what a database is.
fn says_the_same(one: &Database, other: &Database) -> bool {
    let (aws, others) = (&one.aws, &other.aws);
    one.uri == other.uri
        && one.kind == other.kind
        && one.origin == other.origin
        && one.identity == other.identity
        && aws.region == others.region
        && aws.account_id == others.account_id
        && aws.redshift_cluster_id == others.redshift_cluster_id
        && aws.redshift_serverless_workgroup == others.redshift_serverless_workgroup
        && aws.redshift_serverless_endpoint == others.redshift_serverless_endpoint
        && aws.rds_instance_id == others.rds_instance_id
        && aws.rds_cluster_id == others.rds_cluster_id
        && aws.rdsproxy_name == others.rdsproxy_name
}

#[cfg(test)]
mod tests;
