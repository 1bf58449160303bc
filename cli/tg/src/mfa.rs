//! `tg mfa`: second factors, and how one is added: the secret is shown, and a code of it confirms that an app has it.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table,
    client::Client,
    output,
    profile::{Home, ProxyAddr},
    rpc, secret,
    table::visible,
    when,
};
use tidegate_proto::{
    convert,
    v1::{
        BeginFactorRequest, BeginFactorResponse, ConfirmFactorRequest, ListOwnFactorsRequest,
        RemoveFactorRequest,
    },
};

use crate::{
    args::{MfaAddArgs, MfaRmArgs, SecretArgs},
    proof::Prover,
};

/// How often a code is asked for at a terminal.
pub(crate) const CODE_TRIES_MAX: usize = 3;
/// Characters in a group of a secret that is to be typed.
const GROUP_CHARS: usize = 4;

/// A second factor as it is listed.
#[derive(Serialize)]
struct Listed {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Timestamp>,
}

/// Shows a secret to the person whose it is, once.
pub(crate) fn show(begun: &BeginFactorResponse) -> Result<(), Failure> {
    output::print(&format!(
        "Add this to an authenticator app, by typing the secret or by a QR code of the address:\n\
         \n  Secret:   {}\n  Address:  {}\n\
         \nIt counts from when you enter a code that the app shows. Until then nothing changes.\n",
        grouped(&visible(&begun.secret)),
        visible(&begun.otpauth_url),
    ))
}

/// A secret in groups that can be typed without losing one's place.
fn grouped(secret: &str) -> String {
    let chars: Vec<char> = secret.chars().collect();
    let groups: Vec<String> = chars
        .chunks(GROUP_CHARS)
        .map(|group| group.iter().collect())
        .collect();
    groups.join(" ")
}

/// The code that confirms a second factor: asked for at a terminal, else the next line of standard input.
pub(crate) fn confirming_code(args: &SecretArgs) -> Result<SecretString, Failure> {
    if args.password_stdin {
        return secret::from_stdin().map_err(|_| {
            Failure::new("no code followed on standard input").hint(
                "give it as the next line, after the secret was printed; or run this at a terminal",
            )
        });
    }
    secret::ask_code("Enter the code that the app shows: ")?
        .ok_or_else(|| Failure::new("no code was given, so the second factor was not added"))
}

pub(crate) async fn add(proxy: Option<&ProxyAddr>, args: MfaAddArgs) -> Result<(), Failure> {
    let prover = Prover::ask(proxy, &args.secrets, "Enter your password: ").await?;
    let request = BeginFactorRequest {
        proof: Some(prover.proof()),
        name: args.name.unwrap_or_default(),
    };
    let doing = "add a second factor";
    let begun = rpc::call_or_reason(doing, prover.client.people().begin_factor(request))
        .await
        .map_err(|refused| prover.explain(refused))?;
    show(&begun)?;
    let tries = if args.secrets.at_terminal() {
        CODE_TRIES_MAX
    } else {
        1
    };
    for left in (0..tries).rev() {
        let code = confirming_code(&args.secrets)?;
        let request = ConfirmFactorRequest {
            user: prover.profile.facts().user.clone(),
            enrolment: begun.enrolment.clone(),
            otp: code.expose_secret().to_owned(),
        };
        let mut people = prover.client.people();
        match rpc::call_or_reason(doing, people.confirm_factor(request)).await {
            Ok(factor) => {
                return output::print(&format!(
                    "Second factor \"{}\" has been added. Logins ask for its code from now on.\n",
                    visible(&factor.name)
                ));
            }
            Err(refused) if refused.reason == "WRONG_CODE" && left > 0 => {
                output::remark("That code is wrong; wait for the next one and try again.");
            }
            Err(refused) => return Err(refused.failure),
        }
    }
    // The last try returns.
    Ok(())
}

pub(crate) async fn ls(proxy: Option<&ProxyAddr>, format: Format) -> Result<(), Failure> {
    let profile = Home::locate()?.profile(proxy)?;
    let client = Client::of_login(&profile)?;
    let listed = rpc::call(
        "list your second factors",
        client.people().list_own_factors(ListOwnFactorsRequest {}),
    )
    .await?;
    let at = |at: Option<&prost_types::Timestamp>| at.and_then(|at| convert::instant(at).ok());
    let factors: Vec<Listed> = listed
        .factors
        .into_iter()
        .map(|factor| Listed {
            added: at(factor.created_at.as_ref()),
            last_used: at(factor.last_used_at.as_ref()),
            name: factor.name,
        })
        .collect();
    Output::new(format).list(&factors, || table(&factors))
}

fn table(factors: &[Listed]) -> Table {
    let mut table = Table::new(["Name", "Added", "Last Used"]);
    for factor in factors {
        let told = |at: Option<Timestamp>| at.map(when::utc).unwrap_or_default();
        table.row([
            factor.name.as_str(),
            &told(factor.added),
            &told(factor.last_used),
        ]);
    }
    table
}

pub(crate) async fn rm(proxy: Option<&ProxyAddr>, args: MfaRmArgs) -> Result<(), Failure> {
    let prover = Prover::ask(proxy, &args.secrets, "Enter your password: ").await?;
    let request = RemoveFactorRequest {
        proof: Some(prover.proof()),
        name: args.name.clone(),
    };
    rpc::call_or_reason(
        "remove the second factor",
        prover.client.people().remove_factor(request),
    )
    .await
    .map_err(|refused| prover.explain(refused))?;
    output::print(&format!(
        "Second factor \"{}\" has been removed.\n",
        visible(&args.name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_in_groups_of_four() {
        assert_eq!(grouped("GEZDGNBVGY3T"), "GEZD GNBV GY3T");
        assert_eq!(grouped("ABCDE"), "ABCD E");
        assert_eq!(grouped(""), "");
    }
}
