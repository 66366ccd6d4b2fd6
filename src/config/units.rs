//! Durations as people write them.

use std::time::Duration;

/// Parses `250ms`, `10s`, `5m`, `1h 30m`. A bare number is refused: nobody can
/// tell its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.parse::<f64>().is_ok() {
        return Err(format!(
            "a duration needs a unit, like '{text}s' or '{text}ms'"
        ));
    }
    humantime::parse_duration(text)
        .map_err(|_| "not a duration like '250ms', '10s' or '1h 30m'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["10", "0", "-1s", "", "s", "1 parsec", "1.5"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
