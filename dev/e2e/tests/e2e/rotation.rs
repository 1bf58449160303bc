//! Rotating all CAs while people work: a session that stays, new ones in every phase, an agent that starts midway.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use awssim::{AccessKey, IdentityPolicy, KmsKey, World};
use serde_json::{Value, json};
use tidegate_e2e::{
    Lab, Part,
    lab::{AUTH_KEY, Person},
    wait,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::main_job::world;

const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];

const ACCOUNT: &str = "111111111111";
const REGION: &str = "us-east-1";
const KEY_ALIAS: &str = "alias/tidegate-ca";
const KEY_ID: &str = "0a1b2c3d-0000-4000-8000-000000000001";
/// Longest wait for a row of a session that is open.
const ROW_PATIENCE: Duration = Duration::from_secs(20);

/// A stock `psql` that stays connected.
struct OpenSession {
    _child: Child,
    input: ChildStdin,
    rows: Lines<BufReader<ChildStdout>>,
}

impl OpenSession {
    fn start(client: &BTreeMap<String, String>) -> Result<Self> {
        let mut child = Command::new("psql")
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
            .envs(client)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            input: child.stdin.take().context("psql has no input")?,
            rows: BufReader::new(child.stdout.take().context("psql has no output")?).lines(),
            _child: child,
        })
    }

    /// Types a statement that gives one row.
    async fn row(&mut self, statement: &str) -> Result<String> {
        self.input
            .write_all(format!("{statement}\n").as_bytes())
            .await?;
        tokio::time::timeout(ROW_PATIENCE, self.rows.next_line())
            .await
            .context("the open session does not answer")??
            .context("the open session has ended")
    }
}

/// The demo's world, with a KMS key that the control plane may use.
fn keyed_world() -> Result<World> {
    let mut world = world()?;
    let account = world.account(ACCOUNT);
    let (id, secret) = AUTH_KEY;
    let key = AccessKey {
        id: id.to_owned(),
        secret: secret.to_owned(),
    };
    let arn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}");
    let allowed = ["kms:GenerateDataKey", "kms:Decrypt"];
    let policy = IdentityPolicy::allow(allowed, [arn.as_str()]);
    account.put_user("tidegate-auth", key, vec![policy]);
    let region = account.regions.get_mut(REGION).context("no region")?;
    let key = KmsKey {
        alias: Some(KEY_ALIAS.to_owned()),
        ..KmsKey::default()
    };
    region.kms_keys.insert(KEY_ID.to_owned(), key);
    Ok(world)
}

async fn connects(lab: &Lab, person: &Person, when: &str) -> Result<()> {
    let row = wait::until(when, || async {
        let row = lab.query(person, "analytics", "reader", "SELECT 1");
        row.await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    ensure!(row == "1", "{when}: {row}");
    Ok(())
}

async fn statuses(lab: &Lab) -> Result<Vec<Value>> {
    let printed = lab.tgctl(&["auth", "status", "--format=json"]).await?;
    serde_json::from_str(&printed).with_context(|| format!("`tgctl auth status` printed {printed}"))
}

#[tokio::test]
async fn all_cas_are_rotated_under_an_open_session_and_new_ones_begin_in_every_phase() -> Result<()>
{
    let mut lab = Lab::start_in(keyed_world()?, &[]).await?;
    let key = json!({"key_id": KEY_ALIAS, "region": REGION});
    lab.configure(
        Part::Auth,
        json!({"auth_service": {"ca_key_params": {"aws_kms": key}}}),
    );
    for part in PARTS {
        lab.start_part(part).await?;
    }
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    let mut open = OpenSession::start(&client)?;
    ensure!(open.row("BEGIN; SELECT pg_backend_pid() > 0;").await? == "t");
    // The session is with the only agent there was; the other one may come and go.
    lab.start_part(Part::AgentB).await?;
    lab.wait_for_servers(&["analytics"], 2).await?;
    let before = statuses(&lab).await?;

    for phase in ["init", "update_clients", "update_servers", "standby"] {
        let asked = format!("--phase={phase}");
        lab.tgctl(&["auth", "rotate", "--type=all", &asked]).await?;
        connects(&lab, &alice, &format!("a connection in phase {phase}")).await?;
        match phase {
            "update_clients" => {
                lab.stop_part(Part::AgentB).await?;
                lab.start_part(Part::AgentB).await?;
                lab.wait_for_servers(&["analytics"], 2).await?;
            }
            // The person's certificate is of the old CA; the pin that is given is too.
            "update_servers" => drop(lab.login(&alice, None).await?),
            _ => {}
        }
        connects(
            &lab,
            &alice,
            &format!("another connection in phase {phase}"),
        )
        .await?;
    }
    ensure!(open.row("SELECT 41 + 1; COMMIT;").await? == "42");

    drop(open);

    // Another start decrypts what the rotation made.
    lab.stop_part(Part::Auth).await?;
    lab.start_part(Part::Auth).await?;
    let after = statuses(&lab).await?;
    for (before, after) in before.iter().zip(&after) {
        ensure!(after["phase"] == "standby", "{after}");
        let encrypted = after["keys"][0]["encrypted_with"].as_str();
        ensure!(
            encrypted.is_some_and(|with| with.ends_with(KEY_ID)),
            "{after}"
        );
        ensure!(
            before["keys"][0]["pin"] != after["keys"][0]["pin"],
            "{after}"
        );
    }
    let told = lab.audit("cert_authority.rotate").await?;
    ensure!(told.len() == 12, "{} events of phases", told.len());
    lab.stop().await
}
