//! The doctor: walks the way of a session from an agent to a database, step by step, and says where it ends and why.
//!
//! It goes the way that sessions go, with their code, and does on it nothing that a session does not do: it logs in, asks
//! `SELECT 1`, and hangs up. What it is told by AWS it asks anew: nothing that the agent keeps is used.
//!
//! Invariant: a diagnosis holds no secret, and no step is taken behind one that failed.
//!
//! Not here: what a diagnosis is ([`tidegate_core::doctor`]), and who may ask for one (the auth service).

mod aws;
mod evidence;
mod handshake;
pub(crate) mod live;
mod login;
mod minting;
mod mysql;
mod network;
mod own;
mod serving;
mod shown;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_aws::AwsFactory;
use tidegate_core::{
    Database, DatabaseKind, DatabaseName, Diagnosis, ErrorCode, Problem, Protocol,
    aws_session::SessionNaming,
    doctor::{Ladder, StepName, Stop, Verdict, Who},
};
use tidegate_service::{clock::SharedClock, settings::DatabaseSettings};

use tokio::sync::watch;

use evidence::Looker;

use crate::{
    CA_BUNDLES_FOLDER,
    credentials::{LoginPlan, plan_login, session_tag},
    engine::{Connector, DbLogin, Upstream},
    metrics,
    trust::Trust,
    wanted::Wanted,
};

/// How long all steps together may take.
pub const EXAMINATION_MAX: Duration = Duration::from_secs(100);

/// Who the person is while the doctor looks: sessions of assumed roles are named after it as settings say.
const PERSON: &str = "tidegate-doctor";
/// How the database user is told when none was named.
const NO_USER: &str = "no database user";

/// What is to be looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The database.
    pub database: DatabaseName,
    /// The database user to log in as; without one no password is asked for and nobody logs in.
    pub db_user: Option<String>,
    /// The logical database; `None` is the one that its kind always has.
    pub db_name: Option<String>,
}

/// Looks into what keeps sessions from a database.
pub struct Doctor {
    aws: AwsFactory,
    connector: Connector,
    clock: SharedClock,
    host: String,
    looker: Arc<Looker>,
    naming: SessionNaming,
    trust: Arc<Trust>,
}

impl fmt::Debug for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doctor")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// What is decided before AWS is asked anything.
const ASKED: &str = "decide what to ask AWS for";

/// A database inside TLS, before any login.
enum Reached {
    Mysql(Box<mysql::Reached>),
    Postgres(Box<Upstream>),
}

/// Why the ladder ends early, or `Ok` at its end.
type Outcome<T> = Result<T, Verdict>;

impl Doctor {
    /// A doctor on `host` that looks as an agent with these settings; `data_dir` is where agents keep CA bundles. `aws` should
    /// be fresh: roles whose sessions it keeps are not assumed again.
    #[must_use]
    pub fn new(
        aws: AwsFactory,
        clock: SharedClock,
        host: impl Into<String>,
        settings: &DatabaseSettings,
        data_dir: &Path,
    ) -> Self {
        let folder = data_dir.join(CA_BUNDLES_FOLDER);
        let naming = settings.aws_session.clone();
        let unchanging = watch::Sender::new(settings.clone()).subscribe();
        let trust = Arc::new(Trust::new(folder, unchanging, Arc::clone(&clock)));
        Self::within(aws, clock, host, naming, trust, Arc::default())
    }

    /// A doctor inside an agent, which has its trust already, and asks IAM as seldom as all of the agent's doctors together
    /// may.
    pub(crate) fn within(
        aws: AwsFactory,
        clock: SharedClock,
        host: impl Into<String>,
        naming: SessionNaming,
        trust: Arc<Trust>,
        looker: Arc<Looker>,
    ) -> Self {
        Self {
            looker,
            naming,
            aws,
            connector: Connector::new(metrics::connect_seconds(), Arc::clone(&trust)),
            trust,
            clock,
            host: host.into(),
        }
    }

