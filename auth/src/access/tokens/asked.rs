//! What somebody asks a join token to be, checked.
//!
//! A token of method `token` is a secret that ends: whoever reads it can join, so it is long, and its life is short. One of
//! method `iam` is only a name, and may stay: who joins with it is proven otherwise.

use jiff::{SignedDuration, Timestamp};
use tidegate_proto::{Invalid, convert, v1};

use super::{
    super::{TOKEN_TTL_DEFAULT, TOKEN_TTL_MAX, check_name},
    ID_CHARS, allow,
};

/// What a token can let in.
const TYPES: [&str; 3] = ["db", "discovery", "proxy"];
/// Shortest and longest secret that people may choose. The shortest is longer than an id, so that what listings show is
/// never taken for a secret.
const SECRET_CHARS: std::ops::RangeInclusive<usize> = 16..=256;
/// Most hosts that a limited token is for: each is remembered in its record.
const USES_MAX: u32 = 100;

const _: () = assert!(*SECRET_CHARS.start() > ID_CHARS);

/// How who joins proves that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinMethod {
    /// By an AWS identity.
    Iam,
    /// It knows the secret.
    Token,
}

impl JoinMethod {
    /// As it is written and stored.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Iam => "iam",
            Self::Token => "token",
        }
    }

    /// As it was written; nothing is [`Self::Token`].
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            "" | "token" => Some(Self::Token),
            "iam" => Some(Self::Iam),
            _ => None,
        }
    }
}

/// A token that can be made.
pub(super) struct Asked {
    pub(super) method: JoinMethod,
    pub(super) types: Vec<String>,
    pub(super) allow: Vec<v1::TokenAllow>,
    pub(super) max_uses: u32,
    pub(super) expires_at: Option<Timestamp>,
}

/// Checks a token that is to be known by `name`.
pub(super) fn check(name: &str, token: &v1::Token, now: Timestamp) -> Result<Asked, Invalid> {
    let method = JoinMethod::read(&token.join_method)
        .ok_or_else(|| Invalid::new("join_method", "must be `token` or `iam`"))?;
    let ends = token.expires_at.as_ref().map(convert::instant).transpose();
    let ends = ends.map_err(|_| Invalid::new("expires_at", "is no instant"))?;
    if ends.is_some_and(|ends| ends <= now) {
        return Err(Invalid::new("expires_at", "is past"));
    }
    let max_uses = uses(token.max_uses)?;
    let (allow, expires_at) = match method {
        JoinMethod::Iam => {
            check_name("name", name)?;
            allow::check(&token.allow)?;
            if max_uses > 0 {
                let problem = "is for tokens of method `token`: a host joins by `iam` each time that its certificate has ended";
                return Err(Invalid::new("max_uses", problem));
            }
            (token.allow.clone(), ends)
        }
        JoinMethod::Token => {
            check_secret("name", name)?;
            if !token.allow.is_empty() {
                return Err(Invalid::new("allow", "is for tokens of method `iam`"));
            }
            (Vec::new(), Some(end_of_secret(ends, now)?))
        }
    };
    Ok(Asked {
        method,
        types: types(&token.types)?,
        allow,
        max_uses,
        expires_at,
    })
}

/// The types of a token, each once.
pub(super) fn types(asked: &[String]) -> Result<Vec<String>, Invalid> {
    let mut types: Vec<String> = asked.iter().map(|kind| kind.to_lowercase()).collect();
    types.sort();
    types.dedup();
    if types.is_empty() || !types.iter().all(|kind| TYPES.contains(&kind.as_str())) {
        let problem = format!("must be one or more of {}", TYPES.join(", "));
        return Err(Invalid::new("types", problem));
    }
    Ok(types)
}

/// How many hosts a token is for; 0 is any number.
pub(super) fn uses(asked: u32) -> Result<u32, Invalid> {
    if asked > USES_MAX {
        let problem = format!("must be at most {USES_MAX}, or 0 for any number");
        return Err(Invalid::new("max_uses", problem));
    }
    Ok(asked)
}

