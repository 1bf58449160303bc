//! Roles as they are written: what they allow, what they deny, and what they ask of sessions.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DbUserMode, LabelExpression, RoleOptions, RuleFilter, kinds};
use crate::{
    ids::InvalidId,
    requests::{RequestConditions, ReviewConditions},
    selector::Selector,
};

/// The built-in role that lets its holder use every database, as the users and on the names of their traits.
pub const ROLE_ACCESS: &str = "access";
/// The built-in role that reads the audit log and who has sessions.
pub const ROLE_AUDITOR: &str = "auditor";
/// The built-in role that administers the cluster.
pub const ROLE_EDITOR: &str = "editor";
/// The built-in role that may ask for [`ROLE_ACCESS`].
pub const ROLE_REQUESTER: &str = "requester";
/// The built-in role that decides about requests for [`ROLE_ACCESS`].
pub const ROLE_REVIEWER: &str = "reviewer";

/// What may be done with resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Make one.
    Create,
    /// Remove one.
    Delete,
    /// See which there are.
    List,
    /// See one, its secrets included.
    Read,
    /// See one without its secrets; whoever may read may do this.
    ReadNoSecrets,
    /// Bring new keys into use.
    Rotate,
    /// Change one.
    Update,
}

impl Verb {
    /// The name used in roles and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Read => "read",
            Self::ReadNoSecrets => "readnosecrets",
            Self::Rotate => "rotate",
            Self::Update => "update",
        }
    }
}

/// A verb of a rule: one of them, or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VerbPattern {
    /// This one.
    One(Verb),
    /// All of them.
    Any(AnyVerb),
}

/// The text `*` where a verb could stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnyVerb {
    /// `*`.
    #[serde(rename = "*")]
    Any,
}

impl VerbPattern {
    /// Every verb.
    pub const ANY: Self = Self::Any(AnyVerb::Any);

    /// Whether a verb is meant.
    #[must_use]
    pub fn covers(self, verb: Verb) -> bool {
        match self {
            Self::Any(_) => true,
            Self::One(Verb::Read) => matches!(verb, Verb::Read | Verb::ReadNoSecrets),
            Self::One(written) => written == verb,
        }
    }

    /// The verb as written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any(_) => "*",
            Self::One(verb) => verb.as_str(),
        }
    }
}

impl FromStr for VerbPattern {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const VERBS: [Verb; 7] = [
            Verb::Create,
            Verb::Delete,
            Verb::List,
            Verb::Read,
            Verb::ReadNoSecrets,
            Verb::Rotate,
            Verb::Update,
        ];
        if text == "*" {
            return Ok(Self::ANY);
        }
        VERBS
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .map(Self::One)
            .ok_or_else(|| InvalidId {
                what: "verb",
                value: text.to_owned(),
                expected: "`create`, `delete`, `list`, `read`, `readnosecrets`, `rotate`, `update` or `*`",
            })
    }
}

/// What may be done with which kinds of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Kinds such as `db` and `token`, or `*`.
    pub resources: Vec<String>,
    /// What may be done with them.
    pub verbs: Vec<VerbPattern>,
    /// Only with resources for which this holds.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<RuleFilter>,
}

impl Rule {
    /// A rule for these kinds and verbs.
    #[must_use]
    pub fn new(resources: &[&str], verbs: &[VerbPattern]) -> Self {
        Self {
            resources: resources.iter().map(|&kind| kind.to_owned()).collect(),
            verbs: verbs.to_vec(),
            filter: None,
        }
    }

    /// Whether the kind and the verb are meant, whatever `where` says.
    #[must_use]
    pub fn covers(&self, kind: &str, verb: Verb) -> bool {
        self.resources
            .iter()
            .any(|written| written == "*" || written == kind)
            && self.verbs.iter().any(|written| written.covers(verb))
    }
}

