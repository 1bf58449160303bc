//! Carries out a request to cancel, over a connection to the database of its own.

use std::time::Duration;

use tidegate_core::Problem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tracing::debug;

use super::cancel::{CancelKey, Verdict};
use crate::engine::Engine;

/// How long a cancel request may take, from dialling to the database's closing.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Stops the statement that a session of ours left running, which the database would otherwise finish for nobody.
pub(crate) async fn stop(engine: &Engine, key: &CancelKey) {
    let (number, secret) = key.shown();
    let outcome = cancel(engine, number, secret).await;
    debug!(outcome, "stopped what an ended session left running");
}

/// Handles a request to cancel; the answer is for the log.
pub(crate) async fn cancel(engine: &Engine, process_id: u32, secret: &[u8]) -> String {
    let target = match engine.cancels.judge(process_id, secret) {
        Verdict::Cancel(target) => target,
        Verdict::NothingRuns => return "nothing runs in that session".to_owned(),
        Verdict::Unknown => return "no session has that key".to_owned(),
    };
    let database = &target.wanted.database;
    let asking = async {
        let stream = engine.connector.tcp_to(database, target.address).await?;
        let mut stream = engine.connector.tls(database, stream).await?;
        let sent = async {
            stream.write_all(&target.request()).await?;
            stream.flush().await?;
            // The database answers by closing.
            stream.read(&mut [0; 16]).await
        };
        if let Err(error) = sent.await {
            debug!(%error, "the database closed a cancel connection early");
        }
        Ok::<_, Problem>(())
    };
    match timeout(CANCEL_TIMEOUT, asking).await {
        Ok(Ok(())) => "asked the database to cancel".to_owned(),
        Ok(Err(problem)) => problem.operator,
        Err(_) => "the database did not take the request in time".to_owned(),
    }
}
