//! Logins, from outside: one that is ended takes the session of a stock `psql` with it, and one with a second factor goes
//! through the real `tg`.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_e2e::{
    Lab, Part,
    lab::{PASSWORD, words},
    wait,
};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::main_job::world;

/// How long the end of a login may take to reach a session that runs.
const REACH_MAX: Duration = Duration::from_secs(2);

const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];

fn sleeping(client: &BTreeMap<String, String>) -> Result<tokio::process::Child> {
    let child = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT pg_sleep(60)"])
        .envs(client)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn until_audited(lab: &Lab, event: &str) -> Result<()> {
    wait::until(event, || async {
        let events = lab.audit(event).await;
        match events.map_err(|error| format!("{error:#}"))? {
            events if events.is_empty() => Err("none yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await
}

#[tokio::test]
async fn an_ended_login_ends_its_session_within_two_seconds_and_a_new_login_begins_another()
-> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    let session = sleeping(&client)?;
    until_audited(&lab, "db.session.query").await?;
    let listed = lab
        .tgctl(&["users", "sessions", "alice", "--format=json"])
        .await?;
    let listed: Value = serde_json::from_str(&listed)?;
    ensure!(
        listed[0]["client"]
            .as_str()
            .is_some_and(|client| client.starts_with("tg ")),
        "{listed}"
    );

    let ended = Instant::now();
    lab.tgctl(&["users", "revoke", "alice"]).await?;
    let output = session.wait_with_output().await?;
    let took = ended.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(took < REACH_MAX, "{took:?}: {said}");
    ensure!(said.contains("an administrator ended it"), "{said}");
    let next = sleeping(&client)?.wait_with_output().await?;
    ensure!(
        words(&next).contains("an administrator ended it"),
        "{}",
        words(&next)
    );
    let list = lab.tg(&alice, &["db", "ls"]).await?;
    ensure!(
        words(&list).contains("your login has ended"),
        "{}",
        words(&list)
    );

    lab.login(&alice, None).await?;
    let rows = lab.query(&alice, "analytics", "reader", "SELECT 1").await?;
    ensure!(rows == "1", "{rows}");
    lab.stop().await
}

/// What an authenticator app shows at an instant.
fn shown(secret: &str, at: SystemTime) -> Result<String> {
    let secret = totp_rs::Secret::try_from_base32(secret).context("no base32")?;
    let app = totp_rs::Builder::new()
        .with_secret(secret)
        .build()
        .context("no secret of ours")?;
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    Ok(app.generate(seconds).to_string())
}

#[tokio::test]
async fn a_second_factor_is_added_and_asked_for_through_the_real_tg() -> Result<()> {
    let lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy]).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let mut adding = lab
        .tg_command(&alice, &["mfa", "add", "phone", "--password-stdin"])?
        .spawn()?;
    let mut typed = adding.stdin.take().context("no input")?;
    typed.write_all(format!("{PASSWORD}\n").as_bytes()).await?;
    let secret = secret_in(adding.stdout.as_mut().context("no output")?).await?;
    let now = SystemTime::now();
    typed
        .write_all(format!("{}\n", shown(&secret, now)?).as_bytes())
        .await?;
    drop(typed);
    let added = adding.wait_with_output().await?;
    ensure!(added.status.success(), "{}", words(&added));

    let attempt = async |otp: Option<String>| -> Result<std::process::Output> {
        let mut args = vec![
            "login".to_owned(),
            format!("--proxy={}", lab.proxy_addr()),
            "--user=alice".to_owned(),
            "--password-stdin".to_owned(),
        ];
        args.extend(otp.map(|otp| format!("--otp={otp}")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        lab.tg_with_input(&alice, &args, &format!("{PASSWORD}\n"))
            .await
    };
    let without = attempt(None).await?;
    ensure!(
        words(&without).contains("no code was given"),
        "{}",
        words(&without)
    );
    let used = attempt(Some(shown(&secret, now)?)).await?;
    ensure!(
        words(&used).contains("a code works once"),
        "{}",
        words(&used)
    );
    // The step after the one that confirmed it, which a clock that is a step off may show already.
    let next = attempt(Some(shown(&secret, now + Duration::from_secs(30))?)).await?;
    ensure!(next.status.success(), "{}", words(&next));
    lab.stop().await
}

/// The secret as `tg` prints it, without the blanks between its groups.
async fn secret_in(output: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<String> {
    use tokio::io::AsyncReadExt as _;
    let mut text = String::new();
    let mut buffer = [0; 1024];
    loop {
        let read =
            tokio::time::timeout(Duration::from_secs(30), output.read(&mut buffer)).await??;
        ensure!(read > 0, "tg ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let secret = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Secret:"));
        if let (Some(secret), true) = (secret, text.contains("otpauth://")) {
            return Ok(secret.split_whitespace().collect());
        }
    }
}
