//! Drives a simulation that runs in another process, with the verbs of [`crate::Sim`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::control::{
    CertificateChange, ClockChange, ClusterChange, RegionChange, ResourceChange, RoleChange,
    SqlRequest, UserChange,
};
use crate::faults::Fault;
use crate::fleet::Endpoint;
use crate::journal::{Call, Login};
use crate::postgres::sql::Rows;
use crate::tls::Certificate;
use crate::verbs::{ClusterPatch, Info};
use crate::world::{Cluster, ClusterId, Kind, RateLimit, Resource, ResourceId, Role, User};

/// How long one request may take; starting a native cluster is the slowest.
const REQUEST_MAX: Duration = Duration::from_secs(180);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a simulation in another process could not be driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It could not be reached, or the connection broke.
    #[error("could not reach the simulation at {endpoint}")]
    Connection {
        /// Its address.
        endpoint: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what this version expects.
    #[error("could not read the simulation's answer to {verb}")]
    Malformed {
        /// The request.
        verb: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It said no.
    #[error("the simulation refused {verb}: {message}")]
    Refused {
        /// The request.
        verb: String,
        /// Its reason.
        message: String,
    },
    /// No answer in time.
    #[error("no answer to {verb} within {} s", REQUEST_MAX.as_secs())]
    Timeout {
        /// The request.
        verb: String,
    },
}

/// A simulation in another process.
#[derive(Clone, Debug)]
pub struct SimClient {
    endpoint: String,
}

impl SimClient {
    /// Takes the simulation's endpoint, `http://127.0.0.1:PORT`, as its ready line gives it.
    pub fn new(endpoint_url: &str) -> Self {
        let endpoint = endpoint_url
            .trim_start_matches("http://")
            .trim_end_matches('/');
        Self {
            endpoint: endpoint.to_owned(),
        }
    }

    /// All addresses.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every method here.
    pub async fn info(&self) -> Result<Info, ClientError> {
        self.get("info").await
    }

    /// Every API call so far.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn calls(&self) -> Result<Vec<Call>, ClientError> {
        self.calls_since(0).await
    }

    /// The calls after the one numbered `seq`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn calls_since(&self, seq: u64) -> Result<Vec<Call>, ClientError> {
        self.get(&format!("calls?since={seq}")).await
    }

    /// Every log-in to a wire front so far.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn logins(&self) -> Result<Vec<Login>, ClientError> {
        self.get("logins").await
    }

    /// Forgets calls and log-ins.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn clear_journal(&self) -> Result<(), ClientError> {
        self.post("journal/clear", &Value::Null).await
    }

    /// Orders a fault.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn fault(&self, fault: &Fault) -> Result<(), ClientError> {
        self.post("fault", &json!(fault)).await
    }

    /// Takes back every fault.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn clear_faults(&self) -> Result<(), ClientError> {
        self.post("faults/clear", &Value::Null).await
    }

    /// Puts the simulation's clock so many seconds after the system's; its new time.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn set_clock_offset(&self, seconds: i64) -> Result<Timestamp, ClientError> {
        self.move_clock(ClockChange::OffsetSeconds(seconds)).await
    }

    /// Moves the simulation's clock on; its new time.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn advance_clock(&self, seconds: i64) -> Result<Timestamp, ClientError> {
        self.move_clock(ClockChange::AdvanceSeconds(seconds)).await
    }

    /// Adds a cluster.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn add_cluster(
        &self,
        id: &ClusterId,
        cluster: Cluster,
    ) -> Result<Endpoint, ClientError> {
        let add = ClusterChange::Add {
            id: id.clone(),
            cluster: Box::new(cluster),
        };
        self.post("cluster", &json!(add)).await
    }

    /// Changes a cluster.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn change_cluster(
        &self,
        id: &ClusterId,
        patch: ClusterPatch,
    ) -> Result<Endpoint, ClientError> {
        self.post(
            "cluster",
            &json!(ClusterChange::Change {
                id: id.clone(),
                patch
            }),
        )
        .await
    }

    /// Deletes a cluster.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn remove_cluster(&self, id: &ClusterId) -> Result<(), ClientError> {
        self.post("cluster", &json!(ClusterChange::Remove { id: id.clone() }))
            .await
    }

    /// Sets a cluster's status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn set_status(&self, id: &ClusterId, status: &str) -> Result<Endpoint, ClientError> {
        let patch = ClusterPatch {
            status: Some(status.to_owned()),
            ..ClusterPatch::default()
        };
        self.change_cluster(id, patch).await
    }

    /// Replaces a cluster's tags.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn set_tags(
        &self,
        id: &ClusterId,
        tags: BTreeMap<String, String>,
    ) -> Result<Endpoint, ClientError> {
        let patch = ClusterPatch {
            tags: Some(tags),
            ..ClusterPatch::default()
        };
        self.change_cluster(id, patch).await
    }

    /// Adds or replaces a role.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn put_role(&self, account: &str, name: &str, role: Role) -> Result<(), ClientError> {
        self.change_role(account, name, Some(role)).await
    }

    /// Deletes a role.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn remove_role(&self, account: &str, name: &str) -> Result<(), ClientError> {
        self.change_role(account, name, None).await
    }

    async fn change_role(
        &self,
        account: &str,
        name: &str,
        role: Option<Role>,
    ) -> Result<(), ClientError> {
        let (account, name) = (account.to_owned(), name.to_owned());
        self.post(
            "role",
            &json!(RoleChange {
                account,
                name,
                role
            }),
        )
        .await
    }

    /// Adds or replaces an IAM user.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn put_user(&self, account: &str, name: &str, user: User) -> Result<(), ClientError> {
        let (account, name) = (account.to_owned(), name.to_owned());
        self.post(
            "user",
            &json!(UserChange {
                account,
                name,
                user
            }),
        )
        .await
    }

    /// Adds or replaces a workgroup, RDS instance, cluster or proxy; its endpoints.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn put(
        &self,
        id: &ClusterId,
        resource: impl Into<Resource>,
    ) -> Result<Vec<Endpoint>, ClientError> {
        let put = ResourceChange::Put {
            id: id.clone(),
            resource: Box::new(resource.into()),
        };
        self.post("resource", &json!(put)).await
    }

    /// Deletes a workgroup, RDS instance, cluster (with its members) or proxy. Redshift clusters
    /// have [`SimClient::remove_cluster`].
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn remove(&self, id: &ClusterId, kind: Kind) -> Result<(), ClientError> {
        let id = id.clone();
        self.post("resource", &json!(ResourceChange::Remove { id, kind }))
            .await
    }

    /// Makes the endpoints of something show another certificate.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn show_certificate(
        &self,
        of: &ResourceId,
        certificate: &Certificate,
    ) -> Result<(), ClientError> {
        let (of, certificate) = (of.clone(), certificate.clone());
        self.post("certificate", &json!(CertificateChange { of, certificate }))
            .await
    }

    /// Moves the endpoints of something to other addresses.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn readdress(&self, of: &ResourceId) -> Result<Vec<Endpoint>, ClientError> {
        self.post("readdress", &json!(of)).await
    }

    /// Enables or disables a region of an account; what is in it stays.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn set_region_enabled(
        &self,
        account: &str,
        region: &str,
        enabled: bool,
    ) -> Result<(), ClientError> {
        let change = RegionChange {
            account: account.to_owned(),
            region: region.to_owned(),
            enabled,
        };
        self.post("region", &json!(change)).await
    }

    /// Puts request rates in force, by `service:Operation`; every bucket is full then.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn set_rate_limits(
        &self,
        limits: &BTreeMap<String, RateLimit>,
    ) -> Result<(), ClientError> {
        self.post("rate_limits", &json!(limits)).await
    }

    /// Runs SQL as superuser in a cluster's first database.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn sql(&self, id: &ClusterId, text: &str) -> Result<Rows, ClientError> {
        self.sql_of(&ResourceId::cluster(id), text).await
    }

    /// As [`SimClient::sql`], of anything that has data behind it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn sql_of(&self, of: &ResourceId, text: &str) -> Result<Rows, ClientError> {
        let request = SqlRequest {
            kind: of.kind,
            cluster: of.id.clone(),
            database: None,
            sql: text.to_owned(),
        };
        self.post("sql", &json!(request)).await
    }

    async fn move_clock(&self, change: ClockChange) -> Result<Timestamp, ClientError> {
        #[derive(serde::Deserialize)]
        struct Now {
            now: Timestamp,
        }
        let Now { now } = self.post("clock", &json!(change)).await?;
        Ok(now)
    }

    async fn get<T: DeserializeOwned>(&self, verb: &str) -> Result<T, ClientError> {
        self.request(Method::GET, verb, String::new()).await
    }

    async fn post<T: DeserializeOwned>(&self, verb: &str, body: &Value) -> Result<T, ClientError> {
        self.request(Method::POST, verb, body.to_string()).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        verb: &str,
        body: String,
    ) -> Result<T, ClientError> {
        let sent = timeout(REQUEST_MAX, self.exchange(method, verb, body)).await;
        let sent = sent.map_err(|_| ClientError::Timeout {
            verb: verb.to_owned(),
        })?;
        let connection = |source| ClientError::Connection {
            endpoint: self.endpoint.clone(),
            source,
        };
        let (status, answer) = sent.map_err(connection)?;
        let malformed = |source| ClientError::Malformed {
            verb: verb.to_owned(),
            source,
        };
        if status == 200 {
            return serde_json::from_slice(&answer).map_err(malformed);
        }
        let answer: Value = serde_json::from_slice(&answer).map_err(malformed)?;
        let message = answer["error"]
            .as_str()
            .unwrap_or("no reason given")
            .to_owned();
        Err(ClientError::Refused {
            verb: verb.to_owned(),
            message,
        })
    }

    /// One request on a connection of its own.
    async fn exchange(
        &self,
        method: Method,
        verb: &str,
        body: String,
    ) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.endpoint).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/_sim/{verb}"))
            .header(header::HOST, &self.endpoint)
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await?;
        driver.abort();
        Ok((status, body.to_bytes()))
    }
}
