//! Whether bytes that somebody sent are a bundle of CA certificates to trust.
//!
//! Invariant: what is refused here never takes the place of what was trusted before. Pure.
//!
//! A bundle is trusted because it came over verified TLS from AWS, or from where the operator said; what is checked
//! here is that it is one at all: not a page of a captive portal, not half of it, not certificates that sign nothing.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tidegate_identity::CertificateFacts;

/// Largest bundle that is read; AWS's global one has some 170 KiB.
pub(crate) const BUNDLE_BYTES_MAX: usize = 1024 * 1024;

/// Most certificates in a bundle; AWS's global one has some 130.
const CERTIFICATES_MAX: usize = 1000;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why bytes are no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Unacceptable {
    /// One of them cannot be read.
    #[error("certificate {number} cannot be read: {problem}")]
    Certificate { number: usize, problem: String },

    /// There are none.
    #[error("it holds no certificate{hint}")]
    Empty { hint: &'static str },

    /// None counts now.
    #[error("none of its {count} certificates is valid now")]
    Expired { count: usize },

    /// One of them may sign nothing.
    #[error("certificate {number} (`{subject}`) is no CA's")]
    NotACa { number: usize, subject: String },

    /// Not what PEM looks like.
    #[error("it is not text")]
    NotText,

    /// Cut off.
    #[error("it ends within a certificate")]
    Truncated,

    /// More than anybody sends.
    #[error(
        "it is larger than {BUNDLE_BYTES_MAX} bytes or has more than {CERTIFICATES_MAX} certificates"
    )]
    TooLarge,
}

/// The certificates of a bundle that count at `now`; those that expired are left out.
///
/// # Errors
///
/// [`Unacceptable`].
pub(crate) fn accept(
    bytes: &[u8],
    now: Timestamp,
) -> Result<Vec<CertificateDer<'static>>, Unacceptable> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(Unacceptable::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unacceptable::NotText)?;
    let (begins, ends) = (text.matches(BEGIN).count(), text.matches(END).count());
    if begins == 0 {
        let hint = if text.trim_start().starts_with('<') {
            "; it looks like a web page"
        } else {
            ""
        };
        return Err(Unacceptable::Empty { hint });
    }
    if begins != ends {
        return Err(Unacceptable::Truncated);
    }
    if begins > CERTIFICATES_MAX {
        return Err(Unacceptable::TooLarge);
    }
    let mut valid = Vec::with_capacity(begins);
    let mut count = 0;
    for (place, der) in CertificateDer::pem_slice_iter(bytes).enumerate() {
        let number = place + 1;
        count = number;
        let unreadable = |problem: String| Unacceptable::Certificate { number, problem };
        let der = der.map_err(|error| unreadable(error.to_string()))?;
        let facts = CertificateFacts::read(&der).map_err(|error| unreadable(error.to_string()))?;
        if !facts.is_ca {
            let subject = facts.subject;
            return Err(Unacceptable::NotACa { number, subject });
        }
        if (facts.not_before..=facts.not_after).contains(&now) {
            valid.push(der);
        }
    }
    if count != begins {
        return Err(Unacceptable::Truncated);
    }
    if valid.is_empty() {
        return Err(Unacceptable::Expired { count });
    }
    Ok(valid)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use tidegate_identity::{CaKind, CertificateAuthority, HOST_CERT_TTL, HostLeaf, KeyPair};

    use super::*;

    fn ca() -> CertificateAuthority {
        CertificateAuthority::create(CaKind::Db, &"tide.test".parse().unwrap(), now()).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn certificates_of_cas_with_comments_around_them_are_a_bundle() {
        let text = format!("# one\n{}\n\nanother\n{}", ca().cert_pem(), ca().cert_pem());
        assert_eq!(accept(text.as_bytes(), now()).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_bundle_is_refused_and_says_why() {
        let pem = ca().cert_pem().to_owned();
        let cut = &pem[..pem.len() / 2];
        let twice = format!("{pem}{cut}");
        let damaged = pem.replacen("MII", "AAA", 1);
        for (bytes, expected) in [
            (Vec::new(), "no certificate"),
            (b"  <!DOCTYPE html><html>".to_vec(), "web page"),
            (b"certificates will be back soon".to_vec(), "no certificate"),
            (vec![0xff, 0xfe, 0x00], "not text"),
            (cut.as_bytes().to_vec(), "ends within"),
            (twice.into_bytes(), "ends within"),
            (damaged.into_bytes(), "cannot be read"),
            (vec![b' '; BUNDLE_BYTES_MAX + 1], "larger"),
            (pem.repeat(CERTIFICATES_MAX + 1).into_bytes(), "larger"),
        ] {
            let refused = accept(&bytes, now()).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn a_certificate_that_signs_nothing_is_no_anchor() {
        let (ca, key) = (ca(), KeyPair::generate().unwrap());
        let leaf = HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &"tide.test".parse().unwrap(),
            host_id: &"host".parse().unwrap(),
            hostname: "host",
            services: &[],
            names: &[],
        };
        let chain = ca.issue_host(leaf, now(), HOST_CERT_TTL).unwrap().chain_pem;
        let refused = accept(chain.as_bytes(), now()).unwrap_err();
        assert!(matches!(refused, Unacceptable::NotACa { .. }), "{refused}");
    }

    #[test]
    fn expired_certificates_are_left_out_and_a_bundle_of_nothing_else_is_refused() {
        let old = ca();
        let later = old.expires_at().unwrap() + SignedDuration::from_secs(1);
        let cluster = "tide.test".parse().unwrap();
        let new = CertificateAuthority::create(CaKind::Db, &cluster, later).unwrap();
        let both = format!("{}{}", old.cert_pem(), new.cert_pem());
        assert_eq!(accept(both.as_bytes(), later).unwrap().len(), 1);
        assert_eq!(
            accept(old.cert_pem().as_bytes(), later),
            Err(Unacceptable::Expired { count: 1 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = accept(&bytes, now());
            let mut text = BEGIN.as_bytes().to_vec();
            text.extend(&bytes);
            text.extend(END.as_bytes());
            prop_assert!(accept(&text, now()).is_err());
        }
    }
}
