//! The way to the auth service: through a proxy with the person's certificate, through a proxy before anybody logged
//! in, or over the local socket of an auth host.
//!
//! A channel connects with its first call, so making a [`Client`] never waits.
//!
//! Invariant: towards a proxy TLS ends at the auth service, whose certificate is always verified: by the cluster's host
//! CA, or by a pin of it. There is no way around it.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use tidegate_identity::{
    ALPN_AUTH, IdentityError, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    access_service_client::AccessServiceClient, audit_service_client::AuditServiceClient,
    backup_service_client::BackupServiceClient,
    cert_authority_service_client::CertAuthorityServiceClient,
    diagnose_service_client::DiagnoseServiceClient,
    discovery_service_client::DiscoveryServiceClient,
    front_door_service_client::FrontDoorServiceClient, health_service_client::HealthServiceClient,
    inventory_service_client::InventoryServiceClient, join_service_client::JoinServiceClient,
    people_service_client::PeopleServiceClient, request_service_client::RequestServiceClient,
    resource_service_client::ResourceServiceClient, session_service_client::SessionServiceClient,
    trust_service_client::TrustServiceClient,
};
use tidegate_service::rpc::{self, Endpoints, MESSAGE_BYTES_MAX};
use tonic::transport::Channel;

use crate::{
    Failure,
    profile::{Credentials, Profile, ProxyAddr},
};

/// Calls to the auth service.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Over the local socket of an auth host.
    #[must_use]
    pub fn local(socket: &Path) -> Self {
        Self {
            channel: rpc::unix_channel(socket),
        }
    }

    /// Through a proxy, with a certificate or before there is one.
    ///
    /// # Errors
    ///
    /// When roots or certificate are no certificates.
    pub fn through_proxy(
        proxy: &ProxyAddr,
        roots: Roots<'_>,
        identity: Option<(&str, &KeyPair)>,
    ) -> Result<Self, Failure> {
        let config = tls::client_config(ClientTls {
            roots,
            identity,
            alpn: &[ALPN_AUTH],
        })
        .map_err(tls_unusable)?;
        let endpoints = Endpoints::new([proxy.to_string()]);
        Ok(Self {
            channel: rpc::channel(endpoints, move || Arc::clone(&config), SERVER_NAME_AUTH),
        })
    }

    /// As the person whose login a profile holds.
    ///
    /// # Errors
    ///
    /// When nobody is logged in, or the certificate expired.
    pub fn of_profile(profile: &Profile) -> Result<Self, Failure> {
        Self::of_credentials(profile, &profile.credentials(Timestamp::now())?)
    }

    /// As the person whose login a profile holds, without roles that were had by asking.
    ///
    /// # Errors
    ///
    /// When nobody is logged in, or the certificate expired.
    pub fn of_login(profile: &Profile) -> Result<Self, Failure> {
        Self::of_credentials(profile, &profile.own_credentials(Timestamp::now())?)
    }

    fn of_credentials(profile: &Profile, credentials: &Credentials) -> Result<Self, Failure> {
        let host_ca = profile.host_ca_pem()?;
        Self::through_proxy(
            &profile.facts().proxy_addr,
            Roots::Pem(&host_ca),
            Some((&credentials.chain_pem, &credentials.key)),
        )
    }

    /// Users, roles, tokens and the cluster's status.
    #[must_use]
    pub fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What happened.
    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The whole state, for root and the service's user on an auth host.
    #[must_use]
    pub fn backup(&self) -> BackupServiceClient<Channel> {
        BackupServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The cluster's CAs and their rotation.
    #[must_use]
    pub fn cert_authorities(&self) -> CertAuthorityServiceClient<Channel> {
        CertAuthorityServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Agents that look into what keeps sessions from a database.
    #[must_use]
    pub fn diagnoses(&self) -> DiagnoseServiceClient<Channel> {
        DiagnoseServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What discovery looks for, and how that goes.
    #[must_use]
    pub fn discovery(&self) -> DiscoveryServiceClient<Channel> {
        DiscoveryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What may be chosen from before a database is opened.
    #[must_use]
    pub fn front_doors(&self) -> FrontDoorServiceClient<Channel> {
        FrontDoorServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// How databases' health is checked.
    #[must_use]
    pub fn health(&self) -> HealthServiceClient<Channel> {
        HealthServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Databases and who serves them.
    #[must_use]
    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Join tokens as resources.
    #[must_use]
    pub fn joining(&self) -> JoinServiceClient<Channel> {
        JoinServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Passwords, second factors and logins.
    #[must_use]
    pub fn people(&self) -> PeopleServiceClient<Channel> {
        PeopleServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Requests for roles.
    #[must_use]
    pub fn requests(&self) -> RequestServiceClient<Channel> {
        RequestServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Resources of every kind.
    #[must_use]
    pub fn resources(&self) -> ResourceServiceClient<Channel> {
        ResourceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Logins.
    #[must_use]
    pub fn session(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The cluster's CAs.
    #[must_use]
    pub fn trust(&self) -> TrustServiceClient<Channel> {
        TrustServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Certificates on this machine that TLS cannot be set up with.
pub fn tls_unusable(error: IdentityError) -> Failure {
    let failure = Failure::new(format!("cannot set up TLS: {error}"));
    match error {
        IdentityError::SystemRoots(_) => failure.hint(
            "install the system's CA certificates (Debian: ca-certificates), or log in with `--ca-pin`",
        ),
        _ => failure.hint("log in again to write the profile anew"),
    }
}
