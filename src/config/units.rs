//! Durations and sizes as people write them.

use std::time::Duration;

/// Names of sizes and their bytes, largest first.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Parses `250ms`, `10s`, `5m`, `1h 30m`. A bare number is refused: nobody can
/// tell its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.parse::<f64>().is_ok() {
        return Err(format!(
            "a duration needs a unit, like '{text}s' or '{text}ms'"
        ));
    }
    humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, .. } if !unit.is_empty() => {
            format!("'{}' is no unit: ms, s, m, h", unit.escape_debug())
        }
        _ => "not a duration like '250ms', '10s' or '1h 30m'".to_owned(),
    })
}

/// Parses `900KiB`, `8 MiB`, `1MB`, `4096`: bytes without a unit. A unit that
/// could be 1000 or 1024 is refused.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let number: u64 = digits.parse().map_err(|_| {
        let fraction = unit.starts_with(['.', ',']);
        let advice = if fraction {
            ": a size is a whole number"
        } else {
            ""
        };
        format!("not a size like '900KiB' or '8MiB'{advice}")
    })?;
    if unit.is_empty() {
        return Ok(number);
    }
    let known = SIZES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let Some((_, bytes)) = known else {
        return Err(size_unit_problem(digits, unit));
    };
    Ok(number.saturating_mul(*bytes))
}

fn size_unit_problem(digits: &str, unit: &str) -> String {
    match unit {
        "k" | "K" | "m" | "M" | "g" | "G" => {
            let letter = unit.to_ascii_uppercase();
            format!(
                "'{unit}' could be 1000 or 1024: write '{digits}{letter}iB' (1024) or '{digits}{letter}B' (1000)"
            )
        }
        _ if unit.starts_with(['.', ',']) => "a size is a whole number, like '1536KiB'".to_owned(),
        _ => format!(
            "'{}' is no unit of size: use B, KiB, MiB, GiB, KB, MB or GB",
            unit.escape_debug()
        ),
    }
}

/// A size in the largest unit that says it exactly.
pub fn show_size(bytes: u64) -> String {
    let exact = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let binary = SIZES
        .iter()
        .filter(|(name, _)| name.ends_with("iB") || *name == "B");
    match binary.clone().find(exact) {
        Some((name, unit)) if *name != "B" => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

/// A duration as it would be written.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
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

    #[test]
    fn sizes_read_back_as_they_are_shown() {
        for (text, bytes, shown) in [
            ("1MiB", 1 << 20, "1MiB"),
            ("900 kib", 900 << 10, "900KiB"),
            ("1MB", 1_000_000, "1000000"),
            ("4096", 4096, "4KiB"),
            ("0", 0, "0"),
            ("5B", 5, "5"),
            ("99999999999GiB", u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
        }
    }

    #[test]
    fn a_size_that_could_be_two_or_none_is_refused() {
        for (text, problem) in [
            ("8M", "write '8MiB' (1024) or '8MB' (1000)"),
            ("1.5MiB", "whole number"),
            ("8 parsecs", "no unit of size"),
            ("-1", "not a size"),
            ("", "not a size"),
            ("MiB", "not a size"),
            ("99999999999999999999999", "not a size"),
        ] {
            let said = parse_size(text).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
    }
}
