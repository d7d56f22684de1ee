//! Names that data decides, made fit for a terminal, a log and a line of text.
//!
//! In: any text, as a value of `domain_by`, a column's name or a file's. Out: the same without
//! characters that move a cursor, colour a terminal, begin a new line or turn writing around: they
//! are written as escapes, as in `\n` and `\u{1b}`. Names without them stay as they are.

use std::borrow::Cow;
use std::path::Path;

/// A name on one line.
pub fn printable(name: &str) -> Cow<'_, str> {
    escaped(name, |c| acts(c) || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// A path on one line, for a message; [`shell_path`](crate::shell_path) is for what is to be typed.
pub fn printable_path(path: impl AsRef<Path>) -> String {
    printable(&path.as_ref().to_string_lossy()).into_owned()
}

/// Text of several lines, which stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'))
}

/// Whether a character does something other than show.
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        // Marks of direction, and others that are not seen. The joiners that Persian, Indic
        // scripts and emoji need, U+200C and U+200D, stay.
        || matches!(
            c,
            '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_a_terminal_is_written_out_and_all_else_stays() {
        for plain in
            ["", "en", "näme with spaces", "日本", "हिन्दी", "می‌خواهم", "👩‍🚀", "a\\n", "it's"]
        {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
        for (name, shown) in [
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\u{0}"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("a\u{202e}txt.b", "a\\u{202e}txt.b"),
            ("\u{feff}en\u{2028}", "\\u{feff}en\\u{2028}"),
        ] {
            assert_eq!(printable(name), shown);
        }
        assert_eq!(printable_path("a/b\nhint: c"), "a/b\\nhint: c");
        assert_eq!(printable_lines("one\n\ttwo\x1b]0;x\x07"), "one\n\ttwo\\u{1b}]0;x\\u{7}");
    }
}
