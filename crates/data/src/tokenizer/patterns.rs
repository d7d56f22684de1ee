//! Regular expressions as Python's `tokenizers` understands them.
//!
//! Python's package is built with Oniguruma, the library here with `fancy-regex`. Both read most
//! patterns alike; this writes out the rest: what a word character is, POSIX classes over all of
//! Unicode, anchors that match at every line, `(?m)` for a dot that matches line ends, and
//! `x{1,3}+`, which repeats. Compared with Oniguruma 6.9 over all characters (Unicode 16).

use serde_json::Value;

/// A word character, for the inside of a class.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";
/// Outside of classes, Oniguruma takes these as word characters too, from its table of Latin 1.
const LATIN_1: &str = "²³¹¼½¾";

/// POSIX classes, each as the inside of one.
const CLASSES: [(&str, &str); 13] = [
    ("alnum", r"\p{Alphabetic}\p{Nd}"),
    ("alpha", r"\p{Alphabetic}"),
    ("ascii", r"\x00-\x7f"),
    ("blank", r"\p{Zs}\t"),
    ("cntrl", r"\p{Cc}"),
    ("digit", r"\p{Nd}"),
    ("graph", r"[^\p{White_Space}\p{Cc}\p{Cn}]"),
    ("lower", r"\p{Lowercase}"),
    ("print", r"[^\p{White_Space}\p{Cc}\p{Cn}]\p{Zs}"),
    ("punct", r"\p{P}\p{S}"),
    ("space", r"\p{White_Space}"),
    ("upper", r"\p{Uppercase}"),
    ("word", WORD),
];

/// The text of a `tokenizer.json` with its patterns written out, where one of them has to be.
pub(super) fn translated(text: &str) -> Option<String> {
    if !text.contains("\"Regex\"") {
        return None;
    }
    let mut content: Value = serde_json::from_str(text).ok()?;
    let parts = ["normalizer", "pre_tokenizer", "decoder"];
    let changed = parts.map(|part| content.get_mut(part).is_some_and(translate_all));
    changed.contains(&true).then(|| content.to_string())
}

/// Translates the patterns in a component; whether one has changed.
fn translate_all(component: &mut Value) -> bool {
    match component {
        Value::Array(parts) => {
            parts.iter_mut().fold(false, |changed, part| translate_all(part) | changed)
        }
        Value::Object(keys) => keys.iter_mut().fold(false, |changed, (key, value)| match value {
            Value::String(pattern) if key == "Regex" => {
                let new = translate(pattern);
                let different = new != *pattern;
                *pattern = new;
                different | changed
            }
            value => translate_all(value) | changed,
        }),
        _ => false,
    }
}

