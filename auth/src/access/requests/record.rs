//! What the store alone needs of requests.

use prost::Message;
use tidegate_proto::v1;

/// A request for roles.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AccessRequestRecord {
    /// As listings show it, but for the revision.
    #[prost(message, optional, tag = "1")]
    pub(super) request: Option<v1::AccessRequest>,
    /// When the account that asks was made: another one of its name is somebody else.
    #[prost(message, optional, tag = "2")]
    pub(super) account_created_at: Option<prost_types::Timestamp>,
}

/// The requests of one person that are kept.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AuthorRecord {
    /// In the order they were made.
    #[prost(message, repeated, tag = "1")]
    pub(super) made: Vec<MadeRecord>,
}

/// One of them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MadeRecord {
    /// Its id.
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// Whether it waits for reviewers.
    #[prost(bool, tag = "2")]
    pub(super) is_pending: bool,
    /// The second after which it is over: not to be decided any more, or, once decided, without use.
    #[prost(int64, tag = "3")]
    pub(super) over_after: i64,
}
