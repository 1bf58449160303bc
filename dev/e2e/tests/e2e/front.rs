//! The ways in for stock clients: what `tg db config` and `tg db env` write, tunnels on the own machine, statements on
//! several databases at once.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use tidegate_e2e::{
    Lab, Part,
    lab::{Person, words},
    wait,
};
use tidegate_proto::v1;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{main_job::world, mysql::with_shop};

const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
/// A database, as people call it.
const DATABASE: &str = "analytics";
/// A folder that nobody should choose: what it holds means something in every format there is.
const NASTY: &str = "it's a \"home\" {x};y=%41+&#?";
const QUERY: &str = "SELECT 40 + 2, current_user";

/// Somebody whose profile is in a folder with such a name, logged in to the database.
struct Nasty<'l> {
    lab: &'l Lab,
    person: Person,
    home: PathBuf,
}

impl<'l> Nasty<'l> {
    async fn new(lab: &'l Lab) -> Result<Self> {
        let person = lab.person("alice", "*", "*").await?;
        let home = person.home().join(NASTY);
        copy(&person.home().join(".tidegate"), &home)?;
        let nasty = Self { lab, person, home };
        nasty
            .says(&["db", "login", DATABASE, "--db-user=reader", "--db-name=dev"])
            .await?;
        Ok(nasty)
    }

