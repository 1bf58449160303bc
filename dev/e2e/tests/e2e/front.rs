//! The ways in for stock clients: what `tg db config` and `tg db env` write, tunnels on the own machine, statements on
//! several databases at once.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use tidegate_e2e::{
    Lab, Part,
    lab::{Person, words},
};
use tokio::process::Command;

use crate::main_job::world;

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
