//! Which resources of a kind a caller may be shown, for methods that take the kind from the request.
//!
//! The table cannot say what such a method asks, so the service asks here before it looks at anything.

use tidegate_core::access::Verb;
use tonic::Status;

use super::{
    caller::{Caller, denied},
    table::Need,
};
use crate::resources::{Hosts, Rights};

/// What of a kind a caller may be shown.
#[derive(Clone, Debug)]
pub(in crate::grpc) enum Sight {
    /// Everything.
    All,
    /// What the person's rules allow, one by one.
    Each(Box<Caller>, &'static str, &'static [Verb]),
}

impl Sight {
    /// Whether the resource of this name may be shown.
    pub(in crate::grpc) fn sees(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Each(caller, kind, verbs) => caller.may(kind, name, verbs).is_ok(),
        }
    }
}

impl Caller {
    /// What it may be shown of a kind with these rights.
    ///
    /// # Errors
    ///
    /// `PERMISSION_DENIED` when it may be shown nothing, whatever there is.
    pub(in crate::grpc) fn sight(
        &self,
        rights: Rights,
        verbs: &'static [Verb],
    ) -> Result<Sight, Status> {
        match self {
            Self::Anonymous => Err(denied("this needs a certificate")),
            Self::Local => Ok(Sight::All),
            Self::Host(_, host) => match rights.hosts {
                Hosts::Any => Ok(Sight::All),
                Hosts::Of(services)
                    if host
                        .services
                        .iter()
                        .any(|own| services.contains(&own.as_str())) =>
                {
                    Ok(Sight::All)
                }
                Hosts::Of([]) => Err(denied("only people may ask for this kind")),
                Hosts::Of(services) => Err(denied(format!(
                    "only hosts that run one of {} may ask for this kind",
                    services.join(", ")
                ))),
            },
            Self::User(person) => {
                let Some(kind) = rights.rule else {
                    return Ok(Sight::All);
                };
                let needs: Vec<Need> = verbs.iter().map(|verb| (kind, *verb)).collect();
                person.may_each(&needs).map_err(denied)?;
                Ok(if person.may_whole(&needs).is_ok() {
                    Sight::All
                } else {
                    Sight::Each(Box::new(self.clone()), kind, verbs)
                })
            }
        }
    }
}
