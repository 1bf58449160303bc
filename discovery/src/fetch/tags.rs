//! Tags that take a call each: read once, remembered for a few scans, unless somebody asked for the scan.
//!
//! Remembered tags serve [`SERVED_MAX`] scans, or [`AGE_MAX`], whichever ends first. Where in that cycle a resource
//! starts differs by its ARN, so that a quiet poll reads a part of all tags and not all of them at once.
//!
//! Tags that cannot be read are unknown, which is not the same as none: the scan is partial then.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::Instant;

use super::{FetchError, Reading};

/// Scans that remembered tags serve before they are read again.
pub(super) const SERVED_MAX: u32 = 3;
/// Longest time that remembered tags serve.
pub(super) const AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// Resources whose tags are remembered; beyond it old ones are forgotten.
pub(super) const RESOURCES_MAX: usize = 20_000;
/// Calls for tags in flight at once in one scan.
pub(super) const CALLS_MAX: usize = 4;
/// Denials without any tags known after which a scan asks for no more.
pub(super) const DENIALS_MAX: usize = 3;

/// A resource that no list of tagged ones has held for this long has no tags: they follow changes within minutes.
pub(super) const ABSENT_FOR: Duration = Duration::from_secs(15 * 60);

/// Key and value of each tag of one resource.
pub(super) type Tags = Vec<(String, String)>;

/// The tags of each resource whose tags are known, by ARN.
pub(super) type KnownTags = HashMap<String, Arc<Tags>>;

/// Remembers tags by ARN.
#[derive(Debug, Default)]
pub(super) struct TagCache {
    entries: Mutex<HashMap<String, Entry>>,
    /// Since when the resources that are in doubt have been absent from lists of tagged ones.
    absent: Mutex<HashMap<String, Instant>>,
}

#[derive(Debug)]
struct Entry {
    tags: Arc<Tags>,
    read_at: Instant,
    serves: u32,
}