    /// Takes the steps as an agent with these settings, which `inventory` would tell of the database. It never fails: what
    /// goes wrong is the diagnosis. A repeat takes all steps again. Ends within [`EXAMINATION_MAX`].
    pub async fn examine(
        &self,
        settings: &DatabaseSettings,
        inventory: Option<&Database>,
        question: &Question,
    ) -> Diagnosis {
        let (statics, entries) = (&settings.databases, &settings.resources);
        let found = serving::find(statics, entries, &question.database, inventory);
        self.walk(found, question).await
    }

    /// Takes the steps for a database that was found, or not.
    pub(crate) async fn walk(&self, found: Result<Wanted, Stop>, question: &Question) -> Diagnosis {
        let mut ladder = Ladder::new();
        let database = found.as_ref().ok().map(|wanted| &*wanted.database);
        let db_name = question
            .db_name
            .clone()
            .unwrap_or_else(|| database.map_or("", default_name).to_owned());
        let climbing = self.climb(&mut ladder, found, question.db_user.as_deref(), &db_name);
        let verdict = match tokio::time::timeout(EXAMINATION_MAX, climbing).await {
            Ok(Ok(verdict) | Err(verdict)) => verdict,
            Err(_) => out_of_time(&mut ladder),
        };
        let db_user = question.db_user.as_deref().unwrap_or(NO_USER);
        ladder.end(
            (question.database.as_str(), db_user, &db_name, &self.host),
            verdict,
        )
    }

    async fn climb(
        &self,
        ladder: &mut Ladder,
        found: Result<Wanted, Stop>,
        db_user: Option<&str>,
        db_name: &str,
    ) -> Outcome<Verdict> {
        let begun = Instant::now();
        let served = found.and_then(|wanted| {
            serving::available(&wanted)?;
            let evidence = serving::describe(&wanted);
            Ok((wanted, evidence))
        });
        let wanted = note(ladder, StepName::Serve, "serve it", begun, served)?;
        let database = &wanted.database;
        let upstream = self.reach(ladder, database, db_name).await?;
        let Some(login) = self.credentials(ladder, &wanted, db_user, db_name).await? else {
            ladder.skipped(
                StepName::Login,
                "needs a database user: name one with --db-user",
            );
            return Ok(Verdict::ok(format!(
                "the way to `{}` is open; nobody logged in",
                database.name
            )));
        };
        let begun = Instant::now();
        let tried = match upstream {
            Reached::Mysql(reached) => mysql::try_login(database, *reached, &login).await,
            Reached::Postgres(upstream) => {
                login::try_login(database, *upstream, &login, db_name).await
            }
        };
        let what = format!("log in as {}", login.user);
        note(
            ladder,
            StepName::Login,
            what,
            begun,
            tried.map(|told| ((), told)),
        )?;
        Ok(Verdict::ok(format!(
            "sessions to `{}` can begin",
            database.name
        )))
    }

    /// Names, connection, TLS.
    async fn reach(
        &self,
        ladder: &mut Ladder,
        database: &Database,
        db_name: &str,
    ) -> Outcome<Reached> {
        let begun = Instant::now();
        let found = network::look_up(database).await;
        let what = format!("look up {}", database.uri.host());
        let addresses = note(ladder, StepName::Dns, what, begun, found)?;

        let begun = Instant::now();
        let connected = network::connect(database, &addresses).await;
        let what = format!("connect to port {}", database.uri.port());
        let stream = note(ladder, StepName::Tcp, what, begun, connected)?;

        let begun = Instant::now();
        let now = self.clock.now();
        let trusted = handshake::trusted(&self.trust, database).await;
        let shaken = match database.protocol {
            Protocol::Mysql => mysql::shake(&self.connector, database, stream, db_name, now)
                .await
                .map(|(reached, told)| (Reached::Mysql(Box::new(reached)), told)),
            Protocol::Postgres => handshake::shake(&self.connector, database, stream, now)
                .await
                .map(|(upstream, told)| (Reached::Postgres(Box::new(upstream)), told)),
        };
        let shaken = match shaken {
            Ok((reached, told)) => Ok((reached, [trusted, told].concat())),
            Err(stop) => Err(with_evidence(stop, &trusted)),
        };
        note(
            ladder,
            StepName::Tls,
            "verify its certificate",
            begun,
            shaken,
        )
    }