    async fn says(&self, args: &[&str]) -> Result<String> {
        let mut command = self.lab.tg_command(&self.person, args)?;
        let output = command.env("TIDEGATE_HOME", &self.home).output().await?;
        ensure!(output.status.success(), "tg {args:?}: {}", words(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn config(&self, format: &str) -> Result<String> {
        let format = format!("--format={format}");
        let text = self.says(&["db", "config", DATABASE, &format]).await?;
        Ok(text.trim_end().to_owned())
    }

    /// What a program says, started where the person's files of programs are.
    async fn client(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("HOME", self.person.home())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.context(program.to_owned())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn answered(client: &str, output: &Output) -> Result<()> {
    let text = words(output);
    ensure!(
        output.status.success() && text.contains("42") && text.contains("reader"),
        "{client}: {text}"
    );
    Ok(())
}

#[tokio::test]
async fn psql_connects_by_url_command_environment_and_service() -> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    let nasty = Nasty::new(&lab).await?;
    let url = nasty.config("url").await?;
    answered(
        "url",
        &nasty.client("psql", &["-XAt", "-c", QUERY, &url]).await?,
    )?;
    for format in ["psql", "cmd"] {
        let script = format!("{} -XAt -c '{QUERY}'", nasty.config(format).await?);
        answered(format, &nasty.client("sh", &["-c", &script]).await?)?;
    }
    let exports = nasty.says(&["db", "env", DATABASE]).await?;
    let script = format!("{exports}\nexec psql -XAt -c '{QUERY}'");
    answered("env", &nasty.client("sh", &["-c", &script]).await?)?;
    let services = std::fs::read_to_string(nasty.person.home().join(".pg_service.conf"))?;
    let section = services.lines().next().context("no section")?;
    let service = format!("service={}", section.trim_matches(['[', ']']));
    answered(
        "service",
        &nasty
            .client("psql", &["-XAt", "-c", QUERY, &service])
            .await?,
    )?;
    lab.stop().await
}

#[tokio::test]
#[ignore = "needs Debian's python3-psycopg2, python3-psycopg, unixodbc, odbc-postgresql, libpostgresql-jdbc-java and a JDK"]
async fn drivers_connect_by_what_config_writes() -> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    let nasty = Nasty::new(&lab).await?;

    let python = nasty.config("python").await?;
    for module in ["psycopg", "psycopg2 as psycopg"] {
        let snippet = python.replace("import psycopg  #", &format!("import {module}  #"));
        let script = format!(
            "{snippet}\ncursor = connection.cursor()\ncursor.execute('{QUERY}')\nprint(cursor.fetchall())"
        );
        answered(
            module,
            &nasty.client("/usr/bin/python3", &["-c", &script]).await?,
        )?;
    }

    let odbc = nasty.config("odbc").await?;
    let sql = lab.dir().join("query.sql");
    std::fs::write(&sql, format!("{QUERY}\n"))?;
    let script = format!("isql -k -b \"$0\" < {}", sql.display());
    answered("odbc", &nasty.client("sh", &["-c", &script, &odbc]).await?)?;

    let jdbc = nasty.config("jdbc").await?;
    let host = jdbc
        .split(['/', ':'])
        .find(|part| part.contains(".db."))
        .context("no host")?;
    let hosts = lab.dir().join("java-hosts");
    let proxy = lab.proxy_addr();
    let (ip, _) = proxy.rsplit_once(':').context("no port")?;
    std::fs::write(&hosts, format!("{ip} {host}\n"))?;
    let source = lab.dir().join("Query.java");
    std::fs::write(
        &source,
        "import java.sql.*;\npublic class Query { public static void main(String[] a) throws Exception {\n\
         try (Connection c = DriverManager.getConnection(a[0]); ResultSet r = c.createStatement().executeQuery(a[1])) {\n\
         r.next(); System.out.println(r.getInt(1) + \" \" + r.getString(2)); } } }\n",
    )?;
    let output = nasty
        .client(
            "java",
            &[
                &format!("-Djdk.net.hosts.file={}", hosts.display()),
                "-cp",
                "/usr/share/java/postgresql.jar",
                &source.display().to_string(),
                &jdbc,
                QUERY,
            ],
        )
        .await?;
    answered("jdbc", &output)?;
    lab.stop().await
}

/// A `tg proxy db` that runs.
struct Door {
    child: Child,
    opened: serde_json::Value,
}

impl Door {
    async fn open(lab: &Lab, person: &Person, args: &[&str]) -> Result<Self> {
        let args = [&["proxy", "db", "--tunnel", "--format=json"], args].concat();
        let mut child = lab.tg_command(person, &args)?.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?);
        let mut document = String::new();
        loop {
            if lines.read_line(&mut document).await? == 0 {
                let output = child.wait_with_output().await?;
                anyhow::bail!("tg {args:?}: {}", words(&output));
            }
            if let Ok(opened) = serde_json::from_str(&document) {
                return Ok(Self { child, opened });
            }
        }
    }

    fn psql(&self) -> Result<Command> {
        let text = |name: &str| self.opened[name].as_str().context(name.to_owned());
        let mut command = Command::new("psql");
        command
            .args(["-X", "-A", "-t", "-d"])
            .arg(format!(
                "host={} port={} user={} dbname={}",
                text("host")?,
                self.opened["port"],
                text("user")?,
                text("database")?
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }
}

fn interrupt(child: &Child) -> Result<()> {
    let id = child.id().context("it has ended")?.to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status()?;
    ensure!(sent.success(), "kill: {sent}");
    Ok(())
}

#[tokio::test]
async fn a_tunnel_serves_programs_without_certificates_cancels_and_outlives_the_proxy() -> Result<()>
{
    let mut lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let args = [DATABASE, "--db-user=reader", "--db-name=dev"];
    let door = Door::open(&lab, &alice, &args).await?;
    answered("psql", &door.psql()?.args(["-c", QUERY]).output().await?)?;

    // Ctrl-C in a stock psql stops the statement, not the session.
    let script = "SELECT pg_sleep(60); SELECT 'still ' || 'here'";
    let statements: Vec<&str> = script.split("; ").collect();
    let busy = door
        .psql()?
        .args(["-c", statements[0], "-c", statements[1]])
        .spawn()?;
    wait::until("the statement to run", || async {
        let events = lab.audit("db.session.query").await;
        let events = events.map_err(|error| format!("{error:#}"))?;
        let runs = |event: &v1::AuditEvent| event.fields["db_query"].contains("pg_sleep");
        if events.iter().any(runs) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await?;
    interrupt(&busy)?;
    let output = busy.wait_with_output().await?;
    ensure!(
        words(&output).contains("canceling statement due to user request"),
        "{}",
        words(&output)
    );

    // Without --tunnel the client shows its certificate itself, and is told how.
    let args = ["proxy", "db", DATABASE, "--db-user=reader", "--db-name=dev"];
    let mut plain = lab.tg_command(&alice, &args)?.spawn()?;
    let mut lines = BufReader::new(plain.stdout.take().context("no output")?).lines();
    let told = loop {
        let line = lines.next_line().await?.context("no command was told")?;
        if line.trim_start().starts_with("psql ") {
            break line;
        }
    };
    let script = format!("{told} -XAt -c '{QUERY}'");
    answered(
        "sh",
        &Command::new("sh").args(["-c", &script]).output().await?,
    )?;
    interrupt(&plain)?;
    let ended = plain.wait().await?;
    ensure!(ended.success(), "{ended}");

    // Somebody else on the machine is told to open a door of his own.
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        let mut theirs = door.psql()?;
        let output = theirs.uid(65_534).args(["-c", QUERY]).output().await?;
        ensure!(
            !output.status.success() && words(&output).contains("of the user who opened it"),
            "{}",
            words(&output)
        );
    }

    lab.kill_part(Part::Proxy).await?;
    let output = door.psql()?.args(["-c", QUERY]).output().await?;
    ensure!(
        words(&output).contains("cannot reach the database through the proxy"),
        "{}",
        words(&output)
    );
    lab.start_part(Part::Proxy).await?;
    wait::until("the tunnel to work again", || async {
        let mut psql = door.psql().map_err(|error| format!("{error:#}"))?;
        let output = psql.args(["-c", QUERY]).output().await;
        let output = output.map_err(|error| error.to_string())?;
        answered("psql", &output).map_err(|error| format!("{error:#}"))
    })
    .await?;
    interrupt(&door.child)?;
    let ended = door.child.wait_with_output().await?;
    ensure!(ended.status.success(), "{}", words(&ended));
    lab.stop().await
}

#[tokio::test]
async fn a_tunnel_on_a_port_serves_the_stock_client_of_mysql() -> Result<()> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
    let lab = Lab::start_in(with_shop()?, &parts).await?;
    lab.wait_for_servers(&["shop"], 1).await?;
    let alice = lab.person("alice", "reader", "*").await?;
    // The only user that the roles allow needs no naming.
    let door = Door::open(&lab, &alice, &["shop", "--db-name=sales"]).await?;
    ensure!(door.opened["user"] == "reader", "{}", door.opened);
    let port = format!("--port={}", door.opened["port"]);
    let sql = "SELECT 40 + 2, substring_index(user(), '@', 1)";
    let output = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--host=127.0.0.1",
            &port,
            "--user=reader",
            "--batch",
            "-e",
            sql,
            "sales",
        ])
        .output()
        .await?;
    answered("mariadb", &output)?;
    interrupt(&door.child)?;
    let ended = door.child.wait_with_output().await?;
    ensure!(ended.status.success(), "{}", words(&ended));
    lab.stop().await
}

#[tokio::test]
async fn a_statement_runs_on_several_databases_and_each_outcome_is_told() -> Result<()> {
    let lab = Lab::start_in(with_shop()?, &PARTS).await?;
    lab.wait_for_servers(&[DATABASE, "shop"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let dir = lab.dir().join("out");
    let into = format!("--output-dir={}", dir.display());
    let both = format!("--dbs={DATABASE},shop");
    let exec = |sql: &'static str| {
        ["db", "exec", sql, &both, "--db-user=reader", "--yes"].map(str::to_owned)
    };

    let args = exec("SELECT 40 + 2");
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--parallel=2", &into]);
    let output = lab.tg(&alice, &args).await?;
    ensure!(output.status.success(), "{}", words(&output));
    let summary = std::fs::read_to_string(dir.join("summary.json"))?;
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    ensure!(
        summary["succeeded"] == 2 && summary["failed"] == 0,
        "{summary}"
    );
    for entry in summary["databases"].as_array().context("no databases")? {
        let path = entry["output"].as_str().context("no file")?;
        ensure!(std::fs::read_to_string(path)?.contains("42"), "{entry}");
    }

    // What one speaks the other does not: each is told by itself, and the whole has failed.
    let args = exec("SELECT current_catalog");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = lab.tg(&alice, &args).await?;
    let said = words(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("1 of 2 databases failed") && said.contains("dev"),
        "{said}"
    );

    // Ctrl-C stops the statement that runs, and begins no other.
    let dir = lab.dir().join("cut");
    let into = format!("--output-dir={}", dir.display());
    let sleep = [
        "db",
        "exec",
        "SELECT pg_sleep(60)",
        &both,
        "--db-user=reader",
        "--yes",
        &into,
    ];
    let running = lab.tg_command(&alice, &sleep)?.spawn()?;
    wait::until("the statement to run", || async {
        let events = lab.audit("db.session.query").await;
        let events = events.map_err(|error| format!("{error:#}"))?;
        let runs = |event: &v1::AuditEvent| event.fields["db_query"].contains("pg_sleep");
        if events.iter().any(runs) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await?;
    interrupt(&running)?;
    let output = running.wait_with_output().await?;
    ensure!(output.status.code() == Some(1), "{}", words(&output));
    let summary = std::fs::read_to_string(dir.join("summary.json"))?;
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    ensure!(
        summary["databases"][0]["outcome"] == "interrupted"
            && summary["databases"][1]["outcome"] == "not_run",
        "{summary}"
    );
    lab.stop().await
}
