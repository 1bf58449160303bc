//! A running control plane, and callers of every sort.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;
use tempfile::TempDir;
use tidegate_auth::{AuthHandle, AuthService, Node, Timings};
use tidegate_identity::{
    ALPN_AUTH, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    self, access_service_client::AccessServiceClient, audit_service_client::AuditServiceClient,
    diagnose_service_client::DiagnoseServiceClient,
    discovery_service_client::DiscoveryServiceClient,
    front_door_service_client::FrontDoorServiceClient,
    inventory_service_client::InventoryServiceClient, join_service_client::JoinServiceClient,
    people_service_client::PeopleServiceClient, presence_service_client::PresenceServiceClient,
    resource_service_client::ResourceServiceClient, session_service_client::SessionServiceClient,
    trust_service_client::TrustServiceClient,
};
use tidegate_service::{
    admin::Readiness,
    clock::ManualClock,
    metrics::Metrics,
    rpc::{self, Endpoints},
    settings::{
        AuthSettings, AuthenticationSettings, CaKeySettings, SecondFactor, StaticToken,
        StorageSettings, StsEndpoint,
    },
    tasks::{TaskFailure, Tasks},
};
use tonic::{Code, Status, transport::Channel};

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const STATIC_TOKEN: &str = "written-in-the-file";
const GRACE: Duration = Duration::from_secs(20);

/// A control plane on a directory.
pub(crate) struct House {
    pub(crate) directory: Arc<TempDir>,
    pub(crate) handle: AuthHandle,
    pub(crate) clock: ManualClock,
    options: Options,
    tasks: Tasks,
}

/// How a control plane is set up, where that is not as usual.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) timings: Timings,
    pub(crate) sts_endpoint: Option<StsEndpoint>,
    pub(crate) ca_keys: Option<CaKeySettings>,
    pub(crate) second_factor: SecondFactor,
    /// Where the state is kept; a folder of its own when not said.
    pub(crate) storage: Option<StorageSettings>,
}

/// Somebody with a certificate.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) key: KeyPair,
    pub(crate) chain_pem: String,
    pub(crate) host_id: String,
}

/// A connection, as a client of each service.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Channel);

