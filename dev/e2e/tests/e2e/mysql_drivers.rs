//! Stock drivers for MySQL: what each can do, by the doors that it can use.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use tidegate_e2e::{
    Lab, Person,
    lab::{Driver, Walked, words},
};

use crate::mysql::{DATABASE, lab, option_file};

/// What a person asks `tg` for.
const CONNECT: [&str; 3] = [DATABASE, "--db-user=reader", "--db-name=sales"];

/// Rows for `LOAD DATA LOCAL`.
fn rows(lab: &Lab) -> Result<PathBuf> {
    let file = lab.dir().join("rows.csv");
    let rows: String = (0..20_000).map(|n| format!("{n},row {n}\n")).collect();
    std::fs::write(&file, rows)?;
    Ok(file)
}

/// What the option file of `tg db login` says, as options, and where the proxy's port is.
async fn port_facts(lab: &Lab, person: &Person) -> Result<Vec<String>> {
    let login = lab
        .tg(person, &[&["db", "login"], &CONNECT[..]].concat())
        .await?;
    ensure!(login.status.success(), "{}", words(&login));
    let file = option_file(&words(&login))?;
    let options = file.lines().filter_map(|line| line.split_once('='));
    let mut facts: Vec<String> = options
        .map(|(name, value)| {
            let name = name.trim_start_matches("loose-");
            format!("--{name}={}", value.trim_matches('"'))
        })
        .collect();
    let address: SocketAddr = lab.mysql_addr().parse()?;
    facts.push(format!("--port={}", address.port()));
    Ok(facts)
}

/// Every step that a driver has passed, and there were some.
fn passed(driver: Driver, walked: &Walked, least: usize) -> Result<()> {
    ensure!(
        walked.failed.is_empty() && walked.passed.len() >= least,
        "{driver:?}: {walked:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn drivers_do_by_the_tunnel_what_they_do_at_a_server() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let file = format!("--file={}", rows(&lab)?.display());
    let drivers = [
        (Driver::PyMysql, 11),
        (Driver::ConnectorPython, 15),
        (Driver::Mysql2, 14),
        (Driver::DbdMariadb, 11),
        (Driver::ConnectorJ, 12),
    ];
    for (driver, least) in drivers {
        let more = std::slice::from_ref(&file);
        let walked = lab.walk_tunnel(driver, &alice, &CONNECT, more).await?;
        passed(driver, &walked, least)?;
    }
    lab.stop().await
}

#[tokio::test]
async fn drivers_that_name_the_server_in_tls_do_the_same_at_the_proxys_port() -> Result<()> {
    let lab = lab().await?;
    let alice = lab.person("alice", "reader", "*").await?;
    let mut facts = port_facts(&lab, &alice).await?;
    facts.push(format!("--file={}", rows(&lab)?.display()));
    let host = facts
        .iter()
        .find_map(|fact| fact.strip_prefix("--host="))
        .context("no host")?
        .to_owned();
    let address: SocketAddr = lab.mysql_addr().parse()?;
    let drivers = [
        (Driver::PyMysql, 11),
        (Driver::ConnectorPython, 15),
        (Driver::Mysql2, 14),
    ];
    for (driver, least) in drivers {
        let at = (host.as_str(), address.ip());
        let walked = lab.walk_port(driver, at, &facts).await?;
        passed(driver, &walked, least)?;
    }
    lab.stop().await
}
