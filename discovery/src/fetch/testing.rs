//! An AWS of a few lines on a loopback port, and what tests of every kind ask of it.

use std::sync::{Arc, Mutex};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use axum::{
    extract::Request as HttpRequest,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use tidegate_aws::{AwsFactory, Limits, SessionTag};
use tidegate_core::{DatabaseKind, EndpointFilter, Labels, ScanScope, Selector};
use tidegate_service::clock::SystemClock;

use super::AwsFetch;
use crate::{
    found::Found,
    known::Known,
    scan::{Observed, Scan, Terms, scan},
};

/// A role of another partition than `aws`.
pub(crate) const ROLE: &str = "arn:aws-us-gov:iam::999988887777:role/finder";

/// Everything of a kind in us-west-2.
pub(crate) fn everything(kind: DatabaseKind) -> ScanScope {
    ScanScope {
        group: "prod".to_owned(),
        kind,
        region: "us-west-2".parse().unwrap(),
        assume_role: None,
        tags: Selector::everything(),
        endpoints: EndpointFilter::default(),
        config: None,
        order: 0,
    }
}

/// What has this label.
pub(crate) fn only(kind: DatabaseKind, key: &str, value: &str) -> ScanScope {
    ScanScope {
        tags: Selector::new([(key, [value])]).unwrap(),
        ..everything(kind)
    }
}

/// Everything but endpoints of these types.
pub(crate) fn without(kind: DatabaseKind, types: &[&str]) -> ScanScope {
    let exclude = types.iter().map(|kind| (*kind).to_owned()).collect();
    ScanScope {
        endpoints: EndpointFilter {
            include: Vec::new(),
            exclude,
        },
        ..everything(kind)
    }
}

/// The one tag that resources have in these tests.
pub(crate) const TAG: &str = "env";

/// The labels but those that every discovered database has; all but [`TAG`] must be on the list of labels.
pub(crate) fn own_labels(found: &Found) -> Vec<(&str, &str)> {
    let database = &found.database;
    listed(database.kind.unwrap(), &database.labels);
    let common = ["account-id", "region"];
    let own = database.labels.iter();
    own.filter(|(key, _)| !common.contains(key) && !key.starts_with("tidegate.dev/"))
        .collect()
}

fn listed(kind: DatabaseKind, found: &Labels) {
    for (key, _) in found.iter().filter(|(key, _)| *key != TAG) {
        let listed = tidegate_core::generated::labels()
            .iter()
            .find(|label| label.key == key);
        assert!(
            listed.is_some_and(|label| label.kinds.contains(&kind)),
            "label `{key}` of {kind:?} is not on the list"
        );
    }
}

/// Name, identity and endpoint type, in order of identity.
pub(crate) fn seen(observed: &Observed) -> Vec<(&str, &str)> {
    let seen = observed.seen().values();
    seen.map(|found| {
        let database = &found.database;
        listed(database.kind.unwrap(), &database.labels);
        let endpoint_type = database.labels.get("endpoint-type").unwrap();
        (database.name.as_str(), endpoint_type)
    })
    .collect()
}

pub(crate) type Answer = (StatusCode, String);

/// One call.
pub(crate) struct Call {
    /// Without the service: `DescribeClusters`.
    pub(crate) action: String,
    body: String,
}

impl Call {
    /// A parameter of a Query call; empty when it is not sent.
    pub(crate) fn param(&self, name: &str) -> &str {
        let mut pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    /// Whether the body of a JSON call says this.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.body.contains(text)
    }
}

/// A running AWS and a fetcher that is pointed at it.
pub(crate) struct Aws {
    pub(crate) fetch: AwsFetch,
    pub(crate) factory: AwsFactory,
    actions: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Aws {
    pub(crate) async fn start(
        answer: impl Fn(&Call) -> Answer + Clone + Send + Sync + 'static,
    ) -> Self {
        let actions = Arc::<Mutex<Vec<String>>>::default();
        let journal = Arc::clone(&actions);
        let app = axum::Router::new().fallback(move |request: HttpRequest| async move {
            let (call, is_json) = read(request).await;
            journal.lock().unwrap().push(call.action.clone());
            let kind = if is_json {
                "application/x-amz-json-1.1"
            } else {
                "text/xml"
            };
            let (status, body) = answer(&call);
            (status, [(CONTENT_TYPE, kind)], body).into_response()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::from_static("us-west-2"))
            .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
            .endpoint_url(url);
        let limits = Limits {
            attempts_max: 1,
            ..Limits::default()
        };
        let builder = AwsFactory::builder().limits(limits).loader(loader);
        let factory = builder.load().await;
        Self {
            fetch: AwsFetch::new(factory.clone(), SessionTag::new("test")),
            factory,
            actions,
            server,
        }
    }

    /// Scans once; every call that was made must have been counted.
    pub(crate) async fn scan(&self, scope: &ScanScope) -> Observed {
        self.scan_once(scope, false).await
    }

    /// Scans once because somebody asked for it.
    pub(crate) async fn scan_on_request(&self, scope: &ScanScope) -> Observed {
        self.scan_once(scope, true).await
    }

    async fn scan_once(&self, scope: &ScanScope, fresh: bool) -> Observed {
        self.scan_knowing(scope, fresh, None).await.observed
    }

    /// Scans once, after a scan that found what is known.
    pub(crate) async fn scan_after(&self, scope: &ScanScope, known: &Arc<Known>) -> Scan {
        self.scan_knowing(scope, false, Some(Arc::clone(known)))
            .await
    }

    /// Scans once; gives what the next scan can be told, if its answers tell all.
    pub(crate) async fn scan_and_know(&self, scope: &ScanScope) -> Option<Arc<Known>> {
        let scan = self.scan_knowing(scope, false, None).await;
        Some(Arc::new(Known {
            trace: scan.trace?,
            digest: [7; 32],
            databases: scan.observed.count(),
            left_out: scan.left_out,
        }))
    }

    async fn scan_knowing(
        &self,
        scope: &ScanScope,
        fresh: bool,
        known: Option<Arc<Known>>,
    ) -> Scan {
        let before = self.actions().len();
        let terms = Terms {
            budget: Arc::default(),
            prepaid: false,
            fresh,
            known,
        };
        let scan = scan(&self.fetch, scope, terms, &SystemClock).await;
        assert_eq!(scan.aws_calls as usize, self.actions().len() - before);
        scan
    }

    /// The calls so far.
    pub(crate) fn actions(&self) -> Vec<String> {
        self.actions.lock().unwrap().clone()
    }

    /// How often a call was made so far.
    pub(crate) fn calls(&self, action: &str) -> usize {
        self.actions().iter().filter(|made| *made == action).count()
    }
}

async fn read(request: HttpRequest) -> (Call, bool) {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let target = head.headers.get("x-amz-target");
    let target = target.map(|target| target.to_str().unwrap().to_owned());
    let form = body
        .split('&')
        .find_map(|pair| pair.strip_prefix("Action="))
        .map(str::to_owned);
    let is_json = form.is_none();
    let action = target
        .and_then(|target| target.split_once('.').map(|(_, action)| action.to_owned()))
        .or(form)
        .unwrap_or_else(|| head.uri.path().trim_start_matches('/').to_owned());
    (Call { action, body }, is_json)
}

/// A good answer of the Query protocol.
pub(crate) fn xml(action: &str, result: &str) -> Answer {
    let body = format!(
        "<{action}Response xmlns=\"urn:test\"><{action}Result>{result}</{action}Result></{action}Response>"
    );
    (StatusCode::OK, body)
}

/// An error of the Query protocol.
pub(crate) fn xml_refusal(code: &str) -> Answer {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>\
         <RequestId>req-1</RequestId></ErrorResponse>"
    );
    (StatusCode::BAD_REQUEST, body)
}

/// A good answer of the JSON protocols.
pub(crate) fn json(body: impl Into<String>) -> Answer {
    (StatusCode::OK, body.into())
}

/// An error of the JSON protocols.
pub(crate) fn json_refusal(code: &str) -> Answer {
    let body = format!(r#"{{"__type":"{code}","message":"no"}}"#);
    (StatusCode::BAD_REQUEST, body)
}
