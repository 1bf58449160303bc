//! Says to the control plane that this proxy is up, and under which address.
//!
//! One stream, kept while the proxy runs and opened again whenever it is lost. Nothing here keeps sessions from
//! working when the control plane is away.

use std::{mem, time::Duration};

use tidegate_proto::v1::{
    AnnounceRequest, Goodbye, Heartbeat, Hello, announce_request::Message,
    presence_service_client::PresenceServiceClient,
};
use tidegate_service::{
    host::HostHandle,
    rpc::{self, Backoff},
    tasks::Tasks,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{debug, info, warn};

const QUEUE_MAX: usize = 4;
/// How long the control plane may take to take the announcement.
const OPEN_MAX: Duration = Duration::from_secs(15);
/// Heartbeats, until the control plane asks for another interval; and the least and most it may ask for.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// What is announced.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) hostname: String,
    pub(crate) public_addr: String,
}

/// Keeps the proxy announced until shutdown. A process that another one succeeds leaves the announcement to that one.
pub(crate) async fn announce(announcement: Announcement, host: HostHandle, tasks: Tasks) {
    let shutdown = tasks.shutdown();
    let mut backoff = Backoff::new();
    let mut away = false;
    while !shutdown.is_cancelled() {
        let mut on_accepted = || {
            if mem::take(&mut away) {
                info!("announced to the control plane again");
            }
        };
        let ended = stay(&announcement, &host, &tasks, &mut backoff, &mut on_accepted).await;
        let Err(status) = ended else { return };
        if mem::replace(&mut away, true) {
            debug!(
                error = rpc::describe(&status),
                "cannot announce this proxy yet"
            );
        } else {
            warn!(
                error = rpc::describe(&status),
                "cannot announce this proxy to the control plane; trying on"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

/// One stream: `Ok` when the proxy shuts down.
async fn stay(
    announcement: &Announcement,
    host: &HostHandle,
    tasks: &Tasks,
    backoff: &mut Backoff,
    on_accepted: &mut impl FnMut(),
) -> Result<(), Status> {
    let shutdown = tasks.shutdown();
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let gone = |_| Status::unavailable("the stream is gone");
    let say = |message| AnnounceRequest {
        message: Some(message),
    };
    let hello = Hello {
        hostname: announcement.hostname.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        services: vec!["proxy".to_owned()],
        public_addr: announcement.public_addr.clone(),
        since: None,
    };
    sender
        .try_send(say(Message::Hello(hello)))
        .map_err(|_| Status::internal("a new queue is full"))?;
    let mut client = PresenceServiceClient::new(host.auth_channel());
    let open = tokio::time::timeout(OPEN_MAX, client.announce(ReceiverStream::new(receiver)));
    let mut answers = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        opened = open => opened.map_err(|_| Status::deadline_exceeded("no answer to the announcement"))??.into_inner(),
    };
    let mut interval = HEARTBEAT_DEFAULT;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => {
                if tasks.drain().is_succeeded {
                    return Ok(());
                }
                // Said on a best effort: the lease ends by itself.
                let _ = sender.try_send(say(Message::Goodbye(Goodbye {})));
                return Ok(());
            }
            answer = answers.message() => {
                let answer = answer?.ok_or_else(|| Status::unavailable("the stream ended"))?;
                if answer.heartbeat_seconds > 0 {
                    interval = Duration::from_secs(answer.heartbeat_seconds.into()).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
                }
                backoff.reset();
                on_accepted();
            }
            () = tokio::time::sleep(interval) => {
                sender.send(say(Message::Heartbeat(Heartbeat {}))).await.map_err(gone)?;
            }
        }
    }
}
