//! The name of an RDS endpoint at AWS, which tokens are signed for.
//!
//! Source: Amazon RDS user guide, "Finding the connection information": `<name>.<hash>.<region>.rds.amazonaws.com`; in
//! China `….rds.<region>.amazonaws.com.cn`, and in the other order for newer endpoints.

use tidegate_core::{Database, Region};

/// The endpoint's own name: the address when it is one, else the name that its certificate has to carry. `None` when
/// neither is.
pub(super) fn canonical<'d>(database: &'d Database, region: &Region) -> Option<&'d str> {
    let names = [
        Some(database.uri.host()),
        database.tls.server_name.as_deref(),
    ];
    names
        .into_iter()
        .flatten()
        .find(|name| is_endpoint(name, region))
}

/// Whether a name is one that AWS gives to RDS endpoints of a region.
fn is_endpoint(name: &str, region: &Region) -> bool {
    let name = name.to_ascii_lowercase();
    let domain = region.dns_suffix();
    let ends = [
        format!(".{region}.rds.{domain}"),
        format!(".rds.{region}.{domain}"),
    ];
    ends.iter().any(|end| {
        name.strip_suffix(end.as_str())
            .is_some_and(|front| front.contains('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::redshift;

    const ENDPOINT: &str = "app.abc123.us-east-1.rds.amazonaws.com";

    fn found(uri: &str, server_name: Option<&str>) -> Option<String> {
        let mut database = redshift("app", &[]);
        database.uri = format!("{uri}:5432").parse().unwrap();
        database.tls.server_name = server_name.map(str::to_owned);
        canonical(&database, &"us-east-1".parse().unwrap()).map(str::to_owned)
    }

    #[test]
    fn an_alias_is_not_what_tokens_are_signed_for() {
        assert_eq!(found(ENDPOINT, None).as_deref(), Some(ENDPOINT));
        assert_eq!(
            found("db.corp.example", Some(ENDPOINT)).as_deref(),
            Some(ENDPOINT)
        );
        assert_eq!(found("db.corp.example", None), None);
        assert_eq!(found("10.0.0.1", Some("db.corp.example")), None);
        // Of another region: a token is bound to one.
        assert_eq!(found("app.abc123.us-west-2.rds.amazonaws.com", None), None);
    }

    #[test]
    fn endpoints_of_every_partition_are_known() {
        for (name, region) in [
            (
                "app.cluster-ro-abc.us-gov-west-1.rds.amazonaws.com",
                "us-gov-west-1",
            ),
            ("app.abc.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("app.abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
            (
                "Ro.endpoint.proxy-abc.us-east-1.rds.amazonaws.com",
                "us-east-1",
            ),
        ] {
            assert!(is_endpoint(name, &region.parse().unwrap()), "{name}");
        }
        for name in [
            "us-east-1.rds.amazonaws.com",
            "app.us-east-1.rds.amazonaws.com",
            "app.abc.us-east-1.rds.amazonaws.com.evil.com",
        ] {
            assert!(!is_endpoint(name, &"us-east-1".parse().unwrap()), "{name}");
        }
    }
}
