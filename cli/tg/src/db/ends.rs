//! Ctrl-C, and what ends programs otherwise: for commands that have something to tidy up.
//!
//! A hang-up is left alone, so that `nohup` keeps a tunnel open when its terminal closes.

use tidegate_console::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a program; from when this is made on, they no longer do so by themselves.
pub(super) struct Ends {
    signals: [Signal; 2],
}

impl Ends {
    /// Takes the signals over.
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            signals: [on(SignalKind::interrupt())?, on(SignalKind::terminate())?],
        })
    }

    /// Waits for the first.
    pub(super) async fn wait(mut self) {
        let [interrupt, terminate] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
