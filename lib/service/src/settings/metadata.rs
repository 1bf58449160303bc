//! The `aws` section of a database: what is known of it from AWS, and the kind that follows.

use tidegate_core::{AwsMetadata, DatabaseKind};

use super::{
    aws_session, discovery,
    section::{Item, Section},
    values,
};

/// Reads the `aws` section out of the section of a database.
pub(super) fn read(section: &mut Section<'_>) -> (AwsMetadata, Option<DatabaseKind>) {
    let mut metadata = AwsMetadata::default();
    let Some(mut aws) = section.get("aws").and_then(|item| item.section()) else {
        return (metadata, None);
    };
    metadata.region = aws
        .get("region")
        .filter(Item::is_given)
        .and_then(|item| discovery::region(&item));
    metadata.account_id = aws
        .get("account_id")
        .filter(Item::is_given)
        .and_then(|item| item.parse());
    let kind = names(&mut aws, &mut metadata);
    let is_role_given = aws
        .get("assume_role_arn")
        .is_some_and(|item| item.is_given());
    if kind.is_some_and(knows_roles) && !is_role_given {
        let external_id = aws.get("external_id").filter(Item::is_given);
        metadata.external_id = external_id.and_then(|item| item.parse());
    } else {
        metadata.assume_role = values::assume_role(&mut aws, false);
    }
    if metadata.account_id.is_none() {
        let role = metadata.assume_role.as_ref();
        metadata.account_id = role.map(|role| role.role_arn.account());
    }
    metadata.session_tags = aws
        .get("session_tags")
        .map(|item| aws_session::tags(&item, |value| value.text().map(str::to_owned)))
        .unwrap_or_default();
    aws.ignore(&[
        "docdb",
        "elasticache",
        "iam_policy_status",
        "memorydb",
        "opensearch",
        "secret_store",
    ]);
    aws.finish();
    (metadata, kind)
}

/// Whether roles can be named as users there, so that an external id is of use without a role for the database.
const fn knows_roles(kind: DatabaseKind) -> bool {
    matches!(
        kind,
        DatabaseKind::Redshift | DatabaseKind::RedshiftServerless
    )
}

/// What the database is called in AWS. Of several kinds that are named the first counts, in the order here.
fn names(aws: &mut Section<'_>, metadata: &mut AwsMetadata) -> Option<DatabaseKind> {
    let mut kinds = Vec::new();
    let mut named = |kind, names: &[&Option<String>]| {
        if names.iter().any(|name| name.is_some()) {
            kinds.push(kind);
        }
    };
    if let Some(mut redshift) = aws.get("redshift").and_then(|item| item.section()) {
        metadata.redshift_cluster_id = text(&mut redshift, "cluster_id");
        redshift.finish();
        named(DatabaseKind::Redshift, &[&metadata.redshift_cluster_id]);
    }
    if let Some(mut serverless) = aws
        .get("redshift_serverless")
        .and_then(|item| item.section())
    {
        let workgroup = text(&mut serverless, "workgroup_name");
        let endpoint = text(&mut serverless, "endpoint_name");
        serverless.ignore(&["workgroup_id"]);
        serverless.finish();
        named(DatabaseKind::RedshiftServerless, &[&workgroup, &endpoint]);
        metadata.redshift_serverless_workgroup = workgroup;
        metadata.redshift_serverless_endpoint = endpoint;
    }
    if let Some(rds) = aws.get("rds").and_then(|item| item.section()) {
        let (instance, cluster) = rds_names(rds, metadata);
        named(DatabaseKind::Rds, &[&instance, &cluster]);
        metadata.rds_instance_id = instance;
        metadata.rds_cluster_id = cluster;
    }
    if let Some(mut proxy) = aws.get("rdsproxy").and_then(|item| item.section()) {
        let endpoint = text(&mut proxy, "custom_endpoint_name");
        metadata.rdsproxy_name = text(&mut proxy, "name");
        proxy.ignore(&["resource_id"]);
        proxy.finish();
        named(
            DatabaseKind::Rdsproxy,
            &[&metadata.rdsproxy_name, &endpoint],
        );
    }
    if let [first, _, ..] = kinds.as_slice() {
        aws.item().warn(format!(
            "names several kinds of database: it counts as `{}`",
            first.as_str()
        ));
    }
    kinds.into_iter().next()
}

/// Names of the instance and of the cluster.
fn rds_names(mut rds: Section<'_>, metadata: &mut AwsMetadata) -> (Option<String>, Option<String>) {
    let instance = text(&mut rds, "instance_id");
    let cluster = text(&mut rds, "cluster_id");
    metadata.rds_resource_id = text(&mut rds, "resource_id");
    metadata.rds_iam_auth = rds
        .get("iam_auth")
        .filter(Item::is_given)
        .and_then(|item| item.boolean());
    rds.ignore(&["security_groups", "subnets", "vpc_id"]);
    rds.finish();
    (instance, cluster)
}

fn text(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let item = section.get(key).filter(Item::is_given)?;
    item.text().map(str::to_owned)
}
