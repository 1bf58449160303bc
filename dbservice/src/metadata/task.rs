//! Asks AWS about the databases that are wanted, at a bounded rate.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, AwsFailure, RoleChain, SessionTag,
    describe::{Described, Listing, Page},
};
use tidegate_core::{AssumeRole, Database, Origin, Region};
use tidegate_service::tasks::ShutdownToken;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::metrics::VerdictCounts;

use super::{
    book::{Answer, Book},
    place::{Place, Question, questions},
    verdict::Listed,
};

/// Places that are asked about at once.
const PLACES_AT_ONCE: usize = 8;

/// Between two calls as one role in one region: four a second, whatever the kinds of database.
const CALL_APART: Duration = Duration::from_millis(250);

/// Calls that may come together after a pause, so that a few databases of several kinds are known at once.
const BURST_CALLS: u32 = 8;

/// Roles and regions whose last call is remembered; when there are more, all are forgotten.
const PACES_MAX: usize = 4096;

/// Pages of one list; AWS's quotas are far below a hundred times a hundred.
const PAGES_MAX: usize = 100;

/// Databases whose tags take a call each, in one answer of a place.
const TAG_CALLS_MAX: usize = 100;

/// Who is asked.
pub(crate) trait Describe: Send + Sync + 'static {
    /// One page of a list.
    fn page<'d>(
        &'d self,
        place: &'d Place,
        listing: Listing,
        name: Option<&'d str>,
        marker: Option<String>,
    ) -> BoxFuture<'d, Result<Page, AwsFailure>>;

    /// The tags of one resource.
    fn tags<'d>(
        &'d self,
        place: &'d Place,
        arn: &'d str,
    ) -> BoxFuture<'d, Result<Vec<(String, String)>, AwsFailure>>;
}

/// AWS itself, asked with the effective role of the databases.
#[derive(Debug)]
pub(crate) struct AwsDescribe {
    factory: AwsFactory,
    session: SessionTag,
}

impl AwsDescribe {
    /// Sessions of roles are called `session`.
    pub(crate) fn new(factory: AwsFactory, session: &str) -> Self {
        Self {
            factory,
            session: SessionTag::new(session),
        }
    }

    fn looked_at<T>(
        &self,
        chain: &RoleChain,
        answer: Result<T, AwsFailure>,
    ) -> Result<T, AwsFailure> {
        if answer
            .as_ref()
            .is_err_and(|failure| failure.class.is_of_credentials())
        {
            self.factory.refused(chain, &self.session);
        }
        answer
    }
}

impl Describe for AwsDescribe {
    fn page<'d>(
        &'d self,
        place: &'d Place,
        listing: Listing,
        name: Option<&'d str>,
        marker: Option<String>,
    ) -> BoxFuture<'d, Result<Page, AwsFailure>> {
        Box::pin(async move {
            let chain = RoleChain::new(place.role.clone(), None);
            let (factory, session) = (&self.factory, &self.session);
            let asking = factory.describe(&chain, &place.region, session, listing, name, marker);
            self.looked_at(&chain, asking.await)
        })
    }

    fn tags<'d>(
        &'d self,
        place: &'d Place,
        arn: &'d str,
    ) -> BoxFuture<'d, Result<Vec<(String, String)>, AwsFailure>> {
        Box::pin(async move {
            let chain = RoleChain::new(place.role.clone(), None);
            let (factory, session) = (&self.factory, &self.session);
            let asking = factory.tags_of(&chain, &place.region, session, place.kind, arn);
            self.looked_at(&chain, asking.await)
        })
    }
}

