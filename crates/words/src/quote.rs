//! Paths and strings as people must type them.

use std::path::Path;

use crate::printable::acts;

/// A path as one word of a POSIX shell: as it is where that is safe, else in quotes. One that
/// begins like a flag is given `./`.
pub fn shell_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.starts_with('-') {
        true => shell_word(&format!("./{text}")),
        false => shell_word(&text),
    }
}

/// A word of a POSIX shell: as it is where that is safe, else in single quotes, and with its
/// control characters, which a terminal would obey, written out.
pub fn shell_word(word: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "_-./:=@%+,…".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else if word.chars().any(acts) {
        let escaped: String = word
            .chars()
            .map(|c| match c {
                '\\' | '\'' => format!("\\{c}"),
                '\n' => "\\n".to_owned(),
                '\t' => "\\t".to_owned(),
                c if acts(c) => {
                    let mut bytes = [0; 4];
                    let bytes = c.encode_utf8(&mut bytes).bytes();
                    bytes.map(|byte| format!("\\x{byte:02x}")).collect()
                }
                c => c.to_string(),
            })
            .collect();
        format!("$'{escaped}'")
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A string as TOML reads it back, quotes included.
pub fn toml_string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_takes_apart_is_quoted_and_nothing_else() {
        for plain in ["a", "runs/a-2", "/tmp/x_1.toml", "org/name", "décembre", "KEY=VALUE"] {
            assert_eq!(shell_path(Path::new(plain)), plain);
        }
        let quoted = [
            ("my runs/a", "'my runs/a'"),
            ("a'b", r"'a'\''b'"),
            ("$HOME", "'$HOME'"),
            ("a;b", "'a;b'"),
            ("~", "'~'"),
            ("a*", "'a*'"),
            ("", "''"),
            ("-q", "./-q"),
            ("-q x", "'./-q x'"),
            ("a\nb", r"$'a\nb'"),
            ("a\u{1b}[0m'", r"$'a\x1b[0m\''"),
        ];
        for (path, expected) in quoted {
            assert_eq!(shell_path(Path::new(path)), expected);
        }
    }

    #[test]
    fn toml_strings_are_escaped() {
        assert_eq!(toml_string("a b"), r#""a b""#);
        assert_eq!(toml_string("a\"\\\n"), r#""a\"\\\u000A""#);
    }
}