/// One side, allow or deny, of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleConditions {
    /// Which databases. Values may be templates.
    pub db_labels: Selector,
    /// Which databases, as an expression. Beside labels, an allow needs both and a deny either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_labels_expression: Option<LabelExpression>,
    /// As which database users: exact, `*`, or a template such as `{{internal.db_users}}`.
    pub db_users: Vec<String>,
    /// On which logical databases.
    pub db_names: Vec<String>,
    /// Which database roles users made for a session get: exact, or a template.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_roles: Vec<String>,
    /// What may be done with the cluster's resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Which roles may be asked for.
    pub request: RequestConditions,
    /// About requests for which roles may be decided.
    pub review_requests: ReviewConditions,
}

/// A named set of rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it asks of its holders' sessions.
    pub options: RoleOptions,
    /// What it grants.
    pub allow: RoleConditions,
    /// What it forbids, whatever other roles grant.
    pub deny: RoleConditions,
}

impl Role {
    /// The roles that exist in every cluster.
    #[must_use]
    pub fn builtin() -> Vec<Self> {
        vec![
            Self::granting(
                ROLE_ACCESS,
                RoleConditions {
                    db_labels: Selector::everything(),
                    db_users: vec!["{{internal.db_users}}".to_owned()],
                    db_names: vec!["{{internal.db_names}}".to_owned()],
                    ..RoleConditions::default()
                },
            ),
            Self::granting(
                ROLE_AUDITOR,
                RoleConditions {
                    rules: vec![Rule::new(
                        &[kinds::EVENT, kinds::SESSION, kinds::INSTANCE],
                        &[VerbPattern::One(Verb::List), VerbPattern::One(Verb::Read)],
                    )],
                    ..RoleConditions::default()
                },
            ),
            Self::granting(
                ROLE_EDITOR,
                RoleConditions {
                    rules: vec![Rule::new(&["*"], &[VerbPattern::ANY])],
                    ..RoleConditions::default()
                },
            ),
            Self::granting(
                ROLE_REQUESTER,
                RoleConditions {
                    request: RequestConditions {
                        roles: vec![ROLE_ACCESS.to_owned()],
                        ..RequestConditions::default()
                    },
                    ..RoleConditions::default()
                },
            ),
            Self::granting(
                ROLE_REVIEWER,
                RoleConditions {
                    rules: vec![Rule::new(
                        &[kinds::ACCESS_REQUEST],
                        &[VerbPattern::One(Verb::List), VerbPattern::One(Verb::Read)],
                    )],
                    review_requests: ReviewConditions {
                        roles: vec![ROLE_ACCESS.to_owned()],
                        filter: None,
                    },
                    ..RoleConditions::default()
                },
            ),
        ]
    }

    /// Whether a role of this name exists in every cluster and cannot be changed.
    #[must_use]
    pub fn is_builtin(name: &str) -> bool {
        [
            ROLE_ACCESS,
            ROLE_AUDITOR,
            ROLE_EDITOR,
            ROLE_REQUESTER,
            ROLE_REVIEWER,
        ]
        .contains(&name)
    }

    fn granting(name: &str, allow: RoleConditions) -> Self {
        Self {
            name: name.to_owned(),
            allow,
            ..Self::default()
        }
    }

    /// A role that takes the place of one that cannot be read: it might have denied something, so it denies everything.
    #[must_use]
    pub fn unreadable(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            deny: RoleConditions {
                db_labels: Selector::everything(),
                rules: vec![Rule::new(&["*"], &[VerbPattern::ANY])],
                request: RequestConditions {
                    roles: vec!["*".to_owned()],
                    ..RequestConditions::default()
                },
                review_requests: ReviewConditions {
                    roles: vec!["*".to_owned()],
                    filter: None,
                },
                ..RoleConditions::default()
            },
            ..Self::default()
        }
    }

    /// Whether database users are made for sessions that this role's labels allow.
    pub(super) fn user_mode(&self) -> DbUserMode {
        self.options.create_db_user_mode.unwrap_or_default()
    }
}
