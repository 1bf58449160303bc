//! Several proxies, and proxies that come and go: nobody is refused when one is replaced, what runs is told when one ends, and
//! any of them will do.

mod raw;

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tidegate_e2e::{Lab, Part, wait};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::main_job::world;
use raw::Session;

/// How often the proxy is replaced.
const RESTARTS: usize = 20;
/// Clients that connect one time after the other meanwhile.
const CLIENTS: usize = 3;
/// Connections that have to be made for each restart before the next one.
const SESSIONS_BETWEEN: usize = 3;

type Environment = BTreeMap<String, String>;

/// The newest of a row of proxy processes that succeed each other; it is killed when the test is over.
struct Newest {
    process: u32,
}

impl Newest {
    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.process)?), signal)?)
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        // It may have ended as it was asked to.
        let _ = self.signal(Signal::SIGKILL);
    }
}

/// The processes that were handed over to, as the log tells.
fn successors(log: &str) -> Vec<u32> {
    log.lines()
        .filter(|line| line.contains("handed over to a new process"))
        .filter_map(|line| {
            let (_, rest) = line.split_once("process.id\":")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

fn psql(environment: &Environment) -> Command {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-A", "-t"])
        .envs(environment)
        .kill_on_drop(true);
    command
}

async fn select(environment: &Environment, statement: &str) -> Result<String> {
    let output = psql(environment).args(["-c", statement]).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "psql: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[tokio::test]
async fn a_proxy_is_replaced_twenty_times_under_load_and_nobody_is_refused() -> Result<()> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
    let mut lab = Lab::start_in(world()?, &parts).await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let environment = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    ensure!(select(&environment, "SELECT 1").await? == "1");

    // A session that lasts from the first process to the last.
    let mut lasting = psql(&environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut asks = lasting.stdin.take().context("psql reads")?;
    let mut answers = BufReader::new(lasting.stdout.take().context("psql writes")?).lines();
    asks.write_all(b"SELECT 'before';\n").await?;
    ensure!(answers.next_line().await?.as_deref() == Some("before"));

    let (served, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (environment, served, over) = (environment.clone(), served.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let answer = select(&environment, "SELECT 7").await?;
                    ensure!(answer == "7", "{answer}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();

    let proxy = lab.process_ids().find(|(part, _)| *part == Part::Proxy);
    let first = proxy.context("the proxy runs")?.1;
    let mut newest: Option<Newest> = None;
    for restart in 1..=RESTARTS {
        let before = served.load(Ordering::Relaxed);
        let present = newest.as_ref().map_or(first, |newest| newest.process);
        kill(Pid::from_raw(i32::try_from(present)?), Signal::SIGUSR2)?;
        let successor = wait::until(&format!("restart {restart}"), || async {
            let all = successors(&lab.log(Part::Proxy));
            all.get(restart - 1).copied().ok_or(format!("{all:?}"))
        })
        .await
        .with_context(|| lab.log(Part::Proxy))?;
        // The one before goes on for its sessions, and ends by itself.
        if let Some(newest) = &mut newest {
            newest.process = successor;
        } else {
            newest = Some(Newest { process: successor });
        }
        wait::until("sessions through the new process", || async {
            let made = served.load(Ordering::Relaxed) - before;
            if made >= SESSIONS_BETWEEN || clients.iter().any(tokio::task::JoinHandle::is_finished)
            {
                Ok(())
            } else {
                Err(format!("{made} sessions"))
            }
        })
        .await?;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?.with_context(|| lab.log(Part::Proxy))?;
    }
    ensure!(served.load(Ordering::Relaxed) >= RESTARTS * SESSIONS_BETWEEN);

    asks.write_all(b"SELECT 'after';\n").await?;
    ensure!(answers.next_line().await?.as_deref() == Some("after"));
    drop(asks);
    ensure!(lasting.wait().await?.success());
    let newest = newest.context("it was replaced")?;
    // They reach the auth service through the proxy, and deliver what is to be audited before they end.
    lab.stop_part(Part::AgentA).await?;
    lab.stop_part(Part::Discovery).await?;
    newest.signal(Signal::SIGTERM)?;
    wait::until("the last process to end", || async {
        match kill(Pid::from_raw(newest.process.cast_signed()), None) {
            Err(_) => Ok(()),
            Ok(()) => Err("it runs"),
        }
    })
    .await?;
    lab.stop().await
}

#[tokio::test]
async fn what_outlasts_a_drain_is_told_why_it_ends() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &[]).await?;
    let drains = json!({ "tidegate": { "drain_timeout": "1s", "shutdown_delay": "8s" } });
    lab.configure(Part::Proxy, drains);
    for part in [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA] {
        lab.start_part(part).await?;
    }
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let environment = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    let mut busy = psql(&environment)
        .args(["-c", "SELECT pg_sleep(600)"])
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = busy.stderr.take().context("psql complains")?;
    let mut session = Session::open(&environment, &lab.proxy_addr()).await?;

    let diagnostics = format!("http://{}/readyz", lab.diag_addr(Part::Proxy));
    let stopping = lab.stop_part(Part::Proxy);
    let watching = async {
        wait::until("the proxy to say that it drains", || async {
            let output = Command::new("curl")
                .args(["-s", &diagnostics])
                .output()
                .await;
            let body = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            match body {
                Ok(body) if body.contains("\"draining\"") => Ok(()),
                Ok(body) => Err(body),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        // It still serves then, so that a balancer has the time to notice.
        ensure!(select(&environment, "SELECT 2").await? == "2");
        anyhow::Ok(())
    };
    let (stopped, watched) = tokio::join!(stopping, watching);
    watched?;
    stopped?;
    ensure!(session.ended_with().await? == "57P01");
    let mut text = String::new();
    said.read_to_string(&mut text).await?;
    ensure!(text.contains("the proxy shuts down"), "{text}");
    ensure!(!busy.wait().await?.success());
    lab.stop().await
}

#[tokio::test]
async fn any_of_three_proxies_will_do_and_any_of_them_cancels() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &[]).await?;
    for part in [Part::Auth, Part::Proxy, Part::ProxyB, Part::Discovery] {
        lab.start_part(part).await?;
    }
    // Agents that know no proxy find them all, also one that comes later.
    for part in [Part::AgentA, Part::AgentB] {
        let auth = lab.auth_addr();
        let finds = json!({ "tidegate": { "auth_server": auth, "proxy_server": null } });
        lab.configure(part, finds);
        lab.start_part(part).await?;
    }
    lab.wait_for_servers(&["analytics"], 2).await?;
    lab.start_part(Part::ProxyC).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let environment = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    for proxy in Part::PROXIES {
        served_by(&lab, &environment, proxy).await?;
    }

    for (through, by) in [(0, 1), (1, 2), (2, 0)] {
        let [through, by] = [through, by].map(|place| lab.proxy_addr_of(Part::PROXIES[place]));
        let mut session = Session::open(&environment, &through).await?;
        session.ask("SELECT pg_sleep(600)").await?;
        session.cancel_through(&by).await?;
        ensure!(session.failed_with().await? == "57014");
        session.ask("SELECT pg_sleep(600)").await?;
        session.cancel_inside_tls(&environment, &by).await?;
        ensure!(session.failed_with().await? == "57014");
    }

    for place in 0..Part::PROXIES.len() {
        let killed = Part::PROXIES[place];
        lab.kill_part(killed).await?;
        for proxy in Part::PROXIES.into_iter().filter(|proxy| *proxy != killed) {
            let there = at(&environment, &lab.proxy_addr_of(proxy))?;
            ensure!(select(&there, "SELECT 3").await? == "3");
        }
        lab.start_part(killed).await?;
        served_by(&lab, &environment, killed).await?;
    }
    lab.stop().await
}

/// The same client at another proxy.
fn at(environment: &Environment, proxy: &str) -> Result<Environment> {
    let mut environment = environment.clone();
    let Some((address, port)) = proxy.rsplit_once(':') else {
        bail!("{proxy} has no port");
    };
    environment.insert("PGHOSTADDR".to_owned(), address.to_owned());
    environment.insert("PGPORT".to_owned(), port.to_owned());
    Ok(environment)
}

async fn served_by(lab: &Lab, environment: &Environment, proxy: Part) -> Result<()> {
    let there = at(environment, &lab.proxy_addr_of(proxy))?;
    // Agents look for new proxies every 15 s.
    wait::until_within(Duration::from_secs(60), "agents at the proxy", || async {
        match select(&there, "SELECT 1").await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .with_context(|| lab.log(proxy))
}
