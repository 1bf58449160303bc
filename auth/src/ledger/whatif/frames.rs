//! Checks what is asked, frame by frame.

use std::collections::HashSet;

use prost::Message as _;
use tidegate_core::ScanScope;
use tidegate_proto::{
    Invalid,
    v1::{self, Completeness, plan_discovery_request::Frame},
};

use super::{
    super::{
        frames::{Header, Items},
        plan::Seen,
        scopes::{SCOPE_ID_CHARS_MAX, SCOPES_MAX},
    },
    question::Asked,
};

/// Most databases in one request, over all scopes.
pub(super) const PLAN_ITEMS_MAX: u32 = 500_000;
/// Largest request.
const PLAN_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest name of a group or a `discovery_config`.
const NAME_CHARS_MAX: usize = 1024;

/// What is asked, as far as it has come in.
#[derive(Debug)]
pub(crate) struct Asking {
    header: v1::PlanHeader,
    ids: HashSet<String>,
    scopes: Vec<Asked>,
    recorded: Vec<ScanScope>,
    open: Option<Open>,
    items: u32,
    bytes: usize,
}

/// The scope whose items come in.
#[derive(Debug)]
struct Open {
    scope: ScanScope,
    items: Items,
    count: u32,
}

/// All that was asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) header: v1::PlanHeader,
    pub(super) looked_at: LookedAt,
}

/// Where scopes look.
#[derive(Debug)]
pub(super) enum LookedAt {
    /// They looked already.
    Aws(Vec<Asked>),
    /// Into the inventory.
    Recorded(Vec<ScanScope>),
}

impl LookedAt {
    /// The scopes that did not see all.
    pub(super) fn in_part(&self) -> HashSet<String> {
        match self {
            Self::Aws(scopes) => scopes
                .iter()
                .filter(|asked| matches!(asked.seen, Seen::Partial(_)))
                .map(|asked| asked.scope.id().0)
                .collect(),
            Self::Recorded(_) => HashSet::new(),
        }
    }
}

impl Asking {
    /// A request with this header.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a name is too long.
    pub(crate) fn new(header: v1::PlanHeader) -> Result<Self, Invalid> {
        for (field, name) in [("group", &header.group), ("config", &header.config)] {
            if name.chars().count() > NAME_CHARS_MAX {
                return Err(Invalid::new(format!("header.{field}"), "is too long"));
            }
        }
        Ok(Self {
            header,
            ids: HashSet::new(),
            scopes: Vec::new(),
            recorded: Vec::new(),
            open: None,
            items: 0,
            bytes: 0,
        })
    }

    /// Takes in one frame; gives the request back with the last.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the field, or the bound that was passed.
    pub(crate) fn push(mut self, frame: Frame) -> Result<Pushed, Invalid> {
        match frame {
            Frame::Header(_) => return Err(Invalid::new("frame", "is a second header")),
            Frame::Scope(scope) => self.scope(scope)?,
            Frame::Items(items) => {
                for item in items.items {
                    self.item(item)?;
                }
            }
            Frame::Trailer(trailer) => return self.finish(trailer).map(Pushed::Done),
        }
        Ok(Pushed::More(Box::new(self)))
    }

    fn scope(&mut self, planned: v1::PlanScope) -> Result<(), Invalid> {
        self.close()?;
        let message = planned.scope.clone().unwrap_or_default();
        if message.id.len() > SCOPE_ID_CHARS_MAX {
            return Err(Invalid::new("scope.id", "is too long"));
        }
        if message.group != self.header.group || message.config != self.header.config {
            let problem = "is of another group or configuration than the header says";
            return Err(Invalid::new("scope", problem));
        }
        if self.ids.len() >= SCOPES_MAX {
            return Err(Invalid::new(
                "scope",
                format!("more than {SCOPES_MAX} of them"),
            ));
        }
        if !self.ids.insert(message.id) {
            return Err(Invalid::new("scope.id", "came before"));
        }
        let header = header_of(planned, self.header.recorded)?;
        if self.header.recorded {
            self.recorded.push(header.scope);
        } else {
            self.open = Some(Open {
                items: Items::new(&header),
                scope: header.scope,
                count: 0,
            });
        }
        Ok(())
    }

    fn item(&mut self, item: v1::ScanItem) -> Result<(), Invalid> {
        let Some(open) = &mut self.open else {
            let problem = if self.header.recorded {
                "must not be sent: the scopes see the inventory"
            } else {
                "must follow a scope"
            };
            return Err(Invalid::new("item", problem));
        };
        self.items += 1;
        self.bytes += item.encoded_len();
        if self.items > PLAN_ITEMS_MAX || self.bytes > PLAN_BYTES_MAX {
            let problem = format!(
                "a request may hold {PLAN_ITEMS_MAX} items and {PLAN_BYTES_MAX} bytes at most: plan for fewer \
                 matchers at a time"
            );
            return Err(Invalid::new("item", problem));
        }
        open.count += 1;
        open.items.push(item)
    }

    /// The items of the open scope are all in.
    fn close(&mut self) -> Result<(), Invalid> {
        if let Some(open) = self.open.take() {
            let all = v1::ScanTrailer { items: open.count };
            self.scopes.push(Asked {
                scope: open.scope,
                seen: open.items.finish(all)?,
            });
        }
        Ok(())
    }

    fn finish(mut self, trailer: v1::ScanTrailer) -> Result<Request, Invalid> {
        self.close()?;
        if trailer.items != self.items {
            let problem = format!("is {}, but {} came", trailer.items, self.items);
            return Err(Invalid::new("trailer.items", problem));
        }
        Ok(Request {
            looked_at: if self.header.recorded {
                LookedAt::Recorded(self.recorded)
            } else {
                LookedAt::Aws(self.scopes)
            },
            header: self.header,
        })
    }
}

/// Whether more frames are to come.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// All is in.
    Done(Request),
    /// More is to come.
    More(Box<Asking>),
}

/// A planned scope under the rules of a scan's header. What sees the inventory has no completeness of its own.
fn header_of(planned: v1::PlanScope, recorded: bool) -> Result<Header, Invalid> {
    let completeness = if recorded {
        Completeness::Complete.into()
    } else {
        planned.completeness
    };
    Header::try_from(v1::ScanHeader {
        scope: planned.scope,
        completeness,
        digest: vec![0; 32],
        failure: planned.failure.filter(|_| !recorded),
        ..v1::ScanHeader::default()
    })
}
