//! Statements of MySQL clients that are stopped: by `Ctrl-C`, by a lock, and because nobody waits for them any more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tidegate_e2e::{Lab, Person, lab::words, wait};
use tokio::{process::Child, time::timeout};

use crate::mysql::{DATABASE, lab, query};

/// What a server takes hours for.
const FOR_HOURS: &str = "SELECT COUNT(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b";
/// Statements like it that run.
const RUNNING: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT COUNT(*) FROM seq%'";
/// How long a client may take to end, on a machine that does other things too.
const END_MAX: Duration = Duration::from_secs(60);

/// A stock client in the middle of a statement, with `tg` in a process group of their own, as in a terminal.
async fn in_the_middle(lab: &Lab, person: &Person) -> Result<(Child, Pid)> {
    let args = [
        "db",
        "connect",
        DATABASE,
        "--db-user=reader",
        "--db-name=sales",
        "--",
        "--batch",
        "-e",
        FOR_HOURS,
    ];
    let mut tg = lab.tg_command(person, &args)?;
    let child = tg.process_group(0).spawn().context("could not start tg")?;
    let group = child.id().context("it has ended")?;
    running(lab, person, 1).await?;
    Ok((child, Pid::from_raw(i32::try_from(group)?)))
}

async fn running(lab: &Lab, person: &Person, wanted: usize) -> Result<()> {
    wait::until("statements that run", || async {
        let count = query(lab, person, RUNNING)
            .await
            .map_err(|error| format!("{error:#}"))?;
        if count == wanted.to_string() {
            Ok(())
        } else {
            Err(format!("{count} run, not {wanted}"))
        }
    })
    .await
}

#[tokio::test]
async fn ctrl_c_in_the_stock_client_stops_its_statement() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let (client, group) = in_the_middle(&lab, &alice).await?;
    // A terminal sends it to everybody in the group.
    killpg(group, Signal::SIGINT)?;
    let output = timeout(END_MAX, client.wait_with_output()).await??;
    let said = words(&output);
    ensure!(
        output.status.code() == Some(1) && said.contains("ERROR 1317 (70100)"),
        "{said}"
    );
    running(&lab, &alice, 0).await?;
    lab.stop().await
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_no_statement_running() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let (mut client, group) = in_the_middle(&lab, &alice).await?;
    killpg(group, Signal::SIGKILL)?;
    client.wait().await?;
    running(&lab, &alice, 0).await?;
    lab.stop().await
}

#[tokio::test]
async fn a_lock_ends_the_statement_that_runs() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let bob = lab.person("bob", "reader", "*").await?;
    let (client, _) = in_the_middle(&lab, &alice).await?;
    let target = ["lock", "--user=alice", "--message=left the company"];
    lab.tgctl(&target).await?;
    let output = timeout(END_MAX, client.wait_with_output()).await??;
    let said = words(&output);
    ensure!(
        said.contains("ERROR 1053 (08S01)") || said.contains("ERROR 1045"),
        "{said}"
    );
    running(&lab, &bob, 0).await?;
    lab.stop().await
}
