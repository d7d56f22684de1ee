//! What the values of a typed column mean, and how people write them.
//!
//! In: a column's type and a value as it is stored. Out: the value as a row has it: a date is
//! `2024-01-31` and no number of days, a decimal has its point.

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as PhysicalType};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Number;

use crate::hash::hex;
use crate::source::json::Json;

/// What a column's values mean beyond how they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What they are stored as; text where that is bytes.
    Stored,
    Unsigned,
    /// Days since 1970.
    Date,
    /// Since midnight, so many of them a second.
    Time {
        a_second: u32,
        utc: bool,
    },
    /// Since 1970, so many of them a second.
    Timestamp {
        a_second: u32,
        utc: bool,
    },
    /// With so many digits behind the point.
    Decimal(u32),
    Uuid,
    Float16,
}

impl Meaning {
    pub(super) fn of(column: &ColumnDescriptor) -> Meaning {
        let a_second = |unit: &TimeUnit| match unit {
            TimeUnit::MILLIS => 1_000,
            TimeUnit::MICROS => 1_000_000,
            TimeUnit::NANOS => 1_000_000_000,
        };
        let scale = |scale: i32| Meaning::Decimal(u32::try_from(scale).unwrap_or(0).min(100));
        match column.logical_type_ref() {
            Some(LogicalType::Date) => return Meaning::Date,
            Some(LogicalType::Time(time)) => {
                let utc = time.is_adjusted_to_u_t_c;
                return Meaning::Time { a_second: a_second(&time.unit), utc };
            }
            Some(LogicalType::Timestamp(time)) => {
                let utc = time.is_adjusted_to_u_t_c;
                return Meaning::Timestamp { a_second: a_second(&time.unit), utc };
            }
            Some(LogicalType::Decimal(decimal)) => return scale(decimal.scale),
            Some(LogicalType::Integer(integer)) if !integer.is_signed => return Meaning::Unsigned,
            Some(LogicalType::Uuid) => return Meaning::Uuid,
            Some(LogicalType::Float16) => return Meaning::Float16,
            _ => {}
        }
        match column.converted_type() {
            ConvertedType::DATE => Meaning::Date,
            ConvertedType::TIME_MILLIS => Meaning::Time { a_second: 1_000, utc: true },
            ConvertedType::TIME_MICROS => Meaning::Time { a_second: 1_000_000, utc: true },
            ConvertedType::TIMESTAMP_MILLIS => Meaning::Timestamp { a_second: 1_000, utc: true },
            ConvertedType::TIMESTAMP_MICROS => {
                Meaning::Timestamp { a_second: 1_000_000, utc: true }
            }
            ConvertedType::DECIMAL => scale(column.type_scale()),
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64 => Meaning::Unsigned,
            _ => Meaning::Stored,
        }
    }

    /// Whether values of this meaning are no text, though they are bytes.
    pub(super) fn is_binary(self, kind: PhysicalType) -> bool {
        self != Meaning::Stored
            && matches!(kind, PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY)
    }

    /// A whole number, of so many bits.
    pub(super) fn integer(self, value: i64, bits: u32) -> Json {
        let typed = |kind, shown| Json::Typed { kind, shown, raw: value.to_string() };
        match self {
            Meaning::Unsigned => {
                let value = value as u64 & (u64::MAX >> (64 - bits));
                typed("a number", value.to_string())
            }
            Meaning::Date => typed("a date", date(value)),
            Meaning::Time { a_second, utc } => {
                typed("a time", time(i128::from(value), a_second) + zone(utc))
            }
            Meaning::Timestamp { a_second, utc } => {
                typed("a time", timestamp(i128::from(value), a_second) + zone(utc))
            }
            Meaning::Decimal(scale) => {
                typed("a decimal number", decimal(&value.to_string(), scale))
            }
            Meaning::Stored | Meaning::Uuid | Meaning::Float16 => Json::Number(value.into()),
        }
    }

    /// Bytes that are no text.
    pub(super) fn binary(self, bytes: &[u8]) -> Json {
        let (kind, shown) = match self {
            // The longest that any writer makes has 32 bytes; more would take long to convert.
            Meaning::Decimal(scale) if bytes.len() <= 64 => {
                ("a decimal number", decimal(&whole(bytes), scale))
            }
            Meaning::Uuid if bytes.len() == 16 => {
                let mut shown = hex(bytes);
                for at in [20, 16, 12, 8] {
                    shown.insert(at, '-');
                }
                ("a UUID", shown)
            }
            Meaning::Float16 if bytes.len() == 2 => {
                return float(f64::from(half(u16::from_le_bytes([bytes[0], bytes[1]]))), None);
            }
            _ => ("bytes", hex(bytes)),
        };
        Json::Typed { kind, raw: shown.clone(), shown }
    }
}

/// A number with a fraction; `shown` where fewer digits than of an f64 say it all.
pub(super) fn float(value: f64, shown: Option<String>) -> Json {
    match (Number::from_f64(value), shown) {
        (Some(number), Some(shown)) => {
            Json::Typed { kind: "a number", shown, raw: number.to_string() }
        }
        (Some(number), None) => Json::Number(number),
        (None, _) if value.is_nan() => Json::NotFinite("NaN"),
        (None, _) if value > 0.0 => Json::NotFinite("Infinity"),
        (None, _) => Json::NotFinite("-Infinity"),
    }
}

