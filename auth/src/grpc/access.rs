//! `AccessService`: people, roles, join tokens, and the cluster's status.

use std::{collections::HashSet, pin::Pin};

use futures::{Stream, StreamExt as _};
use tidegate_proto::v1::{self, access_service_server::AccessService};
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status};

use super::{Api, guard::Caller, status::refuse};

#[tonic::async_trait]
impl AccessService for Api {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        let actor = Caller::of(&request).actor();
        let created = self
            .access
            .create_user(&actor, request.into_inner())
            .await?;
        Ok(Response::new(created))
    }

    async fn list_users(
        &self,
        _request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let users = self.access.list_users().await?;
        Ok(Response::new(v1::ListUsersResponse { users }))
    }

    async fn delete_user(
        &self,
        request: Request<v1::DeleteUserRequest>,
    ) -> Result<Response<v1::DeleteUserResponse>, Status> {
        self.access.delete_user(&request.get_ref().name).await?;
        Ok(Response::new(v1::DeleteUserResponse {}))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let actor = Caller::of(&request).actor();
        let created = self
            .access
            .create_token(&actor, request.into_inner())
            .await?;
        Ok(Response::new(created))
    }

    async fn list_tokens(
        &self,
        _request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tokens = self.access.list_tokens().await?;
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn delete_token(
        &self,
        request: Request<v1::DeleteTokenRequest>,
    ) -> Result<Response<v1::DeleteTokenResponse>, Status> {
        self.access.delete_token(&request.get_ref().token).await?;
        Ok(Response::new(v1::DeleteTokenResponse {}))
    }

    async fn list_roles(
        &self,
        _request: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        let roles = self.access.list_roles();
        Ok(Response::new(v1::ListRolesResponse { roles }))
    }

    async fn upsert_role(
        &self,
        request: Request<v1::UpsertRoleRequest>,
    ) -> Result<Response<v1::Role>, Status> {
        let role = self.access.upsert_role(request.into_inner().role).await?;
        Ok(Response::new(role))
    }

    async fn delete_role(
        &self,
        request: Request<v1::DeleteRoleRequest>,
    ) -> Result<Response<v1::DeleteRoleResponse>, Status> {
        self.access.delete_role(&request.get_ref().name).await?;
        Ok(Response::new(v1::DeleteRoleResponse {}))
    }

    type WatchRolesStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchRolesResponse, Status>> + Send>>;

    async fn watch_roles(
        &self,
        _request: Request<v1::WatchRolesRequest>,
    ) -> Result<Response<Self::WatchRolesStream>, Status> {
        let roles = WatchStream::new(self.inventory.watch_roles()).map(|roles| {
            Ok(v1::WatchRolesResponse {
                roles: roles.messages.clone(),
                revision: roles.revision,
            })
        });
        let ended = futures::stream::once(std::future::ready(Err(refuse(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "the auth service is shutting down",
        ))));
        let shutdown = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(
            roles.take_until(shutdown).chain(ended).boxed(),
        ))
    }

    async fn get_cluster_status(
        &self,
        _request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        let look = self.inventory.tables();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let running = |wanted: &str| {
            let hosts: HashSet<&String> = look
                .hosts
                .keys()
                .filter(|(_, service)| service == wanted)
                .map(|(host, _)| host)
                .collect();
            count(hosts.len())
        };
        Ok(Response::new(v1::ClusterStatus {
            cluster: self.authority.cluster().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ca_pins: vec![self.authority.pin().to_string()],
            revision: look.revision,
            databases: count(look.databases.len()),
            database_servers: count(look.servers.len()),
            agents: running("db"),
            proxies: running("proxy"),
        }))
    }
}
