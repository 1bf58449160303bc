//! What a scan is compared with the last one of its scope by: the bytes that AWS answered.
//!
//! Most scans get, byte for byte, the answers of the scan before, and would find what that found. Comparing costs a digest
//! of the answers; reading them into databases costs as much as half of all that the AWS SDK does. A scan whose answers
//! are all the same says so, and its digest is published again.
//!
//! Invariants: nothing is skipped unless every answer is the same, in the same order; what else a scan looks at
//! (remembered tags and refusals) makes it [`Answers::incomparable`]. Kinds whose answers always differ, or which
//! remember tags, do not ask.
//!
//! Not here: how the digest of databases is made, and what happens when the auth service wants them nevertheless
//! ([`crate::publish`], [`crate::worker`]).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::digest::{Context, SHA256};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept, context::AfterDeserializationInterceptorContextRef, dyn_dispatch_hint,
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;

/// Where the part of a Query answer starts that differs every time: the id of the request.
///
/// Source: Amazon Redshift API reference, "Common response metadata"; every example response ends with it.
const METADATA: &[u8] = b"<ResponseMetadata>";
/// How far from the end of an answer that part is looked for.
const METADATA_BYTES_MAX: usize = 1024;

/// SHA-256 of all answers so far.
type Heard = [u8; 32];

/// The answers of one scan. Clones listen to the same scan; each is an interceptor for the calls of it.
#[derive(Clone)]
pub(crate) struct Answers(Arc<Mutex<Transcript>>);

struct Transcript {
    context: Context,
    comparable: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Transcript {
            context: Context::new(&SHA256),
            comparable: true,
        })))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

impl Answers {
    fn locked(&self) -> MutexGuard<'_, Transcript> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scan knows something that its answers do not tell.
    pub(crate) fn incomparable(&self) {
        self.locked().comparable = false;
    }

    /// All answers so far; `None` when they do not tell all.
    fn heard(&self) -> Option<Heard> {
        let transcript = self.locked();
        let mut heard = Heard::default();
        heard.copy_from_slice(transcript.context.clone().finish().as_ref());
        transcript.comparable.then_some(heard)
    }

    /// One more answer.
    pub(crate) fn hear(&self, body: &[u8]) {
        let told = without_metadata(body);
        let mut transcript = self.locked();
        transcript
            .context
            .update(&(told.len() as u64).to_be_bytes());
        transcript.context.update(told);
    }
}

/// An answer without what differs every time.
fn without_metadata(body: &[u8]) -> &[u8] {
    let from = body.len().saturating_sub(METADATA_BYTES_MAX);
    let tail = body.get(from..).unwrap_or_default();
    let place = tail
        .windows(METADATA.len())
        .rposition(|window| window == METADATA);
    place.map_or(body, |place| body.get(..from + place).unwrap_or(body))
}

#[dyn_dispatch_hint]
impl Intercept for Answers {
    fn name(&self) -> &'static str {
        "Answers"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // A failed attempt is repeated, or ends the scan.
        if context.output_or_error().is_ok() {
            match context.response().body().bytes() {
                Some(body) => self.hear(body),
                None => self.incomparable(),
            }
        }
        Ok(())
    }
}

/// The answers of a whole scan: those up to the one question that it asks itself, and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    first: Heard,
    went_on: bool,
    all: Heard,
}

/// What the last scan of a scope found.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Its answers.
    pub(crate) trace: Trace,
    /// Of its items.
    pub(crate) digest: [u8; 32],
    /// How many databases it found.
    pub(crate) databases: usize,
    /// How many it left out, by reason.
    pub(crate) left_out: BTreeMap<&'static str, usize>,
}

/// How a scan goes on beside the last one of its scope.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Listens to the calls.
    pub(crate) answers: Answers,
    known: Option<Arc<Known>>,
    first: Option<(Heard, bool)>,
    same: bool,
}

impl Comparison {
    /// With what the last scan found, if that is known.
    pub(crate) fn with(known: Option<Arc<Known>>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Whether the last scan went on, when it had got the very answers of this one up to here.
    pub(crate) fn went_on(&self) -> Option<bool> {
        let trace = self.known.as_ref()?.trace;
        (self.answers.heard() == Some(trace.first)).then_some(trace.went_on)
    }

    /// Whether this scan goes on.
    pub(crate) fn goes_on(&mut self, on: bool) {
        self.first = self.answers.heard().map(|heard| (heard, on));
    }

    /// All answers are in: whether they are those of the last scan. Then nothing more has to be read of them.
    pub(crate) fn ends_the_same(&mut self) -> bool {
        self.same =
            self.known.is_some() && self.trace() == self.known.as_ref().map(|known| known.trace);
        self.same
    }

    /// What the last scan found, when this one got the very same answers.
    pub(crate) fn same(&self) -> Option<Arc<Known>> {
        self.known.clone().filter(|_| self.same)
    }

    /// What the next scan can be compared with.
    pub(crate) fn trace(&self) -> Option<Trace> {
        let (first, went_on) = self.first?;
        Some(Trace {
            first,
            went_on,
            all: self.answers.heard()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str =
        "<R><L>orders</L><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></R>";

    fn heard(answers: &[&str]) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.answers.hear(answers[0].as_bytes());
        comparison.goes_on(true);
        for answer in &answers[1..] {
            comparison.answers.hear(answer.as_bytes());
        }
        comparison
    }

    fn after(before: &Comparison, answers: &[&str]) -> Comparison {
        let known = Known {
            trace: before.trace().unwrap(),
            digest: [7; 32],
            databases: 1,
            left_out: BTreeMap::new(),
        };
        Comparison {
            known: Some(Arc::new(known)),
            ..heard(answers)
        }
    }

    #[test]
    fn the_id_of_a_request_is_no_difference_and_everything_else_is() {
        let before = heard(&[ANSWER, "end"]);
        assert!(after(&before, &[&ANSWER.replace(">1<", ">2<"), "end"]).ends_the_same());
        assert!(!after(&before, &[&ANSWER.replace("orders", "users"), "end"]).ends_the_same());
        assert!(!after(&before, &[ANSWER, "other"]).ends_the_same());
        assert!(!after(&before, &[ANSWER]).ends_the_same());
        assert!(!after(&heard(&["ab", "c"]), &["a", "bc"]).ends_the_same());
    }

    #[test]
    fn whether_the_last_scan_went_on_is_known_after_the_same_answers_only() {
        let before = heard(&[ANSWER]);
        assert_eq!(after(&before, &[ANSWER]).went_on(), Some(true));
        assert_eq!(after(&before, &["other"]).went_on(), None);
        assert_eq!(heard(&[ANSWER]).went_on(), None);
    }

    #[test]
    fn a_scan_that_knows_more_than_its_answers_is_compared_with_none() {
        let before = heard(&[ANSWER]);
        let mut now = after(&before, &[ANSWER]);
        now.answers.incomparable();
        assert!(!now.ends_the_same() && now.same().is_none() && now.trace().is_none());
        assert_eq!(now.went_on(), None);
    }
}
