//! A control plane in memory, on a Unix socket, with just enough behaviour for the commands: it keeps what it is given,
//! pages its listings, and says no like the real one.

mod people;
mod resources;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    vec::IntoIter,
};

use tidegate_core::{Labels, Selector};
use tidegate_proto::v1::{
    self,
    access_service_server::{AccessService, AccessServiceServer},
    audit_service_server::{AuditService, AuditServiceServer},
    discovery_service_server::{DiscoveryService, DiscoveryServiceServer},
    inventory_service_server::{InventoryService, InventoryServiceServer},
    people_service_server::PeopleServiceServer,
    resource_service_server::ResourceServiceServer,
};
use tidegate_service::{rpc, tasks::ShutdownToken};
use tokio_stream::{Empty, Iter};
use tonic::{Request, Response, Status, Streaming, async_trait, service::Routes};

/// Rows on a page, so that three databases already take two.
const PAGE_SIZE: usize = 2;

type Answer<T> = Result<Response<T>, Status>;

/// What the control plane knows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) databases: BTreeMap<String, v1::Database>,
    pub(crate) servers: Vec<v1::DatabaseServer>,
    pub(crate) users: BTreeMap<String, v1::User>,
    pub(crate) roles: BTreeMap<String, v1::Role>,
    pub(crate) locks: BTreeMap<String, v1::Lock>,
    pub(crate) tokens: BTreeMap<String, v1::Token>,
    pub(crate) proxies: Vec<v1::Proxy>,
    pub(crate) events: Vec<v1::AuditEvent>,
    /// The audit log as it is stored.
    pub(crate) records: Vec<v1::AuditRecord>,
    pub(crate) scopes: Vec<v1::ScopeStatus>,
    pub(crate) configs: BTreeMap<String, v1::DiscoveryConfig>,
    pub(crate) rescans: Vec<Vec<String>>,
    /// What plans were asked for with.
    pub(crate) planned: Vec<v1::PlanDiscoveryRequest>,
    /// What plans say.
    pub(crate) plan: Vec<v1::PlannedChange>,
    pub(crate) plan_summary: v1::PlanSummary,
    pub(crate) logins: Vec<v1::Login>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Serves on `<data_dir>/auth.sock` until the test ends.
    pub(crate) fn serve(&self, data_dir: &Path) {
        let incoming = rpc::unix_incoming(&data_dir.join("auth.sock")).unwrap();
        let routes = Routes::new(AccessServiceServer::new(self.clone()))
            .add_service(InventoryServiceServer::new(self.clone()))
            .add_service(PeopleServiceServer::new(self.clone()))
            .add_service(ResourceServiceServer::new(self.clone()))
            .add_service(AuditServiceServer::new(self.clone()))
            .add_service(DiscoveryServiceServer::new(self.clone()));
        tokio::spawn(rpc::serve(routes, incoming, ShutdownToken::new()));
    }
}

/// Whose audit log it is.
pub(crate) fn log_id() -> v1::AuditLogId {
    v1::AuditLogId {
        instance: "auth-1".to_owned(),
        log: "log-1".to_owned(),
    }
}

fn page<T: Clone>(all: &[T], token: &str) -> (Vec<T>, String) {
    let start: usize = token.parse().unwrap_or(0);
    let end = (start + PAGE_SIZE).min(all.len());
    let next = if end < all.len() {
        end.to_string()
    } else {
        String::new()
    };
    (all[start..end].to_vec(), next)
}

fn fits(database: &v1::Database, selector: &Option<v1::Selector>, search: &[String]) -> bool {
    let labels: Labels = database.labels.clone().into_iter().collect();
    let text = format!("{} {:?}", database.name, database.labels);
    search.iter().all(|word| text.contains(word.as_str()))
        && selector
            .clone()
            .is_none_or(|selector| Selector::try_from(selector).unwrap().matches(&labels))
}

#[async_trait]
impl InventoryService for Fake {
    type WatchDatabasesStream = Empty<Result<v1::WatchDatabasesResponse, Status>>;
    type WatchDatabaseServersStream = Empty<Result<v1::WatchDatabaseServersResponse, Status>>;

