//! Numbers and names as text that programs read as they were meant.

/// Decimals of a share.
const DECIMALS: u32 = 6;

/// The share that is none.
pub(super) const ZERO: &str = "0.000000";

/// Shares with six decimals that sum to exactly 1: rounded down, and the millionths that are left
/// to the largest remainders (Hamilton's method).
pub(super) fn decimals(shares: &[f64]) -> Vec<String> {
    let whole = 10u64.pow(DECIMALS);
    let exact: Vec<f64> = shares.iter().map(|share| share * whole as f64).collect();
    let mut units: Vec<u64> = exact.iter().map(|share| share.floor() as u64).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let remainder = |i: usize| exact[i] - exact[i].floor();
    order.sort_by(|a, b| remainder(*b).total_cmp(&remainder(*a)).then(a.cmp(b)));
    let left = whole.saturating_sub(units.iter().sum());
    order.iter().cycle().take(left as usize).for_each(|i| units[*i] += 1);
    units.iter().map(|units| format!("{}.{:06}", units / whole, units % whole)).collect()
}

/// A string in double quotes that JSON, YAML 1.2, TOML 1.0 and Python read alike: what is no
/// visible character is written as its code.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                quoted.push_str(&format!("\\u{:04x}", character as u32));
            }
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", control as u32));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A key of TOML: bare where it may be.
pub(super) fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A word of a POSIX shell's command line. A word that begins with a dash would be read as an
/// option: it is given as a path.
pub(super) fn shell(word: &str) -> String {
    let word = if word.starts_with('-') { format!("./{word}") } else { word.to_owned() };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decimals_sum_to_one_and_are_within_a_millionth(
            raw in prop::collection::vec(1e-9f64..1.0, 1..300),
        ) {
            let shares = crate::shares::normalised(&raw).unwrap();
            let texts = decimals(&shares);
            let units = |text: &String| text.replace('.', "").parse::<u64>().unwrap();
            prop_assert_eq!(texts.iter().map(units).sum::<u64>(), 1_000_000);
            for (text, share) in texts.iter().zip(&shares) {
                prop_assert!((text.parse::<f64>().unwrap() - share).abs() < 1.0001e-6);
            }
        }

        #[test]
        fn quoted_names_are_read_back_by_json(name in any::<String>()) {
            let quoted = quoted(&name);
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), name);
            prop_assert!(!quoted.chars().any(char::is_control));
        }
    }

    #[test]
    fn words_of_a_shell_stay_one_word() {
        let cases = [
            ("web", "web"),
            ("data/web-en.v1", "data/web-en.v1"),
            ("two words", "'two words'"),
            ("it's", "'it'\\''s'"),
            ("$(rm -r x); `y`", "'$(rm -r x); `y`'"),
            ("", "''"),
            ("-x", "./-x"),
            ("~/a", "'~/a'"),
            ("é", "'é'"),
        ];
        for (word, expected) in cases {
            assert_eq!(shell(word), expected);
        }
    }

    #[test]
    fn keys_of_toml_are_bare_where_they_may_be() {
        let keys = ["web", "a-b_9", "a.b", "", "é"].map(toml_key);
        assert_eq!(keys, ["web", "a-b_9", "\"a.b\"", "\"\"", "\"é\""]);
    }
}
