//! Values of a Parquet column as people write them, for names of domains.
//!
//! In: a column's description, and its values as they are stored. Out: a date as `2024-02-29`, a
//! time as `2024-02-29T12:30:00Z`, a decimal with its point. Columns whose stored values are what
//! people write, such as text, signed integers and truth values, have no words of their own.

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::schema::types::ColumnDescriptor;

const SECONDS_IN_DAY: i128 = 86_400;

/// How the values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// Days since 1970.
    Date,
    /// Since midnight, in so many parts of a second.
    Time {
        per_second: i128,
        utc: bool,
    },
    /// Since 1970, in so many parts of a second.
    Timestamp {
        per_second: i128,
        utc: bool,
    },
    /// So many digits stand behind the point.
    Decimal {
        scale: u32,
    },
    /// Stored as a signed number of so many bits, and meant without a sign.
    Unsigned {
        bits: u32,
    },
    Uuid,
    Float16,
    Float32,
}

impl Words {
    /// How the values of a column are written; `None` where they are as they are stored.
    pub(super) fn of(column: &ColumnDescriptor) -> Option<Words> {
        let physical = column.physical_type();
        let logical = column.logical_type_ref().and_then(Words::logical);
        let words = logical.or_else(|| Words::converted(column));
        match (words, physical) {
            (None, Type::FLOAT) => Some(Words::Float32),
            // Nanoseconds of the local clock, as Spark and Hive wrote them.
            (_, Type::INT96) => Some(Words::Timestamp { per_second: 1_000_000_000, utc: false }),
            (Some(Words::Unsigned { .. }), Type::INT32) => Some(Words::Unsigned { bits: 32 }),
            (Some(Words::Unsigned { .. }), Type::INT64) => Some(Words::Unsigned { bits: 64 }),
            (words, _) => words,
        }
    }

    fn logical(kind: &LogicalType) -> Option<Words> {
        match kind {
            LogicalType::Date => Some(Words::Date),
            LogicalType::Time(time) => {
                let utc = time.is_adjusted_to_u_t_c;
                Some(Words::Time { per_second: per_second(&time.unit), utc })
            }
            LogicalType::Timestamp(time) => {
                let utc = time.is_adjusted_to_u_t_c;
                Some(Words::Timestamp { per_second: per_second(&time.unit), utc })
            }
            LogicalType::Decimal(decimal) => {
                Some(Words::Decimal { scale: u32::try_from(decimal.scale).ok()? })
            }
            LogicalType::Integer(integer) if !integer.is_signed => {
                Some(Words::Unsigned { bits: 64 })
            }
            LogicalType::Uuid => Some(Words::Uuid),
            LogicalType::Float16 => Some(Words::Float16),
            _ => None,
        }
    }

    /// Of files that were written before there were logical types.
    fn converted(column: &ColumnDescriptor) -> Option<Words> {
        let (thousand, million) = (1_000, 1_000_000);
        Some(match column.converted_type() {
            ConvertedType::DATE => Words::Date,
            ConvertedType::TIME_MILLIS => Words::Time { per_second: thousand, utc: true },
            ConvertedType::TIME_MICROS => Words::Time { per_second: million, utc: true },
            ConvertedType::TIMESTAMP_MILLIS => Words::Timestamp { per_second: thousand, utc: true },
            ConvertedType::TIMESTAMP_MICROS => Words::Timestamp { per_second: million, utc: true },
            ConvertedType::DECIMAL => {
                Words::Decimal { scale: u32::try_from(column.type_scale()).ok()? }
            }
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64 => Words::Unsigned { bits: 64 },
            _ => return None,
        })
    }

    /// A whole number as people write it; `None` where it is as it is stored.
    pub(super) fn number(self, number: i64) -> Option<String> {
        let number = i128::from(number);
        match self {
            Words::Date => Some(date(number)),
            Words::Time { per_second, utc } => {
                let days = number.div_euclid(per_second * SECONDS_IN_DAY);
                // A time of another day is none.
                (days == 0).then(|| time(number, per_second, utc))
            }
            Words::Timestamp { per_second, utc } => {
                let day = per_second * SECONDS_IN_DAY;
                let (days, rest) = (number.div_euclid(day), number.rem_euclid(day));
                Some(format!("{}T{}", date(days), time(rest, per_second, utc)))
            }
            Words::Decimal { scale } => Some(pointed(&number.to_string(), scale)),
            Words::Unsigned { bits: 32 } => Some((number as u32).to_string()),
            Words::Unsigned { .. } => Some((number as u64).to_string()),
            Words::Uuid | Words::Float16 | Words::Float32 => None,
        }
    }

    /// Bytes as people write what they mean; `None` where they are text.
    pub(super) fn bytes(self, bytes: &[u8]) -> Option<String> {
        match self {
            Words::Decimal { scale } => Some(pointed(&whole(bytes), scale)),
            Words::Uuid => {
                let hex = crate::hash::hex(bytes);
                let part = |from: usize, to: usize| hex.get(from..to);
                let parts =
                    [part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?];
                Some(parts.join("-"))
            }
            Words::Float16 => {
                let half = u16::from_le_bytes(bytes.try_into().ok()?);
                Some(float16(half).to_string())
            }
            _ => None,
        }
    }

