//! `tg login`: from a name and a password to a certificate on disk.
//!
//! Invariant: the password goes to nobody but the auth service, over TLS that ends there and was verified by the
//! cluster's host CA. How that CA is known is decided first, by [`trusted_host_ca`].

mod first_contact;

use secrecy::{ExposeSecret, SecretString};
use tidegate_console::{
    Failure,
    client::Client,
    profile::{self, Facts, Home, Login, Profile, ProxyAddr},
    rpc, secret,
};
use tidegate_core::ClusterName;
use tidegate_identity::{CaPin, KeyPair, tls, tls::Roots};
use tidegate_proto::{
    convert,
    v1::{GetTrustRequest, LoginRequest, SignUpRequest, UserCertificate},
};
use tidegate_wire::route;

use crate::{args::LoginArgs, profile::print_status};

pub(crate) async fn login(proxy: Option<&ProxyAddr>, args: LoginArgs) -> Result<(), Failure> {
    let home = Home::locate()?;
    let proxy = match proxy {
        Some(proxy) => proxy.clone(),
        None => home.current()?.ok_or_else(|| {
            Failure::usage("which proxy?").hint("tg login --proxy=HOST --user=NAME")
        })?,
    };
    let known = home.profile(Some(&proxy)).ok();
    let host_ca = trusted_host_ca(&proxy, known.as_ref(), &args.ca_pin).await?;
    let client = Client::through_proxy(&proxy, Roots::Pem(&host_ca), None)?;
    let (user, password) = match &args.token {
        Some(token) => sign_up(&client, token, &args).await?,
        None => {
            let user = user_name(&args, known.as_ref())?;
            let prompt = format!("Enter password for {user}: ");
            let password = given_password(&args).unwrap_or_else(|| secret::ask(&prompt))?;
            (user, password)
        }
    };
    let key = KeyPair::generate().map_err(tidegate_console::client::tls_unusable)?;
    let ttl = args.ttl.map_or(0, |ttl| ttl.as_secs());
    let request = LoginRequest {
        user: user.clone(),
        password: password.expose_secret().to_owned(),
        public_key: key.public_key_der(),
        ttl_seconds: u32::try_from(ttl).unwrap_or(u32::MAX),
    };
    let given = rpc::call_refusable(
        "log in",
        client.session().login(request),
        Some("check name and password; a user who never signed up needs the token of `tgctl users add`"),
    )
    .await?;
    let profile = keep(&home, proxy, user, &key, given)?;
    print_status(&profile, tidegate_console::Format::Text)
}

/// The cluster's host CA: by the pin that the person was given, else as the last login left it, else as the proxy
/// says over a certificate that this machine trusts.
async fn trusted_host_ca(
    proxy: &ProxyAddr,
    known: Option<&Profile>,
    pins: &[CaPin],
) -> Result<String, Failure> {
    if !pins.is_empty() {
        return pinned_host_ca(proxy, pins).await;
    }
    match known.and_then(|profile| profile.host_ca_pem().ok()) {
        Some(kept) => Ok(kept),
        None => first_contact::host_ca(proxy).await,
    }
}

async fn pinned_host_ca(proxy: &ProxyAddr, pins: &[CaPin]) -> Result<String, Failure> {
    let client = Client::through_proxy(proxy, Roots::Pinned(pins), None)?;
    let trust = rpc::call(
        "fetch the cluster's CA certificates",
        client.trust().get_trust(GetTrustRequest {}),
    )
    .await?;
    let pinned = tls::certificates(&trust.host_ca_pem)
        .unwrap_or_default()
        .iter()
        .filter_map(|certificate| CaPin::of_der(certificate).ok())
        .any(|pin| pins.contains(&pin));
    if pinned {
        Ok(trust.host_ca_pem)
    } else {
        Err(
            Failure::new("none of the cluster's CA certificates has the pin that you gave")
                .hint("ask an administrator for the pin that `tgctl status` prints now"),
        )
    }
}

async fn sign_up(
    client: &Client,
    token: &str,
    args: &LoginArgs,
) -> Result<(String, SecretString), Failure> {
    let password =
        given_password(args).unwrap_or_else(|| secret::ask_twice("Choose a password: "))?;
    let request = SignUpRequest {
        token: token.to_owned(),
        password: password.expose_secret().to_owned(),
    };
    let signed_up = rpc::call_refusable(
        "sign up",
        client.session().sign_up(request),
        Some("a token works once and not for long; ask an administrator for a new one"),
    )
    .await?
    .user;
    match &args.user {
        Some(user) if *user != signed_up => Err(Failure::new(format!(
            "the token was for `{signed_up}`, whose password is set now, not for `{user}`"
        ))
        .hint(format!("log in with --user={signed_up}"))),
        _ => Ok((signed_up, password)),
    }
}

/// The password from a pipe or a file, when either was asked for.
fn given_password(args: &LoginArgs) -> Option<Result<SecretString, Failure>> {
    match &args.password_file {
        Some(file) => Some(secret::from_file(file)),
        None => args.password_stdin.then(secret::from_stdin),
    }
}

fn user_name(args: &LoginArgs, known: Option<&Profile>) -> Result<String, Failure> {
    args.user
        .clone()
        .or_else(|| known.map(|profile| profile.facts().user.clone()))
        .or_else(|| std::env::var("USER").ok())
        .filter(|user| !user.is_empty())
        .ok_or_else(|| Failure::usage("who are you?").hint("tg login --user=NAME"))
}

/// Checks what the service gave, and writes the profile.
fn keep(
    home: &Home,
    proxy_addr: ProxyAddr,
    user: String,
    key: &KeyPair,
    given: UserCertificate,
) -> Result<Profile, Failure> {
    let unusable =
        |what: &str| Failure::new(format!("the auth service answered without a usable {what}"));
    let trust = given.trust.unwrap_or_default();
    let cluster: ClusterName = trust
        .cluster
        .parse()
        .map_err(|_| unusable("cluster name"))?;
    for (what, pem) in [
        ("host CA", &trust.host_ca_pem),
        ("database CA", &trust.db_ca_pem),
        ("certificate", &given.certificate_pem),
    ] {
        tls::first_certificate_der(pem).map_err(|_| unusable(what))?;
    }
    let expires_at = given
        .expires_at
        .as_ref()
        .and_then(|at| convert::instant(at).ok());
    let profile = home.save(&Login {
        facts: Facts {
            db_suffix: route::db_suffix(cluster.as_str()),
            proxy_addr,
            cluster,
            user,
            expires_at,
        },
        host_ca_pem: &trust.host_ca_pem,
        db_ca_pem: &trust.db_ca_pem,
        chain_pem: &given.certificate_pem,
        key,
    })?;
    // Certificates of databases were given to whoever was logged in before.
    profile::remove_folder(&profile.database_dir())?;
    Ok(profile)
}
