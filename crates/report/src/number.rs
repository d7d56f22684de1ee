//! Numbers for people: short counts, thousands separators, durations.

/// A count in three or four characters and a suffix: `950`, `12.3k`, `1.4M`, `2.0B`, `3.1T`.
///
/// Negative values keep their sign; values that are not finite are `n/a`.
pub fn count(value: f64) -> String {
    scaled(value, &["", "k", "M", "B", "T"])
}

/// A number of bytes, by powers of ten: `950 B`, `12.3 kB`, `1.4 MB`.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, &[" B", " kB", " MB", " GB", " TB"])
}

fn scaled(value: f64, suffixes: &[&str]) -> String {
    if !value.is_finite() {
        return "n/a".to_owned();
    }
    let mut scaled = value;
    let mut suffix = 0;
    // 999.95 would be written as 1000.0 of one suffix: it is 1.0 of the next. Bare counts are
    // rounded to whole ones.
    let limit = |suffix: usize| if suffix == 0 { 999.5 } else { 999.95 };
    while scaled.abs() >= limit(suffix) && suffix + 1 < suffixes.len() {
        scaled /= 1000.0;
        suffix += 1;
    }
    let digits = usize::from(suffix > 0);
    format!("{scaled:.digits$}{}", suffixes[suffix])
}

/// A whole number with thousands separators: `1,234,567`.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration of `seconds`, to two units: `0.4s`, `42s`, `4m 05s`, `2h 03m`, `3d 04h`; `n/a` where
/// it is none.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "n/a".to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, minutes) => format!("{minutes}m {:02}s", whole % 60),
        (0, hours, _) => format!("{hours}h {:02}m", minutes % 60),
        (days, ..) => format!("{days}d {:02}h", hours % 24),
    }
}

/// `value` with `digits` decimals, thousands separators from 1,000 on, `<0.01` for what would round
/// to 0, and `n/a` for what is not finite.
pub(crate) fn decimal(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "n/a".to_owned();
    }
    let smallest = 0.1f64.powi(digits as i32);
    if value > 0.0 && value < smallest / 2.0 {
        return format!("<{smallest:.digits$}");
    }
    let text = format!("{value:.digits$}");
    // Up to 2⁶³ the whole part is exact; beyond, separators no longer matter.
    match text.split_once('.') {
        Some((whole, fraction)) if value >= 1000.0 => match whole.parse() {
            Ok(whole) => format!("{}.{fraction}", thousands(whole)),
            Err(_) => format!("{value:.1e}"),
        },
        None if value >= 1000.0 => text.parse().map_or_else(|_| format!("{value:.1e}"), thousands),
        _ => text,
    }
}

/// Passes over a domain: `2.50`, `1,200`.
pub(crate) fn passes(value: f64) -> String {
    if value >= 1_000.0 { thousands(value.round() as u64) } else { format!("{value:.2}") }
}

/// A probability: `0.034`, `<0.001`, `1.000`; a p that underflows to 0 is small and not nothing.
pub(crate) fn probability(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (7.0, "7"),
            (999.0, "999"),
            (999.6, "1.0k"),
            (1_000.0, "1.0k"),
            (12_345.0, "12.3k"),
            (999_949.0, "999.9k"),
            (999_950.0, "1.0M"),
            (1_432_000.0, "1.4M"),
            (2e9, "2.0B"),
            (3.14e12, "3.1T"),
            (1e18, "1000000.0T"),
            (-12_345.0, "-12.3k"),
            (f64::NAN, "n/a"),
            (f64::INFINITY, "n/a"),
        ] {
            assert_eq!(count(value), expected, "{value}");
        }
        assert_eq!((bytes(950), bytes(12_300)), ("950 B".to_owned(), "12.3 kB".to_owned()));
    }

    #[test]
    fn thousands_are_separated() {
        for (value, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(value), expected);
        }
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, expected) in [
            (0.0, "0.0s"),
            (0.44, "0.4s"),
            (9.94, "9.9s"),
            (9.96, "10s"),
            (59.4, "59s"),
            (59.6, "1m 00s"),
            (245.0, "4m 05s"),
            (3_599.7, "1h 00m"),
            (7_380.0, "2h 03m"),
            (273_600.0, "3d 04h"),
            (-1.0, "n/a"),
            (f64::INFINITY, "n/a"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_small_probability_is_below_a_bound() {
        for (p, expected) in [
            (0.0, "<0.001"),
            (1e-300, "<0.001"),
            (0.000_7, "<0.001"),
            (0.001, "0.001"),
            (0.034_4, "0.034"),
            (1.0, "1.000"),
        ] {
            assert_eq!(probability(p), expected, "{p}");
        }
    }

    #[test]
    fn decimals_never_show_something_as_nothing() {
        for (value, digits, expected) in [
            (0.0, 2, "0.00"),
            (0.004, 2, "<0.01"),
            (0.006, 2, "0.01"),
            (1.005, 1, "1.0"),
            (999.5, 1, "999.5"),
            (1234.56, 1, "1,234.6"),
            (12_345.0, 0, "12,345"),
            (-2.5, 3, "-2.500"),
            (1e30, 1, "1.0e30"),
            (f64::NAN, 2, "n/a"),
        ] {
            assert_eq!(decimal(value, digits), expected, "{value}");
        }
    }
}
