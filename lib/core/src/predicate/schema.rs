//! What a predicate may speak of: the fields of each kind of thing, their types and their other names.

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// True or false.
    Flag,
    /// Text by key; read as `labels["env"]` or `labels.env`.
    Labels,
    /// Several texts.
    List,
    /// A whole number. Read as the text of its digits; orders go by its value.
    Number,
    /// One text.
    Text,
    /// Several texts by key; read as `user.spec.traits["teams"]`.
    Traits,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name under which [`super::Fields`] is asked for it.
    pub path: &'static str,
    /// Other names that mean the same, such as the field's place in the resource as YAML.
    pub also: &'static [&'static str],
    /// Its type.
    pub holds: FieldType,
}

/// The fields of one kind of thing.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// What is looked at, as errors call it: "a database".
    pub kind: &'static str,
    /// The fields, in groups so that kinds can share them.
    pub fields: &'static [&'static [Field]],
    /// Whether `search` is meaningful.
    pub searchable: bool,
}

const fn text(path: &'static str, also: &'static [&'static str]) -> Field {
    Field {
        path,
        also,
        holds: FieldType::Text,
    }
}

const fn flag(path: &'static str, also: &'static [&'static str]) -> Field {
    Field {
        path,
        also,
        holds: FieldType::Flag,
    }
}

const fn number(path: &'static str, also: &'static [&'static str]) -> Field {
    Field {
        path,
        also,
        holds: FieldType::Number,
    }
}

const fn list(path: &'static str, also: &'static [&'static str]) -> Field {
    Field {
        path,
        also,
        holds: FieldType::List,
    }
}

const LABELS: Field = Field {
    path: "labels",
    also: &["resource.metadata.labels", "resource.labels"],
    holds: FieldType::Labels,
};

const NAMED: &[Field] = &[
    text("name", &["resource.metadata.name"]),
    text("description", &["resource.metadata.description"]),
    LABELS,
];

const DATABASE: &[Field] = &[
    text("protocol", &["resource.spec.protocol"]),
    text("uri", &["resource.spec.uri"]),
    text("type", &["kind", "resource.spec.type"]),
    text("origin", &[]),
    text("identity", &[]),
    text("discovered_name", &[]),
    text("unavailable", &[]),
    text("region", &["resource.spec.aws.region"]),
    text("account_id", &["resource.spec.aws.account_id"]),
    text("assume_role_arn", &["resource.spec.aws.assume_role_arn"]),
    text(
        "redshift.cluster_id",
        &["resource.spec.aws.redshift.cluster_id"],
    ),
    text(
        "redshift_serverless.workgroup_name",
        &["resource.spec.aws.redshift_serverless.workgroup_name"],
    ),
    text("rds.instance_id", &["resource.spec.aws.rds.instance_id"]),
    text("rds.cluster_id", &["resource.spec.aws.rds.cluster_id"]),
];

const SERVED: &[Field] = &[
    text("host_id", &["resource.spec.host_id"]),
    text("hostname", &["resource.spec.hostname"]),
    text("version", &["resource.spec.version"]),
    text("health.status", &["resource.status.target_health.status"]),
    text("health.message", &["resource.status.target_health.message"]),
    text(
        "health.failed_layer",
        &["resource.status.target_health.failed_layer"],
    ),
    text("effective_role", &[]),
    text("role_source", &[]),
    text("role_reason", &[]),
];

const HOST: &[Field] = &[
    text(
        "name",
        &["host_id", "resource.metadata.name", "resource.spec.host_id"],
    ),
    text("hostname", &["resource.spec.hostname"]),
    text("version", &["resource.spec.version"]),
    text("public_addr", &[]),
];

const USER: &[Field] = &[
    text("user.metadata.name", &["user.name"]),
    list("user.spec.roles", &["user.roles"]),
    Field {
        path: "user.spec.traits",
        also: &["user.traits"],
        holds: FieldType::Traits,
    },
];

impl Schema {
    /// Databases.
    pub const DATABASE: Self = Self {
        kind: "a database",
        fields: &[NAMED, DATABASE],
        searchable: true,
    };

    /// Database servers: an agent's view of a database.
    pub const DATABASE_SERVER: Self = Self {
        kind: "a database server",
        fields: &[NAMED, DATABASE, SERVED],
        searchable: true,
    };

    /// Agents, and other services that are up.
    pub const INSTANCE: Self = Self {
        kind: "an instance",
        fields: &[
            HOST,
            &[
                list("services", &["resource.spec.services"]),
                number("databases", &[]),
                text("since", &[]),
            ],
        ],
        searchable: true,
    };

    /// Proxies that are up.
    pub const PROXY: Self = Self {
        kind: "a proxy",
        fields: &[HOST],
        searchable: true,
    };

    /// Discovery's scan scopes.
    pub const SCAN_SCOPE: Self = Self {
        kind: "a scan scope",
        fields: &[&[
            text("name", &["id", "resource.metadata.name"]),
            text("group", &["discovery_group"]),
            text("type", &["kind"]),
            text("region", &[]),
            text("assume_role_arn", &[]),
            text("account_id", &[]),
            text("discovery_config", &[]),
            text("status", &[]),
            text("owner", &[]),
            text("error", &[]),
            number("databases", &[]),
            number("held_deletions", &[]),
            text("last_attempt", &[]),
            text("last_success", &[]),
        ]],
        searchable: true,
    };

    /// Matchers that are kept in the cluster.
    pub const DISCOVERY_CONFIG: Self = Self {
        kind: "a discovery configuration",
        fields: &[&[
            text("name", &["resource.metadata.name"]),
            text(
                "group",
                &["discovery_group", "resource.spec.discovery_group"],
            ),
            list("types", &[]),
            list("regions", &[]),
            list("assume_role_arns", &[]),
        ]],
        searchable: true,
    };

    /// People.
    pub const USER: Self = Self {
        kind: "a user",
        fields: &[&[
            text("name", &["resource.metadata.name"]),
            list("roles", &["resource.spec.roles"]),
            Field {
                path: "traits",
                also: &["resource.spec.traits"],
                holds: FieldType::Traits,
            },
            flag("signed_up", &[]),
            text("created_at", &[]),
        ]],
        searchable: true,
    };

    /// Roles.
    pub const ROLE: Self = Self {
        kind: "a role",
        fields: &[&[
            text("name", &["resource.metadata.name"]),
            flag("built_in", &[]),
            list("allow.db_users", &["resource.spec.allow.db_users"]),
            list("allow.db_names", &["resource.spec.allow.db_names"]),
            list("allow.db_roles", &["resource.spec.allow.db_roles"]),
            list("allow.resources", &[]),
            list("deny.db_users", &["resource.spec.deny.db_users"]),
            list("deny.db_names", &["resource.spec.deny.db_names"]),
            list("deny.db_roles", &["resource.spec.deny.db_roles"]),
            list("deny.resources", &[]),
        ]],
        searchable: true,
    };

    /// Join tokens.
    pub const TOKEN: Self = Self {
        kind: "a token",
        fields: &[&[
            text("name", &["id", "resource.metadata.name"]),
            list("types", &["services", "roles", "resource.spec.roles"]),
            text("join_method", &["resource.spec.join_method"]),
            text("expires_at", &["resource.metadata.expires"]),
            number("max_uses", &[]),
            number("uses", &[]),
            flag("is_static", &[]),
            text("created_by", &[]),
            text("created_at", &[]),
        ]],
        searchable: true,
    };

    /// Locks.
    pub const LOCK: Self = Self {
        kind: "a lock",
        fields: &[&[
            text("name", &["resource.metadata.name"]),
            text("message", &["resource.spec.message"]),
            text("target.user", &["resource.spec.target.user"]),
            text("target.role", &["resource.spec.target.role"]),
            text("target.agent", &["resource.spec.target.agent"]),
            text("target.database", &["resource.spec.target.database"]),
            text(
                "target.access_request",
                &["resource.spec.target.access_request"],
            ),
            text("created_at", &[]),
            text("created_by", &["resource.spec.created_by"]),
            text("expires_at", &["resource.spec.expires"]),
        ]],
        searchable: true,
    };

    /// A role's `db_labels_expression`: the database's labels, and who asks.
    pub const LABEL_EXPRESSION: Self = Self {
        kind: "a label expression",
        fields: &[&[LABELS], USER],
        searchable: false,
    };

    /// The `where` of a role's rule: the resource that is asked for, and who asks.
    pub const RULE: Self = Self {
        kind: "a rule",
        fields: &[
            &[
                text("resource.kind", &[]),
                text("resource.metadata.name", &["resource.name"]),
                Field {
                    path: "resource.metadata.labels",
                    also: &["resource.labels", "labels"],
                    holds: FieldType::Labels,
                },
            ],
            USER,
        ],
        searchable: false,
    };

    /// The `where` of a role's right to review: the access request, and who would review it.
    pub const REVIEW: Self = Self {
        kind: "a review",
        fields: &[&[
            text("request.user", &[]),
            list("request.roles", &[]),
            text("request.reason", &[]),
            text("reviewer.name", &[]),
            list("reviewer.roles", &[]),
            Field {
                path: "reviewer.traits",
                also: &[],
                holds: FieldType::Traits,
            },
        ]],
        searchable: false,
    };

    /// The inner part of a role's template, such as `{{internal.db_users}}`.
    pub const TEMPLATE: Self = Self {
        kind: "a template",
        fields: &[&[
            Field {
                path: "internal",
                also: &[],
                holds: FieldType::Traits,
            },
            Field {
                path: "external",
                also: &[],
                holds: FieldType::Traits,
            },
        ]],
        searchable: false,
    };

    /// The field of this name, or of this other name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Field> {
        self.iter()
            .find(|field| field.path == name || field.also.contains(&name))
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = Field> {
        self.fields.iter().flat_map(|group| group.iter().copied())
    }

    /// The first field that holds labels.
    pub(super) fn labels(&self) -> Option<&'static str> {
        self.iter()
            .find(|field| field.holds == FieldType::Labels)
            .map(|field| field.path)
    }
}
