//! Durations of roles as people write them: `12h`, `8h0m0s`, `30m`.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

#[allow(
    clippy::ref_option,
    reason = "serde's `with` calls it with a reference"
)]
pub(crate) fn serialize<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let signed = duration.and_then(|duration| SignedDuration::try_from(duration).ok());
    match signed {
        Some(signed) => serializer.serialize_some(&format!("{signed:#}").replace(' ', "")),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(written) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let invalid = || {
        D::Error::custom(format!(
            "`{written}` is not a duration such as `12h` or `30m`"
        ))
    };
    let signed: SignedDuration = written.parse().map_err(|_| invalid())?;
    Duration::try_from(signed).map(Some).map_err(|_| invalid())
}