    async fn list_databases(
        &self,
        request: Request<v1::ListDatabasesRequest>,
    ) -> Answer<v1::ListDatabasesResponse> {
        let request = request.into_inner();
        let all: Vec<v1::Database> = self
            .state()
            .databases
            .values()
            .filter(|database| fits(database, &request.selector, &request.search))
            .cloned()
            .collect();
        let (databases, next_page_token) = page(&all, &request.page_token);
        Ok(Response::new(v1::ListDatabasesResponse {
            databases,
            next_page_token,
            revision: 1,
        }))
    }

    async fn get_database(&self, request: Request<v1::GetDatabaseRequest>) -> Answer<v1::Database> {
        let name = request.into_inner().name;
        let found = self.state().databases.get(&name).cloned();
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("there is no database `{name}`")))
    }

    async fn watch_databases(
        &self,
        _: Request<v1::WatchDatabasesRequest>,
    ) -> Answer<Self::WatchDatabasesStream> {
        Err(Status::unimplemented("watch"))
    }

    async fn create_database(
        &self,
        request: Request<v1::CreateDatabaseRequest>,
    ) -> Answer<v1::Database> {
        let database = request.into_inner().database.unwrap();
        let mut state = self.state();
        if state.databases.contains_key(&database.name) {
            let name = &database.name;
            return Err(Status::already_exists(format!(
                "there is a database `{name}` already"
            )));
        }
        state
            .databases
            .insert(database.name.clone(), database.clone());
        Ok(Response::new(database))
    }

    async fn update_database(&self, _: Request<v1::UpdateDatabaseRequest>) -> Answer<v1::Database> {
        Err(Status::unimplemented("update_database"))
    }

    async fn count_databases(
        &self,
        _: Request<v1::CountDatabasesRequest>,
    ) -> Answer<v1::CountDatabasesResponse> {
        Err(Status::unimplemented("count_databases"))
    }

    async fn delete_database(
        &self,
        request: Request<v1::DeleteDatabaseRequest>,
    ) -> Answer<v1::DeleteDatabaseResponse> {
        let name = request.into_inner().name;
        match self.state().databases.remove(&name) {
            Some(_) => Ok(Response::new(v1::DeleteDatabaseResponse {})),
            None => Err(Status::not_found(format!("there is no database `{name}`"))),
        }
    }

    async fn list_database_servers(
        &self,
        request: Request<v1::ListDatabaseServersRequest>,
    ) -> Answer<v1::ListDatabaseServersResponse> {
        let request = request.into_inner();
        let all: Vec<v1::DatabaseServer> = self
            .state()
            .servers
            .iter()
            .filter(|server| {
                let database = server.database.clone().unwrap_or_default();
                (request.database.is_empty() || database.name == request.database)
                    && fits(&database, &request.selector, &request.search)
            })
            .cloned()
            .collect();
        let (database_servers, next_page_token) = page(&all, &request.page_token);
        Ok(Response::new(v1::ListDatabaseServersResponse {
            database_servers,
            next_page_token,
            revision: 1,
        }))
    }

    async fn watch_database_servers(
        &self,
        _: Request<v1::WatchDatabaseServersRequest>,
    ) -> Answer<Self::WatchDatabaseServersStream> {
        Err(Status::unimplemented("watch"))
    }

    async fn list_proxies(
        &self,
        _: Request<v1::ListProxiesRequest>,
    ) -> Answer<v1::ListProxiesResponse> {
        let proxies = self.state().proxies.clone();
        Ok(Response::new(v1::ListProxiesResponse { proxies }))
    }
}

#[async_trait]
impl AccessService for Fake {
    type WatchRolesStream = Empty<Result<v1::WatchRolesResponse, Status>>;

    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Answer<v1::CreateUserResponse> {
        let request = request.into_inner();
        let user = request.user.unwrap();
        let seconds = request.ttl.map_or(3600, |ttl| ttl.seconds);
        self.state().users.insert(user.name.clone(), user.clone());
        Ok(Response::new(v1::CreateUserResponse {
            user: Some(user),
            signup_token: "0123456789abcdef0123456789abcdef".to_owned(),
            expires_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        }))
    }

    async fn list_users(&self, _: Request<v1::ListUsersRequest>) -> Answer<v1::ListUsersResponse> {
        let users = self.state().users.values().cloned().collect();
        Ok(Response::new(v1::ListUsersResponse { users }))
    }

