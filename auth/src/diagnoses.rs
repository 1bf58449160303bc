//! Questions to agents that run, and their answers: the doctor, asked from anywhere.
//!
//! A question is a record under the agent's key, which lives with a lease. Whichever instance has the agent's stream sees
//! it, takes it and writes the answer beside it, and the instance that was asked sees that: instances know nothing of each
//! other, as ever. Both are gone when the question has been answered, or with the lease.
//!
//! Invariant: an agent has one question at a time, and only the agent that a question is for can answer it.
//!
//! Not here: what may be asked and how long is waited ([`exchange`]), what a diagnosis is ([`tidegate_core::doctor`]), and
//! who may ask (`grpc::guard`).

mod exchange;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use tidegate_identity::secret;
use tidegate_proto::{Invalid, v1};
use tidegate_service::{rpc::Backoff, tasks::ShutdownToken};
use tokio::sync::{Semaphore, mpsc};

pub(crate) use exchange::DiagnoseError;
use exchange::{Told, answer, checked};

use crate::{
    audit::{AuditLog, event},
    inventory::Inventory,
    keys,
    record::{decode, encode},
    store::{CommitError, Entry, RangeQuery, Store, StoreUnavailable, Txn, WatchError, Watched},
};

/// How long a question lives when nobody takes it back.
const LEASE: Duration = Duration::from_secs(130);
/// Questions that one instance waits for at once.
const WAITING_MAX: usize = 16;
/// Questions on their way to one agent: it has one at a time.
const OUTGOING_MAX: usize = 1;
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 128 * 1024;
/// Random bytes that name a question.
const ID_BYTES: usize = 16;
/// The service whose agents are asked.
const SERVICE: &str = "db";

/// A question on its way to an agent.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Names it.
    pub(crate) id: String,
    /// What is asked.
    pub(crate) question: v1::DiagnoseRequest,
}

/// Who is at this instance: agents that take questions, and callers that wait for answers.
#[derive(Default)]
struct Here {
    agents: HashMap<String, (u64, mpsc::Sender<Asked>)>,
    waiting: HashMap<String, mpsc::Sender<Told>>,
    /// Streams so far, so that one that ends does not take the place of a newer one.
    streams: u64,
}

/// Carries questions and answers.
pub(crate) struct Diagnoses {
    store: Arc<dyn Store>,
    inventory: Arc<Inventory>,
    audit: AuditLog,
    here: Mutex<Here>,
    places: Semaphore,
}

/// An agent's place among those that take questions here; given up when it is dropped. A newer stream of the same host
/// takes it over, and this one's questions end.
pub(crate) struct Agent {
    diagnoses: Arc<Diagnoses>,
    host: String,
    stream: u64,
    /// The questions.
    pub(crate) questions: mpsc::Receiver<Asked>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut here = self.diagnoses.here();
        if here
            .agents
            .get(&self.host)
            .is_some_and(|(stream, _)| *stream == self.stream)
        {
            here.agents.remove(&self.host);
        }
    }
}

/// A caller's place among those that wait; given up when it is dropped.
struct Waiting<'d> {
    diagnoses: &'d Diagnoses,
    id: String,
    told: mpsc::Receiver<Told>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.diagnoses.here().waiting.remove(&self.id);
    }
}

impl Diagnoses {
    /// Nobody has asked anything yet.
    pub(crate) fn new(store: Arc<dyn Store>, inventory: Arc<Inventory>, audit: AuditLog) -> Self {
        Self {
            store,
            inventory,
            audit,
            here: Mutex::default(),
            places: Semaphore::new(WAITING_MAX),
        }
    }

