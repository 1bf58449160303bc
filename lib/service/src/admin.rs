//! The diagnostics port: `/healthz`, `/readyz` and `/metrics`, over plain HTTP.
//!
//! `/healthz` says that the process runs; `/readyz` says whether every component can do its work, and if not, why.
//! Nothing here changes anything or shows a secret, but it names inner parts: bind it where operators are.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    metrics::{self, Metrics},
    tasks::ShutdownToken,
};

/// Why a component that has not said anything yet is not ready.
const STARTING: &str = "starting";

/// Which components of the process can do their work. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    components: Arc<Mutex<BTreeMap<String, ComponentState>>>,
    draining: Arc<AtomicBool>,
}

/// A component's own say.
#[derive(Clone, Debug)]
pub struct ComponentHandle {
    readiness: Readiness,
    name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum ComponentState {
    Degraded { reason: String },
    NotReady { reason: String },
    Ready,
}

impl Readiness {
    /// Nothing registered: not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component, which is not ready until it says so. A second handle of one name is the same component.
    #[must_use]
    pub fn component(&self, name: &str) -> ComponentHandle {
        self.lock()
            .entry(name.to_owned())
            .or_insert_with(|| ComponentState::NotReady {
                reason: STARTING.to_owned(),
            });
        ComponentHandle {
            readiness: self.clone(),
            name: name.into(),
        }
    }

    /// The process is about to end: not ready from now on, whatever its components say.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether there are components and each of them is ready, be it degraded.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && all_ready(&self.lock())
    }

    fn report(&self) -> (StatusCode, Report) {
        let components = self.lock().clone();
        let (code, status) = if self.draining.load(Ordering::Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if all_ready(&components) {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
        };
        (code, Report { status, components })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ComponentState>> {
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn all_ready(components: &BTreeMap<String, ComponentState>) -> bool {
    !components.is_empty()
        && components
            .values()
            .all(|state| !matches!(state, ComponentState::NotReady { .. }))
}

impl ComponentHandle {
    /// The component can do its work.
    pub fn ready(&self) {
        self.change(ComponentState::Ready);
    }

    /// The component cannot do all of its work, and the process is of use all the same; `reason` is one line for the
    /// operator.
    pub fn degraded(&self, reason: impl Into<String>) {
        self.change(ComponentState::Degraded {
            reason: reason.into(),
        });
    }

    /// The component cannot do its work now; `reason` is one line for the operator.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.change(ComponentState::NotReady {
            reason: reason.into(),
        });
    }

    fn change(&self, state: ComponentState) {
        let old = self
            .readiness
            .lock()
            .insert(self.name.to_string(), state.clone());
        if old.as_ref() == Some(&state) {
            return;
        }
        match state {
            ComponentState::Ready => info!(component = %self.name, "component is ready"),
            ComponentState::Degraded { reason } => {
                info!(component = %self.name, reason, "component is degraded");
            }
            ComponentState::NotReady { reason } => {
                info!(component = %self.name, reason, "component is not ready");
            }
        }
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    components: BTreeMap<String, ComponentState>,
}

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    readiness: Readiness,
}

/// Serves the diagnostics port until `shutdown`.
///
/// # Errors
///
/// When the listener itself fails; single connections never end it.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: ShutdownToken,
) -> io::Result<()> {
    axum::serve(listener, router(metrics, readiness))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Shared { metrics, readiness })
}

async fn healthz() -> impl IntoResponse {
    Json(serde_json::json!({ "status": "ok" }))
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    let (code, report) = shared.readiness.report();
    (code, Json(report))
}

async fn show_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        shared.metrics.encode(),
    )
}
