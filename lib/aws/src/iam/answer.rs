//! What IAM answers.

use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};

/// Most results of a simulation that are read: the doctor asks for a handful.
const RESULTS_MAX: usize = 64;
/// Longest text taken over from AWS.
const MESSAGE_CHARS_MAX: usize = 400;

/// Why IAM told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IamRefusal {
    /// There is no such user or role in the account.
    #[error("there is no such user or role in the account")]
    Absent,
    /// The credentials may not ask.
    #[error("it is not permitted ({code})")]
    Denied {
        /// AWS's code.
        code: String,
    },
    /// AWS refused for another reason.
    #[error("AWS answered {code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Failed {
        /// AWS's code, or the status where there is none.
        code: String,
        /// What it said.
        message: String,
    },
    /// What came is no answer of IAM.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// What policies say of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All of them together allow it.
    Allowed,
    /// A statement denies it.
    ExplicitDeny,
    /// Something that has to allow it does not.
    ImplicitDeny,
}

impl Decision {
    /// AWS's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::ExplicitDeny => "explicitDeny",
            Self::ImplicitDeny => "implicitDeny",
        }
    }

    fn read(word: &str) -> Result<Self, IamRefusal> {
        match word {
            "allowed" => Ok(Self::Allowed),
            "explicitDeny" => Ok(Self::ExplicitDeny),
            "implicitDeny" => Ok(Self::ImplicitDeny),
            _ => Err(malformed(format!("`{word}` is no decision"))),
        }
    }
}

/// What a simulation says of one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// The action.
    pub action: String,
    /// The resource.
    pub resource: String,
    /// What all policies come to.
    pub decision: Decision,
    /// Names of the policies whose statements decided; none where nothing matched.
    pub matched: Vec<String>,
    /// Condition keys that policies ask for and that were not given.
    pub missing_keys: Vec<String>,
    /// Whether the permissions boundary allows it; `None` without one, or where AWS did not come so far.
    pub by_boundary: Option<bool>,
    /// Whether service control policies allow it; `None` where there are none.
    pub by_organization: Option<bool>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IamRole {
    /// With its path.
    pub arn: String,
    /// JSON.
    pub trust_policy: String,
    /// ARN of the policy that is its permissions boundary.
    pub boundary: Option<String>,
}

/// Reads what a simulation answered, one entry an action and resource.
///
/// # Errors
///
/// [`IamRefusal`].
pub fn read_simulation(status: u16, body: &[u8]) -> Result<Vec<Simulated>, IamRefusal> {
    let text = answered(status, body)?;
    let mut results = Vec::new();
    let mut found = false;
    within(text, "SimulatePrincipalPolicyResult", &mut |part| {
        if part.start_el().local() != "EvaluationResults" {
            return Ok(());
        }
        found = true;
        while let Some(mut member) = part.next_tag() {
            results.extend(Evaluation::read(&mut member)?.flat()?);
        }
        Ok(())
    })?;
    if !found {
        return Err(malformed("there are no EvaluationResults in it"));
    }
    if results.len() > RESULTS_MAX {
        return Err(malformed("it has more results than were asked for"));
    }
    Ok(results)
}