/// A time as Impala and older Sparks store it: nanoseconds of a day, and its Julian number.
pub(super) fn time_of_julian_day([low, high, day]: [u32; 3]) -> Json {
    const JULIAN_DAY_OF_1970: i64 = 2_440_588;
    let nanoseconds = u64::from(low) | u64::from(high) << 32;
    let days = i128::from(i64::from(day) - JULIAN_DAY_OF_1970);
    let shown = timestamp(days * 86_400_000_000_000 + i128::from(nanoseconds), 1_000_000_000);
    Json::Typed { kind: "a time", raw: shown.clone(), shown }
}

/// Behind a time that is no local one.
fn zone(utc: bool) -> &'static str {
    if utc { "Z" } else { "" }
}

/// The whole number that bytes mean, in two's complement, the most significant first.
fn whole(bytes: &[u8]) -> String {
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    // Decimal digits of the magnitude, the least significant first. That of a negative number is
    // one more than its complement.
    let mut digits = vec![0u8];
    let mut append = |carry: u32, factor: u32| {
        let mut carry = carry;
        for digit in &mut digits {
            carry += u32::from(*digit) * factor;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    };
    for byte in bytes {
        append(u32::from(if is_negative { !*byte } else { *byte }), 256);
    }
    if is_negative {
        append(1, 1);
    }
    let digits: String = digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
    if is_negative { format!("-{digits}") } else { digits }
}

/// A day, so many after 1970-01-01, in the Gregorian calendar.
fn date(days: i64) -> String {
    // Of whole spans of 400, 100, 4 and 1 years, counted from 1 March of the year 0, so that a leap
    // day is the last of its year.
    let days = i128::from(days) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month < 10 {
        true => (year + era * 400, month + 3),
        false => (year + era * 400 + 1, month - 9),
    };
    format!("{year:04}-{month:02}-{day:02}")
}

/// A time of day.
fn time(value: i128, a_second: u32) -> String {
    let a_second_wide = i128::from(a_second);
    let (seconds, part) = (value.div_euclid(a_second_wide), value.rem_euclid(a_second_wide));
    let mut shown = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if part != 0 {
        let width = a_second.ilog10() as usize;
        shown.push_str(format!(".{part:0width$}").trim_end_matches('0'));
    }
    shown
}

/// A time since 1970.
fn timestamp(value: i128, a_second: u32) -> String {
    let a_day = 86_400 * i128::from(a_second);
    let days = i64::try_from(value.div_euclid(a_day)).unwrap_or(i64::MAX);
    format!("{}T{}", date(days), time(value.rem_euclid(a_day), a_second))
}

/// Digits with a point before the last `scale`.
fn decimal(digits: &str, scale: u32) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let scale = scale as usize;
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{part}")
}

/// A 16-bit float: a sign, 5 bits of exponent, 10 of fraction.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        exponent => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: Json) -> String {
        match value {
            Json::Typed { shown, .. } => shown,
            Json::Number(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn values_are_shown_as_people_write_them() {
        for (days, date) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (11_016, "2000-02-29"),
            (-25_508, "1900-03-01"),
            (-719_528, "0000-01-01"),
        ] {
            assert_eq!(shown(Meaning::Date.integer(days, 32)), date);
        }
        assert_eq!(
            shown(Meaning::Time { a_second: 1_000, utc: false }.integer(3_723_004, 32)),
            "01:02:03.004"
        );
        assert_eq!(
            shown(Meaning::Timestamp { a_second: 1_000_000, utc: false }.integer(-1, 64)),
            "1969-12-31T23:59:59.999999"
        );
        let summer = 1_717_236_000_000;
        let utc = Meaning::Timestamp { a_second: 1_000, utc: true };
        assert_eq!(shown(utc.integer(summer, 64)), "2024-06-01T10:00:00Z");
        assert!(!shown(utc.integer(i64::MIN, 64)).is_empty());
        assert_eq!(shown(time_of_julian_day([0, 0, 2_440_588])), "1970-01-01T00:00:00");
        for (digits, scale, decimal) in
            [(12_345, 2, "123.45"), (-5, 2, "-0.05"), (0, 1, "0.0"), (7, 0, "7")]
        {
            assert_eq!(shown(Meaning::Decimal(scale).integer(digits, 64)), decimal);
        }
        assert_eq!(shown(Meaning::Decimal(2).binary(&[0xff, 0x85])), "-1.23");
        assert_eq!(shown(Meaning::Decimal(2).binary(&[0, 123])), "1.23");
        for number in [i128::MIN, -256, -1, 0, 255, i128::MAX] {
            let bytes = number.to_be_bytes();
            assert_eq!(shown(Meaning::Decimal(0).binary(&bytes)), number.to_string());
        }
        let wide = [[0u8; 1].as_slice(), &u128::MAX.to_be_bytes()].concat();
        assert_eq!(shown(Meaning::Decimal(0).binary(&wide)), u128::MAX.to_string());
        assert_eq!(shown(Meaning::Unsigned.integer(-1, 32)), "4294967295");
        assert_eq!(shown(Meaning::Unsigned.integer(-1, 64)), "18446744073709551615");
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(shown(Meaning::Uuid.binary(&uuid)), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(shown(Meaning::Float16.binary(&[0x00, 0x3e])), "1.5");
        assert_eq!(float(f64::NAN, None), Json::NotFinite("NaN"));
        assert_eq!(shown(float(f64::from(0.1f32), Some("0.1".to_owned()))), "0.1");
    }
}
