//! Joining by an AWS identity: a challenge, a signed request that holds it, and what AWS says of who signed.
//!
//! No secret is on the host and none here: who can sign as an AWS identity that the token allows may join. The challenge
//! is 256 random bits, known to one stream of one instance, and lives no longer than that stream.
//!
//! Not here: the stream itself ([`crate::grpc`]).

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use tidegate_identity::secret;
use tidegate_proto::v1;
use tidegate_service::telemetry::chain;
use tonic::Code;

use super::{
    super::{Access, AccessError, tokens::allow::Misfit},
    admit::Proven,
    facts::JoinFacts,
    proof::{self, ProofError},
    sts::StsError,
};

/// Why somebody did not join by its AWS identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IamError {
    /// The challenge was not answered in time, or at all.
    #[error("the challenge was not answered in time")]
    Late,
    /// AWS tells who it is, and the token is not for it.
    #[error("{}", not_allowed(*.misfit, .account, .arn))]
    NotAllowed {
        misfit: Misfit,
        account: String,
        arn: String,
    },
    /// What was signed is not what has to be.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// AWS does not tell who it is.
    #[error(transparent)]
    Sts(#[from] StsError),
}

fn not_allowed(misfit: Misfit, account: &str, arn: &str) -> String {
    match misfit {
        Misfit::Account => format!(
            "no allow rule of the join token is for this host's AWS account {account} (it is `{arn}`): an administrator \
             can add a rule, or this host needs credentials of another account"
        ),
        Misfit::Arn => format!(
            "the join token is for AWS account {account}, but none of its `aws_arn` patterns fits this host, which is \
             `{arn}`: an administrator can add one, or this host needs another role"
        ),
    }
}

impl IamError {
    /// What kind of failure it is.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Late => Code::DeadlineExceeded,
            Self::NotAllowed { .. } => Code::PermissionDenied,
            Self::Proof(ProofError::Skew { .. }) => Code::FailedPrecondition,
            Self::Proof(_) => Code::InvalidArgument,
            Self::Sts(StsError::Busy) => Code::ResourceExhausted,
            Self::Sts(StsError::Refused { .. }) => Code::Unauthenticated,
            Self::Sts(StsError::Malformed { .. } | StsError::Unavailable { .. }) => {
                Code::Unavailable
            }
        }
    }

    /// A stable name for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Late => "CHALLENGE_EXPIRED",
            Self::NotAllowed { misfit, .. } => match misfit {
                Misfit::Account => "ACCOUNT_NOT_ALLOWED",
                Misfit::Arn => "ARN_NOT_ALLOWED",
            },
            Self::Proof(proof) => proof.reason(),
            Self::Sts(StsError::Busy) => "BUSY",
            Self::Sts(StsError::Refused { .. }) => "AWS_REFUSED",
            Self::Sts(StsError::Malformed { .. } | StsError::Unavailable { .. }) => {
                "STS_UNAVAILABLE"
            }
        }
    }

    /// What the operator may read beyond what the caller is told.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Sts(StsError::Refused { message, .. }) => Some(message.clone()),
            Self::Sts(StsError::Malformed { problem }) => Some(problem.clone()),
            Self::Sts(StsError::Unavailable { host, source }) => {
                Some(format!("{host}: {}", chain(source.as_ref())))
            }
            Self::Late | Self::NotAllowed { .. } | Self::Proof(_) | Self::Sts(StsError::Busy) => {
                None
            }
        }
    }
}

/// Somebody who was given a challenge.
pub(crate) struct Challenged {
    request: v1::JoinRequest,
    challenge: String,
    facts: JoinFacts,
}

impl Challenged {
    /// What has to be signed.
    pub(crate) fn challenge(&self) -> &str {
        &self.challenge
    }
}

impl Access {
    /// Gives a challenge to who wants to join with a token of method `iam`.
    pub(crate) async fn challenge(
        &self,
        request: v1::JoinRequest,
        remote: Option<SocketAddr>,
    ) -> Result<Challenged, AccessError> {
        let mut facts = JoinFacts::of(&request, remote);
        let begun = self.begin(&request, &mut facts).await;
        match begun {
            Ok(challenge) => Ok(Challenged {
                request,
                challenge,
                facts,
            }),
            Err(error) => {
                self.tell_join(&facts, Err(&error));
                Err(error)
            }
        }
    }

    /// Asked once before AWS is, so that nobody without a token makes us ask.
    async fn begin(
        &self,
        request: &v1::JoinRequest,
        facts: &mut JoinFacts,
    ) -> Result<String, AccessError> {
        self.look_at_token(request, Proven::Challenged, facts)
            .await?;
        Ok(STANDARD_NO_PAD.encode(secret::random_bytes::<32>()?))
    }

    /// Lets in who answered its challenge.
    pub(crate) async fn join_by_iam(
        &self,
        challenged: Challenged,
        proof: &v1::SignedRequest,
    ) -> Result<v1::JoinResponse, AccessError> {
        let Challenged {
            request,
            challenge,
            mut facts,
        } = challenged;
        let joined = self
            .prove_identity(&request, &challenge, proof, &mut facts)
            .await;
        self.tell_join(&facts, joined.as_ref());
        joined
    }

    async fn prove_identity(
        &self,
        request: &v1::JoinRequest,
        challenge: &str,
        proof: &v1::SignedRequest,
        facts: &mut JoinFacts,
    ) -> Result<v1::JoinResponse, AccessError> {
        let proof = proof::check(proof, challenge, self.now()).map_err(IamError::from)?;
        let caller = self.joins.sts.ask(proof).await.map_err(IamError::from)?;
        facts.identity = Some(caller.clone());
        self.admit(request, Proven::Identity(&caller), facts).await
    }

    /// Who was given a challenge did not answer it.
    pub(crate) fn unanswered(&self, challenged: &Challenged) -> AccessError {
        let error = AccessError::from(IamError::Late);
        self.tell_join(&challenged.facts, Err(&error));
        error
    }
}
