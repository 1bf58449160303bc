//! gRPC channels: lazy, reconnecting, over several addresses.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{
    CONNECT_TIMEOUT, HEADER_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, dial::dial_any,
};

/// The authority that requests name; servers do not look at it.
const AUTHORITY: &str = "http://tidegate.internal";

/// Addresses (`host:port`) of which any will do. Clones share which one is tried next.
#[derive(Clone, Debug)]
pub struct Endpoints {
    addresses: Arc<[String]>,
    next: Arc<AtomicUsize>,
}

impl Endpoints {
    /// Addresses in the order in which they are tried.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            next: Arc::default(),
        }
    }

    /// The addresses, in order.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The address to try now, and a position to name it by in [`Self::failed`].
    pub(crate) fn current(&self) -> Option<(usize, &str)> {
        let position = self.next.load(Ordering::Relaxed);
        let index = position.checked_rem(self.addresses.len())?;
        Some((position, self.addresses.get(index)?))
    }

    /// Moves on to the address after `position`, unless somebody else did.
    pub(crate) fn failed(&self, position: usize) {
        let next = position.wrapping_add(1);
        let _ = self
            .next
            .compare_exchange(position, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A channel to whichever of `endpoints` answers and proves to be `server_name`.
///
/// It connects with the first request and again after the connection was lost; `tls` is asked for the configuration
/// each time, so a renewed identity is used from then on. While nobody can be reached every request fails at once
/// with `UNAVAILABLE` and a text that names each address and its cause; callers wait with [`super::Backoff`].
pub fn channel<T>(endpoints: Endpoints, tls: T, server_name: &'static str) -> Channel
where
    T: Fn() -> Arc<ClientConfig> + Clone + Send + Sync + 'static,
{
    let connector = service_fn(move |_| {
        let (endpoints, tls) = (endpoints.clone(), tls());
        async move {
            dial_any(&endpoints, tls, server_name)
                .await
                .map(TokioIo::new)
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

/// A channel over a Unix socket, as lazy as [`channel`].
#[must_use]
pub fn unix_channel(path: &Path) -> Channel {
    let path: Arc<PathBuf> = Arc::new(path.to_owned());
    let connector = service_fn(move |_| {
        let path = Arc::clone(&path);
        async move {
            UnixStream::connect(path.as_path())
                .await
                .map(TokioIo::new)
                .map_err(|source| SocketError {
                    path: path.to_path_buf(),
                    source,
                })
        }
    });
    endpoint()
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(connector)
}

/// The local service cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("could not connect to the local socket `{}`: {source}", path.display())]
struct SocketError {
    path: PathBuf,
    source: std::io::Error,
}

fn endpoint() -> Endpoint {
    Endpoint::from_static(AUTHORITY)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_address_is_followed_by_the_next_and_a_good_one_is_kept() {
        let endpoints = Endpoints::new(["a:1", "b:1"]);
        let current = || {
            endpoints
                .current()
                .map(|(_, address)| address.to_owned())
                .unwrap()
        };
        assert_eq!(current(), "a:1");
        assert_eq!(current(), "a:1");
        endpoints.failed(0);
        assert_eq!(current(), "b:1");
        endpoints.failed(0); // told late by another connection
        assert_eq!(current(), "b:1");
        endpoints.failed(1);
        assert_eq!(current(), "a:1");
        assert_eq!(Endpoints::new([""; 0]).current(), None);
    }
}
