//! The HTTP address: AWS at `/`, the control plane under `/_sim/`, machines' credentials under `/_machine/`, CA bundles
//! under `/trust/`.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::api::{self, Delivery, Reply};
use crate::bundles;
use crate::clock::http_date;
use crate::control;
use crate::machines;
use crate::sigv4::SignedRequest;
use crate::state::State;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// Largest request body, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;
/// How long a request that is never answered is kept open before its connection is reset.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, io::Error>;

/// Accepts connections for ever; the caller cancels.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, tasks: TaskTracker) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let state = Arc::clone(&state);
        let cancel = state.cancel.clone();
        tasks.spawn(cancel.run_until_cancelled_owned(async move {
            serve_connection(stream, state).await;
            drop(permit);
        }));
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let reset = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Resettable {
        stream,
        reset: Arc::clone(&reset),
    });
    let service = service_fn(move |request| {
        let (state, reset) = (Arc::clone(&state), Arc::clone(&reset));
        Box::pin(async move { respond(&state, request, &reset).await })
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(io, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn respond(
    state: &Arc<State>,
    request: Request<Incoming>,
    reset: &AtomicBool,
) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(io::Error::other)?;
    let body = body.to_bytes();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    if let Some(verb) = path.strip_prefix("/_sim/") {
        let (status, json) = control::handle(state, &parts.method, verb, query, &body).await;
        return build(state.clock.now(), status, "application/json", whole(json));
    }
    let headers = &parts.headers;
    let request = SignedRequest {
        method: parts.method.as_str(),
        path,
        query,
        headers,
        body: &body,
    };
    let reply = if let Some(rest) = path.strip_prefix(machines::PATH) {
        machines::serve(state, &parts.method, rest, headers).await
    } else if let Some(rest) = path.strip_prefix(bundles::PATH) {
        bundles::serve(state, &parts.method, rest, headers).await
    } else {
        api::serve(state, request).await
    };
    if reply.delivery == Delivery::Never {
        tokio::time::sleep(SILENCE_MAX).await;
    }
    if matches!(reply.delivery, Delivery::Never | Delivery::Reset) {
        reset.store(true, Ordering::Relaxed);
        return Err(io::Error::other("a reset was ordered"));
    }
    let length = reply.body.len();
    let (status, id) = (reply.status, reply.request_id.clone());
    let (kind, error_type) = (reply.content_type, reply.error_type.clone());
    let further = reply.headers.clone();
    let mut response = build(reply.date, status, kind, reply_body(reply))?;
    let headers = response.headers_mut();
    if let Some(code) = error_type {
        let code = code.parse().map_err(io::Error::other)?;
        headers.insert("x-amzn-errortype", code);
    }
    for (name, value) in further {
        headers.insert(name, value.parse().map_err(io::Error::other)?);
    }
    headers.insert("x-amzn-requestid", id.parse().map_err(io::Error::other)?);
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

fn build(
    date: Timestamp,
    status: u16,
    kind: &str,
    body: Body,
) -> Result<Response<Body>, io::Error> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::DATE, http_date(date))
        .body(body)
        .map_err(io::Error::other)
}

fn reply_body(reply: Reply) -> Body {
    if reply.delivery == Delivery::Whole {
        return whole(reply.body);
    }
    let half = Bytes::from(reply.body.into_bytes());
    let half = half.slice(..half.len() / 2);
    let cut = io::Error::other("a truncated body was ordered");
    StreamBody::new(futures::stream::iter([Ok(Frame::data(half)), Err(cut)])).boxed()
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// A connection that, when told so, ends with a reset instead of a proper close.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::warn!(%error, "could not reset the connection");
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