    async fn update_user(&self, request: Request<v1::UpdateUserRequest>) -> Answer<v1::User> {
        let user = request.into_inner().user.unwrap();
        let mut state = self.state();
        let name = user.name.clone();
        let Some(known) = state.users.get_mut(&name) else {
            return Err(Status::not_found(format!("there is no user `{name}`")));
        };
        if user.revision != known.revision {
            return Err(Status::aborted("the user was changed at the same time"));
        }
        known.roles = user.roles;
        known.traits = user.traits;
        Ok(Response::new(known.clone()))
    }

    async fn reset_user(
        &self,
        request: Request<v1::ResetUserRequest>,
    ) -> Answer<v1::ResetUserResponse> {
        let request = request.into_inner();
        let seconds = request.ttl.map_or(3600, |ttl| ttl.seconds);
        let mut state = self.state();
        let Some(user) = state.users.get_mut(&request.name) else {
            let name = request.name;
            return Err(Status::not_found(format!("there is no user `{name}`")));
        };
        user.signed_up = false;
        Ok(Response::new(v1::ResetUserResponse {
            user: Some(user.clone()),
            signup_token: "fedcba9876543210fedcba9876543210".to_owned(),
            expires_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        }))
    }

    async fn delete_user(
        &self,
        request: Request<v1::DeleteUserRequest>,
    ) -> Answer<v1::DeleteUserResponse> {
        let name = request.into_inner().name;
        match self.state().users.remove(&name) {
            Some(_) => Ok(Response::new(v1::DeleteUserResponse {})),
            None => Err(Status::not_found(format!("there is no user `{name}`"))),
        }
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let request = request.into_inner();
        let seconds = request.ttl.map_or(3600, |ttl| ttl.seconds);
        let token = v1::Token {
            id: "0a1b2c3d".to_owned(),
            types: request.types,
            expires_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            max_uses: request.max_uses,
            ..v1::Token::default()
        };
        self.state().tokens.insert(token.id.clone(), token.clone());
        Ok(Response::new(v1::CreateTokenResponse {
            secret: "abcd123".to_owned(),
            token: Some(token),
        }))
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Answer<v1::ListTokensResponse> {
        let tokens = self.state().tokens.values().cloned().collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn delete_token(
        &self,
        request: Request<v1::DeleteTokenRequest>,
    ) -> Answer<v1::DeleteTokenResponse> {
        match self.state().tokens.remove(&request.into_inner().token) {
            Some(_) => Ok(Response::new(v1::DeleteTokenResponse {})),
            None => Err(Status::not_found("there is no such token")),
        }
    }

    async fn list_roles(&self, _: Request<v1::ListRolesRequest>) -> Answer<v1::ListRolesResponse> {
        let roles = self.state().roles.values().cloned().collect();
        Ok(Response::new(v1::ListRolesResponse { roles }))
    }

    async fn upsert_role(&self, request: Request<v1::UpsertRoleRequest>) -> Answer<v1::Role> {
        let role = request.into_inner().role.unwrap();
        self.state().roles.insert(role.name.clone(), role.clone());
        Ok(Response::new(role))
    }

    async fn delete_role(
        &self,
        _: Request<v1::DeleteRoleRequest>,
    ) -> Answer<v1::DeleteRoleResponse> {
        Err(Status::permission_denied("role `access` is built in"))
    }

    async fn watch_roles(
        &self,
        _: Request<v1::WatchRolesRequest>,
    ) -> Answer<Self::WatchRolesStream> {
        Err(Status::unimplemented("watch"))
    }

    async fn upsert_lock(&self, request: Request<v1::UpsertLockRequest>) -> Answer<v1::Lock> {
        let mut lock = request.into_inner().lock.unwrap();
        let mut state = self.state();
        if lock.name.is_empty() {
            lock.name = format!("lock-{}", state.locks.len());
        }
        lock.created_at = Some(prost_types::Timestamp::default());
        lock.created_by = "local administrator".to_owned();
        state.locks.insert(lock.name.clone(), lock.clone());
        Ok(Response::new(lock))
    }

    async fn list_locks(&self, _: Request<v1::ListLocksRequest>) -> Answer<v1::ListLocksResponse> {
        let locks = self.state().locks.values().cloned().collect();
        Ok(Response::new(v1::ListLocksResponse { locks }))
    }

    async fn delete_lock(
        &self,
        request: Request<v1::DeleteLockRequest>,
    ) -> Answer<v1::DeleteLockResponse> {
        let name = request.into_inner().name;
        match self.state().locks.remove(&name) {
            Some(_) => Ok(Response::new(v1::DeleteLockResponse {})),
            None => Err(Status::not_found(format!("no lock `{name}`"))),
        }
    }

    async fn explain_access(
        &self,
        request: Request<v1::ExplainAccessRequest>,
    ) -> Answer<v1::ExplainAccessResponse> {
        let asked = request.into_inner();
        let state = self.state();
        Ok(Response::new(v1::ExplainAccessResponse {
            allowed: state.locks.is_empty(),
            lines: vec![format!("`{}` using `{}`", asked.user, asked.database)],
            reason_json: format!("{{\"db_user\": \"{}\"}}", asked.db_user),
            lock: state.locks.values().next().cloned(),
        }))
    }

    type WatchLocksStream = Empty<Result<v1::WatchLocksResponse, Status>>;

    async fn watch_locks(
        &self,
        _: Request<v1::WatchLocksRequest>,
    ) -> Answer<Self::WatchLocksStream> {
        Err(Status::unimplemented("watch locks"))
    }

    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Answer<v1::ClusterStatus> {
        let state = self.state();
        Ok(Response::new(v1::ClusterStatus {
            cluster: "tidegate.example.com".to_owned(),
            version: "0.1.0".to_owned(),
            ca_pins: vec![format!("sha256:{}", "ab".repeat(32))],
            revision: 9,
            databases: u32::try_from(state.databases.len()).unwrap(),
            database_servers: u32::try_from(state.servers.len()).unwrap(),
            agents: 2,
            proxies: 1,
        }))
    }
}

#[async_trait]
impl AuditService for Fake {
    type EmitStreamStream = Empty<Result<v1::EmitStreamResponse, Status>>;
    type ReadRecordsStream = Iter<std::vec::IntoIter<Result<v1::ReadRecordsResponse, Status>>>;

    async fn emit_stream(
        &self,
        _: Request<Streaming<v1::EmitStreamRequest>>,
    ) -> Answer<Self::EmitStreamStream> {
        Err(Status::unimplemented("emit"))
    }

    async fn read_records(
        &self,
        request: Request<v1::ReadRecordsRequest>,
    ) -> Answer<Self::ReadRecordsStream> {
        let v1::ReadRecordsRequest { source } = request.into_inner();
        let records = self.state().records.clone().into_iter();
        let wanted = records.filter(|record| source.is_empty() || record.source == source);
        let mut parts = vec![Ok(v1::ReadRecordsResponse {
            log: Some(log_id()),
            records: Vec::new(),
        })];
        parts.extend(wanted.map(|record| {
            Ok(v1::ReadRecordsResponse {
                log: None,
                records: vec![record],
            })
        }));
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let wanted = request.into_inner();
        let events = self
            .state()
            .events
            .iter()
            .filter(|event| wanted.event.is_empty() || event.event == wanted.event)
            .filter(|event| wanted.user.is_empty() || event.user == wanted.user)
            .cloned()
            .collect::<Vec<_>>();
        // The newest page first, as the service does it.
        let end = wanted.page_token.parse().unwrap_or(events.len());
        let limit = usize::try_from(wanted.limit).unwrap().min(PAGE_SIZE);
        let start = end.saturating_sub(limit);
        let next_page_token = if start > 0 {
            start.to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ListEventsResponse {
            events: events[start..end].to_vec(),
            next_page_token,
            log: Some(log_id()),
        }))
    }
}

#[async_trait]
impl DiscoveryService for Fake {
    type PublishScanStream = Empty<Result<v1::PublishScanResponse, Status>>;
    type WatchDiscoveryConfigsStream = Empty<Result<v1::WatchDiscoveryConfigsResponse, Status>>;

