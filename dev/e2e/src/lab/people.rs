//! People of the laboratory: signed up by `tgctl`, logged in by `tg`, asking with a stock `psql`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{Lab, Part, program};
use crate::wait;

/// The password of everybody in the laboratory.
pub const PASSWORD: &str = "correct horse battery staple";

/// Somebody with a home folder and a login.
#[derive(Debug)]
pub struct Person {
    name: String,
    home: PathBuf,
}

impl Person {
    /// The person's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the person's profile.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }
}

impl Lab {
    /// The environment that `tg db env` gives a stock client.
    ///
    /// # Errors
    ///
    /// When `tg` fails.
    pub async fn client_environment(
        &self,
        person: &Person,
        database: &str,
        db_user: &str,
    ) -> Result<BTreeMap<String, String>> {
        let db_user = format!("--db-user={db_user}");
        let login = self
            .tg(
                person,
                &["db", "login", database, &db_user, "--db-name=dev"],
            )
            .await?;
        ensure!(login.status.success(), "tg db login: {}", words(&login));
        let output = self
            .tg(person, &["db", "env", database, "--format=json"])
            .await?;
        ensure!(output.status.success(), "tg db env: {}", words(&output));
        serde_json::from_slice(&output.stdout)
            .context("`tg db env` printed no JSON object of strings")
    }

    /// Runs `tgctl` on the auth host; its standard output.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub async fn tgctl(&self, args: &[&str]) -> Result<String> {
        let output = self.tgctl_with(args, BTreeMap::new()).await?;
        succeeded("tgctl", args, output)
    }

    /// Runs `tgctl` on the auth host, with more in its environment.
    ///
    /// # Errors
    ///
    /// When it cannot be started; how it ended is in the output.
    pub async fn tgctl_with(
        &self,
        args: &[&str],
        environment: BTreeMap<String, String>,
    ) -> Result<Output> {
        let data_dir = self.data_dir(self.auth());
        let mut command = Command::new(program("tgctl")?);
        command
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .env("RUST_BACKTRACE", "0")
            .envs(environment)
            .kill_on_drop(true);
        Ok(command.output().await?)
    }

    /// Creates a user who may be these database users, and logs in as them.
    ///
    /// # Errors
    ///
    /// When either does not work.
    pub async fn person(&self, name: &str, db_users: &str, db_names: &str) -> Result<Person> {
        let args = [
            "users".to_owned(),
            "add".to_owned(),
            "--roles=access".to_owned(),
            format!("--db-users={db_users}"),
            format!("--db-names={db_names}"),
            "--format=json".to_owned(),
            name.to_owned(),
        ];
        let answer = self
            .tgctl(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .await?;
        let answer: Value = serde_json::from_str(&answer)
            .with_context(|| format!("`tgctl users add` printed {answer}"))?;
        let token = answer["signup_token"]
            .as_str()
            .context("no sign-up token")?
            .to_owned();
        let person = Person {
            name: name.to_owned(),
            home: self.dir.path().join(format!("home-{name}")),
        };
        std::fs::create_dir_all(&person.home)?;
        self.login(&person, Some(&token)).await?;
        Ok(person)
    }

    /// Logs a person in, the first time with the sign-up token.
    ///
    /// # Errors
    ///
    /// When `tg login` fails.
    pub async fn login(&self, person: &Person, token: Option<&str>) -> Result<String> {
        let mut args = vec![
            "login".to_owned(),
            format!("--proxy={}", self.proxy_addr()),
            format!("--user={}", person.name),
            format!("--ca-pin={}", self.ca_pin),
            "--password-stdin".to_owned(),
        ];
        args.extend(token.map(|token| format!("--token={token}")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        wait::until("the proxy", || async {
            let output = self
                .tg_with_input(person, &args, &format!("{PASSWORD}\n"))
                .await
                .map_err(|error| format!("{error:#}"))?;
            if output.status.success() {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            } else {
                Err(words(&output))
            }
        })
        .await
        .with_context(|| self.log(Part::Proxy))
    }

    /// Runs `tg` as a person.
    ///
    /// # Errors
    ///
    /// When it cannot be started; how it ended is in the output.
    pub async fn tg(&self, person: &Person, args: &[&str]) -> Result<Output> {
        self.tg_with_input(person, args, "").await
    }

    /// `tg` as a person, with its input and outputs piped.
    ///
    /// # Errors
    ///
    /// When the program is not there.
    pub fn tg_command(&self, person: &Person, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("tg")?);
        command
            .args(args)
            .env("HOME", &person.home)
            .env("TIDEGATE_HOME", person.home.join(".tidegate"))
            .env("RUST_BACKTRACE", "0")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs `tg` as a person who types this.
    ///
    /// # Errors
    ///
    /// When it cannot be started; how it ended is in the output.
    pub async fn tg_with_input(
        &self,
        person: &Person,
        args: &[&str],
        input: &str,
    ) -> Result<Output> {
        use tokio::io::AsyncWriteExt;
        let mut child = self
            .tg_command(person, args)?
            .spawn()
            .context("could not start tg")?;
        let mut stdin = child.stdin.take().context("tg has no input")?;
        stdin.write_all(input.as_bytes()).await.ok(); // tg may have ended without reading
        drop(stdin);
        Ok(child.wait_with_output().await?)
    }

    /// Runs one statement with `psql` through `tg db connect`; the rows, unaligned, one a line.
    ///
    /// # Errors
    ///
    /// When psql fails, with what it said.
    pub async fn query(
        &self,
        person: &Person,
        database: &str,
        db_user: &str,
        statement: &str,
    ) -> Result<String> {
        let db_user = format!("--db-user={db_user}");
        let args = [
            "db",
            "connect",
            database,
            &db_user,
            "--db-name=dev",
            "--",
            "-X",
            "-A",
            "-t",
            "-c",
            statement,
        ];
        let output = self.tg(person, &args).await?;
        ensure!(output.status.success(), "{}", words(&output));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// What a program said on both outputs.
#[must_use]
pub fn words(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn succeeded(program: &str, args: &[&str], output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        words(&output)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
