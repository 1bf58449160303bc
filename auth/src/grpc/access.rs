//! `AccessService`: people, roles, join tokens, and the cluster's status.

use std::{collections::HashSet, pin::Pin};

use futures::{Stream, StreamExt as _};
use tidegate_core::access::{Verb, kinds};
use tidegate_proto::v1::{self, access_service_server::AccessService};
use tidegate_service::telemetry::chain;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status};

use super::{Api, guard::Caller, status::refuse};

fn name_of(user: Option<&v1::User>) -> &str {
    user.map_or("", |user| user.name.as_str())
}

impl Api {
    /// A stream that says so when the service goes away.
    pub(super) fn until_shutdown<M: Send + 'static>(
        &self,
        messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>> {
        let ended = futures::stream::once(std::future::ready(Err(refuse(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "the auth service is shutting down",
        ))));
        let shutdown = self.shutdown.clone().cancelled_owned();
        messages.take_until(shutdown).chain(ended).boxed()
    }
}

#[tonic::async_trait]
impl AccessService for Api {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        let caller = Caller::of(&request);
        caller.may(
            kinds::USER,
            name_of(request.get_ref().user.as_ref()),
            &[Verb::Create],
        )?;
        let created = self
            .access
            .create_user(&caller.actor(), request.into_inner())
            .await?;
        Ok(Response::new(created))
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let caller = Caller::of(&request);
        let mut users = self.access.list_users().await?;
        users.retain(|user| caller.sees(kinds::USER, &user.name));
        Ok(Response::new(v1::ListUsersResponse { users }))
    }

    async fn update_user(
        &self,
        request: Request<v1::UpdateUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        let caller = Caller::of(&request);
        caller.may(
            kinds::USER,
            name_of(request.get_ref().user.as_ref()),
            &[Verb::Update],
        )?;
        let user = request.into_inner().user;
        let updated = self.access.update_user(&caller.actor(), user).await?;
        Ok(Response::new(updated))
    }

    async fn reset_user(
        &self,
        request: Request<v1::ResetUserRequest>,
    ) -> Result<Response<v1::ResetUserResponse>, Status> {
        let caller = Caller::of(&request);
        caller.may(kinds::USER, &request.get_ref().name, &[Verb::Update])?;
        let reset = request.into_inner();
        let reset = self.access.reset_user(&caller.actor(), reset).await?;
        Ok(Response::new(reset))
    }

    async fn delete_user(
        &self,
        request: Request<v1::DeleteUserRequest>,
    ) -> Result<Response<v1::DeleteUserResponse>, Status> {
        let (caller, name) = (Caller::of(&request), &request.get_ref().name);
        caller.may(kinds::USER, name, &[Verb::Delete])?;
        self.access.delete_user(&caller.actor(), name).await?;
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
        let (actor, named) = (Caller::of(&request).actor(), &request.get_ref().token);
        self.access.delete_token(&actor, named).await?;
        Ok(Response::new(v1::DeleteTokenResponse {}))
    }

    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        let caller = Caller::of(&request);
        let mut roles = self.access.list_roles();
        roles.retain(|role| caller.sees(kinds::ROLE, &role.name));
        Ok(Response::new(v1::ListRolesResponse { roles }))
    }

    async fn upsert_role(
        &self,
        request: Request<v1::UpsertRoleRequest>,
    ) -> Result<Response<v1::Role>, Status> {
        let caller = Caller::of(&request);
        let role = request.into_inner().role;
        let name = role.as_ref().map_or("", |role| role.name.as_str());
        caller.may(kinds::ROLE, name, &[Verb::Create, Verb::Update])?;
        let role = self.access.upsert_role(&caller.actor(), role).await?;
        Ok(Response::new(role))
    }

    async fn delete_role(
        &self,
        request: Request<v1::DeleteRoleRequest>,
    ) -> Result<Response<v1::DeleteRoleResponse>, Status> {
        let (caller, name) = (Caller::of(&request), &request.get_ref().name);
        caller.may(kinds::ROLE, name, &[Verb::Delete])?;
        self.access.delete_role(&caller.actor(), name).await?;
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
        Ok(Response::new(self.until_shutdown(roles)))
    }

    async fn upsert_lock(
        &self,
        request: Request<v1::UpsertLockRequest>,
    ) -> Result<Response<v1::Lock>, Status> {
        let caller = Caller::of(&request);
        let lock = request.into_inner().lock;
        let name = lock.as_ref().map_or("", |lock| lock.name.as_str());
        caller.may(kinds::LOCK, name, &[Verb::Create, Verb::Update])?;
        let lock = self.access.upsert_lock(&caller.actor(), lock).await?;
        Ok(Response::new(lock))
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        let caller = Caller::of(&request);
        let mut locks = self.access.locks().known().listed(self.clock.now());
        locks.retain(|lock| caller.sees(kinds::LOCK, &lock.name));
        Ok(Response::new(v1::ListLocksResponse { locks }))
    }

    async fn delete_lock(
        &self,
        request: Request<v1::DeleteLockRequest>,
    ) -> Result<Response<v1::DeleteLockResponse>, Status> {
        let (caller, name) = (Caller::of(&request), &request.get_ref().name);
        caller.may(kinds::LOCK, name, &[Verb::Delete])?;
        self.access.delete_lock(&caller.actor(), name).await?;
        Ok(Response::new(v1::DeleteLockResponse {}))
    }

    async fn explain_access(
        &self,
        request: Request<v1::ExplainAccessRequest>,
    ) -> Result<Response<v1::ExplainAccessResponse>, Status> {
        let explained = self.access.explain(request.get_ref()).await?;
        Ok(Response::new(explained))
    }

    type WatchLocksStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchLocksResponse, Status>> + Send>>;

    async fn watch_locks(
        &self,
        _request: Request<v1::WatchLocksRequest>,
    ) -> Result<Response<Self::WatchLocksStream>, Status> {
        let clock = self.clock.clone();
        let locks = WatchStream::new(self.access.locks().watch()).map(move |known| {
            Ok(v1::WatchLocksResponse {
                locks: known.messages(clock.now()),
            })
        });
        Ok(Response::new(self.until_shutdown(locks)))
    }

    async fn get_cluster_status(
        &self,
        _request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        // Who asks after a write finds it counted. Without the store, what is known is told.
        if let Err(error) = self.inventory.catch_up().await {
            tracing::warn!(error = chain(&error), "the status told may be out of date");
        }
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
            ca_pins: self
                .authority
                .pins()
                .iter()
                .map(ToString::to_string)
                .collect(),
            revision: look.revision,
            databases: count(look.databases.len()),
            database_servers: count(look.servers.len()),
            agents: running("db"),
            proxies: running("proxy"),
        }))
    }
}
