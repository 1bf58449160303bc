//! What is known of the databases that are wanted, and when to ask again.
//!
//! Shared by the reconciler, which writes down what it wants and reads what is known, and the task that asks. Nothing
//! here waits or calls anybody; time comes in as an argument.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidegate_aws::{
    AwsErrorClass, AwsFailure,
    describe::{Described, Listing},
};
use tidegate_core::{AssumeRole, Database, DatabaseName, Origin};
use tidegate_service::{rpc::Backoff, telemetry::SaidOnce};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    facts::{Known, completed},
    place::{Place, question},
    verdict::{Verdict, judge, listens_at},
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

/// What AWS answered in a place.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// By list; a list that was read in part counts as failed.
    pub(super) listed: HashMap<Listing, Result<Vec<Described>, AwsFailure>>,
    /// By ARN, where a list leaves them out.
    pub(super) tags: HashMap<String, Vec<(String, String)>>,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Facts {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
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

impl Facts {
    /// Nothing known, nothing wanted.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
        }
    }

    /// Says which databases are wanted from here on, each with its effective role. What is known of one stays while its
    /// record says the same of where and what it is.
    pub(crate) fn follow<'d>(
        &self,
        wanted: impl IntoIterator<Item = (&'d Database, Option<&'d AssumeRole>)>,
        now: Instant,
    ) {
        let mut state = self.state();
        let before = std::mem::take(&mut state.rows);
        let mut before = before;
        let mut is_new = false;
        for (record, role) in wanted {
            let database = completed(record, None);
            let place = Place::of(&database, role);
            let row = before
                .remove(&record.name)
                .filter(|row| row.place == place && says_the_same(&row.database, &database));
            let row = row.unwrap_or_else(|| {
                is_new = true;
                state.begin(database.into_owned(), place, now)
            });
            state.rows.insert(record.name.clone(), row);
        }
        let places: HashSet<Place> = state.rows.values().filter_map(|row| row.place.clone()).collect();
        state.places.retain(|place, _| places.contains(place));
        drop(state);
        if is_new {
            self.wake.notify_one();
        }
    }

    /// A database with what is known beside its record.
    pub(crate) fn completed<'d>(&self, database: &'d Database) -> Cow<'d, Database> {
        let known = self.state().rows.get(&database.name).and_then(|row| row.known.clone());
        completed(database, known.as_deref())
    }

    /// What is known of the address of a database that discovery found.
    pub(crate) fn verdict(&self, database: &Database) -> Verdict {
        let state = self.state();
        let row = state.rows.get(&database.name);
        row.filter(|row| row.database.uri == database.uri)
            .map_or(Verdict::Unchecked, |row| row.verdict.clone())
    }

    /// Tells when a verdict or a fact has changed; the value only counts changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
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
        let mut is_changed = false;
        let mut next = now + REFRESH_INTERVAL;
        for row in state.rows.values_mut() {
            if row.verdict != Verdict::Awaited {
                continue;
            }
            if row.hold_until <= now {
                (row.verdict, is_changed) = (Verdict::Unchecked, true);
            } else {
                next = next.min(row.hold_until);
            }
        }
        let waiting = state.places.values().filter(|place| !place.is_asked);
        next = waiting.map(|place| place.due).fold(next, Instant::min);
        drop(state);
        if is_changed {
            self.told();
        }
        next
    }

    /// Woken when a database came.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Writes down what AWS said of the databases that were asked about.
    pub(super) fn answered(&self, place: &Place, asked: &[Arc<Database>], answer: &Answer, now: Instant) {
        let mut state = self.state();
        let mut is_changed = false;
        let mut contradicted = false;
        for database in asked {
            let Some(row) = state.rows.get_mut(&database.name) else {
                continue;
            };
            // Another record by now: it is asked about by itself.
            if !Arc::ptr_eq(&row.database, database) {
                continue;
            }
            is_changed |= row.take(answer);
            contradicted |= matches!(row.verdict, Verdict::Contradicted(_));
        }
        if let Some(place_state) = state.places.get_mut(place) {
            place_state.answered(place, answer, contradicted, now);
        }
        drop(state);
        if is_changed {
            self.told();
        }
    }

    fn told(&self) {
        self.changed.send_modify(|count| *count += 1);
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
            let state = self.places.entry(place).or_insert_with(|| PlaceState::new(now));
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
                let found = listed.iter().find(|one| listens_at(one, &self.database));
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
                (AwsErrorClass::AccessDenied, Verdict::Awaited | Verdict::Unchecked | Verdict::Absent) => {
                    self.becomes(Verdict::Denied)
                }
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
        let failures = answer.listed.values().filter_map(|said| said.as_ref().err());
        let mut is_denied = false;
        let mut failed = None;
        for failure in failures {
            if failure.class == AwsErrorClass::AccessDenied {
                is_denied = true;
                if self.said.is_new(&failure.to_string()) {
                    warn!(%place, error = %failure, hint = failure.hint(), "AWS may not be asked about databases; their addresses' form alone decides whether they are served");
                }
            } else {
                failed = Some(failure);
            }
        }
        let wait = match failed {
            Some(failure) => {
                if self.said.is_new(&failure.to_string()) {
                    warn!(%place, error = %failure, "cannot ask AWS about databases; going on with what is known");
                }
                self.outcome = Outcome::Failed;
                self.backoff.next()
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

/// Whether two records say the same of what is asked about.
fn says_the_same(one: &Database, other: &Database) -> bool {
    one.uri == other.uri
        && one.kind == other.kind
        && one.origin == other.origin
        && one.identity == other.identity
        && one.aws == other.aws
}

#[cfg(test)]
mod tests;
