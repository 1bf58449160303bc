//! `tgctl auth`: the cluster's CAs, their rotation, and the key file that encrypts them.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table, client::Client, output, rpc, table::visible, when,
};
use tidegate_identity::SealingKey;
use tidegate_proto::{
    convert,
    v1::{self, ListCertAuthoritiesRequest, RotateCertAuthoritiesRequest, RotationPhase},
};

use crate::{
    args::{AuthRotateArgs, CaType},
    users::duration,
};

/// A CA as results show it.
#[derive(Debug, Serialize)]
struct Authority {
    kind: String,
    phase: &'static str,
    automatic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_phase_at: Option<Timestamp>,
    next_phases: Vec<&'static str>,
    keys: Vec<Key>,
}

#[derive(Debug, Serialize)]
struct Key {
    pin: String,
    signs_clients: bool,
    signs_servers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    /// What encrypts the private key in the store; empty for nothing.
    encrypted_with: String,
}

impl From<v1::CertAuthority> for Authority {
    fn from(authority: v1::CertAuthority) -> Self {
        let phase = name(authority.phase());
        let next_phases = authority.next_phases().map(name).collect();
        Self {
            phase,
            next_phases,
            kind: authority.kind,
            automatic: authority.automatic,
            started: instant(authority.started_at.as_ref()),
            phase_since: instant(authority.phase_since.as_ref()),
            next_phase_at: instant(authority.next_phase_at.as_ref()),
            keys: authority.keys.into_iter().map(Key::from).collect(),
        }
    }
}

impl From<v1::CertAuthorityKey> for Key {
    fn from(key: v1::CertAuthorityKey) -> Self {
        Self {
            pin: key.pin,
            signs_clients: key.signs_clients,
            signs_servers: key.signs_servers,
            expires: instant(key.expires_at.as_ref()),
            encrypted_with: key.sealed_with,
        }
    }
}

fn instant(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|at| convert::instant(at).ok())
}

const fn name(phase: RotationPhase) -> &'static str {
    match phase {
        RotationPhase::Unspecified => "unknown",
        RotationPhase::Standby => "standby",
        RotationPhase::Init => "init",
        RotationPhase::UpdateClients => "update_clients",
        RotationPhase::UpdateServers => "update_servers",
        RotationPhase::Rollback => "rollback",
    }
}

/// Makes a key file; nobody is asked.
pub(crate) fn keyfile(file: &Path) -> Result<(), Failure> {
    let made = SealingKey::create(file).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Failure::new(match cause {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
    })?;
    output::print(&format!(
        "Made key file {} with key id {}.\n",
        visible(&file.to_string_lossy()),
        made.id()
    ))?;
    if output::for_a_person() {
        output::remark(
            "Give it to the user that the auth service runs as, name it in `auth_service.ca_key_params.key_file` of every \
             auth instance, and keep a copy apart from backups of the state: without it they cannot be used.",
        );
    }
    Ok(())
}

pub(crate) async fn status(client: &Client, format: Format) -> Result<(), Failure> {
    let mut authorities = client.cert_authorities();
    let asked = authorities.list_cert_authorities(ListCertAuthoritiesRequest {});
    let listed = rpc::call("list the certificate authorities", asked).await?;
    let authorities: Vec<Authority> = listed.authorities.into_iter().map(Into::into).collect();
    Output::new(format).list(&authorities, || table(&authorities))?;
    let is_clear = |authority: &Authority| {
        authority
            .keys
            .iter()
            .any(|key| key.encrypted_with.is_empty())
    };
    if format == Format::Text && authorities.iter().any(is_clear) {
        output::remark(
            "The private keys of the CAs are not encrypted in the state store: set `auth_service.ca_key_params` (see \
             `tgctl auth keyfile`).",
        );
    }
    Ok(())
}

pub(crate) async fn rotate(client: &Client, args: AuthRotateArgs) -> Result<(), Failure> {
    let phase = args.phase.map_or(RotationPhase::Unspecified, Into::into);
    let request = RotateCertAuthoritiesRequest {
        kinds: args.kind.kinds(),
        phase: phase.into(),
        // A phase that is asked for is by hand whatever is said.
        manual: args.manual && args.phase.is_none(),
        grace_period: args.grace_period.map(duration),
    };
    let mut authorities = client.cert_authorities();
    let asked = authorities.rotate_cert_authorities(request);
    let rotated = rpc::call("rotate the certificate authorities", asked).await?;
    let authorities: Vec<Authority> = rotated.authorities.into_iter().map(Into::into).collect();
    Output::new(args.format).list(&authorities, || table(&authorities))?;
    if args.format == Format::Text
        && let Some(told) = authorities.first().map(|first| told(first, args.kind))
    {
        output::remark(&told);
    }
    Ok(())
}

