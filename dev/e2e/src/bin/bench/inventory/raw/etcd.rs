//! The records under a prefix of their own, written by plain `KV/Txn` calls.
//!
//! etcd takes 128 operations in one list, so a batch of more is a list of lists, as the service's own are.

use std::time::Instant;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::inventory::load::PUBLISHERS;

/// Where the service's records are, and where they are written again.
const PREFIX: &[u8] = b"/tidegate/";
const RAW_PREFIX: &[u8] = b"/raw/";
/// Records read with one call: each call makes etcd look at all of them.
const PAGE: i64 = 20_000;
/// Largest answer: a page of records.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Operations in one list.
const LIST_MAX: usize = 64;

/// The parts of etcd's public API that this takes. Numbers are etcd's.
mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RangeRequest {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) range_end: Vec<u8>,
        #[prost(int64, tag = "3")]
        pub(super) limit: i64,
        #[prost(int64, tag = "10")]
        pub(super) min_mod_revision: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RangeResponse {
        #[prost(message, repeated, tag = "2")]
        pub(super) kvs: Vec<KeyValue>,
        #[prost(bool, tag = "3")]
        pub(super) more: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(int64, tag = "3")]
        pub(super) mod_revision: i64,
        #[prost(bytes = "vec", tag = "5")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PutRequest {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RequestOp {
        #[prost(oneof = "Op", tags = "2, 4")]
        pub(super) request: Option<Op>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Op {
        #[prost(message, tag = "2")]
        Put(PutRequest),
        #[prost(message, tag = "4")]
        Txn(TxnRequest),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TxnRequest {
        #[prost(message, repeated, tag = "2")]
        pub(super) success: Vec<RequestOp>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct TxnResponse {
        #[prost(bool, tag = "2")]
        pub(super) succeeded: bool,
    }
}

/// A client of the server that the service uses.
pub(in crate::inventory) struct RawEtcd {
    grpc: Grpc<Channel>,
    /// The last revision that was copied.
    seen: i64,
}

impl RawEtcd {
    pub(super) fn new(url: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(url.to_owned())?.connect_lazy();
        let grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { grpc, seen: 0 })
    }

    pub(super) async fn catch_up(&mut self) -> Result<f64> {
        let batches = batches(self.news().await?);
        let started = Instant::now();
        stream::iter(batches)
            .map(|batch| {
                let mut grpc = self.grpc.clone();
                async move {
                    let path = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
                    grpc.ready().await?;
                    let codec = ProstCodec::<pb::TxnRequest, pb::TxnResponse>::default();
                    let answer = grpc.unary(tonic::Request::new(batch), path, codec).await?;
                    anyhow::ensure!(answer.into_inner().succeeded, "etcd did not carry it out");
                    Ok(())
                }
            })
            .buffer_unordered(PUBLISHERS)
            .try_collect::<()>()
            .await?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// What the service wrote since the last time, by revision.
    async fn news(&mut self) -> Result<Vec<pb::KeyValue>> {
        let mut found = Vec::new();
        let mut key = PREFIX.to_vec();
        let mut range_end = PREFIX.to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        loop {
            let request = pb::RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE,
                min_mod_revision: self.seen + 1,
            };
            let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
            self.grpc.ready().await?;
            let codec = ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
            let page = self
                .grpc
                .unary(tonic::Request::new(request), path, codec)
                .await?
                .into_inner();
            found.extend(page.kvs);
            let Some(last) = found.last().filter(|_| page.more) else {
                break;
            };
            key = last.key.clone();
            key.push(0);
        }
        found.sort_by_key(|record| record.mod_revision);
        self.seen = found.last().map_or(self.seen, |record| record.mod_revision);
        Ok(found)
    }
}

/// One transaction a revision.
fn batches(records: Vec<pb::KeyValue>) -> Vec<pb::TxnRequest> {
    records
        .chunk_by(|left, right| left.mod_revision == right.mod_revision)
        .map(|batch| {
            let lists = batch.chunks(LIST_MAX).map(|list| {
                let puts = list.iter().map(|record| pb::Op::Put(again(record)));
                pb::Op::Txn(pb::TxnRequest {
                    success: puts.map(op).collect(),
                })
            });
            pb::TxnRequest {
                success: lists.map(op).collect(),
            }
        })
        .collect()
}

const fn op(request: pb::Op) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn again(record: &pb::KeyValue) -> pb::PutRequest {
    pb::PutRequest {
        key: [RAW_PREFIX, &record.key].concat(),
        value: record.value.clone(),
    }
}
