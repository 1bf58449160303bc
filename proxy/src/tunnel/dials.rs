//! Sessions that wait for an agent to dial back, by the token that introduces the connection.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tidegate_core::HostId;
use tokio::{net::TcpStream, sync::oneshot};

use super::agents::Agent;
use crate::opening::Token;

/// How an agent answered.
#[derive(Debug)]
pub(crate) enum Answered {
    /// With a connection.
    Connected(TcpStream),
    /// With a reason why not.
    Refused(String),
}

#[derive(Debug)]
struct Waiting {
    host_id: HostId,
    generation: u64,
    answer: oneshot::Sender<Answered>,
}

/// All dials in flight. Bounded by the number of sessions, each of which waits for one at a time.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    waiting: Mutex<HashMap<Token, Waiting>>,
}

impl Dials {
    /// Waits for a connection with this token. Forgotten when the answer is dropped.
    pub(crate) fn wait(&self, token: Token, agent: &Agent) -> Wait<'_> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            host_id: agent.host_id.clone(),
            generation: agent.generation,
            answer,
        };
        self.lock().insert(token, waiting);
        Wait {
            dials: self,
            token,
            answered,
        }
    }

    /// Hands a dialled-back connection to the session that waits for it. Nobody does, and it comes back, when the token
    /// is wrong, used, or another process's, or when its session gave up.
    pub(crate) fn connected(&self, token: Token, stream: TcpStream) -> Result<(), TcpStream> {
        let Some(waiting) = self.lock().remove(&token) else {
            return Err(stream);
        };
        match waiting.answer.send(Answered::Connected(stream)) {
            Err(Answered::Connected(stream)) => Err(stream),
            Ok(()) | Err(Answered::Refused(_)) => Ok(()),
        }
    }

    /// Passes a refusal on, if it comes from the agent that was asked.
    pub(crate) fn refused(&self, token: Token, by: &Agent, reason: String) {
        let mut waiting = self.lock();
        if waiting
            .get(&token)
            .is_some_and(|waiting| waiting.host_id == by.host_id)
            && let Some(waiting) = waiting.remove(&token)
        {
            // The session may have given up in this moment.
            let _ = waiting.answer.send(Answered::Refused(reason));
        }
    }

    /// Ends the wait for everything that this control connection was asked.
    pub(crate) fn lost(&self, agent: &Agent) {
        self.lock()
            .retain(|_, waiting| waiting.generation != agent.generation);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One dial in flight.
#[derive(Debug)]
pub(crate) struct Wait<'d> {
    dials: &'d Dials,
    token: Token,
    answered: oneshot::Receiver<Answered>,
}

impl Wait<'_> {
    /// The agent's answer; `None` when its control connection was lost.
    pub(crate) async fn answer(&mut self) -> Option<Answered> {
        (&mut self.answered).await.ok()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.dials.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{net::TcpListener, sync::mpsc};

    use super::*;
    use crate::tunnel::agents::{Agents, Introduced};

    fn agent(agents: &Agents, name: &str) -> Arc<Agent> {
        let (sender, _) = mpsc::channel(1);
        let introduced = Introduced {
            host_id: name.parse().unwrap(),
            hostname: name.to_owned(),
            zone: String::new(),
            cancel_prefix: None,
            address: None,
        };
        agents.connect(introduced, &sender).0
    }

    async fn stream() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_token_is_good_for_one_connection() {
        let (dials, agents) = (Dials::default(), Agents::default());
        let token = Token([1; 16]);
        let mut wait = dials.wait(token, &agent(&agents, "a"));

        assert!(dials.connected(Token([2; 16]), stream().await).is_err());
        assert!(dials.connected(token, stream().await).is_ok());
        assert!(dials.connected(token, stream().await).is_err());
        assert!(matches!(wait.answer().await, Some(Answered::Connected(_))));
    }

    #[tokio::test]
    async fn a_token_ends_with_the_wait_for_it() {
        let (dials, agents) = (Dials::default(), Agents::default());
        let token = Token([1; 16]);
        drop(dials.wait(token, &agent(&agents, "a")));
        assert!(dials.connected(token, stream().await).is_err());
    }

    #[tokio::test]
    async fn only_the_agent_that_was_asked_may_refuse() {
        let (dials, agents) = (Dials::default(), Agents::default());
        let (asked, other) = (agent(&agents, "a"), agent(&agents, "b"));
        let token = Token([1; 16]);
        let mut wait = dials.wait(token, &asked);

        dials.refused(token, &other, "not yours".to_owned());
        dials.refused(token, &asked, "cannot".to_owned());

        assert!(
            matches!(wait.answer().await, Some(Answered::Refused(reason)) if reason == "cannot")
        );
    }

    #[tokio::test]
    async fn a_lost_control_connection_ends_its_waits_and_no_others() {
        let (dials, agents) = (Dials::default(), Agents::default());
        let (gone, stays) = (agent(&agents, "a"), agent(&agents, "b"));
        let mut lost = dials.wait(Token([1; 16]), &gone);
        let _kept = dials.wait(Token([2; 16]), &stays);

        dials.lost(&gone);

        assert!(lost.answer().await.is_none());
        assert!(dials.connected(Token([2; 16]), stream().await).is_ok());
    }
}
