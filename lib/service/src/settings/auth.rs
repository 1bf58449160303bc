//! Section `auth_service`: the control plane.

use super::{
    AuthSettings, ProcessSettings, StaticToken, StorageSettings, authentication, ca_keys, join,
    section::{Item, Section},
    storage::Storage,
    values,
    words::{listed, nearest, quote},
};

const PORT: u16 = 3025;
/// Where in the data directory the embedded store is, and the audit log whatever the store.
const DIR_DEFAULT: &str = "backend";
/// What may join with a token.
const TOKEN_TYPES: [&str; 3] = ["db", "discovery", "proxy"];

/// Reads the section, whose `enabled` was looked at.
pub(super) fn read(
    mut section: Section<'_>,
    process: &ProcessSettings,
    storage: Storage,
) -> Option<AuthSettings> {
    let cluster_name = match section.get("cluster_name") {
        Some(name) => name.parse(),
        None => {
            let name = process.nodename.parse().ok();
            if name.is_none() {
                section.item().error_expected(
                    format!(
                        "has no `cluster_name`, and the node name {} is not a DNS name to take its place",
                        quote(&process.nodename)
                    ),
                    "`cluster_name` with a DNS name such as `tidegate.example.com`",
                );
            }
            name
        }
    };
    let listen_addr = section.get("listen_addr").map_or_else(
        || Some(([0, 0, 0, 0], PORT).into()),
        |item| values::listen_address(&item, PORT),
    );
    let static_tokens = section
        .get("tokens")
        .and_then(|item| item.list())
        .unwrap_or_default()
        .iter()
        .filter_map(static_token)
        .collect();
    let ca_keys = section
        .get("ca_key_params")
        .filter(Item::is_given)
        .and_then(|item| ca_keys::read(&item));
    let authentication = section
        .get("authentication")
        .and_then(|item| item.section())
        .map(authentication::read)
        .unwrap_or_default();
    let sts_endpoint = section
        .get("sts_endpoint_url")
        .filter(Item::is_given)
        .and_then(|item| join::sts_endpoint(&item));
    ignored(&mut section);
    section.finish();
    let audit_targets = storage.audit_targets;
    let storage = storage.state.unwrap_or_else(|| StorageSettings::Sqlite {
        dir: process.data_dir.join(DIR_DEFAULT),
    });
    Some(AuthSettings {
        cluster_name: cluster_name?,
        listen_addr: listen_addr?,
        audit_dir: match &storage {
            StorageSettings::Etcd(_) => process.data_dir.join(DIR_DEFAULT),
            StorageSettings::Sqlite { dir } => dir.clone(),
        },
        audit_targets,
        storage,
        static_tokens,
        sts_endpoint,
        ca_keys,
        authentication,
    })
}

/// `types:secret`; the secret is never quoted.
fn static_token(item: &Item<'_>) -> Option<StaticToken> {
    let Some((types, secret)) = item.text()?.split_once(':') else {
        item.error_expected("has no `:`", "`db,discovery:secret` or `db:/path/to/file`");
        return None;
    };
    let mut sound = true;
    let mut wanted = Vec::new();
    for kind in types
        .split(',')
        .map(|kind| kind.trim().to_ascii_lowercase())
    {
        if TOKEN_TYPES.contains(&kind.as_str()) {
            wanted.push(kind);
        } else if matches!(kind.as_str(), "node" | "app" | "kube" | "trusted_cluster") {
            item.warn(format!(
                "type `{kind}` is ignored: Tidegate does not serve it"
            ));
        } else if nearest(&kind, TOKEN_TYPES.into_iter()).is_some() {
            item.not_one_of(&kind, &TOKEN_TYPES);
            sound = false;
        } else {
            // It may be a part of the secret.
            item.error_expected("has an unknown type before the `:`", listed(&TOKEN_TYPES));
            sound = false;
        }
    }
    if !sound || wanted.is_empty() {
        return None;
    }
    let secret = secret.trim();
    if secret.is_empty() {
        item.error("has no secret after the `:`");
        return None;
    }
    let secret = match values::file_path(secret) {
        None => secret.to_owned(),
        Some(path) => match values::read_named_file(path) {
            Ok(content) if !content.trim().is_empty() => content.trim().to_owned(),
            Ok(_) => {
                item.blocker(format!("{} is empty", path.display()));
                return None;
            }
            Err(error) => {
                item.blocker(format!("cannot read {}: {error}", path.display()));
                return None;
            }
        },
    };
    Some(StaticToken {
        types: wanted,
        secret: secret.into(),
    })
}

fn ignored(section: &mut Section<'_>) {
    section.ignore(&[
        "access_monitoring",
        "case_insensitive_routing",
        "client_idle_timeout",
        "client_idle_timeout_message",
        "disconnect_expired_cert",
        "keep_alive_count_max",
        "keep_alive_interval",
        "license_file",
        "load_all_cas",
        "message_of_the_day",
        "proxy_checks_host_keys",
        "proxy_listener_mode",
        "proxy_protocol",
        "public_addr",
        "routing_strategy",
        "session_control_timeout",
        "session_recording",
        "tunnel_strategy",
        "web_idle_timeout",
    ]);
}