    /// A number that may have a fraction; `None` where it is as it is stored.
    pub(super) fn float(self, number: f64) -> Option<String> {
        // As many digits as tell it from its neighbours, which of 32 bits are fewer.
        (self == Words::Float32).then(|| (number as f32).to_string())
    }
}

fn per_second(unit: &TimeUnit) -> i128 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

/// The date that is so many days after 1 January 1970, in the Gregorian calendar.
fn date(days: i128) -> String {
    // Counted from 1 March of the year 0: years that begin in March have the day that comes and
    // goes at their end, and 400 of them always have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i128::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A time of day; a fraction only where there is one.
fn time(parts: i128, per_second: i128, utc: bool) -> String {
    let (seconds, fraction) = (parts / per_second, parts % per_second);
    let width = per_second.ilog10() as usize;
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:0width$}").trim_end_matches('0').to_owned(),
    };
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let zone = if utc { "Z" } else { "" };
    format!("{hours:02}:{minutes:02}:{seconds:02}{fraction}{zone}")
}

/// A whole number with a point so many digits before its end.
fn pointed(number: &str, scale: u32) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let scale = scale as usize;
    if scale == 0 {
        return number.to_owned();
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// The whole number that bytes mean, in two's complement, the most significant first.
fn whole(bytes: &[u8]) -> String {
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut magnitude: Vec<u8> = bytes.to_vec();
    if is_negative {
        magnitude.iter_mut().for_each(|byte| *byte = !*byte);
        for byte in magnitude.iter_mut().rev() {
            let carry;
            (*byte, carry) = byte.overflowing_add(1);
            if !carry {
                break;
            }
        }
    }
    // Decimal digits, the least significant first.
    let mut digits = vec![0u8];
    for byte in magnitude {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            let sum = u32::from(*digit) * 256 + carry;
            (*digit, carry) = ((sum % 10) as u8, sum / 10);
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    let digits: String = digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
    if is_negative { format!("-{digits}") } else { digits }
}

/// The value of a 16-bit float.
fn float16(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_those_of_the_calendar() {
        for (days, written) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (-719_468, "0000-03-01"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(Words::Date.number(days).as_deref(), Some(written), "{days}");
        }
        let at = |per_second, utc, number| Words::Timestamp { per_second, utc }.number(number);
        assert_eq!(at(1_000, true, 1_709_209_800_000).as_deref(), Some("2024-02-29T12:30:00Z"));
        let micro = at(1_000_000, false, 1_709_209_800_250_000);
        assert_eq!(micro.as_deref(), Some("2024-02-29T12:30:00.25"));
        assert_eq!(at(1_000_000_000, true, -1).as_deref(), Some("1969-12-31T23:59:59.999999999Z"));
        assert!(at(1_000, true, i64::MIN).is_some() && at(1_000, true, i64::MAX).is_some());
        let time = Words::Time { per_second: 1_000, utc: false };
        assert_eq!(time.number(45_000_001).as_deref(), Some("12:30:00.001"));
        assert_eq!(time.number(-1), None);
    }

    #[test]
    fn numbers_are_written_with_their_sign_and_their_point() {
        let decimal = |scale| Words::Decimal { scale };
        assert_eq!(decimal(2).number(-5).as_deref(), Some("-0.05"));
        assert_eq!(decimal(2).number(12_345).as_deref(), Some("123.45"));
        assert_eq!(decimal(0).number(7).as_deref(), Some("7"));
        assert_eq!(decimal(3).bytes(&[0xff, 0xff, 0xfe]).as_deref(), Some("-0.002"));
        let large: Vec<u8> = i128::MAX.to_be_bytes().to_vec();
        assert_eq!(decimal(0).bytes(&large), Some(i128::MAX.to_string()));
        let small: Vec<u8> = i128::MIN.to_be_bytes().to_vec();
        assert_eq!(decimal(0).bytes(&small), Some(i128::MIN.to_string()));
        assert_eq!(decimal(1).bytes(&[]).as_deref(), Some("0.0"));
        assert_eq!(Words::Unsigned { bits: 32 }.number(-1).as_deref(), Some("4294967295"));
        let large = Words::Unsigned { bits: 64 }.number(-1);
        assert_eq!(large.as_deref(), Some("18446744073709551615"));
        assert_eq!(Words::Float32.float(f64::from(0.1f32)).as_deref(), Some("0.1"));
        for (half, written) in [(0x3c00u16, "1"), (0xc100, "-2.5"), (0x0001, "0.000000059604645")] {
            assert_eq!(Words::Float16.bytes(&half.to_le_bytes()).as_deref(), Some(written));
        }
        let uuid = Words::Uuid.bytes(&[0x12; 16]);
        assert_eq!(uuid.as_deref(), Some("12121212-1212-1212-1212-121212121212"));
    }
}
