//! `SessionService`: passwords and certificates of people.

use tidegate_identity::Holder;
use tidegate_proto::{
    convert,
    v1::{self, session_service_server::SessionService},
};
use tidegate_service::rpc;
use tonic::{Code, Request, Response, Status};

use super::{Api, guard::Caller, status::refuse};

#[tonic::async_trait]
impl SessionService for Api {
    async fn sign_up(
        &self,
        request: Request<v1::SignUpRequest>,
    ) -> Result<Response<v1::SignUpResponse>, Status> {
        let v1::SignUpRequest { token, password } = request.into_inner();
        let user = self.access.sign_up(&token, password).await?;
        Ok(Response::new(v1::SignUpResponse { user }))
    }

    async fn login(
        &self,
        request: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::UserCertificate>, Status> {
        let remote = rpc::remote(&request);
        let certificate = self.access.login(request.into_inner(), remote).await?;
        Ok(Response::new(certificate))
    }

    async fn issue_database_certificate(
        &self,
        request: Request<v1::IssueDatabaseCertificateRequest>,
    ) -> Result<Response<v1::UserCertificate>, Status> {
        let caller = Caller::of(&request);
        let (user, expires_at) = caller.user()?;
        let certificate =
            self.access
                .issue_database_certificate(user, expires_at, request.into_inner())?;
        Ok(Response::new(certificate))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = Caller::of(&request);
        let identity = caller.identity().ok_or_else(|| {
            refuse(
                Code::Unauthenticated,
                "NO_CERTIFICATE",
                "this needs a certificate",
            )
        })?;
        let holder = match &identity.holder {
            Holder::Host(host) => v1::identity::Holder::Host(host.into()),
            Holder::User(user) => v1::identity::Holder::User(user.into()),
        };
        Ok(Response::new(v1::WhoAmIResponse {
            identity: Some(v1::Identity {
                cluster: identity.cluster.to_string(),
                holder: Some(holder),
            }),
            expires_at: Some(convert::timestamp(identity.expires_at)),
        }))
    }
}
