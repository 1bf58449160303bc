//! `tg login`: from a name and a password to a certificate on disk.
//!
//! Invariant: the password goes to nobody but the auth service, over TLS that ends there and was verified by the
//! cluster's host CA. How that CA is known is decided first, by [`trusted_host_ca`].

mod first_contact;

use secrecy::{ExposeSecret, SecretString};
use tidegate_console::{
    Failure,
    client::Client,
    output,
    profile::{self, Facts, Home, Login, Profile, ProxyAddr},
    rpc::{self, Refused},
    secret,
};
use tidegate_core::ClusterName;
use tidegate_identity::{CaPin, KeyPair, tls, tls::Roots};
use tidegate_proto::{
    convert,
    v1::{
        BeginFactorRequest, GetTrustRequest, LoginRequest, Proof, SignUpRequest, UserCertificate,
    },
};
use tidegate_wire::route;

use crate::{
    args::{LoginArgs, SecretArgs},
    mfa,
    profile::print_status,
    proof, trust,
};

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
    let terms = proof::second_factor(&client).await?;
    let (user, password) = match &args.token {
        Some(token) => sign_up(&client, token, &args).await?,
        None => {
            let user = user_name(&args, known.as_ref())?;
            let prompt = format!("Enter password for {user}: ");
            let password = proof::password(&args.secrets, &prompt)?;
            (user, password)
        }
    };
    let code = proof::code(&args.secrets, terms, args.token.is_some())?;
    let key = KeyPair::generate().map_err(tidegate_console::client::tls_unusable)?;
    let ttl = args.ttl.map_or(0, |ttl| ttl.as_secs());
    let request = LoginRequest {
        user: user.clone(),
        password: password.expose_secret().to_owned(),
        public_key: key.public_key_der(),
        ttl_seconds: u32::try_from(ttl).unwrap_or(u32::MAX),
        otp: proof::exposed(code.as_ref()),
        enrolment: String::new(),
        client: concat!("tg ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let given = match try_login(&client, request.clone()).await {
        Err(refused) if refused.reason == "SECOND_FACTOR_NEEDED" => {
            enrol(&client, &args.secrets, request, refused).await?
        }
        Err(refused) if refused.reason == "UNPROVEN" => {
            return Err(proof::refused(refused.failure, terms, code.is_some()));
        }
        outcome => outcome.map_err(|refused| refused.failure)?,
    };
    let profile = keep(&home, proxy, user, &key, given)?;
    print_status(&profile, tidegate_console::Format::Text)
}

async fn try_login(client: &Client, request: LoginRequest) -> Result<UserCertificate, Refused> {
    rpc::call_or_reason("log in", client.session().login(request)).await
}

/// Adds the second factor that the cluster asks for, and logs in with the code that confirms it.
async fn enrol(
    client: &Client,
    secrets: &SecretArgs,
    request: LoginRequest,
    needed: Refused,
) -> Result<UserCertificate, Failure> {
    if secrets.password_file.is_some() {
        return Err(needed
            .failure
            .hint("log in once at a terminal (`tg login`), which adds one"));
    }
    let begin = BeginFactorRequest {
        proof: Some(Proof {
            user: request.user.clone(),
            password: request.password.clone(),
            otp: String::new(),
        }),
        name: String::new(),
    };
    let doing = "add a second factor";
    let begun = rpc::call(doing, client.people().begin_factor(begin)).await?;
    output::print("This cluster asks for a second factor beside the password.\n")?;
    mfa::show(&begun)?;
    let tries = if secrets.at_terminal() {
        mfa::CODE_TRIES_MAX
    } else {
        1
    };
    let mut last = needed;
    for _ in 0..tries {
        let confirming = LoginRequest {
            otp: mfa::confirming_code(secrets)?.expose_secret().to_owned(),
            enrolment: begun.enrolment.clone(),
            ..request.clone()
        };
        match try_login(client, confirming).await {
            Err(refused) if refused.reason == "UNPROVEN" => {
                output::remark("That code is wrong; wait for the next one and try again.");
                last = refused;
            }
            outcome => return outcome.map_err(|refused| refused.failure),
        }
    }
    Err(last.failure.hint(
        "the code was wrong: check that the clock of the app's device is right, and log in again",
    ))
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
        Some(kept) if trust::is_known(proxy, &kept).await? => Ok(kept),
        // Nobody logged in before, or a rotation of the CA has passed since.
        _ => first_contact::host_ca(proxy).await,
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
    let password = proof::given_password(&args.secrets)
        .unwrap_or_else(|| secret::ask_twice("Choose a password: "))?;
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
