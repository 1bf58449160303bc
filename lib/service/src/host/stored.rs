//! The identity that another process on this host keeps, used for a moment.
//!
//! Nothing is joined, renewed or written: that is the other process's to do.

use std::sync::Arc;

use tidegate_identity::{ALPN_AUTH, SERVER_NAME_AUTH};
use tonic::transport::Channel;

use super::{
    HostConfig, HostError,
    state::{self, Stored},
};
use crate::{clock::Clock, rpc};

/// A channel to the auth service with the identity in `config.data_dir`. Only its addresses and data directory are
/// looked at. It connects at the first call, and not again with an identity that was renewed meanwhile.
///
/// # Errors
///
/// [`HostError::State`] when the directory cannot be read, as by another user than the service's;
/// [`HostError::NoIdentity`] when there is none in it, or one that has expired.
pub fn stored_auth_channel(config: &HostConfig, clock: &dyn Clock) -> Result<Channel, HostError> {
    let no_identity = |why: String| HostError::NoIdentity {
        path: config.data_dir.clone(),
        why,
    };
    let current = match state::load(&config.data_dir)? {
        Stored::Identity(current) => current,
        Stored::Nothing { reason, .. } => return Err(no_identity(reason)),
    };
    if current.expires_at <= clock.now() {
        let why = format!("its certificate ended at {:.0}", current.expires_at);
        return Err(no_identity(why));
    }
    let tls = current.client_config(&[ALPN_AUTH]);
    Ok(rpc::channel(
        config.endpoints(),
        move || Arc::clone(&tls),
        SERVER_NAME_AUTH,
    ))
}