    /// Asks an agent, and waits for its answer.
    pub(crate) async fn ask(
        &self,
        actor: &str,
        question: v1::DiagnoseRequest,
    ) -> Result<v1::Diagnosis, DiagnoseError> {
        let question = checked(question)?;
        let host = question.host_id.clone();
        if !self.is_up(&host) {
            return Err(DiagnoseError::NotUp { host });
        }
        let what = || "this auth service".to_owned();
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| DiagnoseError::Busy { what: what() })?;
        self.tell(actor, &question);
        let mut waiting = self.wait_for(&host)?;
        let lease = self.store.grant(LEASE).await?;
        let key = keys::question(&host);
        let record = v1::ServeDiagnosesResponse {
            id: waiting.id.clone(),
            question: Some(question),
        };
        let txn = Txn::new()
            .absent(key.clone())
            .put_with(key, encode(&record), Some(lease));
        let answered = match self.store.commit(txn).await {
            Ok(_) => answer(&mut waiting.told, &host).await,
            Err(CommitError::Conflict { .. }) => Err(DiagnoseError::Busy {
                what: format!("agent `{host}`"),
            }),
            Err(other) => Err(other.into()),
        };
        // It ends by itself otherwise.
        if let Err(error) = self.store.revoke(lease).await {
            tracing::warn!(error = %error, "could not take a question back");
        }
        answered
    }

    /// Whether an agent of this host id is up, as far as presence tells.
    fn is_up(&self, host: &str) -> bool {
        let hosts = self.inventory.hosts();
        hosts
            .iter()
            .any(|((id, service), _)| id == host && service == SERVICE)
    }

    fn wait_for(&self, host: &str) -> Result<Waiting<'_>, DiagnoseError> {
        let id = secret::random_bytes::<ID_BYTES>().map_err(|_| DiagnoseError::NotTaken {
            host: host.to_owned(),
        })?;
        let id = secret::hex(&id);
        // Taken, and answered.
        let (sender, told) = mpsc::channel(2);
        self.here().waiting.insert(id.clone(), sender);
        Ok(Waiting {
            diagnoses: self,
            id,
            told,
        })
    }

    /// An agent takes questions here from now on.
    pub(crate) async fn serve(self: &Arc<Self>, host: &str) -> Result<Agent, StoreUnavailable> {
        let (sender, questions) = mpsc::channel(OUTGOING_MAX);
        let stream = {
            let mut here = self.here();
            here.streams += 1;
            let stream = here.streams;
            here.agents.insert(host.to_owned(), (stream, sender));
            stream
        };
        let agent = Agent {
            diagnoses: self.clone(),
            host: host.to_owned(),
            stream,
            questions,
        };
        // One may have been asked while the agent was on its way here.
        if let Some(entry) = self.store.get(keys::question(host)).await? {
            self.hand_over(host, &entry);
        }
        Ok(agent)
    }

    /// The agent says that it has the question.
    pub(crate) async fn taken(&self, host: &str, id: &str) -> Result<(), DiagnoseError> {
        self.write(host, id, v1::DiagnosisAnswer::default()).await
    }

    /// The agent's answer. One to a question that is gone is nobody's loss.
    pub(crate) async fn answered(
        &self,
        host: &str,
        answer: v1::DiagnosisAnswer,
    ) -> Result<(), DiagnoseError> {
        if answer.encoded_len() > ANSWER_BYTES_MAX {
            let problem = format!("is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(Invalid::new("answer", problem).into());
        }
        if answer.diagnosis.is_none() {
            return Err(Invalid::new("answer.diagnosis", "is missing").into());
        }
        let id = answer.id.clone();
        self.write(host, &id, answer).await
    }

    /// Writes beside the question, if it is still this one.
    async fn write(
        &self,
        host: &str,
        id: &str,
        answer: v1::DiagnosisAnswer,
    ) -> Result<(), DiagnoseError> {
        let key = keys::question(host);
        let Some(question) = self.store.get(key.clone()).await? else {
            return Ok(());
        };
        if read(&question).is_none_or(|asked| asked.id != id) {
            return Ok(());
        }
        let answer = v1::DiagnosisAnswer {
            id: id.to_owned(),
            ..answer
        };
        let txn = Txn::new().at(key, question.modified).put_with(
            keys::diagnosis(host),
            encode(&answer),
            question.lease,
        );
        match self.store.commit(txn).await {
            // Nobody waits for it any more.
            Ok(_) | Err(CommitError::Conflict { .. } | CommitError::LeaseGone { .. }) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// Carries until shutdown.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: ShutdownToken) {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow_watch(&mut backoff) => ended,
            };
            let Err(error) = ended;
            tracing::warn!(error = %error, "cannot follow questions to agents, starting again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    async fn follow_watch(&self, backoff: &mut Backoff) -> Result<Infallible, WatchError> {
        let page = self
            .store
            .range(RangeQuery::prefix(keys::DIAGNOSES))
            .await?;
        for entry in &page.entries {
            self.pass_on(entry);
        }
        let prefix = Bytes::from_static(keys::DIAGNOSES.as_bytes());
        let mut watch = self.store.watch(prefix, page.revision).await?;
        backoff.reset();
        loop {
            if let Watched::Batch(batch) = watch.next().await.unwrap_or(Err(WatchError::Closed))? {
                for change in batch.changes {
                    if let Some(entry) = &change.current {
                        self.pass_on(entry);
                    }
                }
            }
        }
    }

    /// To the agent or to the caller that is here; to nobody when neither is.
    fn pass_on(&self, entry: &Entry) {
        if let Some(host) = keys::name_under(keys::QUESTIONS, &entry.key) {
            self.hand_over(host, entry);
            return;
        }
        let Ok(answer) = decode::<v1::DiagnosisAnswer>(entry) else {
            return;
        };
        let told = match answer.diagnosis {
            Some(diagnosis) => Told::Answered(Box::new(diagnosis)),
            None => Told::Taken,
        };
        if let Some(waiting) = self.here().waiting.get(&answer.id) {
            // Told twice, after the watch began anew, there may be no room: the caller knows already.
            let _ = waiting.try_send(told);
        }
    }

    fn hand_over(&self, host: &str, entry: &Entry) {
        let Some(asked) = read(entry) else { return };
        if let Some((_, agent)) = self.here().agents.get(host) {
            // There is no room only while one is on its way already: this one, told again.
            let _ = agent.try_send(asked);
        }
    }

    fn tell(&self, actor: &str, question: &v1::DiagnoseRequest) {
        let mut made = event::new(event::DB_DIAGNOSE);
        actor.clone_into(&mut made.user);
        made.db_service.clone_from(&question.database);
        made.db_user.clone_from(&question.db_user);
        made.db_name.clone_from(&question.db_name);
        made.fields
            .insert("host_id".to_owned(), question.host_id.clone());
        self.audit.record(made);
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        // Entries are put and taken whole: a panic elsewhere leaves none half-made.
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(entry: &Entry) -> Option<Asked> {
    let record = decode::<v1::ServeDiagnosesResponse>(entry).ok()?;
    Some(Asked {
        id: record.id,
        question: record.question?,
    })
}
