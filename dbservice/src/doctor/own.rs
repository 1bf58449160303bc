//! The step that finds the agent's own AWS credentials, and what it means when there are none. Pure, but for
//! [`tidegate_aws::sources::ask_sources`] that it is given the answers of.

use tidegate_aws::sources::{InstanceAnswer, Source, Sources};
use tidegate_core::{
    ErrorCode,
    doctor::{Stop, Verdict, Who},
};

/// What the sources said, one a line.
///
/// # Errors
///
/// When none gave credentials.
pub(super) fn read(sources: &Sources) -> Result<Vec<String>, Stop> {
    let mut evidence: Vec<String> = sources.tried.iter().map(ToString::to_string).collect();
    if sources.giver().is_some() {
        return Ok(evidence);
    }
    evidence.extend(sources.instance.as_ref().map(seen));
    Err(Stop {
        evidence,
        verdict: Box::new(verdict(sources)),
    })
}

fn seen(instance: &InstanceAnswer) -> String {
    match instance {
        InstanceAnswer::HopLimit { at } => format!(
            "{at} answers requests without a token and never answers the request for one: its answers to that request \
             end after one IP hop"
        ),
        InstanceAnswer::Off { at, status } => {
            format!("{at} refuses to give a token (HTTP status {status})")
        }
        InstanceAnswer::TokensOnly { at } => format!("{at} gives tokens, and no credentials"),
        InstanceAnswer::Unreachable { at, why } => format!("{at} does not answer: {why}"),
    }
}

fn verdict(sources: &Sources) -> Verdict {
    let code = ErrorCode::AwsCredentials;
    if let Some(failed) = sources.failed() {
        let what = format!(
            "the agent's {} are set up and give nothing",
            failed.source.described()
        );
        return Verdict::new(code, what, Who::Operator).how(how_of(failed.source));
    }
    let none = Verdict::new(code, "the agent finds no AWS credentials", Who::Operator);
    match &sources.instance {
        Some(InstanceAnswer::HopLimit { .. }) => Verdict::new(
            code,
            "the agent runs in a container, and the instance's metadata service lets its tokens go one hop far",
            Who::Operator,
        )
        .how(
            "let tokens reach containers: aws ec2 modify-instance-metadata-options --instance-id <the instance> \
             --http-put-response-hop-limit 2 --http-tokens required",
        )
        .how("or give the container credentials of its own: a role of the ECS task, EKS Pod Identity or IRSA"),
        Some(InstanceAnswer::Off { .. }) => none
            .how(
                "switch the metadata service on: aws ec2 modify-instance-metadata-options --instance-id <the instance> \
                 --http-endpoint enabled",
            )
            .how(ANY_SOURCE),
        Some(InstanceAnswer::TokensOnly { .. }) => none
            .how(
                "attach an instance profile with a role: aws ec2 associate-iam-instance-profile --instance-id <the \
                 instance> --iam-instance-profile Name=<the profile>",
            )
            .how(ANY_SOURCE),
        Some(InstanceAnswer::Unreachable { .. }) | None => none.how(ANY_SOURCE),
    }
}

const ANY_SOURCE: &str = "give the process credentials by any of the sources above: a role of its instance, ECS task or \
                          Kubernetes service account, or a profile file or environment variables of its service unit";

/// What to look at when a source that is set up gives nothing.
fn how_of(source: Source) -> &'static str {
    match source {
        Source::Environment => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the service"
        }
        Source::Profile => {
            "check the profile that AWS_PROFILE names, or `default`, in the files that AWS_CONFIG_FILE and \
             AWS_SHARED_CREDENTIALS_FILE name, or ~/.aws of the service's user"
        }
        Source::WebIdentity => {
            "check that the file in AWS_WEB_IDENTITY_TOKEN_FILE can be read, and that the trust policy of the role in \
             AWS_ROLE_ARN lets the token's issuer, audience and subject do sts:AssumeRoleWithWebIdentity"
        }
        Source::Container => {
            "check that AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or AWS_CONTAINER_CREDENTIALS_FULL_URI is what the \
             platform sets, and that the task or pod has a role"
        }
        Source::Instance => {
            "check the metadata service of the instance, and the role of its instance profile"
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_aws::sources::{Said, Tried};

    use super::*;

    fn tried(source: Source, said: Said) -> Tried {
        Tried { source, said }
    }

    fn nothing(instance: InstanceAnswer) -> Sources {
        Sources {
            tried: vec![tried(Source::Instance, Said::Nothing("x".to_owned()))],
            instance: Some(instance),
        }
    }

    #[test]
    fn each_answer_of_a_metadata_service_has_its_own_remedy() {
        let at = || "169.254.169.254".to_owned();
        for (answer, remedy) in [
            (
                InstanceAnswer::HopLimit { at: at() },
                "--http-put-response-hop-limit 2",
            ),
            (
                InstanceAnswer::Off {
                    at: at(),
                    status: 403,
                },
                "--http-endpoint enabled",
            ),
            (
                InstanceAnswer::TokensOnly { at: at() },
                "associate-iam-instance-profile",
            ),
            (
                InstanceAnswer::Unreachable {
                    at: at(),
                    why: "refused".to_owned(),
                },
                "any of the sources",
            ),
        ] {
            let stop = read(&nothing(answer)).unwrap_err();
            assert_eq!(stop.verdict.code, "aws_credentials");
            assert!(stop.verdict.how[0].contains(remedy), "{stop:?}");
            assert_eq!(stop.evidence.len(), 2);
        }
    }

    #[test]
    fn a_source_that_is_set_up_and_fails_is_the_one_to_look_at() {
        let sources = Sources {
            tried: vec![
                tried(Source::Environment, Said::Nothing("not set".to_owned())),
                tried(Source::WebIdentity, Said::Failed("no such file".to_owned())),
            ],
            instance: None,
        };
        let stop = read(&sources).unwrap_err();
        assert!(stop.verdict.what.contains("web identity token"), "{stop:?}");
        assert!(stop.verdict.how[0].contains("AWS_WEB_IDENTITY_TOKEN_FILE"));
        assert_eq!(
            stop.evidence[1],
            "web identity token: failed (no such file)"
        );
    }

    #[test]
    fn what_gave_credentials_is_told_after_what_did_not() {
        let gave = Said::Gave {
            key_id: "AKIA1".to_owned(),
            expires_at: None,
        };
        let sources = Sources {
            tried: vec![
                tried(Source::Environment, Said::Nothing("not set".to_owned())),
                tried(Source::Profile, gave),
            ],
            instance: None,
        };
        assert_eq!(
            read(&sources).unwrap(),
            [
                "environment variables: nothing (not set)",
                "profile files: gave access key AKIA1"
            ]
        );
    }
}
