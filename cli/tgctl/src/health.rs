//! `health_check_config` resources: how databases' health is checked.

use tidegate_console::{Failure, Table, client::Client, output, resource, rpc, table::visible};
use tidegate_proto::v1::{
    self, DeleteHealthCheckConfigRequest, ListHealthCheckConfigsRequest,
    UpsertHealthCheckConfigRequest,
};
use tonic::Code;

use crate::create::exists_hint;

pub(crate) async fn list(client: &Client) -> Result<Vec<resource::HealthCheckConfig>, Failure> {
    let listed = rpc::call(
        "list health check configurations",
        client
            .health()
            .list_health_check_configs(ListHealthCheckConfigsRequest {}),
    )
    .await?;
    let configs = listed.configs.iter();
    Ok(configs.map(resource::HealthCheckConfig::from).collect())
}

pub(crate) fn table(configs: &[resource::HealthCheckConfig]) -> Table {
    let mut table = Table::new(["Name", "DB Labels", "Expression", "Interval", "Timeout"]);
    for config in configs {
        let spec = &config.spec;
        let labels: Vec<String> = spec
            .matches
            .db_labels
            .iter()
            .map(|label| format!("{}={}", label.name, label.values.join("|")))
            .collect();
        table.row([
            config.metadata.name.as_str(),
            &labels.join(","),
            &spec.matches.db_labels_expression,
            &spec.interval,
            &spec.timeout,
        ]);
    }
    table
}

/// Creates a configuration that a file asks for.
pub(crate) async fn create(
    client: &Client,
    config: v1::HealthCheckConfig,
    replace: bool,
) -> Result<(), Failure> {
    let name = config.name.clone();
    if !replace {
        // The preset is nobody's: it may be written over.
        let listed = list(client).await?;
        let is_there = |known: &resource::HealthCheckConfig| {
            known.metadata.name == name && !known.metadata.revision.is_empty()
        };
        if listed.iter().any(is_there) {
            let failure = Failure::new(format!("there is a health_check_config `{name}` already"));
            return Err(exists_hint(failure, Code::AlreadyExists));
        }
    }
    let request = UpsertHealthCheckConfigRequest {
        config: Some(config),
    };
    let doing = format!("create health_check_config `{name}`");
    rpc::call(&doing, client.health().upsert_health_check_config(request)).await?;
    output::print(&format!(
        "Health check configuration \"{}\" has been created.\n",
        visible(&name)
    ))
}

pub(crate) async fn rm(client: &Client, name: &str) -> Result<(), Failure> {
    let request = DeleteHealthCheckConfigRequest {
        name: name.to_owned(),
    };
    let doing = format!("remove health_check_config `{name}`");
    let _: v1::DeleteHealthCheckConfigResponse =
        rpc::call(&doing, client.health().delete_health_check_config(request)).await?;
    Ok(())
}
