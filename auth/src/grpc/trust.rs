//! `TrustService`: CA certificates, joining, host certificates.

use tidegate_proto::v1::{self, trust_service_server::TrustService};
use tidegate_service::rpc;
use tonic::{Request, Response, Status};

use super::{Api, guard::Caller};

#[tonic::async_trait]
impl TrustService for Api {
    async fn get_trust(
        &self,
        _request: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::Trust>, Status> {
        Ok(Response::new(self.authority.trust()))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let remote = rpc::remote(&request);
        let joined = self.access.join(request.into_inner(), remote).await?;
        Ok(Response::new(joined))
    }

    async fn renew_host_certificate(
        &self,
        request: Request<v1::RenewHostCertificateRequest>,
    ) -> Result<Response<v1::HostCertificate>, Status> {
        let caller = Caller::of(&request);
        let certificate = self.access.renew(caller.host()?, request.get_ref())?;
        Ok(Response::new(certificate))
    }

    async fn issue_database_server_certificate(
        &self,
        request: Request<v1::IssueDatabaseServerCertificateRequest>,
    ) -> Result<Response<v1::HostCertificate>, Status> {
        let public_key = &request.get_ref().public_key;
        let certificate = self.access.issue_database_server(public_key)?;
        Ok(Response::new(certificate))
    }
}
