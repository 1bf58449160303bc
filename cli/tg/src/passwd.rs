//! `tg passwd`: another password, by the old one.

use secrecy::ExposeSecret as _;
use tidegate_console::{Failure, output, profile::ProxyAddr, rpc, secret};
use tidegate_proto::v1::ChangePasswordRequest;

use crate::{args::PasswdArgs, proof::Prover};

pub(crate) async fn passwd(proxy: Option<&ProxyAddr>, args: PasswdArgs) -> Result<(), Failure> {
    let prover = Prover::ask(proxy, &args.secrets, "Enter your present password: ").await?;
    let new = match (&args.new_password_file, args.secrets.password_stdin) {
        (Some(file), _) => secret::from_file(file)?,
        (None, true) => secret::from_stdin()?,
        (None, false) => secret::ask_twice("Choose a new password: ")?,
    };
    let request = ChangePasswordRequest {
        proof: Some(prover.proof()),
        new_password: new.expose_secret().to_owned(),
    };
    rpc::call_or_reason(
        "change the password",
        prover.client.people().change_password(request),
    )
    .await
    .map_err(|refused| prover.explain(refused))?;
    output::print(
        "Your password has been changed. Logins go on: `tg sessions` lists them, `tg logout --all` ends them all.\n",
    )
}