    async fn acquire_scopes(
        &self,
        _: Request<v1::AcquireScopesRequest>,
    ) -> Answer<v1::AcquireScopesResponse> {
        Err(Status::unimplemented("acquire"))
    }

    async fn publish_scan(
        &self,
        _: Request<Streaming<v1::PublishScanRequest>>,
    ) -> Answer<Self::PublishScanStream> {
        Err(Status::unimplemented("publish"))
    }

    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> Answer<v1::ListScopesResponse> {
        let (scopes, next_page_token) = page(&self.state().scopes, &request.get_ref().page_token);
        Ok(Response::new(v1::ListScopesResponse {
            scopes,
            next_page_token,
        }))
    }

    type PlanDiscoveryStream = Iter<IntoIter<Result<v1::PlanDiscoveryResponse, Status>>>;

    async fn plan_discovery(
        &self,
        request: Request<Streaming<v1::PlanDiscoveryRequest>>,
    ) -> Answer<Self::PlanDiscoveryStream> {
        use v1::plan_discovery_response::Frame;
        let mut frames = request.into_inner();
        let mut planned = Vec::new();
        while let Some(frame) = frames.message().await? {
            planned.push(frame);
        }
        let mut state = self.state();
        state.planned = planned;
        let changes = state.plan.iter().cloned().map(Frame::Change);
        let frames = changes.chain([Frame::Summary(state.plan_summary)]);
        let answers: Vec<_> = frames
            .map(|frame| Ok(v1::PlanDiscoveryResponse { frame: Some(frame) }))
            .collect();
        Ok(Response::new(tokio_stream::iter(answers)))
    }