/// One line a key: what is of the kind stands on its first.
fn table(authorities: &[Authority]) -> Table {
    let mut table = Table::new(["CA", "Phase", "Next", "Pin", "Signs", "Encrypted With"]);
    for authority in authorities {
        for (at, key) in authority.keys.iter().enumerate() {
            let first = |text: String| if at == 0 { text } else { String::new() };
            let signs = match (key.signs_clients, key.signs_servers) {
                (true, true) => "all",
                (true, false) => "clients",
                (false, true) => "servers",
                (false, false) => "nothing",
            };
            let encrypted = match key.encrypted_with.as_str() {
                "" => "nothing",
                with => with,
            };
            table.row([
                first(authority.kind.clone()),
                first(authority.phase.to_owned()),
                first(next(authority)),
                key.pin.clone(),
                signs.to_owned(),
                encrypted.to_owned(),
            ]);
        }
    }
    table
}

/// When something happens by itself, or what may be asked for.
fn next(authority: &Authority) -> String {
    match (authority.next_phase_at, authority.next_phases.first()) {
        (Some(at), Some(phase)) => format!("{phase} at {}", when::utc(at)),
        _ if authority.phase == "standby" => String::new(),
        _ => authority.next_phases.join(" or "),
    }
}

/// What the phase means to whoever asked for it, and what comes next.
fn told(authority: &Authority, kind: CaType) -> String {
    let means = match authority.phase {
        "init" => {
            "The new CA is trusted beside the old one. Services know it within seconds; people who run `tg` from now on do \
             too."
        }
        "update_clients" => {
            "The new CA signs what clients show. People who log in now get certificates of the new CA."
        }
        "update_servers" => {
            "The new CA signs everything. Whoever has not run `tg login` or `tg db login` since the rotation began has to \
             before its end."
        }
        "rollback" => {
            "The old CA signs everything again. What the new one signed is still trusted."
        }
        _ => {
            "One CA is left. Whoever has certificates or trust of the other one alone has to log in or join again."
        }
    };
    match (authority.automatic, authority.next_phases.first()) {
        (false, Some(next)) if authority.phase != "standby" => format!(
            "{means}\nNext: tgctl auth rotate --type={} --phase={next}",
            kind.name()
        ),
        _ => means.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<prost_types::Timestamp> {
        Some(convert::timestamp(Timestamp::from_second(second).unwrap()))
    }

    fn rotating() -> v1::CertAuthority {
        let key = |pin: &str, signs_clients, signs_servers| v1::CertAuthorityKey {
            pin: pin.to_owned(),
            signs_clients,
            signs_servers,
            ..v1::CertAuthorityKey::default()
        };
        v1::CertAuthority {
            kind: "host".to_owned(),
            phase: RotationPhase::UpdateClients.into(),
            keys: vec![
                key("sha256:new", true, false),
                key("sha256:old", false, true),
            ],
            next_phases: vec![
                RotationPhase::UpdateServers.into(),
                RotationPhase::Rollback.into(),
            ],
            ..v1::CertAuthority::default()
        }
    }

    #[test]
    fn a_rotation_shows_both_pins_who_signs_and_what_may_follow() {
        let manual = Authority::from(rotating());
        assert_eq!(next(&manual), "update_servers or rollback");
        let text = table(&[manual]).render(None);
        for part in [
            "host",
            "update_clients",
            "sha256:new",
            "clients",
            "sha256:old",
            "servers",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let automatic = Authority::from(v1::CertAuthority {
            automatic: true,
            next_phase_at: at(0),
            ..rotating()
        });
        assert!(
            next(&automatic).starts_with("update_servers at 1970-01-01"),
            "{}",
            next(&automatic)
        );
    }

    #[test]
    fn a_manual_rotation_says_the_next_command_and_an_automatic_one_does_not() {
        let manual = Authority::from(rotating());
        let said = told(&manual, CaType::All);
        assert!(
            said.ends_with("tgctl auth rotate --type=all --phase=update_servers"),
            "{said}"
        );
        let automatic = Authority {
            automatic: true,
            ..manual
        };
        assert!(!told(&automatic, CaType::All).contains("tgctl"));
    }
}
