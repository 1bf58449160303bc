//! An agent that does what a test tells it: the control connection is real, the database is an echo.

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use tidegate_identity::{
    ALPN_POSTGRES, ALPN_TUNNEL, HOST_CERT_TTL, KeyPair, SERVER_NAME_PROXY,
    tls::{self, ClientAuth, ClientTls, Roots, ServerTls},
};
use tidegate_proto::v1::{
    AgentHello, CancelStatement, ControlRequest, Dial, DialRefused, control_request::Message,
    control_response, tunnel_service_client::TunnelServiceClient,
};
use tidegate_service::{
    host::IssuedHost,
    rpc::{self, Endpoints},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use crate::world::{Cas, World};

/// What an agent does when it is asked to dial back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Serves an echo, behind its own host id as a greeting.
    Echo,
    /// Takes the hello, and hangs up without a word.
    HangUp,
    /// Does nothing.
    Ignore,
    /// Says no.
    Refuse,
}

pub(crate) struct Agent {
    /// Dials that it was asked for.
    pub(crate) dials: mpsc::UnboundedReceiver<Dial>,
    /// Cancels that it was told of.
    pub(crate) cancels: mpsc::UnboundedReceiver<CancelStatement>,
    /// What else it was told, pings aside.
    pub(crate) told: mpsc::UnboundedReceiver<control_response::Message>,
    pub(crate) requests: mpsc::Sender<ControlRequest>,
    control: JoinHandle<Status>,
}

impl Agent {
    /// Connects, and waits until the proxy says that there are `connected` agents.
    pub(crate) async fn connect(
        world: &World,
        host_id: &str,
        manner: Manner,
        connected: usize,
    ) -> Self {
        let hello = AgentHello {
            hostname: host_id.to_owned(),
            version: "0".to_owned(),
            ..AgentHello::default()
        };
        Self::connect_saying(world, host_id, manner, connected, hello).await
    }

    /// As [`Self::connect`], with another hello.
    pub(crate) async fn connect_saying(
        world: &World,
        host_id: &str,
        manner: Manner,
        connected: usize,
        hello: AgentHello,
    ) -> Self {
        let (requests, outbound) = mpsc::channel(16);
        requests.send(request(Message::Hello(hello))).await.unwrap();
        let (dial_sender, dials) = mpsc::unbounded_channel();
        let (cancel_sender, cancels) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let mut client = TunnelServiceClient::new(channel(world, host_id, &["db"]));
        let mut inbound = client
            .control(ReceiverStream::new(outbound))
            .await
            .unwrap()
            .into_inner();
        let (answers, host) = (requests.clone(), host_id.to_owned());
        let (proxy, cas) = (world.proxy, Arc::clone(&world.cas));
        let control = tokio::spawn(async move {
            loop {
                match inbound.message().await {
                    Ok(Some(response)) => match response.message {
                        Some(control_response::Message::Dial(dial)) => {
                            let _ = dial_sender.send(dial.clone());
                            answer(proxy, &cas, &host, manner, dial, &answers).await;
                        }
                        Some(control_response::Message::Cancel(cancel)) => {
                            let _ = cancel_sender.send(cancel);
                        }
                        Some(control_response::Message::Ping(_)) | None => {}
                        Some(other) => {
                            let _ = tell.send(other);
                        }
                    },
                    Ok(None) => return Status::ok("ended"),
                    Err(status) => return status,
                }
            }
        });
        world
            .until_metric(&format!("tidegate_proxy_agents_connected {connected}"))
            .await;
        Self {
            dials,
            cancels,
            told,
            requests,
            control,
        }
    }

    /// Cuts the control connection.
    pub(crate) fn die(self) {
        self.control.abort();
    }

    /// How the proxy ended the control connection.
    pub(crate) async fn ended(self) -> Status {
        self.control.await.unwrap()
    }
}

pub(crate) fn request(message: Message) -> ControlRequest {
    ControlRequest {
        message: Some(message),
    }
}

/// A channel to the proxy's tunnel service, as a host with these services.
pub(crate) fn channel(world: &World, host_id: &str, services: &[&str]) -> Channel {
    channel_of(world, &world.cas.host(host_id, services))
}

/// A channel to the proxy's tunnel service with this certificate.
pub(crate) fn channel_of(world: &World, issued: &IssuedHost) -> Channel {
    let config = tls::client_config(ClientTls {
        roots: Roots::Pem(world.cas.host.cert_pem()),
        identity: Some((&issued.chain_pem, &issued.key)),
        alpn: &[ALPN_TUNNEL],
    })
    .unwrap();
    rpc::channel(
        Endpoints::new([world.proxy.to_string()]),
        move || Arc::clone(&config),
        SERVER_NAME_PROXY,
    )
}

async fn answer(
    proxy: SocketAddr,
    cas: &Arc<Cas>,
    host: &str,
    manner: Manner,
    dial: Dial,
    answers: &mpsc::Sender<ControlRequest>,
) {
    match manner {
        Manner::Ignore => {}
        Manner::Refuse => {
            let refused = DialRefused {
                token: dial.token,
                reason: "cannot reach the database".to_owned(),
            };
            answers
                .send(request(Message::DialRefused(refused)))
                .await
                .unwrap();
        }
        Manner::HangUp => {
            let mut stream = dial_back(proxy, &dial.token).await;
            stream.read_u8().await.unwrap();
        }
        Manner::Echo => {
            let stream = dial_back(proxy, &dial.token).await;
            tokio::spawn(echo(stream, Arc::clone(cas), host.to_owned()));
        }
    }
}

pub(crate) async fn dial_back(proxy: SocketAddr, token: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"TGDIAL\x00\x01").await.unwrap();
    stream.write_all(token).await.unwrap();
    stream
}

async fn echo(stream: TcpStream, cas: Arc<Cas>, host: String) {
    let key = KeyPair::generate().unwrap();
    let issued = cas
        .db
        .issue_database_server(
            &key.public_key_der(),
            &cas.cluster,
            Timestamp::now(),
            HOST_CERT_TTL,
        )
        .unwrap();
    let config = tls::server_config(ServerTls {
        chain_pem: &issued.chain_pem,
        key: &key,
        clients: ClientAuth::None,
        alpn: &[ALPN_POSTGRES],
    })
    .unwrap();
    let Ok(tls) = TlsAcceptor::from(config).accept(stream).await else {
        return;
    };
    let (mut read, mut write) = tokio::io::split(tls);
    write.write_all(host.as_bytes()).await.unwrap();
    write.flush().await.unwrap();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}
