//! Flags as the text of a configuration file, and which flag each line comes from. Pure.
//!
//! Flags and files go one way from here on, so that no check and no default can differ between them.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    Flags,
    labels::{self, InvalidLabels, Label},
};

/// What errors and logs call it instead of a file.
pub(super) const PLACE: &str = "the command line";

/// A configuration that was written from flags.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) text: String,
    /// Flags by the line that says the same, from 1.
    pub(super) flags: BTreeMap<u64, &'static str>,
    lines: u64,
}

impl Written {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
    }

    /// `key: value`, if the flag is given. JSON's strings are YAML's, so no value can become anything else.
    fn flag(&mut self, indent: usize, key: &str, flag: &'static str, value: Option<&String>) {
        if let Some(value) = value {
            self.line(&format!("{:indent$}{key}: {}", "", quoted(value)));
            self.flags.insert(self.lines, flag);
        }
    }

    /// A section of its own, if any of its flags is given.
    fn section(&mut self, indent: usize, name: &str, entries: &[Entry<'_>]) {
        if entries.iter().all(|(_, _, value)| value.is_none()) {
            return;
        }
        self.line(&format!("{:indent$}{name}:", ""));
        for (key, flag, value) in entries {
            self.flag(indent + 2, key, flag, *value);
        }
    }
}

/// Key, flag, and what the flag says.
type Entry<'f> = (&'static str, &'static str, Option<&'f String>);

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes the flags as a file would say them.
pub(super) fn write(flags: &Flags) -> Result<Written, InvalidLabels> {
    let mut written = Written::default();
    process(&mut written, flags);
    written.line("db_service:");
    written.line("  enabled: yes");
    written.line("  databases:");
    database(&mut written, flags)?;
    Ok(written)
}

fn process(written: &mut Written, flags: &Flags) {
    written.line("tidegate:");
    let entries: [Entry<'_>; 5] = [
        ("nodename", "--nodename", flags.nodename.as_ref()),
        ("data_dir", "--data-dir", flags.data_dir.as_ref()),
        ("auth_server", "--auth-server", flags.auth_server.as_ref()),
        ("proxy_server", "--proxy", flags.proxy.as_ref()),
        ("diag_addr", "--diag-addr", flags.diag_addr.as_ref()),
    ];
    for (key, flag, value) in entries {
        written.flag(2, key, flag, value);
    }
    if flags.join_method.is_some() {
        let params = [
            ("method", "--join-method", flags.join_method.as_ref()),
            ("token_name", "--token", flags.token.as_ref()),
        ];
        written.section(2, "join_params", &params);
    } else {
        written.flag(2, "auth_token", "--token", flags.token.as_ref());
    }
    if !flags.ca_pin.is_empty() {
        let pins: Vec<String> = flags.ca_pin.iter().map(|pin| quoted(pin)).collect();
        written.line(&format!("  ca_pin: [{}]", pins.join(", ")));
        written.flags.insert(written.lines, "--ca-pin");
    }
    // Without any flag of its own the section would be no section.
    written.line("  log: {}");
}

fn database(written: &mut Written, flags: &Flags) -> Result<(), InvalidLabels> {
    written.flag(4, "- name", "--name", flags.name.as_ref());
    written.flag(
        6,
        "description",
        "--description",
        flags.description.as_ref(),
    );
    written.flag(6, "protocol", "--protocol", flags.protocol.as_ref());
    written.flag(6, "uri", "--uri", flags.uri.as_ref());
    let ca = ("ca_cert_file", "--ca-cert", flags.ca_cert.as_ref());
    written.section(6, "tls", &[ca]);
    if let Some(text) = &flags.labels {
        write_labels(written, &labels::parse(text)?);
    }
    let any_of_aws = [
        &flags.aws_region,
        &flags.aws_account_id,
        &flags.aws_assume_role_arn,
        &flags.aws_external_id,
        &flags.aws_redshift_cluster_id,
        &flags.aws_redshift_serverless_workgroup_name,
        &flags.aws_rds_instance_id,
        &flags.aws_rds_cluster_id,
    ];
    if any_of_aws.iter().any(|flag| flag.is_some()) {
        written.line("      aws:");
        aws(written, flags);
    }
    Ok(())
}

fn aws(written: &mut Written, flags: &Flags) {
    let entries: [Entry<'_>; 4] = [
        ("region", "--aws-region", flags.aws_region.as_ref()),
        (
            "account_id",
            "--aws-account-id",
            flags.aws_account_id.as_ref(),
        ),
        (
            "assume_role_arn",
            "--aws-assume-role-arn",
            flags.aws_assume_role_arn.as_ref(),
        ),
        (
            "external_id",
            "--aws-external-id",
            flags.aws_external_id.as_ref(),
        ),
    ];
    for (key, flag, value) in entries {
        written.flag(8, key, flag, value);
    }
    let cluster = flags.aws_redshift_cluster_id.as_ref();
    written.section(
        8,
        "redshift",
        &[("cluster_id", "--aws-redshift-cluster-id", cluster)],
    );
    let workgroup = (
        "workgroup_name",
        "--aws-redshift-serverless-workgroup-name",
        flags.aws_redshift_serverless_workgroup_name.as_ref(),
    );
    written.section(8, "redshift_serverless", &[workgroup]);
    let rds = [
        (
            "instance_id",
            "--aws-rds-instance-id",
            flags.aws_rds_instance_id.as_ref(),
        ),
        (
            "cluster_id",
            "--aws-rds-cluster-id",
            flags.aws_rds_cluster_id.as_ref(),
        ),
    ];
    written.section(8, "rds", &rds);
}

fn write_labels(written: &mut Written, labels: &[(String, Label)]) {
    let mut fixed = String::new();
    let mut commands = String::new();
    for (key, label) in labels {
        // Writing to text cannot fail.
        let _ = match label {
            Label::Fixed(value) => write!(fixed, "{}: {}, ", quoted(key), quoted(value)),
            Label::Command { period, command } => write!(
                commands,
                "{{name: {}, command: {}, period: {}}}, ",
                quoted(key),
                serde_json::Value::from(command.clone()),
                quoted(period)
            ),
        };
    }
    for (key, open, body, close) in [
        ("static_labels", '{', fixed, '}'),
        ("dynamic_labels", '[', commands, ']'),
    ] {
        if !body.is_empty() {
            let body = body.trim_end_matches([',', ' ']);
            written.line(&format!("      {key}: {open}{body}{close}"));
            written.flags.insert(written.lines, "--labels");
        }
    }
}
