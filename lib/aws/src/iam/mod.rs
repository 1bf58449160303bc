//! Two questions to IAM, which help to find out why something was refused: `iam:SimulatePrincipalPolicy` and
//! `iam:GetRole`.
//!
//! A question is signed here with this process's own credentials and sent by whoever asks, over a connection of its own;
//! its answer is read here. Both need a permission that an agent otherwise does without, so that a refusal is as good an
//! answer as any: [`IamRefusal`].
//!
//! IAM has one endpoint in each partition. `AWS_ENDPOINT_URL` stands in its place where it is set.
//!
//! Not here: what is asked and what answers mean ([`crate::diagnosis::evidence`]).
//!
//! Source: IAM API reference, `SimulatePrincipalPolicy`, `GetRole`, "Common Errors"; AWS general reference, "IAM endpoints
//! and quotas".

mod answer;
mod query;

pub use answer::{Decision, IamRefusal, IamRole, Simulated, read_role, read_simulation};
pub use query::{IamQuestion, IamRequest};

/// `iam:GetRole`, as policies name it.
pub const GET_ROLE: &str = "iam:GetRole";
/// `iam:SimulatePrincipalPolicy`, as policies name it.
pub const SIMULATE: &str = "iam:SimulatePrincipalPolicy";
