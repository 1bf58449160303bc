//! Section `auth_service.authentication`: how people prove who they are.
//!
//! Tidegate knows its own users with password and authenticator codes. What Teleport knows beside them (other providers,
//! hardware keys) is refused where it would let people in, and ignored with a warning where it is an option of that.

use super::{
    AuthenticationSettings, SecondFactor,
    section::{Item, Section},
    words::quote,
};

/// Kinds of users that are kept elsewhere.
const PROVIDERS: [&str; 3] = ["github", "oidc", "saml"];
/// Kinds of second factors that are none of ours.
const OTHER_FACTORS: [&str; 3] = ["sso", "u2f", "webauthn"];

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> AuthenticationSettings {
    if let Some(item) = section.get("type") {
        local(&item);
    }
    let one = section.get("second_factor");
    let many = section.get("second_factors");
    let mut settings = AuthenticationSettings::default();
    if let Some(item) = &one
        && let Some(second_factor) = second_factor(item)
    {
        settings.second_factor = second_factor;
    }
    match (&one, &many) {
        (Some(_), Some(many)) => many.error_expected(
            "stands beside `second_factor`",
            "one of the two, since each says all",
        ),
        (None, Some(many)) => {
            if let Some(second_factor) = any_of(many) {
                settings.second_factor = second_factor;
            }
        }
        (_, None) => {}
    }
    section.ignore(&[
        "allow_headless",
        "allow_passwordless",
        "connector_name",
        "default_session_ttl",
        "device_trust",
        "hardware_key",
        "headless",
        "local_auth",
        "locking_mode",
        "passwordless",
        "require_session_mfa",
        "u2f",
        "webauthn",
    ]);
    section.finish();
    settings
}

fn local(item: &Item<'_>) {
    let Some(kind) = item.text() else { return };
    if PROVIDERS.contains(&kind) {
        item.error_expected(
            format!(
                "{} is not supported: Tidegate keeps users itself",
                quote(kind)
            ),
            "`local`",
        );
    } else if kind != "local" {
        item.not_one_of(kind, &["local"]);
    }
}

fn second_factor(item: &Item<'_>) -> Option<SecondFactor> {
    let text = item.text()?;
    if OTHER_FACTORS.contains(&text) {
        item.error_expected(
            format!("{} is not supported", quote(text)),
            "`otp`: codes of an authenticator app",
        );
        return None;
    }
    item.choice(&[
        ("off", SecondFactor::Off),
        ("optional", SecondFactor::Optional),
        ("on", SecondFactor::On),
        ("otp", SecondFactor::On),
    ])
}

/// Teleport's newer way to say the same: a list of kinds, each of which will do.
fn any_of(item: &Item<'_>) -> Option<SecondFactor> {
    let kinds = item.list()?;
    let mut has_otp = false;
    for kind in &kinds {
        match kind.text()? {
            "otp" => has_otp = true,
            text if OTHER_FACTORS.contains(&text) => kind.warn(format!(
                "{} is not supported and left out: codes of an authenticator app are asked for",
                quote(text)
            )),
            text => kind.not_one_of(text, &["otp"]),
        }
    }
    if !has_otp {
        item.error_expected(
            "holds no kind that Tidegate knows",
            "a list with `otp` in it",
        );
    }
    has_otp.then_some(SecondFactor::On)
}
