//! Checks what a worker publishes, frame by frame, before anything is made of it.

use std::collections::BTreeMap;

use prost::Message as _;
use tidegate_core::{Database, ScanScope, labels::LABELS_MAX};
use tidegate_proto::{Invalid, v1};

use super::plan::{Seen, Sighting};

/// Most databases in one scan.
pub(crate) const SCAN_ITEMS_MAX: u32 = 20_000;
/// Largest scan.
pub(crate) const SCAN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest identity.
const IDENTITY_CHARS_MAX: usize = 2048;
/// Longest part of a name, description or other text of an item.
const TEXT_CHARS_MAX: usize = 1024;
/// Most suffix parts of a name.
const SUFFIX_PARTS_MAX: usize = 8;
/// Reasons to leave databases out that are kept of one scan.
const LEFT_OUT_MAX: usize = 32;
/// Stands in for the name, which the ledger gives, while an item is checked.
const UNNAMED: &str = "unnamed";

/// A checked header.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// What was scanned.
    pub(crate) scope: ScanScope,
    /// As it was sent.
    pub(crate) message: v1::ScanScope,
    /// The fencing epoch that the worker believes it holds.
    pub(crate) epoch: u64,
    /// Whether everything was seen.
    pub(crate) complete: bool,
    /// Of the items.
    pub(crate) digest: [u8; 32],
    /// Why it is partial.
    pub(crate) failure: Option<v1::ScanFailure>,
    /// When the scan started.
    pub(crate) started_at: Option<prost_types::Timestamp>,
    /// When the scan ended.
    pub(crate) finished_at: Option<prost_types::Timestamp>,
    /// AWS calls that were made.
    pub(crate) aws_calls: u32,
    /// What no agent could serve.
    pub(crate) left_out: Vec<v1::LeftOut>,
}

impl TryFrom<v1::ScanHeader> for Header {
    type Error = Invalid;

    fn try_from(header: v1::ScanHeader) -> Result<Self, Invalid> {
        let complete = match header.completeness() {
            v1::Completeness::Complete => true,
            v1::Completeness::Partial => false,
            v1::Completeness::Unspecified => {
                return Err(Invalid::new("header.completeness", "is missing"));
            }
        };
        if complete && header.failure.is_some() {
            let problem = "a complete scan has no failure";
            return Err(Invalid::new("header.failure", problem));
        }
        let message = header
            .scope
            .ok_or_else(|| Invalid::new("header.scope", "is missing"))?;
        let digest = header
            .digest
            .try_into()
            .map_err(|_| Invalid::new("header.digest", "is not 32 bytes"))?;
        Ok(Self {
            scope: message.clone().try_into()?,
            message,
            epoch: header.epoch,
            complete,
            digest,
            failure: header.failure.map(shortened),
            started_at: header.started_at,
            finished_at: header.finished_at,
            aws_calls: header.aws_calls,
            left_out: bounded(header.left_out),
        })
    }
}

/// A failure as it is kept: its texts are for one line each.
fn shortened(failure: v1::ScanFailure) -> v1::ScanFailure {
    let short = |text: String| text.chars().take(TEXT_CHARS_MAX).collect();
    v1::ScanFailure {
        class: short(failure.class),
        aws_code: short(failure.aws_code),
        action: short(failure.action),
        message: short(failure.message),
    }
}

/// Reasons as they are kept: a few, one line each.
fn bounded(left_out: Vec<v1::LeftOut>) -> Vec<v1::LeftOut> {
    let first = left_out.into_iter().take(LEFT_OUT_MAX);
    first
        .map(|left_out| v1::LeftOut {
            reason: left_out.reason.chars().take(TEXT_CHARS_MAX).collect(),
            ..left_out
        })
        .collect()
}

/// The items of one scan, as they come in.
#[derive(Debug)]
pub(crate) struct Items {
    scope: ScanScope,
    complete: bool,
    sightings: BTreeMap<String, Sighting>,
    received: u32,
    bytes: usize,
}

impl Items {
    /// None yet.
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            scope: header.scope.clone(),
            complete: header.complete,
            sightings: BTreeMap::new(),
            received: 0,
            bytes: 0,
        }
    }

    /// Takes in some items.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub(crate) fn extend(&mut self, items: v1::ScanItems) -> Result<(), Invalid> {
        items.items.into_iter().try_for_each(|item| self.push(item))
    }

    /// Takes in one item. Of two with one identity the later counts: pages can repeat what changed meanwhile.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the field, or the bound that was passed.
    pub(crate) fn push(&mut self, item: v1::ScanItem) -> Result<(), Invalid> {
        self.received += 1;
        self.bytes += item.encoded_len();
        if self.received > SCAN_ITEMS_MAX || self.bytes > SCAN_BYTES_MAX {
            return Err(Invalid::new(
                "item",
                format!(
                    "a scan may hold {SCAN_ITEMS_MAX} items and {SCAN_BYTES_MAX} bytes at most"
                ),
            ));
        }
        let sighting = self.check(item)?;
        self.sightings
            .insert(sighting.database.identity.clone(), sighting);
        Ok(())
    }

    /// All items are in, if the trailer's count agrees.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when items were lost on the way.
    pub(crate) fn finish(self, trailer: v1::ScanTrailer) -> Result<Seen, Invalid> {
        if trailer.items != self.received {
            let problem = format!("is {}, but {} came", trailer.items, self.received);
            return Err(Invalid::new("trailer.items", problem));
        }
        Ok(if self.complete {
            Seen::Complete(self.sightings)
        } else {
            Seen::Partial(self.sightings)
        })
    }

    fn check(&self, item: v1::ScanItem) -> Result<Sighting, Invalid> {
        let mut message = item
            .database
            .ok_or_else(|| Invalid::new("item.database", "is missing"))?;
        UNNAMED.clone_into(&mut message.name);
        message.set_origin(v1::Origin::Cloud);
        let database = Database::try_from(message)?;
        let invalid =
            |field: &str, problem: &str| Err(Invalid::new(format!("item.{field}"), problem));
        if database.identity.is_empty() || database.identity.len() > IDENTITY_CHARS_MAX {
            return invalid("database.identity", "is empty or too long");
        }
        if database.labels.len() > LABELS_MAX {
            return invalid("database.labels", "are too many");
        }
        if database.kind.is_some_and(|kind| kind != self.scope.kind) {
            return invalid("database.kind", "is not what the scope looks for");
        }
        let region = database.aws.region.as_ref();
        if region.is_some_and(|region| *region != self.scope.region) {
            return invalid("database.aws.region", "is not the scope's");
        }
        let texts = [&item.name_base, &item.name_endpoint, &database.description];
        if texts.into_iter().any(|text| text.len() > TEXT_CHARS_MAX)
            || item.name_suffix.len() > SUFFIX_PARTS_MAX
            || item
                .name_suffix
                .iter()
                .any(|part| part.len() > TEXT_CHARS_MAX)
        {
            return invalid("name_base", "or another part of the name is too long");
        }
        if item.name_base.is_empty() {
            return invalid("name_base", "is empty");
        }
        Ok(Sighting {
            database,
            base: item.name_base,
            tagged: item.name_tagged,
            endpoint: item.name_endpoint,
            suffix: item.name_suffix,
            tags_unknown: item.tags_unknown,
        })
    }
}
