//! What the laboratory gives to a part: what it changes in its configuration, and its environment.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    AUTH_KEY, CA_BUNDLES, Lab, Part,
    programs::{Names, nss_wrapper},
};

impl Lab {
    /// What the laboratory changes in a part's example configuration.
    pub(super) fn patch(&self, part: Part) -> Value {
        let mut patch = json!({
            "tidegate": {
                "nodename": part.name(),
                "data_dir": self.data_dir(part),
                "diag_addr": self.diag_addr(part),
                "storage": null,
                "log": { "output": "stderr", "severity": "INFO" },
            }
        });
        match part {
            Part::Auth | Part::AuthB | Part::AuthC => {
                patch["auth_service"] = json!({ "listen_addr": self.auth_addr_of(part) });
                if let Some(etcd) = &self.etcd {
                    patch["tidegate"]["storage"] = etcd.storage();
                }
            }
            Part::Proxy | Part::ProxyB | Part::ProxyC => {
                patch["proxy_service"] = json!({
                    "listen_addr": self.proxy_addr_of(part),
                    "mysql_listen_addr": format!("{}:3036", self.address(part)),
                    "public_addr": self.proxy_addr_of(part),
                    "https_keypairs": null,
                });
            }
            Part::Discovery | Part::DiscoveryB | Part::DiscoveryC => {
                patch["discovery_service"] = json!({ "poll_interval": "1s" })
            }
            Part::AgentA | Part::AgentB => {
                let place = format!("file://{}", self.dir.path().join(CA_BUNDLES).display());
                patch["db_service"] = json!({ "ca_bundles": place });
            }
        }
        if !part.is_auth() {
            let process = &mut patch["tidegate"];
            process["ca_pin"] = json!(self.ca_pin);
            process["auth_token"] = json!(self.token_file());
            process["join_params"] = Value::Null;
            match part {
                _ if part.is_proxy() => process["auth_server"] = json!(self.auth_addr()),
                _ => {
                    process["auth_server"] = Value::Null;
                    process["proxy_server"] = json!(self.proxy_addr());
                }
            }
            if self.etcd.is_some() {
                process["auth_server"] = Value::Null;
                process["auth_servers"] = json!(self.auth_addrs(part));
            }
        }
        patch
    }

    /// What a part sees of the environment: its AWS identity, and where AWS is.
    ///
    /// # Errors
    ///
    /// When libnss-wrapper is not installed.
    pub fn environment(&self, part: Part) -> Result<BTreeMap<String, String>> {
        let mut environment = BTreeMap::from([("RUST_BACKTRACE".to_owned(), "1".to_owned())]);
        if part.is_auth() {
            // To ask who joins by its AWS identity.
            let endpoint = self.sim.endpoint_url().to_owned();
            environment.insert("AWS_ENDPOINT_URL_STS".to_owned(), endpoint.clone());
            // To encrypt CA keys, where a test's world has a key and this user for it.
            let (id, secret) = AUTH_KEY;
            environment.extend(
                [
                    ("AWS_ENDPOINT_URL_KMS", endpoint.as_str()),
                    ("AWS_ACCESS_KEY_ID", id),
                    ("AWS_SECRET_ACCESS_KEY", secret),
                    ("AWS_EC2_METADATA_DISABLED", "true"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
        }
        if let Some((id, secret)) = part.access_key() {
            let path = |path: &Path| {
                path.to_str()
                    .map(str::to_owned)
                    .context("a temporary folder with an odd name")
            };
            environment.extend([
                (
                    "AWS_ENDPOINT_URL".to_owned(),
                    self.sim.endpoint_url().to_owned(),
                ),
                ("AWS_REGION".to_owned(), "us-east-1".to_owned()),
                // The endpoints' certificates are signed by the simulated AWS, which plays Amazon's public CA.
                ("SSL_CERT_FILE".to_owned(), path(&self.sim.ca_pem_path())?),
            ]);
            environment.extend(match self.machines.get(&part) {
                Some(machine) => self.sim.environment_of(machine)?,
                None => [
                    ("AWS_ACCESS_KEY_ID", id),
                    ("AWS_SECRET_ACCESS_KEY", secret),
                    ("AWS_EC2_METADATA_DISABLED", "true"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            });
            if self.names == Names::Preload {
                environment.extend([
                    ("LD_PRELOAD".to_owned(), path(&nss_wrapper()?)?),
                    (
                        "NSS_WRAPPER_HOSTS".to_owned(),
                        path(&self.sim.hosts_file())?,
                    ),
                ]);
            }
        }
        Ok(environment)
    }
}
