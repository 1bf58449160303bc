//! Serving gRPC on connections that were accepted elsewhere.

use std::io;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

use super::{
    Connection, DRAIN_TIMEOUT, FRAME_BYTES_MAX, HEADER_BYTES_MAX, KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT, STREAMS_PER_CONNECTION_MAX,
};
use crate::tasks::ShutdownToken;

/// Why a gRPC server ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("could not serve gRPC")]
pub struct ServeError(#[source] tonic::transport::Error);

/// A tonic server with every limit set; all servers are built from it.
#[must_use]
pub fn server_builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
}

/// Serves `routes` on every connection that `incoming` yields, until it ends or `shutdown`.
///
/// On shutdown nothing new is accepted, requests in flight get [`DRAIN_TIMEOUT`], then their connections are cut. When
/// this returns no connection is left. Dropping the future cuts them at once.
///
/// # Errors
///
/// When the server itself fails; single connections never end it.
pub async fn serve<S, I>(
    routes: Routes,
    incoming: I,
    shutdown: ShutdownToken,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    I: Stream<Item = io::Result<Connection<S>>>,
{
    let cut = CancellationToken::new();
    let cut_when_dropped = cut.clone().drop_guard();
    let sever = cut.clone();
    let incoming =
        incoming.map(move |item| item.map(|connection| connection.severed_by(sever.clone())));
    let served = server_builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let cut_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
        cut.cancel();
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = served => result.map_err(ServeError),
        () = cut_late => Ok(()),
    };
    drop(cut_when_dropped);
    result
}
