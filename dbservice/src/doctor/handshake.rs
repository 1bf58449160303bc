//! The step from a connection to verified TLS, made as sessions make it.
//!
//! Where it fails, the certificates that the database shows are read over a second connection that verifies nothing and
//! sends nothing but a handshake: they are evidence, and nothing is said to who shows them.

use jiff::Timestamp;
use tidegate_core::{
    Database, Problem, TlsMode,
    doctor::{Stop, Verdict, Who},
};
use tokio::net::TcpStream;

use super::shown;
use crate::{
    engine::{Connector, Upstream},
    trust::Trust,
};

/// How hints of the connector begin.
const OPERATOR: &str = "an operator has to ";

/// Makes TLS of a connection.
///
/// # Errors
///
/// When the database speaks none, or shows a certificate that is not trusted for it.
pub(super) async fn shake(
    connector: &Connector,
    database: &Database,
    stream: TcpStream,
    now: Timestamp,
) -> Result<(Upstream, Vec<String>), Stop> {
    let mut evidence = Vec::new();
    match connector.tls(database, stream).await {
        Ok(upstream) => {
            evidence.extend(certificates(&upstream, now));
            Ok((upstream, evidence))
        }
        Err(problem) => {
            evidence.push(problem.operator.clone());
            evidence.extend(shown_unverified(connector, database, now).await);
            Err(Stop {
                evidence,
                verdict: Box::new(verdict(&problem)),
            })
        }
    }
}

/// What is verified, and with whose certificates.
pub(super) async fn trusted(trust: &Trust, database: &Database) -> Vec<String> {
    let tls = &database.tls;
    let name = tls
        .server_name
        .as_deref()
        .unwrap_or_else(|| database.uri.host());
    let whom = match trust.of(database).await {
        Ok(trusted) => trusted.told(),
        Err(error) => format!("nobody, since {error}"),
    };
    vec![match tls.mode {
        TlsMode::VerifyFull => format!("verify-full for the name {name}; trusted: {whom}"),
        TlsMode::VerifyCa => format!("verify-ca for any name; trusted: {whom}"),
        TlsMode::Insecure => "insecure: nothing is verified".to_owned(),
    }]
}

pub(super) fn certificates(upstream: &Upstream, now: Timestamp) -> Vec<String> {
    let (_, session) = upstream.get_ref();
    let mut told = shown::chain(session.peer_certificates().unwrap_or_default(), now);
    if let Some(version) = session.protocol_version() {
        told.push(format!("speaks {version:?}"));
    }
    told
}

async fn shown_unverified(
    connector: &Connector,
    database: &Database,
    now: Timestamp,
) -> Vec<String> {
    let mut unverified = database.clone();
    unverified.tls.mode = TlsMode::Insecure;
    let Ok(stream) = connector.tcp(&unverified).await else {
        return Vec::new();
    };
    match connector.tls(&unverified, stream).await {
        Ok(upstream) => certificates(&upstream, now),
        Err(_) => Vec::new(),
    }
}

pub(super) fn verdict(problem: &Problem) -> Verdict {
    let verdict = Verdict::new(problem.code, problem.message.clone(), Who::Operator);
    match &problem.hint {
        // Who acts is said already.
        Some(hint) => verdict.how(hint.strip_prefix(OPERATOR).unwrap_or(hint)),
        None => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn it_is_told_what_is_verified_and_whose_certificates_are_trusted() {
        let trust = testing::trust();
        let mut database = testing::redshift("orders", &[]);
        database.kind = None;
        database.uri = "h:5432".parse().unwrap();
        let told = trusted(&trust, &database).await.remove(0);
        assert!(
            told.starts_with("verify-full for the name h; trusted: the system"),
            "{told}"
        );
        database.tls.server_name = Some("other".to_owned());
        database.tls.ca_cert_pem = Some("no certificate".to_owned());
        let told = trusted(&trust, &database).await.remove(0);
        assert!(
            told.contains("for the name other; trusted: nobody, since"),
            "{told}"
        );
        database.tls.mode = TlsMode::Insecure;
        let told = trusted(&trust, &database).await;
        assert_eq!(told, ["insecure: nothing is verified"]);
    }
}