impl TagCache {
    fn get(&self, arn: &str, now: Instant) -> Option<Arc<Tags>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(arn)?;
        if entry.serves == 0 || now.duration_since(entry.read_at) >= AGE_MAX {
            return None;
        }
        entry.serves -= 1;
        Some(Arc::clone(&entry.tags))
    }

    fn put(&self, arn: &str, tags: Arc<Tags>, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= RESOURCES_MAX {
            entries.retain(|_, entry| now.duration_since(entry.read_at) < AGE_MAX);
        }
        if entries.len() >= RESOURCES_MAX {
            entries.clear();
        }
        let serves = if entries.contains_key(arn) {
            SERVED_MAX
        } else {
            first_serves(arn)
        };
        let entry = Entry {
            tags,
            read_at: now,
            serves,
        };
        entries.insert(arn.to_owned(), entry);
    }

    /// Takes in what a list of tagged resources tells of `arns`, and returns that, with those that it leaves open.
    ///
    /// The list holds only resources that have tags, or had some, and follows changes with a delay. So a resource that
    /// is not on it has none if that is what was known of it, or if it has not been there for [`ABSENT_FOR`]. Of any
    /// other it is a doubt, and has to be asked.
    pub(super) fn settle(
        &self,
        arns: Vec<String>,
        mut listed: HashMap<String, Tags>,
    ) -> (KnownTags, Vec<String>) {
        let now = Instant::now();
        let (mut known, mut open) = (KnownTags::new(), Vec::new());
        for arn in arns {
            let tags = match listed.remove(&arn) {
                Some(tags) => Arc::new(tags),
                None => match self.remembered(&arn) {
                    Some(tags) if tags.is_empty() => tags,
                    _ if self.absent_for(&arn, now) >= ABSENT_FOR => Arc::default(),
                    _ => {
                        open.push(arn);
                        continue;
                    }
                },
            };
            self.present(&arn);
            self.put(&arn, Arc::clone(&tags), now);
            known.insert(arn, tags);
        }
        self.doubt(&open);
        (known, open)
    }

    /// How long lists have not held a resource, this one included.
    fn absent_for(&self, arn: &str, now: Instant) -> Duration {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= RESOURCES_MAX {
            absent.clear();
        }
        let since = *absent.entry(arn.to_owned()).or_insert(now);
        now.saturating_duration_since(since)
    }

    fn present(&self, arn: &str) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.remove(arn);
    }

    fn remembered(&self, arn: &str) -> Option<Arc<Tags>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(arn).map(|entry| Arc::clone(&entry.tags))
    }

    /// What is remembered of `arns` serves no more.
    fn doubt(&self, arns: &[String]) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for arn in arns {
            if let Some(entry) = entries.get_mut(arn) {
                entry.serves = 0;
            }
        }
    }

    /// The tags of `arns`, those not remembered by `ask`. What cannot be read is reported as missed and is not in
    /// the answer. With `may_ask` false only what is remembered is given.
    pub(super) async fn read(
        &self,
        arns: Vec<String>,
        reading: &mut Reading,
        may_ask: bool,
        ask: impl Fn(String) -> BoxFuture<'static, Result<Tags, FetchError>>,
    ) -> KnownTags {
        let now = Instant::now();
        if reading.fresh {
            self.doubt(&arns);
        }
        let mut known = KnownTags::new();
        let mut unknown = Vec::new();
        for arn in arns {
            match self.get(&arn, now) {
                Some(tags) => drop(known.insert(arn, tags)),
                None => unknown.push(arn),
            }
        }
        if !may_ask {
            return known;
        }
        let calls: Vec<BoxFuture<'static, _>> = unknown
            .into_iter()
            .map(|arn| {
                let call = ask(arn.clone());
                async move { (arn, call.await) }.boxed()
            })
            .collect();
        let mut answers = stream::iter(calls).buffer_unordered(CALLS_MAX);
        let mut denials = 0;
        while let Some((arn, answer)) = answers.next().await {
            match answer {
                Ok(tags) => {
                    let tags = Arc::new(tags);
                    self.put(&arn, Arc::clone(&tags), now);
                    known.insert(arn, tags);
                }
                Err(error) => {
                    denials += usize::from(error.is_denial());
                    let hopeless = known.is_empty() && denials >= DENIALS_MAX;
                    let stop = error.concerns_every_call() || hopeless;
                    reading.missed(error.in_part("the tags of some resources", &[]));
                    if stop {
                        break;
                    }
                }
            }
        }
        known
    }
}

