//! `tg proxy db` as programs on the same machine see it, in front of a database that sends back what it is sent.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    process::{Child, ChildStderr},
};

use crate::Machine;

/// Asks for TLS, and after that for protocol 3.0 as `reader`.
///
/// Source: PostgreSQL manual, "Message Formats".
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const STARTUP: &[u8] = b"\0\0\0\x15\0\x03\0\0user\0reader\0\0";
/// Asks to cancel what 7 runs, whose secret is 9.
const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 7, 0, 0, 0, 9];
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tunnel that runs.
struct Tunnel {
    child: Child,
    remarks: BufReader<ChildStderr>,
    opened: serde_json::Value,
}

impl Tunnel {
    async fn open(machine: &Machine, more: &[&str]) -> Self {
        let mut command = machine.command(&["proxy", "db", "orders", "--tunnel", "--format=json"]);
        let mut child = command
            .args(["--db-user=reader", "--db-name=dev"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut document = String::new();
        let opened = loop {
            let read = lines.read_line(&mut document).await.unwrap();
            if let Ok(opened) = serde_json::from_str(&document) {
                break opened;
            }
            assert!(read > 0, "{document}");
        };
        Self {
            remarks: BufReader::new(child.stderr.take().unwrap()),
            child,
            opened,
        }
    }

    fn addr(&self) -> SocketAddr {
        let host = self.opened["host"].as_str().unwrap();
        let port = &self.opened["port"];
        format!("{host}:{port}").parse().unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr()).await.unwrap()
    }

    async fn interrupt(mut self) -> std::process::ExitStatus {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap();
        assert!(sent.success());
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap()
            .unwrap()
    }
}

/// Begins as libpq does, and reads the start-up message that comes back.
async fn begin(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    stream.write_all(&SSL_REQUEST).await.unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"N");
    stream.write_all(STARTUP).await.unwrap();
    let mut echoed = vec![0; STARTUP.len()];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, STARTUP);
}

