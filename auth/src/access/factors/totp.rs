//! Codes of authenticator apps: time-based one-time passwords as of RFC 6238, as every app knows them (SHA-1, six
//! digits, 30 seconds). Pure: the time is a value.
//!
//! Invariant: a code counts once. Whoever accepts one stores its step and asks for later ones from then on.

use jiff::Timestamp;
use totp_rs::{Builder, Secret, Totp};

/// Bytes of a shared secret: what RFC 4226 recommends.
pub(crate) const SECRET_BYTES: usize = 20;
/// How long a code is shown.
pub(crate) const STEP_SECONDS: u64 = 30;
/// How many steps a clock may be off, each way.
const SKEW_STEPS: u64 = 1;
/// Digits of a code.
const DIGITS: u8 = 6;
/// Longest text that is looked at as a code: digits, and blanks between them.
const CODE_BYTES_MAX: usize = 16;

/// The step of a code that is right now or a step beside it, and later than `after`: the latest, should there be several.
///
/// All steps are computed and compared whatever the first ones come to, and each comparison takes the same time.
pub(crate) fn step_of(secret: &[u8], code: &str, now: Timestamp, after: u64) -> Option<u64> {
    if code.len() > CODE_BYTES_MAX {
        return None;
    }
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    if code.len() != usize::from(DIGITS) || !code.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let codes = codes(secret, None)?;
    let step = u64::try_from(now.as_second()).ok()? / STEP_SECONDS;
    let steps = step.saturating_sub(SKEW_STEPS)..=step + SKEW_STEPS;
    let is_right = |step: &u64| codes.check(&code, step * STEP_SECONDS).is_some();
    let right: Vec<u64> = steps.filter(is_right).collect();
    right.into_iter().rfind(|step| *step > after)
}

/// What an app is told: the secret for typing, and all of it as an address for a QR code.
pub(crate) struct Shown {
    /// In base32.
    pub(crate) secret: String,
    /// `otpauth://…`.
    pub(crate) address: String,
}

/// How a secret is shown to its owner, once.
pub(crate) fn shown(secret: &[u8], cluster: &str, user: &str) -> Option<Shown> {
    Some(Shown {
        secret: Secret::from(secret).to_base32(),
        address: codes(secret, Some((cluster, user)))?.to_url().ok()?,
    })
}

/// `None` for a secret that is too short to be one of ours.
fn codes(secret: &[u8], whose: Option<(&str, &str)>) -> Option<Totp> {
    let builder = Builder::new()
        .with_secret(secret)
        .with_digits(DIGITS)
        .with_step_duration(STEP_SECONDS)
        // One step at a time: which one it was is what counts.
        .with_skew(0);
    let builder = match whose {
        Some((cluster, user)) => builder
            .with_issuer(Some(cluster.to_owned()))
            .with_account_name(user.to_owned()),
        None => builder,
    };
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238, appendix B.
    const SECRET: &[u8] = b"12345678901234567890";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // Appendix B, shortened to six digits.
        for (second, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = u64::try_from(second).unwrap() / 30;
            assert_eq!(step_of(SECRET, code, at(second), 0), Some(step), "{second}");
        }
    }

    #[test]
    fn a_code_is_good_one_step_early_and_late_and_no_further() {
        let code = "005924";
        let shown = 1_234_567_890_i64;
        let step = Some(41_152_263);
        for (steps, expected) in [(-2, None), (-1, step), (0, step), (1, step), (2, None)] {
            let now = at(shown + steps * 30);
            assert_eq!(step_of(SECRET, code, now, 0), expected, "{steps}");
        }
    }

    #[test]
    fn a_code_that_was_used_is_used_up_and_so_are_those_before() {
        let (code, now, step) = ("005924", at(1_234_567_890), 41_152_263);
        assert_eq!(step_of(SECRET, code, now, step - 1), Some(step));
        assert_eq!(step_of(SECRET, code, now, step), None);
        assert_eq!(step_of(SECRET, code, now, step + 1), None);
    }

    #[test]
    fn a_code_is_six_digits_and_may_be_typed_in_groups() {
        let now = at(1_234_567_890);
        assert!(step_of(SECRET, "005 924", now, 0).is_some());
        assert!(step_of(SECRET, " 005924\n", now, 0).is_some());
        for wrong in [
            "",
            "5924",
            "0005924",
            "00592x",
            "٠٠٥٩٢٤",
            "0 0 5 9 2 4 0 0 0 0 0 0 0",
        ] {
            assert_eq!(step_of(SECRET, wrong, now, 0), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_shown_as_apps_read_it() {
        let shown = shown(SECRET, "tidegate.example.com", "alice@example.com").unwrap();
        assert_eq!(shown.secret, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let address = shown.address;
        assert!(address.starts_with("otpauth://totp/tidegate.example.com:alice"));
        assert!(
            address.contains(&format!("secret={}", shown.secret)),
            "{address}"
        );
        assert!(address.contains("issuer=tidegate.example.com"), "{address}");
    }
}