    /// What to log in with; `None` without a database user.
    async fn credentials(
        &self,
        ladder: &mut Ladder,
        wanted: &Wanted,
        db_user: Option<&str>,
        db_name: &str,
    ) -> Outcome<Option<DbLogin>> {
        // Without a user the roles up to the effective one are looked into all the same.
        let plan = plan_login(wanted, db_user.unwrap_or("nobody"), db_name);
        let plan = match plan {
            Ok(LoginPlan::Aws(plan)) => plan,
            Ok(LoginPlan::Trust { .. }) => {
                for step in [StepName::Credentials, StepName::Role, StepName::Mint] {
                    ladder.skipped(
                        step,
                        "not needed: the database is not in AWS, and has to trust this agent",
                    );
                }
                return Ok(db_user.map(|user| DbLogin {
                    user: user.to_owned(),
                    password: None,
                }));
            }
            Err(problem) => {
                let stop = unusable(&problem);
                return Err(ladder.failed(StepName::Credentials, ASKED, stop, Duration::ZERO));
            }
        };
        let session = session_tag(&self.naming, &plan, PERSON);
        let request = match minting::request(&self.aws, &plan).await {
            Ok(request) => request,
            Err(stop) => {
                return Err(ladder.failed(StepName::Credentials, ASKED, stop, Duration::ZERO));
            }
        };
        let own = self.identity(ladder, &request).await?;
        let hops = match (db_user, &wanted.effective.role) {
            (Some(_), _) => request.chain.hops().len(),
            (None, role) => usize::from(role.is_some()),
        };
        self.assume(ladder, hops, &own, &request, &session).await?;
        if db_user.is_none() {
            ladder.skipped(
                StepName::Mint,
                "needs a database user: name one with --db-user",
            );
            return Ok(None);
        }
        self.mint(ladder, &own, &request, &session).await.map(Some)
    }
}

/// Writes a step down, and goes on with what it gave.
fn note<T>(
    ladder: &mut Ladder,
    step: StepName,
    what: impl Into<String>,
    begun: Instant,
    outcome: Result<(T, Vec<String>), Stop>,
) -> Outcome<T> {
    match outcome {
        Ok((value, evidence)) => {
            ladder.passed(step, what, evidence, begun.elapsed());
            Ok(value)
        }
        Err(stop) => Err(ladder.failed(step, what, stop, begun.elapsed())),
    }
}

fn with_evidence(mut stop: Stop, before: &[String]) -> Stop {
    stop.evidence.splice(0..0, before.iter().cloned());
    stop
}

/// A database user, or a database, that cannot be logged in to whatever AWS says.
fn unusable(problem: &Problem) -> Stop {
    let who = match problem.code {
        ErrorCode::AccessDenied => Who::User,
        _ => Who::Operator,
    };
    let verdict = Verdict::new(problem.code, problem.message.clone(), who);
    let verdict = match &problem.hint {
        Some(hint) => verdict.how(hint.clone()),
        None => verdict,
    };
    Stop::new(verdict, problem.operator.clone())
}

fn out_of_time(ladder: &mut Ladder) -> Verdict {
    let seconds = EXAMINATION_MAX.as_secs();
    let verdict = Verdict::new(
        ErrorCode::AwsUnavailable,
        format!("the steps took more than {seconds} s together"),
        Who::Operator,
    )
    .how("look at the step that took long: a way to AWS or to the database drops what it carries");
    let stop = Stop::new(verdict, format!("not done within {seconds} s"));
    ladder.failed(ladder.behind(), "go on", stop, EXAMINATION_MAX)
}

/// The logical database that is always there; none is needed for MySQL.
const fn default_name(database: &Database) -> &'static str {
    match (database.protocol, database.kind) {
        (Protocol::Mysql, _) => "",
        (_, Some(DatabaseKind::Redshift | DatabaseKind::RedshiftServerless)) => "dev",
        _ => "postgres",
    }
}
