//! Looks into policies when AWS refuses and leaves open why: whether they allow the call, and whom a role trusts.
//!
//! The agent's own identity asks, about its own account. It needs `iam:SimulatePrincipalPolicy` and `iam:GetRole` for it, which
//! nothing else in an agent does: without them that is said, and the diagnosis stays as AWS left it. Sessions never come
//! here.
//!
//! What must hold: all questions of one diagnosis end within [`LOOK_MAX`], and all diagnoses of an agent keep to [`IAM_RATE`].
//!
//! Not here: what is worth asking, and what answers mean ([`tidegate_aws::diagnosis::evidence`]).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use tidegate_aws::{
    AwsFactory,
    budget::{Budget, Place, Rate},
    diagnosis::{
        evidence::{Evidence, Inquiry, Look, RoleSeen, Subject},
        trust::TrustPolicy,
    },
    iam::{IamQuestion, IamRefusal, IamRole, Simulated, read_role, read_simulation},
};
use tidegate_core::Region;
use tidegate_service::{
    https::{BoxError, Https},
    telemetry,
};
use tokio::time::{Instant, timeout_at};

/// How long all questions of one diagnosis may take.
const LOOK_MAX: Duration = Duration::from_secs(12);
/// Longest answer that is read. A simulation tells some KiB for each action, a trust policy has at most 4096 characters.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// IAM counts calls over the whole account, and people's consoles are among those who call.
const IAM_RATE: Rate = Rate {
    per_second: 1.0,
    burst: 8.0,
};
/// The region that calls are counted in: IAM has none of its own.
const COUNTED_IN: &str = "us-east-1";

/// Asks IAM, seldom.
#[derive(Debug)]
pub(crate) struct Looker {
    https: Https,
    budget: Budget,
}

impl Default for Looker {
    fn default() -> Self {
        Self {
            https: Https::with_answers_to(ANSWER_BYTES_MAX),
            budget: Budget::default(),
        }
    }
}

/// Why a question was not answered.
enum Silence {
    Refused(IamRefusal),
    Unanswered(String),
}

impl<T> From<Silence> for Look<T> {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Refused(refusal) => Self::Refused(refusal),
            Silence::Unanswered(why) => Self::Unanswered(why),
        }
    }
}

/// One look: where, and until when.
struct Asking<'l> {
    looker: &'l Looker,
    aws: &'l AwsFactory,
    partition: &'l str,
    until: Instant,
}

impl Looker {
    /// Asks what is worth asking. Never fails: what is not answered is said in the evidence.
    pub(super) async fn look(&self, aws: &AwsFactory, inquiry: &Inquiry) -> Evidence {
        let asking = Asking {
            looker: self,
            aws,
            partition: &inquiry.partition,
            until: Instant::now() + LOOK_MAX,
        };
        let mut evidence = Evidence::default();
        match &inquiry.caller {
            None => {}
            Some(Subject::Elsewhere(account)) => {
                evidence.caller = Look::Elsewhere(account.clone());
            }
            Some(Subject::Here {
                arn,
                role_of_session,
            }) => {
                (evidence.source, evidence.boundary) =
                    asking.source(arn, role_of_session.as_deref()).await;
                let seen = asking.simulate(inquiry.simulations(&evidence.source)).await;
                evidence.caller = seen.map_or_else(Look::from, Look::Seen);
            }
        }
        match &inquiry.role {
            None => {}
            Some((_, Subject::Elsewhere(account))) => {
                evidence.role = Look::Elsewhere(account.clone());
            }
            Some((role, Subject::Here { .. })) => {
                let seen = asking.role(role.role_name()).await.map(|role| RoleSeen {
                    trust: TrustPolicy::read(&role.trust_policy),
                    arn: role.arn,
                });
                evidence.role = seen.map_or_else(Look::from, Look::Seen);
            }
        }
        evidence
    }
}

impl Asking<'_> {
    /// The ARN to simulate for, and the boundary where it is told. The path of a session's role is not in the session's ARN;
    /// who may not look it up tries without, as most roles have none.
    async fn source(&self, arn: &str, role: Option<&str>) -> (String, Option<String>) {
        match role {
            Some(name) => match self.role(name).await {
                Ok(role) => (role.arn, role.boundary),
                Err(_) => (arn.to_owned(), None),
            },
            None => (arn.to_owned(), None),
        }
    }

    async fn simulate(&self, questions: Vec<IamQuestion>) -> Result<Vec<Simulated>, Silence> {
        let mut results = Vec::new();
        for question in questions {
            results.extend(self.ask(&question, read_simulation).await?);
        }
        Ok(results)
    }

    async fn role(&self, name: &str) -> Result<IamRole, Silence> {
        let question = IamQuestion::GetRole {
            name: name.to_owned(),
        };
        self.ask(&question, read_role).await
    }

    async fn ask<T>(
        &self,
        question: &IamQuestion,
        read: fn(u16, &[u8]) -> Result<T, IamRefusal>,
    ) -> Result<T, Silence> {
        let region: Region = COUNTED_IN.parse().expect("it is the name of a region");
        let place = Place {
            account: None,
            action: question.action(),
            region,
        };
        let asked = async {
            self.looker.budget.take(&place, IAM_RATE).await?;
            self.send(question).await
        };
        let answer = timeout_at(self.until, asked).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(format!("nothing came within {} s", LOOK_MAX.as_secs()).into())
        });
        let answer = answer.map_err(|error| Silence::Unanswered(telemetry::chain(&*error)))?;
        let read = read(answer.status().as_u16(), answer.body());
        let is_throttled = matches!(
            &read,
            Err(IamRefusal::Failed { code, .. }) if code.starts_with("Throttling")
        );
        self.looker.budget.answered(&place, IAM_RATE, is_throttled);
        read.map_err(Silence::Refused)
    }

    async fn send(&self, question: &IamQuestion) -> Result<Response<Bytes>, BoxError> {
        let signed = self.aws.sign_iam(self.partition, question).await?;
        let mut request = Request::post(signed.path.as_str());
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(signed.body)))?;
        let https = &self.looker.https;
        https
            .ask(&signed.host, signed.port, signed.is_tls, request)
            .await
    }
}
