//! `CertAuthorityService`: phases of the CAs' rotation, and what hosts follow.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use tidegate_proto::v1::{self, cert_authority_service_server::CertAuthorityService};
use tokio_stream::wrappers::{IntervalStream, WatchStream};
use tonic::{Code, Request, Response, Status};

use super::{
    Api,
    guard::Caller,
    status::{internal, refuse, store},
};
use crate::authority::{AuthorityError, RotateError, RotateRequest};

/// How often those who watch are told again what they know, so that one that was told wrong is put right.
const RETELL_INTERVAL: Duration = Duration::from_secs(30);

impl From<RotateError> for Status {
    fn from(error: RotateError) -> Self {
        let message = error.to_string();
        match error {
            RotateError::Authority(why) => match &*why {
                AuthorityError::Unavailable(unavailable) => store(unavailable),
                AuthorityError::Sealed { .. } => {
                    refuse(Code::FailedPrecondition, "KEYS_SEALED", why.to_string())
                }
                other => internal(other),
            },
            RotateError::Conflict => refuse(Code::Aborted, "CONFLICT", message),
            RotateError::NotNext { .. } => {
                refuse(Code::FailedPrecondition, "PHASE_DOES_NOT_FOLLOW", message)
            }
            RotateError::UnderWay { .. } => {
                refuse(Code::FailedPrecondition, "ROTATION_UNDER_WAY", message)
            }
        }
    }
}

#[tonic::async_trait]
impl CertAuthorityService for Api {
    type WatchTrustStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchTrustResponse, Status>> + Send>>;

    async fn list_cert_authorities(
        &self,
        _request: Request<v1::ListCertAuthoritiesRequest>,
    ) -> Result<Response<v1::ListCertAuthoritiesResponse>, Status> {
        let authorities = self.authority.list();
        Ok(Response::new(v1::ListCertAuthoritiesResponse {
            authorities,
        }))
    }

    async fn rotate_cert_authorities(
        &self,
        request: Request<v1::RotateCertAuthoritiesRequest>,
    ) -> Result<Response<v1::RotateCertAuthoritiesResponse>, Status> {
        let actor = Caller::of(&request).actor();
        let request = RotateRequest::read(request.get_ref(), actor)?;
        let authorities = self.authority.rotate(request).await?;
        Ok(Response::new(v1::RotateCertAuthoritiesResponse {
            authorities,
        }))
    }

    async fn watch_trust(
        &self,
        _request: Request<v1::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        let changed = WatchStream::new(self.authority.watch()).map(drop);
        let again = tokio::time::interval_at(
            tokio::time::Instant::now() + RETELL_INTERVAL,
            RETELL_INTERVAL,
        );
        let again = IntervalStream::new(again).map(drop);
        let authority = self.authority.clone();
        let told = futures::stream::select(changed, again).map(move |()| Ok(authority.followed()));
        Ok(Response::new(self.until_shutdown(told)))
    }
}
