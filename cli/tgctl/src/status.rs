//! `tgctl status`.

use serde::Serialize;
use tidegate_console::{Failure, Format, Output, client::Client, rpc, table::visible};
use tidegate_proto::v1::{ClusterStatus, GetClusterStatusRequest};

#[derive(Serialize)]
struct Status {
    cluster: String,
    version: String,
    ca_pins: Vec<String>,
    databases: u32,
    database_servers: u32,
    agents: u32,
    proxies: u32,
    revision: String,
}

impl From<ClusterStatus> for Status {
    fn from(status: ClusterStatus) -> Self {
        Self {
            cluster: status.cluster,
            version: status.version,
            ca_pins: status.ca_pins,
            databases: status.databases,
            database_servers: status.database_servers,
            agents: status.agents,
            proxies: status.proxies,
            revision: status.revision.to_string(),
        }
    }
}

pub(crate) async fn status(client: &Client, format: Format) -> Result<(), Failure> {
    let mut access = client.access();
    let asked = access.get_cluster_status(GetClusterStatusRequest {});
    let status = Status::from(rpc::call("get the cluster's status", asked).await?);
    Output::new(format).value(&status, || text(&status))
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "Cluster  {}\nVersion  {}\n",
        visible(&status.cluster),
        visible(&status.version)
    );
    for pin in &status.ca_pins {
        text.push_str(&format!("CA pin   {}\n", visible(pin)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_reads_like_the_guides() {
        let status = Status::from(ClusterStatus {
            cluster: "tidegate.example.com".to_owned(),
            version: "0.1.0".to_owned(),
            ca_pins: vec!["sha256:ab".to_owned(), "sha256:cd".to_owned()],
            ..ClusterStatus::default()
        });
        assert_eq!(
            text(&status),
            "Cluster  tidegate.example.com\nVersion  0.1.0\nCA pin   sha256:ab\nCA pin   sha256:cd\n"
        );
    }
}