/// Reads what `GetRole` answered.
///
/// # Errors
///
/// [`IamRefusal`].
pub fn read_role(status: u16, body: &[u8]) -> Result<IamRole, IamRefusal> {
    let text = answered(status, body)?;
    let (mut arn, mut trust, mut boundary) = (None, None, None);
    within(text, "GetRoleResult", &mut |role| {
        while let Some(mut field) = role.next_tag() {
            match field.start_el().local() {
                "Arn" => arn = Some(data(&mut field)?),
                "AssumeRolePolicyDocument" => trust = Some(decoded(&data(&mut field)?)?),
                "PermissionsBoundary" => {
                    while let Some(mut part) = field.next_tag() {
                        if part.start_el().local() == "PermissionsBoundaryArn" {
                            boundary = Some(data(&mut part)?);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    match (arn, trust) {
        (Some(arn), Some(trust_policy)) => Ok(IamRole {
            arn,
            trust_policy,
            boundary,
        }),
        _ => Err(malformed(
            "there is no Role with Arn and AssumeRolePolicyDocument in it",
        )),
    }
}

/// One `EvaluationResult`: what holds for an action, and what differs by resource.
///
/// Until some time in 2026 AWS told one of these for each resource; now one for each action, with the resources below it.
#[derive(Default)]
struct Evaluation {
    action: String,
    resource: String,
    decision: String,
    matched: Vec<String>,
    missing_keys: Vec<String>,
    by_boundary: Option<bool>,
    by_organization: Option<bool>,
    resources: Vec<Evaluation>,
}

impl Evaluation {
    fn read(member: &mut ScopedDecoder<'_, '_>) -> Result<Self, IamRefusal> {
        let mut read = Self::default();
        while let Some(mut field) = member.next_tag() {
            if field.start_el().local() == "ResourceSpecificResults" {
                while let Some(mut resource) = field.next_tag() {
                    let mut below = Self::default();
                    while let Some(mut field) = resource.next_tag() {
                        below.field(&mut field)?;
                    }
                    read.resources.push(below);
                }
            } else {
                read.field(&mut field)?;
            }
        }
        Ok(read)
    }

    /// What an action has and a resource below it too.
    fn field(&mut self, field: &mut ScopedDecoder<'_, '_>) -> Result<(), IamRefusal> {
        match field.start_el().local() {
            "EvalActionName" => self.action = data(field)?,
            "EvalResourceName" => self.resource = data(field)?,
            "EvalDecision" | "EvalResourceDecision" => self.decision = data(field)?,
            "MatchedStatements" => self.matched = statements(field)?,
            "MissingContextValues" => {
                while let Some(mut key) = field.next_tag() {
                    self.missing_keys.push(data(&mut key)?);
                }
            }
            "OrganizationsDecisionDetail" => self.by_organization = flag(field)?,
            "PermissionsBoundaryDecisionDetail" => self.by_boundary = flag(field)?,
            _ => {}
        }
        Ok(())
    }

    fn flat(self) -> Result<Vec<Simulated>, IamRefusal> {
        let (action, by_organization, by_boundary) =
            (self.action.clone(), self.by_organization, self.by_boundary);
        if self.resources.is_empty() {
            return Ok(vec![self.simulated(
                &action,
                by_organization,
                by_boundary,
            )?]);
        }
        self.resources
            .into_iter()
            .map(|one| one.simulated(&action, by_organization, by_boundary))
            .collect()
    }

    fn simulated(
        self,
        action: &str,
        by_organization: Option<bool>,
        by_boundary: Option<bool>,
    ) -> Result<Simulated, IamRefusal> {
        let decision = Decision::read(&self.decision)?;
        // What is allowed is allowed by all, whatever holds for the other resources of the action.
        let limit = |of_action: Option<bool>| match decision {
            Decision::Allowed => of_action.map(|_| true),
            _ => of_action,
        };
        Ok(Simulated {
            action: action.to_owned(),
            resource: self.resource,
            decision,
            matched: self.matched,
            missing_keys: self.missing_keys,
            by_boundary: self.by_boundary.or(limit(by_boundary)),
            by_organization: limit(by_organization),
        })
    }
}

fn statements(list: &mut ScopedDecoder<'_, '_>) -> Result<Vec<String>, IamRefusal> {
    let mut named = Vec::new();
    while let Some(mut statement) = list.next_tag() {
        let mut name = String::new();
        while let Some(mut field) = statement.next_tag() {
            if field.start_el().local() == "SourcePolicyId" {
                name = data(&mut field)?;
            }
        }
        named.push(name);
    }
    Ok(named)
}

/// The one flag of a decision's detail.
fn flag(detail: &mut ScopedDecoder<'_, '_>) -> Result<Option<bool>, IamRefusal> {
    match detail.next_tag() {
        Some(mut field) => match data(&mut field)?.as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            other => Err(malformed(format!("`{other}` is neither true nor false"))),
        },
        None => Ok(None),
    }
}

/// The text of an answer that is no error.
fn answered(status: u16, body: &[u8]) -> Result<&str, IamRefusal> {
    let text = std::str::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
    if (200..300).contains(&status) {
        return Ok(text);
    }
    let (mut code, mut message) = (None, String::new());
    // A page of somebody in between is no XML of IAM, and its status is all that it tells.
    let _ = within(text, "Error", &mut |field| {
        match field.start_el().local() {
            "Code" => code = Some(data(field)?),
            "Message" => message = data(field)?,
            _ => {}
        }
        Ok(())
    });
    let code = code.unwrap_or_else(|| format!("HTTP status {status}"));
    Err(match code.as_str() {
        "NoSuchEntity" => IamRefusal::Absent,
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            IamRefusal::Denied { code }
        }
        _ => IamRefusal::Failed {
            code,
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        },
    })
}

type Visit<'v> = &'v mut dyn FnMut(&mut ScopedDecoder<'_, '_>) -> Result<(), IamRefusal>;

/// Visits what is directly below the element of this name, which is itself directly below the root.
fn within(text: &str, name: &str, visit: Visit<'_>) -> Result<(), IamRefusal> {
    let mut document = Document::new(text);
    let mut root = document.root_element().map_err(unread)?;
    while let Some(mut below) = root.next_tag() {
        if below.start_el().local() == name {
            while let Some(mut part) = below.next_tag() {
                visit(&mut part)?;
            }
        }
    }
    Ok(())
}

fn data(field: &mut ScopedDecoder<'_, '_>) -> Result<String, IamRefusal> {
    try_data(field).map(String::from).map_err(unread)
}

/// Undoes the encoding of RFC 3986 that policy documents come in.
fn decoded(text: &str) -> Result<String, IamRefusal> {
    let wrong = || malformed("a policy document is not encoded as RFC 3986 says");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn malformed(what: impl Into<String>) -> IamRefusal {
    IamRefusal::Malformed(what.into())
}

fn unread(error: XmlDecodeError) -> IamRefusal {
    malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulation(results: &str) -> Vec<u8> {
        format!(
            "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
             <SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{results}\
             </EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        )
        .into_bytes()
    }

    #[test]
    fn a_result_for_each_resource_is_read_and_the_rest_is_that_of_the_action() {
        let body = simulation(
            "<member><EvalActionName>a:B</EvalActionName><EvalResourceName>arn:template</EvalResourceName>\
             <EvalDecision>implicitDeny</EvalDecision><MatchedStatements/>\
             <OrganizationsDecisionDetail><AllowedByOrganizations>true</AllowedByOrganizations>\
             </OrganizationsDecisionDetail><ResourceSpecificResults>\
             <member><EvalResourceName>arn:1</EvalResourceName><EvalResourceDecision>allowed</EvalResourceDecision>\
             <MatchedStatements><member><SourcePolicyId>mine</SourcePolicyId>\
             <StartPosition><Line>1</Line><Column>2</Column></StartPosition></member></MatchedStatements></member>\
             <member><EvalResourceName>arn:2</EvalResourceName>\
             <EvalResourceDecision>implicitDeny</EvalResourceDecision>\
             <MissingContextValues><member>aws:SourceIp</member></MissingContextValues>\
             <PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>false</AllowedByPermissionsBoundary>\
             </PermissionsBoundaryDecisionDetail></member></ResourceSpecificResults></member>",
        );
        let read = read_simulation(200, &body).unwrap();
        assert_eq!(
            read,
            [
                Simulated {
                    action: "a:B".to_owned(),
                    resource: "arn:1".to_owned(),
                    decision: Decision::Allowed,
                    matched: vec!["mine".to_owned()],
                    missing_keys: vec![],
                    by_boundary: None,
                    by_organization: Some(true),
                },
                Simulated {
                    action: "a:B".to_owned(),
                    resource: "arn:2".to_owned(),
                    decision: Decision::ImplicitDeny,
                    matched: vec![],
                    missing_keys: vec!["aws:SourceIp".to_owned()],
                    by_boundary: Some(false),
                    by_organization: Some(true),
                },
            ]
        );
    }

    #[test]
    fn a_result_that_names_its_resource_itself_is_read_as_well() {
        let body = simulation(
            "<member><EvalActionName>a:B</EvalActionName><EvalResourceName>arn:1</EvalResourceName>\
             <EvalDecision>explicitDeny</EvalDecision><OrganizationsDecisionDetail>\
             <AllowedByOrganizations>false</AllowedByOrganizations></OrganizationsDecisionDetail></member>",
        );
        let read = read_simulation(200, &body).unwrap();
        assert_eq!(read[0].decision, Decision::ExplicitDeny);
        assert_eq!(
            (read[0].by_organization, read[0].by_boundary),
            (Some(false), None)
        );
    }

    #[test]
    fn a_role_comes_with_its_trust_policy_decoded() {
        let body = b"<GetRoleResponse><GetRoleResult><Role><Path>/x/</Path><Arn>arn:aws:iam::1:role/x/r</Arn>\
            <AssumeRolePolicyDocument>%7B%22a%22%3A%20%22%C3%A9%22%7D</AssumeRolePolicyDocument>\
            <PermissionsBoundary><PermissionsBoundaryType>Policy</PermissionsBoundaryType>\
            <PermissionsBoundaryArn>arn:p</PermissionsBoundaryArn></PermissionsBoundary></Role></GetRoleResult>\
            </GetRoleResponse>";
        let role = read_role(200, body).unwrap();
        assert_eq!(role.arn, "arn:aws:iam::1:role/x/r");
        assert_eq!(role.trust_policy, "{\"a\": \"\u{e9}\"}");
        assert_eq!(role.boundary.as_deref(), Some("arn:p"));
    }

    #[test]
    fn refusals_are_told_apart() {
        let error = |code: &str| {
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
            )
        };
        let read = |status, body: &str| read_role(status, body.as_bytes()).unwrap_err();
        assert_eq!(read(404, &error("NoSuchEntity")), IamRefusal::Absent);
        assert!(matches!(
            read(403, &error("AccessDenied")),
            IamRefusal::Denied { .. }
        ));
        assert_eq!(
            read(400, &error("Throttling")).to_string(),
            "AWS answered Throttling: no"
        );
        assert_eq!(
            read(502, "<html><body>bad gateway").to_string(),
            "AWS answered HTTP status 502"
        );
    }

    #[test]
    fn what_is_no_answer_is_told_and_not_taken_for_one() {
        for body in [
            "",
            "ok",
            "<a/>",
            "<GetRoleResponse><GetRoleResult><Role><Arn>x</Arn></Role></GetRoleResult></GetRoleResponse>",
            "<R><GetRoleResult><Role><Arn>x</Arn><AssumeRolePolicyDocument>%7</AssumeRolePolicyDocument></Role></GetRoleResult></R>",
        ] {
            let read = read_role(200, body.as_bytes());
            assert!(
                matches!(read, Err(IamRefusal::Malformed(_))),
                "{body}: {read:?}"
            );
            let read = read_simulation(200, body.as_bytes());
            assert!(
                matches!(read, Err(IamRefusal::Malformed(_))),
                "{body}: {read:?}"
            );
        }
        let odd = simulation("<member><EvalDecision>perhaps</EvalDecision></member>");
        read_simulation(200, &odd).unwrap_err();
    }
}
