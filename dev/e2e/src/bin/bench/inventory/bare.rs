//! The reference of watches: a tonic server that does nothing but send.
//!
//! It is a process of its own, on the same connections with the same TLS and the same limits as the auth service's. Its
//! messages are made before they are sent; what is left is what gRPC itself costs.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message;
use serde_json::json;
use tidegate_identity::{
    ALPN_AUTH, CaKind, CertificateAuthority, HOST_CERT_TTL, HostLeaf, KeyPair,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_proto::v1;
use tidegate_service::{rpc, tasks::ShutdownToken};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, ServerStreamingService},
    service::Routes,
};
use tonic_prost::ProstCodec;

/// Messages that wait for one stream's connection.
const AHEAD_MAX: usize = 64;
/// Between two bursts: a thousand messages a second are one a time.
const TICK: Duration = Duration::from_millis(1);

type Event = v1::WatchDatabasesResponse;
type Streams = Arc<Mutex<Vec<mpsc::Sender<Result<Event, Status>>>>>;

/// Serves until standard input ends. A line there is `<messages> <a second> <message in hex>`, and is answered by `ready`
/// when they are made; after a further line they are sent, to one stream after the other, and `sent` is the answer. Where
/// this serves and whom to trust is told first.
pub(crate) async fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let cluster = "bare.example.com".parse()?;
    let now = Timestamp::now();
    let (ca, key) = (
        CertificateAuthority::create(CaKind::Host, &cluster, now)?,
        KeyPair::generate()?,
    );
    let issued = ca.issue_host(
        HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &cluster,
            host_id: &"bare".parse()?,
            hostname: "bare",
            services: &["auth".to_owned()],
            names: &[],
        },
        now,
        HOST_CERT_TTL,
    )?;
    let config = tls::server_config(ServerTls {
        chain_pem: &issued.chain_pem,
        key: &key,
        clients: ClientAuth::None,
        alpn: &[ALPN_AUTH],
    })?;
    let (streams, shutdown) = (Streams::default(), ShutdownToken::new());
    let incoming = rpc::tls_incoming(listener, Arc::new(config.into()), shutdown.clone());
    let served = tokio::spawn(rpc::serve(
        Routes::new(Bare(streams.clone())),
        incoming,
        shutdown.clone(),
    ));
    println!(
        "{}",
        json!({ "address": address.to_string(), "ca_pem": ca.cert_pem() })
    );
    let mut orders = std::io::stdin().lines();
    let mut next = || tokio::task::block_in_place(|| orders.next()).transpose();
    while let Some(order) = next()? {
        let order = Order::read(&order)?;
        println!("ready");
        if next()?.is_none() {
            break;
        }
        order.carry_out(&streams).await?;
        println!("sent");
    }
    shutdown.cancel();
    Ok(served.await??)
}

/// What to send.
struct Order {
    messages: Vec<Event>,
    per_second: u32,
}

impl Order {
    fn read(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [count, per_second, message] = words.as_slice() else {
            bail!("no order: {line}")
        };
        let message = Event::decode(unhex(message)?.as_slice())?;
        Ok(Self {
            messages: vec![message; count.parse()?],
            per_second: per_second.parse()?,
        })
    }

    async fn carry_out(self, streams: &Streams) -> Result<()> {
        let streams = streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ensure!(!streams.is_empty(), "nobody listens");
        let started = Instant::now();
        for (sent, message) in self.messages.into_iter().enumerate() {
            let due = Duration::from_secs(1) * u32::try_from(sent)? / self.per_second;
            if started.elapsed() + TICK <= due {
                sleep_until(started + due).await;
            }
            let stream = &streams[sent % streams.len()];
            stream.send(Ok(message)).await.context("a stream ended")?;
        }
        Ok(())
    }
}

/// Bytes as an order has them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

/// The one method that is served, under the name that clients know.
#[derive(Clone)]
struct Bare(Streams);

impl NamedService for Bare {
    const NAME: &'static str = "tidegate.v1.InventoryService";
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watch = Watch(self.0.clone());
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.server_streaming(watch, request).await)
        })
    }
}

struct Watch(Streams);

impl ServerStreamingService<v1::WatchDatabasesRequest> for Watch {
    type Response = Event;
    type ResponseStream = futures::stream::BoxStream<'static, Result<Event, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<v1::WatchDatabasesRequest>) -> Self::Future {
        let (stream, events) = mpsc::channel(AHEAD_MAX);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(stream);
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(events).boxed())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_an_order() {
        assert_eq!(unhex(&hex(&[0, 7, 255])).unwrap(), [0, 7, 255]);
        assert!(unhex("zz").is_err());
    }
}
