//! What AWS says of the databases that this agent serves: facts that their records lack, and whether their addresses
//! are theirs.
//!
//! [`Facts`] is a book: the reconciler says which databases it wants ([`Facts::follow`]), a task ([`task::keep`]) asks
//! AWS about them place by place and writes down what it says, and the reconciler reads from it without waiting.
//!
//! A *place* is what one role may list in one region: one kind of database, a region and the effective role. Five
//! thousand databases in ten places are ten lists of some pages, not five thousand calls.
//!
//! What must hold: a fact of AWS never takes the place of what somebody wrote; a record of discovery is believed when
//! AWS confirms it, or may not be asked, and never when AWS contradicts it; a slow or failing AWS delays a database by
//! [`HOLD`] at most.
//!
//! Not here: the calls themselves (`lib/aws/src/describe`), what an address has to look like
//! ([`crate::wanted`]).

mod book;
mod facts;
mod place;
mod task;
mod verdict;

pub(crate) use book::Facts;
pub(crate) use task::{AwsDescribe, keep};
pub(crate) use verdict::Verdict;