/// A secret that people chose.
pub(super) fn check_secret(field: &str, secret: &str) -> Result<(), Invalid> {
    let sound =
        SECRET_CHARS.contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    if sound {
        return Ok(());
    }
    let (least, most) = SECRET_CHARS.into_inner();
    let problem = format!(
        "is the secret of a token of method `token`: it must be {least} to {most} printable characters without spaces; \
         `tgctl tokens add` makes a good one"
    );
    Err(Invalid::new(field, problem))
}

fn end_of_secret(asked: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Invalid> {
    let after = |ttl| {
        let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
        now.saturating_add(ttl).unwrap_or(Timestamp::MAX)
    };
    let ends = asked.unwrap_or_else(|| after(TOKEN_TTL_DEFAULT));
    if ends > after(TOKEN_TTL_MAX) {
        let problem = format!(
            "must be within {} h for a token of method `token`: one that lasts is written in the auth service's \
             configuration (`auth_service.tokens`), or is of method `iam`",
            TOKEN_TTL_MAX.as_secs() / 3600
        );
        return Err(Invalid::new("expires_at", problem));
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(method: &str) -> v1::Token {
        let account = v1::TokenAllow {
            aws_account: "111122223333".to_owned(),
            aws_arn: String::new(),
        };
        v1::Token {
            types: vec!["Db".to_owned(), "db".to_owned(), "proxy".to_owned()],
            join_method: method.to_owned(),
            allow: if method == "iam" {
                vec![account]
            } else {
                Vec::new()
            },
            ..v1::Token::default()
        }
    }

    fn field(name: &str, token: &v1::Token) -> String {
        match check(name, token, at(0)) {
            Err(invalid) => invalid.field,
            Ok(_) => String::new(),
        }
    }

    #[test]
    fn a_secret_ends_within_the_hour_unless_told_and_an_iam_token_never() {
        let asked = check(SECRET, &token(""), at(0)).ok().unwrap();
        assert_eq!(asked.expires_at, Some(at(3600)));
        assert_eq!(asked.types, ["db", "proxy"]);
        let asked = check("agents", &token("iam"), at(0)).ok().unwrap();
        assert_eq!((asked.expires_at, asked.method), (None, JoinMethod::Iam));
    }

    #[test]
    fn a_secret_does_not_outlast_two_days() {
        let ending = |second| v1::Token {
            expires_at: Some(convert::timestamp(at(second))),
            ..token("token")
        };
        assert_eq!(field(SECRET, &ending(48 * 3600)), "");
        assert_eq!(field(SECRET, &ending(48 * 3600 + 1)), "expires_at");
        assert_eq!(field(SECRET, &ending(0)), "expires_at");
        let lasting = v1::Token {
            expires_at: ending(1_000_000_000).expires_at,
            ..token("iam")
        };
        assert_eq!(field("agents", &lasting), "");
    }

    #[test]
    fn what_listings_show_is_never_a_secret() {
        assert_eq!(field("0a1b2c3d", &token("token")), "name");
        assert_eq!(field("0123456789 abcdef", &token("token")), "name");
        assert_eq!(field(&"x".repeat(257), &token("token")), "name");
    }

    #[test]
    fn what_belongs_to_one_method_is_refused_with_the_other() {
        let limited = v1::Token {
            max_uses: 1,
            ..token("iam")
        };
        assert_eq!(field("agents", &limited), "max_uses");
        let rules = v1::Token {
            allow: token("iam").allow,
            ..token("token")
        };
        assert_eq!(field(SECRET, &rules), "allow");
        let open = v1::Token {
            allow: Vec::new(),
            ..token("iam")
        };
        assert_eq!(field("agents", &open), "allow");
        assert_eq!(field("agents", &token("ec2")), "join_method");
        let many = v1::Token {
            max_uses: USES_MAX + 1,
            ..token("token")
        };
        assert_eq!(field(SECRET, &many), "max_uses");
        let node = v1::Token {
            types: vec!["node".to_owned()],
            ..token("iam")
        };
        assert_eq!(field("agents", &node), "types");
    }
}
