//! Tags that take a call each: read once, remembered for a few scans.
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

/// Key and value of each tag of one resource.
pub(super) type Tags = Vec<(String, String)>;

/// The tags of each resource whose tags are known, by ARN.
pub(super) type KnownTags = HashMap<String, Arc<Tags>>;

/// Remembers tags by ARN.
#[derive(Debug, Default)]
pub(super) struct TagCache {
    entries: Mutex<HashMap<String, Entry>>,
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
            reading.called();
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
            assert!(known.is_empty());
            assert_eq!(reading.aws_calls as usize, calls_max);
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
