//! The certificate that a front shows, which can change while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// What connections from now on are shown; those that are open keep what they saw.
#[derive(Clone)]
pub(crate) struct Shows(Arc<Mutex<TlsAcceptor>>);

impl std::fmt::Debug for Shows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shows")
    }
}

impl Shows {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(Mutex::new(TlsAcceptor::from(config))))
    }

    pub(crate) fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = TlsAcceptor::from(config);
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
