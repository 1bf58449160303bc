//! What a person shows to prove who they are: name, password and the code of a second factor; and the way to the auth
//! service that needs no certificate, since a proof is what there is before one.
//!
//! Whether a code is asked for is decided by [`how_to_get`], which is pure: at a terminal where the cluster looks at
//! codes; never where the password came from a pipe or a file, since who scripts one gives the other with `--otp`.

use secrecy::{ExposeSecret as _, SecretString};
use tidegate_console::{
    Failure,
    client::Client,
    profile::{Home, Profile, ProxyAddr},
    rpc, secret,
};
use tidegate_identity::tls::Roots;
use tidegate_proto::v1::{self, GetLoginTermsRequest, SecondFactor};
use tonic::Code;

use crate::args::SecretArgs;

/// How a code comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Ask,
    Given,
    None,
}

fn how_to_get(second_factor: SecondFactor, is_given: bool, at_terminal: bool, is_new: bool) -> How {
    if is_given {
        How::Given
    } else if second_factor == SecondFactor::Off || !at_terminal || is_new {
        How::None
    } else {
        How::Ask
    }
}

/// Whether the cluster looks at codes. One that is older than this program does not.
pub(crate) async fn second_factor(client: &Client) -> Result<SecondFactor, Failure> {
    let mut people = client.people();
    let answer = people.get_login_terms(GetLoginTermsRequest {});
    match tokio::time::timeout(rpc::CALL_TIMEOUT, answer).await {
        Ok(Ok(terms)) => Ok(match terms.into_inner().second_factor() {
            SecondFactor::Unspecified | SecondFactor::Off => SecondFactor::Off,
            known => known,
        }),
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(SecondFactor::Off),
        Ok(Err(status)) => Err(rpc::failure("ask what a login takes", &status)),
        Err(_) => Err(rpc::failure(
            "ask what a login takes",
            &tonic::Status::deadline_exceeded("no answer"),
        )),
    }
}

/// The code, when there is one. `is_new` is somebody who signed up just now and has none.
pub(crate) fn code(
    args: &SecretArgs,
    second_factor: SecondFactor,
    is_new: bool,
) -> Result<Option<SecretString>, Failure> {
    match how_to_get(
        second_factor,
        args.otp.is_some(),
        args.at_terminal(),
        is_new,
    ) {
        How::None => Ok(None),
        How::Given => Ok(args.otp.clone()),
        How::Ask => secret::ask_code(
            "Enter the code of your authenticator app (just Enter if you have none): ",
        ),
    }
}

/// The password, from where it was said to come from, else asked for.
pub(crate) fn password(args: &SecretArgs, prompt: &str) -> Result<SecretString, Failure> {
    given_password(args).unwrap_or_else(|| secret::ask(prompt))
}

/// The password from a pipe or a file, when either was asked for.
pub(crate) fn given_password(args: &SecretArgs) -> Option<Result<SecretString, Failure>> {
    match &args.password_file {
        Some(file) => Some(secret::from_file(file)),
        None => args.password_stdin.then(secret::from_stdin),
    }
}

/// As it is sent.
pub(crate) fn exposed(code: Option<&SecretString>) -> String {
    code.map(|code| code.expose_secret().to_owned())
        .unwrap_or_default()
}

/// What helps when a proof fails: a code that was not given may be what is missing.
pub(crate) fn refused(failure: Failure, second_factor: SecondFactor, has_code: bool) -> Failure {
    let names = "a user who never signed up needs the token of `tgctl users add`, or of `tgctl users reset`";
    if second_factor == SecondFactor::Off {
        failure.hint(format!("check name and password; {names}"))
    } else if has_code {
        failure.hint(format!(
            "check name and password; a code works once, so wait for the app's next one; {names}"
        ))
    } else {
        failure.hint(format!(
            "check name and password; no code was given: who has a second factor gives its code when asked, or with \
             `--otp`; {names}"
        ))
    }
}

/// Somebody who logged in before, and is to prove again who they are.
pub(crate) struct Prover {
    pub(crate) profile: Profile,
    pub(crate) client: Client,
    pub(crate) second_factor: SecondFactor,
    pub(crate) password: SecretString,
    pub(crate) code: Option<SecretString>,
}

impl Prover {
    /// Asks for what a proof takes.
    pub(crate) async fn ask(
        proxy: Option<&ProxyAddr>,
        args: &SecretArgs,
        prompt: &str,
    ) -> Result<Self, Failure> {
        let profile = Home::locate()?.profile(proxy)?;
        let host_ca = profile.host_ca_pem()?;
        let addr = &profile.facts().proxy_addr;
        let client = Client::through_proxy(addr, Roots::Pem(&host_ca), None)?;
        let second_factor = second_factor(&client).await?;
        let password = password(args, prompt)?;
        let code = code(args, second_factor, false)?;
        Ok(Self {
            profile,
            client,
            second_factor,
            password,
            code,
        })
    }

    /// For a request.
    pub(crate) fn proof(&self) -> v1::Proof {
        v1::Proof {
            user: self.profile.facts().user.clone(),
            password: self.password.expose_secret().to_owned(),
            otp: exposed(self.code.as_ref()),
        }
    }

    /// Says what helps when the service refused.
    pub(crate) fn explain(&self, refused_call: rpc::Refused) -> Failure {
        match refused_call.reason.as_str() {
            "UNPROVEN" => refused(
                refused_call.failure,
                self.second_factor,
                self.code.is_some(),
            ),
            "SECOND_FACTOR_NEEDED" => refused_call
                .failure
                .hint("log in at a terminal (`tg login`), which adds one"),
            _ => refused_call.failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_asked_for_at_a_terminal_where_the_cluster_looks_at_codes() {
        use SecondFactor::{Off, On, Optional};
        for (second_factor, is_given, at_terminal, is_new, expected) in [
            (On, false, true, false, How::Ask),
            (Optional, false, true, false, How::Ask),
            (Off, false, true, false, How::None),
            (On, false, false, false, How::None),
            (On, false, true, true, How::None),
            (On, true, false, false, How::Given),
            (Off, true, true, false, How::Given),
        ] {
            let how = how_to_get(second_factor, is_given, at_terminal, is_new);
            assert_eq!(how, expected, "{second_factor:?} {is_given} {at_terminal}");
        }
    }

    #[test]
    fn a_refusal_says_that_no_code_was_given_only_where_codes_are_looked_at() {
        let hint = |second_factor, has_code| {
            let failure = refused(Failure::new("no"), second_factor, has_code);
            failure.hint_text().unwrap().to_owned()
        };
        assert!(hint(SecondFactor::On, false).contains("--otp"));
        assert!(hint(SecondFactor::On, true).contains("next one"));
        assert!(!hint(SecondFactor::Off, false).contains("code"));
    }
}
