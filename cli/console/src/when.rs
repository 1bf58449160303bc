//! Instants and lifetimes as people read and type them. All instants are shown in UTC.

use std::time::Duration;

use jiff::Timestamp;

const HOUR_SECONDS: u64 = 3600;
const MINUTE_SECONDS: u64 = 60;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;

/// `2026-11-22 23:30:00 UTC`.
#[must_use]
pub fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How long until `at`, in hours and minutes (`11h59m`), or `expired`.
#[must_use]
pub fn left(at: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(at.duration_since(now)) {
        Ok(left) if !left.is_zero() => span(left),
        _ => "expired".to_owned(),
    }
}

/// How long ago `at` was: `45s ago`, `3d ago`; what is not past yet, by clocks that differ, is `now`.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(now.duration_since(at)) {
        Ok(past) if past.as_secs() >= 2 * DAY_SECONDS => {
            format!("{}d ago", past.as_secs() / DAY_SECONDS)
        }
        Ok(past) if past.as_secs() > 0 => format!("{} ago", span(past)),
        _ => "now".to_owned(),
    }
}

/// `11h59m`, `30m`, `45s`.
#[must_use]
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (hours, minutes) = (
        seconds / HOUR_SECONDS,
        seconds % HOUR_SECONDS / MINUTE_SECONDS,
    );
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m"),
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    }
}

/// Reads a lifetime: `1h`, `1h30m`, `45s`, `2d`; a bare number is minutes.
///
/// # Errors
///
/// A text for clap when it is none of these, or zero.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no lifetime; write `30m`, `12h` or `1h30m`");
    if let Ok(minutes) = text.parse::<u64>() {
        return seconds(minutes, MINUTE_SECONDS)
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
            .ok_or_else(wrong);
    }
    let mut total: u64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => MINUTE_SECONDS,
            'h' => HOUR_SECONDS,
            'd' => DAY_SECONDS,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        digits.clear();
        total = seconds(count, unit)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
    }
    if total == 0 || !digits.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}

fn seconds(count: u64, unit: u64) -> Option<u64> {
    count
        .checked_mul(unit)
        .filter(|seconds| *seconds <= 3650 * DAY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("1h", 3600),
            ("1h30m", 5400),
            ("45s", 45),
            ("720", 43_200),
            ("2d", 172_800),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "0",
            "0s",
            "h",
            "1x",
            "1h5",
            "-1h",
            "99999999999999999999h",
            "18446744073709551615",
        ] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_shown_in_utc_with_what_is_left() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let at: Timestamp = "2026-11-22T21:59:30Z".parse().unwrap();
        assert_eq!(utc(at), "2026-11-22 21:59:30 UTC");
        assert_eq!(left(at, now), "11h59m");
        assert_eq!(left(now, at), "expired");
        assert_eq!(left(now, now), "expired");
        assert_eq!(ago(now, at), "11h59m ago");
        assert_eq!(ago(at, now), "now");
        let days = now - jiff::SignedDuration::from_hours(50);
        assert_eq!(ago(days, now), "2d ago");
        assert_eq!(span(Duration::from_secs(59)), "59s");
        assert_eq!(span(Duration::from_secs(3600)), "1h");
    }
}
