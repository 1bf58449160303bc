//! The certificates that a database shows, as evidence: whom they are for, who issued them, and until when.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Most names of one certificate that are told.
const NAMES_MAX: usize = 6;
/// Days before the end from which a certificate is worth a word.
const SOON_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

/// A chain, its own certificate first, one line each.
pub(super) fn chain(certificates: &[CertificateDer<'_>], now: Timestamp) -> Vec<String> {
    certificates
        .iter()
        .map(|der| match X509Certificate::from_der(der) {
            Ok((_, certificate)) => line(&certificate, now),
            Err(error) => format!("a certificate that cannot be read: {error}"),
        })
        .collect()
}

fn line(certificate: &X509Certificate<'_>, now: Timestamp) -> String {
    let names = names(certificate);
    let whom = if names.is_empty() {
        certificate.subject().to_string()
    } else {
        format!("{} for {}", certificate.subject(), names.join(", "))
    };
    let ends_at = certificate.validity().not_after.timestamp();
    format!(
        "certificate {whom}; issued by {}; {}",
        certificate.issuer(),
        life(ends_at, now)
    )
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
    dns.take(NAMES_MAX).collect()
}

/// How long a certificate that ends at this second is still good.
fn life(ends_at: i64, now: Timestamp) -> String {
    let days = (ends_at - now.as_second()).div_euclid(DAY_SECONDS);
    match days {
        ..0 => format!("expired {} days ago", -days),
        0..SOON_DAYS => format!("expires in {days} days: renew it"),
        _ => format!("expires in {days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_to_the_end_are_told_and_the_last_month_is_a_warning() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |days: i64| life(now.as_second() + days * DAY_SECONDS, now);
        assert_eq!(at(400), "expires in 400 days");
        assert_eq!(at(29), "expires in 29 days: renew it");
        assert_eq!(at(-3), "expired 3 days ago");
    }

    #[test]
    fn what_cannot_be_read_is_said_and_no_more() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let told = chain(&[CertificateDer::from(vec![1, 2, 3])], now);
        assert!(
            told[0].starts_with("a certificate that cannot be read"),
            "{told:?}"
        );
    }
}
