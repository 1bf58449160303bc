//! What AWS says of the databases that this agent serves: facts that their records lack, and whether their addresses
//! are theirs.
//!
//! [`Book`] holds it: the reconciler asks it of each database that it decides on ([`crate::wanted::Facts`]) and never
//! waits; a task ([`keep`]) asks AWS about all of them, place by place, writes down what it says, and has those decided
//! on again of which it learned something.
//!
//! A *place* is what one role may list in one region: one kind of database, a region and the effective role. Five
//! thousand databases in ten places are ten lists of some pages, not five thousand calls.
//!
//! What must hold: a fact of AWS never takes the place of what somebody wrote; a record of discovery is believed when
//! AWS confirms it, or may not be asked, and never when AWS contradicts it; a slow or failing AWS delays a database by
//! [`book::HOLD`] at most.
//!
//! Not here: the calls themselves (`lib/aws/src/describe`), what an address has to look like
//! ([`crate::wanted`]).

mod book;
mod facts;
mod place;
mod task;
mod verdict;

pub(crate) use book::Book;
pub(crate) use task::{AwsDescribe, keep};
