//! What a failed handshake with a database means: which trust was used, and who has to do what.

use std::io;

use rustls::{CertificateError, Error};
use tidegate_core::{Database, ErrorCode, Problem};

use super::{bundles::Provenance, source::TrustSource, tls::Trusted};

/// What a failed handshake means, and who has to act.
pub(crate) fn handshake_problem(
    database: &Database,
    error: &io::Error,
    trusted: &Trusted,
) -> Problem {
    let broken = Problem::new(
        ErrorCode::DatabaseUnreachable,
        format!("the connection to database `{}` broke", database.name),
    )
    .because(format_args!("{}: {error}", database.uri));
    let Some(tls) = tls_error(error) else {
        return broken;
    };
    let hint = match tls {
        _ if is_of_issuer(tls) => trusted.advice(),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "an operator has to set `tls.server_name` to the name that the database's certificate carries"
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "an operator has to renew the database's certificate",
        _ => "an operator finds the cause in the log of the database service",
    };
    Problem::new(
        ErrorCode::DatabaseTls,
        format!("no trusted TLS connection to database `{}`", database.name),
    )
    .because(format_args!(
        "{}: {tls} (trusted: {})",
        database.uri,
        trusted.told()
    ))
    .hint(hint)
}

/// Whether a handshake failed because nobody who is trusted signed the certificate.
pub(crate) fn is_unknown_issuer(error: &io::Error) -> bool {
    tls_error(error).is_some_and(is_of_issuer)
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

fn is_of_issuer(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
    )
}

impl Trusted {
    /// Who is trusted, for operators.
    pub(crate) fn told(&self) -> String {
        let beside = if self.and_system {
            ", and the system's CAs"
        } else {
            ""
        };
        format!("{}{beside}", self.told_source())
    }

    fn told_source(&self) -> String {
        let bundle = |name: &dyn std::fmt::Display| match self.bundle {
            Some((Provenance::Nowhere, _)) | None => {
                format!("the system's CAs, since there is no {name} yet")
            }
            Some((provenance, _)) => format!("the {name}, {}", provenance.as_str()),
        };
        match &self.source {
            TrustSource::Amazon(None) => "the system's CAs and Amazon Trust Services".to_owned(),
            TrustSource::Amazon(Some(name)) => format!(
                "the system's CAs, Amazon Trust Services and {}",
                bundle(name)
            ),
            TrustSource::Given(_) => "the CAs in `tls.ca_cert_file`".to_owned(),
            TrustSource::Nobody => "anybody".to_owned(),
            TrustSource::Rds(name) => bundle(name),
            TrustSource::System => "the system's CAs".to_owned(),
        }
    }

    /// What helps when none of them signed a certificate.
    fn advice(&self) -> &'static str {
        match (&self.source, self.bundle) {
            (TrustSource::Rds(_), Some((Provenance::Nowhere, _))) => {
                "an operator has to let the database service fetch the CA bundle of RDS, or to point `db_service.ca_bundles` to a copy of it, or to give the CA as `tls.ca_cert_file`"
            }
            (TrustSource::Rds(_), _) => {
                "an operator has to check that this is the RDS database it should be, and in the region that its record says; a CA of one's own goes into `tls.ca_cert_file`"
            }
            (TrustSource::Amazon(_), _) => {
                "an operator has to check that nothing between the database service and AWS answers in its place; a CA of one's own goes into `tls.ca_cert_file`"
            }
            (TrustSource::Given(_) | TrustSource::Nobody | TrustSource::System, _) => {
                "an operator has to give the database service the CA of the database (`tls.ca_cert_file`)"
            }
        }
    }
}