/// How many scans freshly met tags serve: differs by ARN, so that not all fall due at once.
fn first_serves(arn: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    arn.hash(&mut hasher);
    u32::try_from(hasher.finish() % u64::from(SERVED_MAX + 1)).unwrap_or(SERVED_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidegate_aws::{AwsErrorClass, AwsFailure};

    use super::*;

    fn arns(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("arn:{n}")).collect()
    }

    fn fails(class: AwsErrorClass) -> BoxFuture<'static, Result<Tags, FetchError>> {
        Box::pin(async move { Err(AwsFailure::new(class, "a:ListTags", "no").into()) })
    }

    async fn calls_of_scans(cache: &TagCache, scans: usize) -> usize {
        let calls = Arc::new(AtomicUsize::new(0));
        for _ in 0..scans {
            let mut reading = Reading::default();
            let known = cache
                .read(arns(40), &mut reading, true, |arn| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    Box::pin(async move { Ok(vec![("of".to_owned(), arn)]) })
                })
                .await;
            assert_eq!(known.len(), 40);
            assert_eq!(*known["arn:7"], [("of".to_owned(), "arn:7".to_owned())]);
            assert!(reading.missed.is_none());
        }
        calls.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn tags_are_read_once_in_a_few_scans_and_not_all_in_one() {
        let cache = TagCache::default();
        assert_eq!(calls_of_scans(&cache, 1).await, 40);
        let second = calls_of_scans(&cache, 1).await;
        assert!((1..40).contains(&second), "{second}");
        let cycle = calls_of_scans(&cache, 4).await;
        assert!((30..=50).contains(&cycle), "{cycle}");
    }

    #[tokio::test(start_paused = true)]
    async fn old_tags_are_read_again_however_seldom_they_were_asked_for() {
        let cache = TagCache::default();
        calls_of_scans(&cache, 1).await;
        tokio::time::advance(AGE_MAX).await;
        assert_eq!(calls_of_scans(&cache, 1).await, 40);
    }

    #[tokio::test]
    async fn a_scan_that_was_asked_for_reads_all_tags_again() {
        let cache = TagCache::default();
        calls_of_scans(&cache, 2).await;
        let mut reading = Reading {
            fresh: true,
            ..Reading::default()
        };
        let known = cache
            .read(arns(40), &mut reading, true, |_| {
                Box::pin(async { Ok(vec![("new".to_owned(), "yes".to_owned())]) })
            })
            .await;
        assert!(known.values().all(|tags| tags[0].0 == "new"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_is_not_listed_has_no_tags_only_if_that_was_known() {
        let cache = TagCache::default();
        let now = Instant::now();
        let tags = vec![("env".to_owned(), "prod".to_owned())];
        cache.put("arn:0", Arc::new(tags.clone()), now);
        cache.put("arn:1", Arc::default(), now);
        let listed = HashMap::from([("arn:3".to_owned(), tags.clone())]);
        let (known, open) = cache.settle(arns(4), listed);
        assert_eq!(open, ["arn:0", "arn:2"]);
        assert_eq!(known.len(), 2);
        assert!(known["arn:1"].is_empty());
        assert_eq!(*known["arn:3"], tags);
        assert_eq!(cache.get("arn:0", now), None);

        // Nobody may be asked, and it stays away.
        tokio::time::advance(ABSENT_FOR).await;
        let (known, open) = cache.settle(arns(3), HashMap::new());
        assert!(known["arn:0"].is_empty() && open.is_empty());

        // Listed with nothing left is an answer.
        let listed = HashMap::from([("arn:0".to_owned(), Tags::new())]);
        let (known, open) = cache.settle(arns(1), listed);
        assert!(known["arn:0"].is_empty() && open.is_empty());
    }

    #[tokio::test]
    async fn one_refusal_hides_no_other_resource_and_many_end_the_asking() {
        let cache = TagCache::default();
        let mut reading = Reading::default();
        let known = cache
            .read(arns(10), &mut reading, true, |arn| {
                if arn == "arn:3" {
                    return fails(AwsErrorClass::AccessDenied);
                }
                Box::pin(async { Ok(Tags::new()) })
            })
            .await;
        assert_eq!(known.len(), 9);
        assert_eq!(reading.missed.unwrap().class(), "access_denied");

        for (class, calls_max) in [
            (AwsErrorClass::AccessDenied, DENIALS_MAX),
            (AwsErrorClass::Throttled, 1),
        ] {
            let mut reading = Reading::default();
            let cache = TagCache::default();
            let known = cache
                .read(arns(100), &mut reading, true, |_| fails(class))
                .await;
            assert!(known.is_empty() && reading.missed.is_some());
            assert_eq!(reading.missed_further + 1, calls_max);
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_when_asking_is_of_no_use() {
        let mut reading = Reading::default();
        let known = TagCache::default()
            .read(arns(3), &mut reading, false, |_| {
                fails(AwsErrorClass::Throttled)
            })
            .await;
        assert!(known.is_empty() && reading.missed.is_none());
    }

    #[test]
    fn the_cache_holds_a_bounded_number_of_resources() {
        let cache = TagCache::default();
        let now = Instant::now();
        for n in 0..=RESOURCES_MAX {
            cache.put(&n.to_string(), Arc::default(), now);
        }
        assert!(cache.entries.lock().unwrap().len() <= RESOURCES_MAX);
    }
}