impl Caller {
    pub(crate) fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.0.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.0.clone())
    }

    pub(crate) fn diagnoses(&self) -> DiagnoseServiceClient<Channel> {
        DiagnoseServiceClient::new(self.0.clone())
    }

    pub(crate) fn discovery(&self) -> DiscoveryServiceClient<Channel> {
        DiscoveryServiceClient::new(self.0.clone())
    }

    pub(crate) fn front_doors(&self) -> FrontDoorServiceClient<Channel> {
        FrontDoorServiceClient::new(self.0.clone())
    }

    pub(crate) fn resources(&self) -> ResourceServiceClient<Channel> {
        ResourceServiceClient::new(self.0.clone())
    }

    pub(crate) fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.0.clone())
    }

    pub(crate) fn people(&self) -> PeopleServiceClient<Channel> {
        PeopleServiceClient::new(self.0.clone())
    }

    pub(crate) fn joining(&self) -> JoinServiceClient<Channel> {
        JoinServiceClient::new(self.0.clone())
    }

    pub(crate) fn presence(&self) -> PresenceServiceClient<Channel> {
        PresenceServiceClient::new(self.0.clone())
    }

    pub(crate) fn session(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.0.clone())
    }

    pub(crate) fn trust(&self) -> TrustServiceClient<Channel> {
        TrustServiceClient::new(self.0.clone())
    }

    pub(crate) async fn database_names(&self) -> Vec<String> {
        let mut inventory = self.inventory();
        let listed = inventory.list_databases(v1::ListDatabasesRequest::default());
        let databases = listed.await.unwrap().into_inner().databases;
        databases
            .into_iter()
            .map(|database| database.name)
            .collect()
    }

    pub(crate) async fn servers(&self) -> Vec<(String, String)> {
        let mut inventory = self.inventory();
        let listed = inventory.list_database_servers(v1::ListDatabaseServersRequest::default());
        let servers = listed.await.unwrap().into_inner().database_servers;
        servers
            .into_iter()
            .map(|server| (server.database.unwrap_or_default().name, server.host_id))
            .collect()
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(Timings::default()).await
    }

    pub(crate) async fn with(timings: Timings) -> Self {
        let options = Options {
            timings,
            ..Options::default()
        };
        Self::with_options(options).await
    }

    pub(crate) async fn with_second_factor(second_factor: SecondFactor) -> Self {
        let options = Options {
            second_factor,
            ..Options::default()
        };
        Self::with_options(options).await
    }

    pub(crate) async fn with_options(options: Options) -> Self {
        let clock = ManualClock::new(Timestamp::now());
        Self::on(Arc::new(tempfile::tempdir().unwrap()), options, clock).await
    }

    async fn on(directory: Arc<TempDir>, options: Options, clock: ManualClock) -> Self {
        let tasks = Tasks::new();
        let settings = AuthSettings {
            cluster_name: "tidegate.test".parse().unwrap(),
            listen_addr: "127.0.0.1:0".parse().unwrap(),
            storage: options.storage.clone().unwrap_or(StorageSettings::Sqlite {
                dir: directory.path().join("backend"),
            }),
            audit_targets: Vec::new(),
            audit_dir: directory.path().join("backend"),
            static_tokens: vec![StaticToken {
                types: vec!["proxy".to_owned()],
                secret: SecretString::from(STATIC_TOKEN),
            }],
            sts_endpoint: options.sts_endpoint.clone(),
            ca_keys: options.ca_keys.clone(),
            authentication: AuthenticationSettings {
                second_factor: options.second_factor,
            },
        };
        let node = Node {
            data_dir: directory.path().to_owned(),
            nodename: "house".to_owned(),
        };
        let handle = AuthService::start_with(
            settings,
            node,
            options.timings,
            Arc::new(clock.clone()),
            Metrics::new(),
            Readiness::new(),
            &tasks,
        )
        .await
        .unwrap();
        Self {
            directory,
            handle,
            clock,
            options,
            tasks,
        }
    }

    /// Another instance over the same state, where that is shared, at the same time.
    pub(crate) async fn beside(&self) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::on(directory, self.options.clone(), self.clock.clone()).await
    }

    /// Stops everything and starts again on the same directory.
    pub(crate) async fn restart(self) -> Self {
        assert!(
            self.tasks.close_and_wait(GRACE).await,
            "the service must stop when told to"
        );
        assert_eq!(self.tasks.failure(), None);
        Self::on(
            self.directory.clone(),
            self.options.clone(),
            self.clock.clone(),
        )
        .await
    }

    /// Waits until the service ends by itself, and gives why.
    pub(crate) async fn ended(&self) -> Option<TaskFailure> {
        self.tasks.shutdown().cancelled().await;
        self.tasks.failure()
    }

    /// Starts again on the same directory after the service ended by itself.
    pub(crate) async fn started_again(self) -> Self {
        assert!(
            self.tasks.close_and_wait(GRACE).await,
            "the service must stop when it ends"
        );
        Self::on(
            self.directory.clone(),
            self.options.clone(),
            self.clock.clone(),
        )
        .await
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn address(&self) -> String {
        self.handle.local_addr.to_string()
    }

    /// An administrator, by the local socket.
    pub(crate) fn admin(&self) -> Caller {
        Caller(rpc::unix_channel(&self.handle.socket))
    }

    /// Somebody who knows the cluster's pin and nothing more.
    pub(crate) fn stranger(&self) -> Caller {
        self.caller(None)
    }

    pub(crate) fn known(&self, identity: &Identity) -> Caller {
        self.caller(Some(identity))
    }

    fn caller(&self, identity: Option<&Identity>) -> Caller {
        let config = tls::client_config(ClientTls {
            roots: Roots::Pinned(&[self.handle.ca_pin]),
            identity: identity.map(|identity| (identity.chain_pem.as_str(), &identity.key)),
            alpn: &[ALPN_AUTH],
        })
        .unwrap();
        let endpoints = Endpoints::new([self.address()]);
        Caller(rpc::channel(
            endpoints,
            move || config.clone(),
            SERVER_NAME_AUTH,
        ))
    }

    pub(crate) async fn join_token(&self, types: &[&str]) -> String {
        let request = v1::CreateTokenRequest {
            types: types.iter().map(|kind| (*kind).to_owned()).collect(),
            ..v1::CreateTokenRequest::default()
        };
        let created = self.admin().access().create_token(request).await.unwrap();
        created.into_inner().secret
    }

    /// A new host that joined for these services.
    pub(crate) async fn host(&self, services: &[&str]) -> Identity {
        let token = self.join_token(services).await;
        self.join(&token, services, "").await.unwrap()
    }

    pub(crate) async fn join(
        &self,
        token: &str,
        services: &[&str],
        host_id: &str,
    ) -> Result<Identity, Status> {
        let key = KeyPair::generate().unwrap();
        let request = v1::JoinRequest {
            token: token.to_owned(),
            public_key: key.public_key_der(),
            hostname: "node".to_owned(),
            services: services
                .iter()
                .map(|service| (*service).to_owned())
                .collect(),
            names: Vec::new(),
            host_id: host_id.to_owned(),
        };
        let joined = self.stranger().trust().join(request).await?.into_inner();
        Ok(Identity {
            key,
            chain_pem: joined.certificate.unwrap().certificate_pem,
            host_id: joined.host_id,
        })
    }

    /// Adds a person who may sign up, and gives the token.
    pub(crate) async fn add_user(&self, name: &str, roles: &[&str]) -> String {
        let user = v1::User {
            name: name.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..v1::User::default()
        };
        let request = v1::CreateUserRequest {
            user: Some(user),
            ttl: None,
        };
        let created = self.admin().access().create_user(request).await.unwrap();
        created.into_inner().signup_token
    }

    /// A person who signed up and logged in.
    pub(crate) async fn person(&self, name: &str, roles: &[&str]) -> Identity {
        let token = self.add_user(name, roles).await;
        let request = v1::SignUpRequest {
            token,
            password: PASSWORD.to_owned(),
        };
        self.stranger().session().sign_up(request).await.unwrap();
        self.login(name, PASSWORD).await.unwrap()
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Result<Identity, Status> {
        let key = KeyPair::generate().unwrap();
        let request = v1::LoginRequest {
            user: name.to_owned(),
            password: password.to_owned(),
            public_key: key.public_key_der(),
            ..v1::LoginRequest::default()
        };
        let answer = self.stranger().session().login(request).await?.into_inner();
        Ok(Identity {
            key,
            chain_pem: answer.certificate_pem,
            host_id: String::new(),
        })
    }

    /// A database written by the administrator.
    pub(crate) async fn add_database(&self, name: &str, env: &str) {
        let request = v1::CreateDatabaseRequest {
            database: Some(database(name, env)),
        };
        self.admin()
            .inventory()
            .create_database(request)
            .await
            .unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.tasks.shutdown().cancel();
    }
}

pub(crate) fn database(name: &str, env: &str) -> v1::Database {
    v1::Database {
        name: name.to_owned(),
        protocol: "postgres".to_owned(),
        uri: format!("{name}.example.com:5432"),
        labels: [("env".to_owned(), env.to_owned())].into(),
        ..v1::Database::default()
    }
}

#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Code {
    outcome.unwrap_err().code()
}