    async fn request_rescan(
        &self,
        request: Request<v1::RequestRescanRequest>,
    ) -> Answer<v1::RequestRescanResponse> {
        let wanted = request.into_inner().scope_ids;
        let mut state = self.state();
        let held = |scope: &&v1::ScopeStatus| {
            let id = scope.scope.clone().unwrap_or_default().id;
            !scope.held_by.is_empty() && (wanted.is_empty() || wanted.contains(&id))
        };
        let scopes = u32::try_from(state.scopes.iter().filter(held).count()).unwrap();
        state.rescans.push(wanted);
        Ok(Response::new(v1::RequestRescanResponse { scopes }))
    }

    async fn adopt_databases(
        &self,
        request: Request<v1::AdoptDatabasesRequest>,
    ) -> Answer<v1::AdoptDatabasesResponse> {
        let group = request.into_inner().from_group;
        let state = self.state();
        let of_group =
            |scope: &&v1::ScopeStatus| scope.scope.clone().unwrap_or_default().group == group;
        if state
            .scopes
            .iter()
            .filter(of_group)
            .any(|scope| !scope.held_by.is_empty())
        {
            return Err(Status::failed_precondition(format!(
                "live workers name group `{group}`"
            )));
        }
        let databases = state
            .scopes
            .iter()
            .filter(of_group)
            .map(|scope| scope.databases)
            .sum();
        Ok(Response::new(v1::AdoptDatabasesResponse { databases }))
    }

    async fn upsert_discovery_config(
        &self,
        request: Request<v1::UpsertDiscoveryConfigRequest>,
    ) -> Answer<v1::DiscoveryConfig> {
        let mut config = request.into_inner().config.unwrap();
        config.revision = 5;
        self.state()
            .configs
            .insert(config.name.clone(), config.clone());
        Ok(Response::new(config))
    }

    async fn list_discovery_configs(
        &self,
        _: Request<v1::ListDiscoveryConfigsRequest>,
    ) -> Answer<v1::ListDiscoveryConfigsResponse> {
        let configs = self.state().configs.values().cloned().collect();
        Ok(Response::new(v1::ListDiscoveryConfigsResponse { configs }))
    }

    async fn delete_discovery_config(
        &self,
        request: Request<v1::DeleteDiscoveryConfigRequest>,
    ) -> Answer<v1::DeleteDiscoveryConfigResponse> {
        let name = request.into_inner().name;
        match self.state().configs.remove(&name) {
            Some(_) => Ok(Response::new(v1::DeleteDiscoveryConfigResponse {})),
            None => Err(Status::not_found(format!(
                "there is no discovery_config `{name}`"
            ))),
        }
    }

    async fn watch_discovery_configs(
        &self,
        _: Request<v1::WatchDiscoveryConfigsRequest>,
    ) -> Answer<Self::WatchDiscoveryConfigsStream> {
        Err(Status::unimplemented("watch"))
    }
}