/// Keeps the book until shutdown, and counts what is in it.
pub(crate) async fn keep(
    book: Arc<Book>,
    describe: Arc<dyn Describe>,
    counts: VerdictCounts,
    shutdown: ShutdownToken,
) {
    let paces = Arc::new(Paces::default());
    let mut asking = JoinSet::new();
    loop {
        let room = PLACES_AT_ONCE - asking.len();
        for (place, databases) in book.take_due(room, Instant::now()) {
            let (book, describe) = (Arc::clone(&book), Arc::clone(&describe));
            let paces = Arc::clone(&paces);
            asking.spawn(async move {
                // A panic is no answer: who waited is let go, and the place is asked again later.
                let asking = AssertUnwindSafe(ask(&*describe, &paces, &place, &databases));
                let answer = asking.catch_unwind().await.unwrap_or_default();
                book.answered(&place, &databases, &answer, Instant::now());
            });
        }
        let next = book.tick(Instant::now());
        book.count(&counts);
        // With no room left a due place would be looked for again at once.
        let next = if asking.len() < PLACES_AT_ONCE {
            next
        } else {
            next.max(Instant::now() + CALL_APART)
        };
        let waiting = async {
            tokio::select! {
                () = sleep_until(next) => {}
                () = book.woken() => {}
                Some(_) = asking.join_next() => {}
            }
        };
        if shutdown.run_until_cancelled(waiting).await.is_none() {
            return;
        }
    }
}

/// Reads the lists that the databases of a place are in, and the tags that those leave out.
async fn ask(
    describe: &dyn Describe,
    paces: &Paces,
    place: &Place,
    databases: &[Arc<Database>],
) -> Answer {
    let mut answer = Answer::default();
    for question in questions(databases.iter().map(Arc::as_ref)) {
        let read = list(describe, paces, place, &question).await;
        let listed = answer
            .listed
            .entry(question.listing)
            .or_insert_with(|| Ok(Listed::default()));
        match (listed.as_mut(), read) {
            (Ok(listed), Ok(read)) => listed.extend(read),
            (Ok(_), Err(failure)) => *listed = Err(failure),
            (Err(_), _) => {}
        }
    }
    let untold: Vec<String> = databases
        .iter()
        .filter(|database| database.origin != Origin::Cloud)
        .filter_map(|database| {
            let mut listed = answer.listed.values().flatten();
            let found = listed.find_map(|listed| listed.at(database))?;
            found.arn.clone().filter(|_| found.tags.is_none())
        })
        .take(TAG_CALLS_MAX)
        .collect();
    for arn in untold {
        paces.wait(place).await;
        match describe.tags(place, &arn).await {
            Ok(tags) => {
                answer.tags.insert(arn, tags);
            }
            // Everything else is known; the tags come with the next answer.
            Err(failure) => debug!(%place, error = %failure, "cannot read the tags of a database"),
        }
    }
    answer
}

async fn list(
    describe: &dyn Describe,
    paces: &Paces,
    place: &Place,
    question: &Question,
) -> Result<Vec<Described>, AwsFailure> {
    let (mut all, mut marker) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        paces.wait(place).await;
        let name = question.name.as_deref();
        let page = describe.page(place, question.listing, name, marker).await?;
        all.extend(page.items);
        marker = page.next;
        if marker.is_none() {
            return Ok(all);
        }
    }
    let action = question.listing.action(question.name.is_some());
    let problem = format!("a list of more than {PAGES_MAX} pages");
    Err(AwsFailure::new(AwsErrorClass::Malformed, action, problem))
}

/// When the next call may be made, by role and region.
#[derive(Debug, Default)]
struct Paces {
    next: Mutex<HashMap<(Option<AssumeRole>, Region), Instant>>,
}

impl Paces {
    /// Waits for the place's turn.
    async fn wait(&self, place: &Place) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            if next.len() >= PACES_MAX {
                next.clear();
            }
            let key = (place.role.clone(), place.region.clone());
            let now = Instant::now();
            let at = next.entry(key).or_insert(now);
            // When the last call that was let through would have had its turn without bursts.
            *at = (*at).max(now) + CALL_APART;
            (*at - CALL_APART * BURST_CALLS).max(now)
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests;