/// A pattern, written out.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    // Where what a quantifier repeats begins, here and in the groups around.
    let (mut atom, mut groups) = (0, Vec::new());
    while let Some(first) = rest.chars().next() {
        let start = out.len();
        let length = match first {
            '\\' => {
                let escaped = rest[1..].chars().next();
                let boundary = format!(r"(?<=[{WORD}{LATIN_1}])(?![{WORD}{LATIN_1}])");
                let other = format!(r"(?<![{WORD}{LATIN_1}])(?=[{WORD}{LATIN_1}])");
                match escaped {
                    Some('w') => out.push_str(&format!("[{WORD}{LATIN_1}]")),
                    Some('W') => out.push_str(&format!("[^{WORD}{LATIN_1}]")),
                    Some('b') => out.push_str(&format!("(?:{boundary}|{other})")),
                    Some('B') => out.push_str(&format!("(?!{boundary}|{other})")),
                    Some(character) => out.extend(['\\', character]),
                    None => out.push('\\'),
                }
                atom = start;
                let length = 1 + escaped.map_or(0, char::len_utf8);
                // The name of a property, or a character's number, belongs to it.
                let named = escaped.is_some_and(|escaped| "pPxu".contains(escaped));
                let name = rest[length..].strip_prefix('{').filter(|_| named);
                let end = name.and_then(|name| Some(name.find('}')? + 2)).unwrap_or(0);
                out.push_str(&rest[length..][..end]);
                length + end
            }
            '[' => {
                atom = start;
                class(rest, &mut out)
            }
            '^' | '$' => {
                out.push_str(&format!("(?m:{first})"));
                atom = start;
                1
            }
            '(' => {
                groups.push(start);
                group(rest, &mut out)
            }
            ')' => {
                out.push(')');
                atom = groups.pop().unwrap_or(start);
                1
            }
            '{' => match interval(rest) {
                Some((length, least, written)) => {
                    // What would be greed or reluctance elsewhere repeats once more.
                    let behind = rest[length..].chars().next();
                    let again = behind == Some('+') || behind == Some('?') && least;
                    if again {
                        out.insert_str(atom, "(?:");
                    }
                    out.push_str(&written);
                    if again {
                        out.push(')');
                    }
                    length
                }
                None => {
                    out.push('{');
                    atom = start;
                    1
                }
            },
            '*' | '+' | '?' | '|' => {
                out.push(first);
                1
            }
            character => {
                out.push(character);
                atom = start;
                character.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

/// What opens a group, with its flags; its length in the pattern.
fn group(rest: &str, out: &mut String) -> usize {
    let flags = rest.strip_prefix("(?").unwrap_or_default();
    let count = flags.find(|flag: char| !"imx-".contains(flag)).unwrap_or(0);
    if count > 0 && flags[count..].starts_with([':', ')']) {
        out.push_str("(?");
        out.push_str(&flags[..count].replace('m', "s"));
        return 2 + count;
    }
    out.push('(');
    1
}

/// `{n}`, `{n,}`, `{n,m}` or `{,m}`: its length, whether it is the first, and how it is written.
fn interval(rest: &str) -> Option<(usize, bool, String)> {
    let inside = &rest[1..rest.find('}')?];
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (single, written) = match inside.split_once(',') {
        None if number(inside) => (true, format!("{{{inside}}}")),
        Some((from, to)) if number(from) && (to.is_empty() || number(to)) => {
            (false, format!("{{{inside}}}"))
        }
        Some(("", to)) if number(to) => (false, format!("{{0,{to}}}")),
        _ => return None,
    };
    Some((inside.len() + 2, single, written))
}

/// A class in brackets, with those in it; its length in the pattern.
fn class(pattern: &str, out: &mut String) -> usize {
    let (mut at, mut depth) = (0, 0);
    let mut opened = false;
    while let Some(character) = pattern[at..].chars().next() {
        let here = &pattern[at..];
        let first = std::mem::replace(&mut opened, false);
        let posix = here.strip_prefix("[:").and_then(|name| name.split_once(":]"));
        at += character.len_utf8();
        match character {
            '[' if depth > 0 && posix.is_some_and(|(name, _)| known(name).is_some()) => {
                let name = posix.map_or("", |(name, _)| name);
                let inside = known(name).unwrap_or_default();
                let not = if name.starts_with('^') { "^" } else { "" };
                out.push_str(&format!("[{not}{inside}]"));
                at += name.len() + 3;
            }
            '[' => {
                out.push('[');
                depth += 1;
                opened = true;
                if pattern[at..].starts_with('^') {
                    out.push('^');
                    at += 1;
                }
            }
            // The first in a class is itself.
            ']' if first => out.push_str("\\]"),
            ']' => {
                out.push(']');
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            '\\' => {
                let escaped = pattern[at..].chars().next();
                match escaped {
                    Some('w') => out.push_str(WORD),
                    Some('W') => out.push_str(&format!("[^{WORD}]")),
                    Some('b') => out.push_str("\\x08"),
                    Some(character) => out.extend(['\\', character]),
                    None => out.push('\\'),
                }
                at += escaped.map_or(0, char::len_utf8);
            }
            character => out.push(character),
        }
    }
    at
}

/// The inside of a POSIX class, by its name, with `^` before it or not.
fn known(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix('^').unwrap_or(name);
    CLASSES.iter().find(|(known, _)| *known == name).map(|(_, inside)| *inside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokenizers_reference::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers_reference::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    };

    use super::*;

    fn split(pattern: &str, text: &str) -> Vec<String> {
        let pattern = SplitPattern::Regex(translate(pattern));
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap();
        let mut cut = PreTokenizedString::from(text);
        split.pre_tokenize(&mut cut).unwrap();
        let parts = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        parts.into_iter().map(|(part, _, _)| part.to_owned()).collect()
    }

    #[test]
    fn patterns_cut_as_pythons_package_does() {
        // Python tokenizers 0.23.3:
        // [part for part, _ in Split(Regex(pattern), "isolated").pre_tokenize_str(text)]
        for (pattern, text, parts) in [
            (r"\p{N}{1,3}+", "12345678 a", &["12345678", " a"][..]),
            (r"\p{N}{2}+", "12345678 a", &["12345678", " a"]),
            (r"(?:\p{N}|x){1,2}+y", "1x2xy", &["1x2xy"]),
            (r"\s++$", "a  \n b  \n", &["a  \n b", "  \n"]),
            (r"$", "a\nb\n", &["a", "\nb", "\n"]),
            (r"^b", "a\nb\n", &["a\n", "b", "\n"]),
            (r"(?m)a.b", "a\nb", &["a\nb"]),
            (r"(?m:a.b)", "a\nb", &["a\nb"]),
            (r"\W", "a²b ½", &["a²b", " ", "½"]),
            (r"[\w]+", "a²b", &["a", "²", "b"]),
            (r"[\W]+", "a²b", &["a", "²", "b"]),
            (r"[^\w]+", "a²b", &["a", "²", "b"]),
            (r"\w+", "a²b\u{200d}c", &["a²b", "\u{200d}", "c"]),
            (r"\b", "a² b\u{200d}c", &["a²", " ", "b", "\u{200d}", "c"]),
            (r"[[:graph:]]+", "aé ²\u{200b} x", &["aé", " ", "²\u{200b}", " ", "x"]),
            (r"[[:blank:]]", "a \u{3000}\t\n", &["a", " ", "\u{3000}", "\t", "\n"]),
            (r"[[:alpha:]]+", "aé1", &["aé", "1"]),
            (r"[[:punct:]]+", "a+€.b", &["a", "+€.", "b"]),
            (r"[\w&&[^\d_]]+", "ab_1c", &["ab", "_1", "c"]),
            (r"[^\W\d_]+", "ab_1c²", &["ab", "_1", "c", "²"]),
            (r"[^(\s|[.,!?])]+", "a b.c", &["a", " ", "b", ".", "c"]),
            (r"[]a]", "a]", &["a", "]"]),
            (r"a\Z", "a\n", &["a", "\n"]),
        ] {
            assert_eq!(split(pattern, text), parts, "{pattern} as {}", translate(pattern));
        }
    }

    #[test]
    fn patterns_that_both_read_alike_stay_as_they_are() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
            " ?[^(\\s|[.,!?…。，、।۔،])]+",
            r"(?<=a)b|(?<!a)c|(?>d)e|(?=f)|(?<name>g)\k<name>",
        ] {
            assert_eq!(translate(pattern), pattern);
        }
    }
}
