//! RDS instances. MariaDB below 10.6 is left out: it knows no IAM login.

use aws_sdk_rds::types::DbInstance;
use tidegate_core::{AwsMetadata, ScanScope};

use super::{DESCRIBE_INSTANCES, INSTANCE_ENGINES, protocol, tags};
use crate::{
    fetch::{
        FetchError, Memory, Reading, arn,
        draft::{Draft, Unread, named, some, yes_or_no},
        status::{Availability, CREATING, Status},
    },
    found::Found,
};

const OLD_MARIADB: &str = "MariaDB below 10.6 has no IAM login";

/// The first MariaDB with IAM login.
const MARIADB_MIN: (u32, u32) = (10, 6);

/// Takes the database that an instance is, if it is one.
pub(super) fn take(
    scope: &ScanScope,
    instance: &DbInstance,
    reading: &mut Reading,
    memory: &Memory,
) {
    let engine = instance.engine().unwrap_or_default();
    if !INSTANCE_ENGINES.contains(&engine) {
        return;
    }
    if engine == "mariadb" && some(instance.engine_version()).is_some_and(is_old_mariadb) {
        reading.left_out(OLD_MARIADB);
        return;
    }
    memory.statuses.look(scope.kind, &status_of(instance));
    reading.take(convert(scope, instance));
}

/// The database that an instance is; `None` when the scope does not ask for it, or it is not there yet.
pub(super) fn convert(
    scope: &ScanScope,
    instance: &DbInstance,
) -> Result<Option<Found>, FetchError> {
    let action = DESCRIBE_INSTANCES;
    let id = instance.db_instance_identifier();
    let id = named(id, action, "an instance", "DBInstanceIdentifier")?;
    let lacks = |field| FetchError::malformed(action, format!("instance `{id}`"), field);
    let arn_text = instance.db_instance_arn().unwrap_or_default();
    let arn = arn::read(arn_text, "rds").ok_or_else(|| lacks("DBInstanceArn"))?;
    let engine = instance.engine().unwrap_or_default();
    let protocol = protocol(engine).ok_or_else(|| lacks("Engine"))?;
    if some(instance.engine_version()).is_none() {
        // Whether it is supported may hang on it.
        return Err(lacks("EngineVersion"));
    }
    let endpoint = instance.endpoint();
    let vpc = instance.db_subnet_group().and_then(|group| group.vpc_id());
    let draft = Draft {
        action,
        what: "instance",
        identity: arn_text.to_owned(),
        account: arn.account,
        id,
        endpoint: String::new(),
        endpoint_type: "instance",
        subtype: None,
        description: format!("RDS instance in {}", scope.region),
        protocol,
        host: endpoint.and_then(|endpoint| endpoint.address()),
        port: endpoint.and_then(|endpoint| endpoint.port()),
        server_name: None,
        aws: AwsMetadata {
            rds_instance_id: Some(id.to_owned()),
            rds_cluster_id: some(instance.db_cluster_identifier()).map(str::to_owned),
            rds_resource_id: some(instance.dbi_resource_id()).map(str::to_owned),
            rds_iam_auth: instance.iam_database_authentication_enabled(),
            ..AwsMetadata::default()
        },
        status: status_of(instance),
        told: vec![
            ("availability-zone", instance.availability_zone()),
            ("encrypted", yes_or_no(instance.storage_encrypted())),
            ("engine", Some(engine)),
            ("engine-version", instance.engine_version()),
            (
                "publicly-accessible",
                yes_or_no(instance.publicly_accessible()),
            ),
            ("vpc-id", vpc),
        ],
        tags: tags(instance.tag_list()),
        unread: Unread::Nothing,
    };
    draft.find(scope)
}

fn status_of(instance: &DbInstance) -> Status {
    Status::read(instance.db_instance_status(), availability)
}

/// A version that cannot be read counts as old.
pub(super) fn is_old_mariadb(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < MARIADB_MIN,
        _ => true,
    }
}

pub(super) fn availability(status: &str) -> Availability {
    match status {
        "available"
        | "backing-up"
        | "configuring-enhanced-monitoring"
        | "configuring-iam-database-auth"
        | "configuring-log-exports"
        | "converting-to-vpc"
        | "incompatible-option-group"
        | "incompatible-parameters"
        | "maintenance"
        | "modifying"
        | "moving-to-vpc"
        | "rebooting"
        | "renaming"
        | "resetting-master-credentials"
        | "restore-error"
        | "storage-full"
        | "storage-optimization"
        | "upgrading" => Availability::Available,
        CREATING
        | "deleting"
        | "failed"
        | "inaccessible-encryption-credentials"
        | "inaccessible-encryption-credentials-recoverable"
        | "incompatible-network"
        | "incompatible-restore"
        | "insufficient-capacity"
        | "starting"
        | "stopped"
        | "stopping" => Availability::Unavailable,
        _ => Availability::Unknown,
    }
}