/// What a connection is told before it is closed.
async fn told(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let reading = stream.read_to_end(&mut said);
    tokio::time::timeout(PATIENCE, reading)
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn programs_without_a_certificate_get_to_the_database_and_one_end_can_close_first() {
    let machine = Machine::logged_in().await;
    let tunnel = Tunnel::open(&machine, &[]).await;
    assert_eq!(tunnel.opened["user"], "reader");
    for _ in 0..2 {
        let mut client = tunnel.connect().await;
        begin(&mut client).await;
        client.write_all(b"until here").await.unwrap();
        client.shutdown().await.unwrap();
        // The other direction stays open until the database closes it.
        assert_eq!(told(client).await, "until herethe end");
    }
    assert_eq!(
        machine.fake.state().issued.len(),
        1,
        "a good certificate is shown again"
    );
    let issued = machine.fake.state().issued[0].clone();
    assert_eq!(
        (issued.db_user, issued.db_name),
        ("reader".into(), "dev".into())
    );
    assert!(tunnel.interrupt().await.success());
}

#[tokio::test]
async fn a_request_to_cancel_goes_to_the_proxy_as_it_came() {
    let machine = Machine::logged_in().await;
    let tunnel = Tunnel::open(&machine, &[]).await;
    let mut client = tunnel.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    assert_eq!(told(client).await, "");
    assert_eq!(machine.fake.state().cancels, [CANCEL]);
}

#[tokio::test]
async fn beyond_its_bound_a_tunnel_turns_clients_away_until_one_leaves() {
    let machine = Machine::logged_in().await;
    let tunnel = Tunnel::open(&machine, &[]).await;
    let mut carried = Vec::new();
    for _ in 0..128 {
        let mut client = tunnel.connect().await;
        begin(&mut client).await;
        carried.push(client);
    }
    let mut client = tunnel.connect().await;
    client.write_all(STARTUP).await.unwrap();
    let said = told(client).await;
    assert!(
        said.contains("53300") && said.contains("128 connections"),
        "{said}"
    );
    // Ctrl-C is let through all the same.
    let mut client = tunnel.connect().await;
    client.write_all(&CANCEL).await.unwrap();
    assert_eq!(told(client).await, "");
    assert_eq!(machine.fake.state().cancels, [CANCEL]);

    let mut leaves = carried.pop().unwrap();
    leaves.shutdown().await.unwrap();
    assert_eq!(told(leaves).await, "the end");
    begin(&mut tunnel.connect().await).await;
}

#[tokio::test]
async fn a_new_login_is_used_for_the_next_connection_and_without_one_clients_are_told() {
    let machine = Machine::logged_in().await;
    let mut tunnel = Tunnel::open(&machine, &[]).await;
    begin(&mut tunnel.connect().await).await;

    machine.login(&[]).await;
    begin(&mut tunnel.connect().await).await;
    assert_eq!(machine.fake.state().issued.len(), 2);

    machine.prints(&["logout"]).await;
    let mut client = tunnel.connect().await;
    client.write_all(STARTUP).await.unwrap();
    let said = told(client).await;
    assert!(
        said.contains("28000") && said.contains("not logged in"),
        "{said}"
    );
    assert!(said.contains("tg login --proxy="), "{said}");
    let mut remark = String::new();
    let reading = tunnel.remarks.read_line(&mut remark);
    tokio::time::timeout(PATIENCE, reading)
        .await
        .unwrap()
        .unwrap();
    assert!(remark.contains("Your login has ended"), "{remark}");
}

#[tokio::test]
async fn a_socket_is_in_a_folder_that_goes_with_the_tunnel() {
    let machine = Machine::logged_in().await;
    let tunnel = Tunnel::open(&machine, &["--socket"]).await;
    let socket = std::path::PathBuf::from(tunnel.opened["socket"].as_str().unwrap());
    assert!(socket.ends_with(".s.PGSQL.5432"), "{socket:?}");
    begin(&mut UnixStream::connect(&socket).await.unwrap()).await;
    assert!(tunnel.interrupt().await.success());
    assert!(!socket.parent().unwrap().exists());
}

#[tokio::test]
async fn a_port_in_use_and_a_public_address_are_told() {
    let machine = Machine::logged_in().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("--port={}", taken.local_addr().unwrap().port());
    let proxy = [
        "proxy",
        "db",
        "orders",
        "--tunnel",
        "--db-user=a",
        "--db-name=b",
        &port,
    ];
    let (code, errors) = machine.fails(&proxy).await;
    assert_eq!(code, 1);
    assert!(
        errors.contains("choose another port with --port"),
        "{errors}"
    );

    let mut open = Tunnel::open(&machine, &["--listen=0.0.0.0"]).await;
    let mut remark = String::new();
    open.remarks.read_line(&mut remark).await.unwrap();
    assert!(
        remark.starts_with("WARNING: 0.0.0.0 is not this machine alone"),
        "{remark}"
    );
}

#[tokio::test]
async fn nothing_runs_on_several_databases_before_somebody_said_yes() {
    let machine = Machine::logged_in().await;
    let exec = ["db", "exec", "SELECT 1", "--labels=env=prod", "--db-user=a"];
    let (code, errors) = machine.fails(&exec).await;
    assert_eq!(code, 2);
    assert!(
        errors.contains("This runs on 1 database:\n\n    orders\n"),
        "{errors}"
    );
    assert!(errors.contains("add --yes"), "{errors}");
    let (code, errors) = machine
        .fails(&[
            "db",
            "exec",
            "SELECT 1",
            "--dbs=orders",
            "--parallel=2",
            "-y",
        ])
        .await;
    assert_eq!(code, 2);
    assert!(errors.contains("--output-dir"), "{errors}");
    assert_eq!(machine.fake.state().issued, []);
}

#[tokio::test]
async fn every_database_is_in_the_summary_and_one_that_failed_fails_the_command() {
    let machine = Machine::logged_in().await;
    // Stands for psql: it says where it was told to connect, and fails where it says so.
    let psql = machine.path("psql");
    std::fs::write(
        &psql,
        "#!/bin/sh\nfor word in \"$@\"; do echo \"$word\"; done\nif [ -e \"$HOME/bad\" ]; then exit 3; fi\n: > \"$HOME/bad\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&psql, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let out = machine.path("out");
    let into = format!("--output-dir={}", out.display());
    let exec = [
        "db",
        "exec",
        "SELECT 1",
        "--dbs=orders,my-redshift,orders",
        "--db-user=a",
        "--db-name=b",
        "--yes",
        &into,
    ];
    let (code, errors) = machine.fails(&exec).await;
    assert_eq!(code, 1);
    assert!(errors.contains("1 of 2 databases failed"), "{errors}");
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let outcomes: Vec<(&str, &str)> = summary["databases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["database"].as_str().unwrap(),
                one["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [("orders", "succeeded"), ("my-redshift", "failed")]
    );
    let said = std::fs::read_to_string(out.join("orders.output")).unwrap();
    assert!(said.contains("sslmode=disable user=a dbname=b"), "{said}");

    // Nothing is written over.
    let (_, errors) = machine.fails(&exec).await;
    assert!(
        errors.contains("a folder that is not there yet"),
        "{errors}"
    );
}
