use tidegate_service::settings::SecondFactor;

use super::{errors, good, warnings};

fn with(authentication: &str) -> String {
    format!(
        "tidegate: {{nodename: n1}}\nauth_service:\n  enabled: yes\n  cluster_name: c.example.com\n  authentication: {authentication}\n"
    )
}

fn second_factor(authentication: &str) -> SecondFactor {
    let settings = good(&with(authentication));
    let auth = settings.auth.expect("an auth service");
    auth.authentication.second_factor
}

#[test]
fn second_factors_are_read_as_teleport_writes_them_and_those_who_have_one_give_it_by_default() {
    for (written, expected) in [
        ("{}", SecondFactor::Optional),
        ("{type: local}", SecondFactor::Optional),
        ("{type: local, second_factor: off}", SecondFactor::Off),
        ("{second_factor: optional}", SecondFactor::Optional),
        ("{second_factor: on}", SecondFactor::On),
        ("{second_factor: \"otp\"}", SecondFactor::On),
        ("{second_factors: [otp]}", SecondFactor::On),
    ] {
        assert_eq!(second_factor(written), expected, "{written}");
    }
}

#[test]
fn hardware_keys_beside_codes_are_left_out_with_a_warning_and_refused_alone() {
    let both = with("{second_factors: [otp, webauthn], webauthn: {rp_id: c.example.com}}");
    let told = warnings(&both);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter()
            .any(|(_, text)| text.contains("`webauthn` is not supported and left out"))
    );
    let alone = errors(&with("{second_factors: [webauthn]}"));
    assert!(
        alone
            .iter()
            .any(|line| line.contains("a list with `otp` in it")),
        "{alone:?}"
    );
    let alone = errors(&with("{second_factor: webauthn}"));
    assert!(
        alone[0].contains("`otp`: codes of an authenticator app"),
        "{alone:?}"
    );
}

#[test]
fn other_keepers_of_users_and_mistyped_values_are_refused() {
    let saml = errors(&with("{type: saml}"));
    assert!(saml[0].contains("Tidegate keeps users itself"), "{saml:?}");
    let typed = errors(&with("{second_factor: optionl}"));
    assert!(typed[0].contains("`optional`"), "{typed:?}");
    let twice = errors(&with("{second_factor: on, second_factors: [otp]}"));
    assert!(twice[0].contains("one of the two"), "{twice:?}");
}
