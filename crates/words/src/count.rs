//! Nouns after their numbers.

use std::fmt::Display;

/// `count` and its noun: "1 file", "2 files", "0 entries".
pub fn counted<N: Display + Copy + TryInto<u64>>(count: N, noun: &str) -> String {
    format!("{count} {}", plural(count, noun))
}

/// The noun as it stands after `count`, for a number that is written in another way: "file" after
/// 1, "files" after all others.
pub fn plural<N: TryInto<u64>>(count: N, noun: &str) -> String {
    if count.try_into().is_ok_and(|count| count == 1) {
        return noun.to_owned();
    }
    let before_y = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    let hisses = ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end));
    match before_y {
        Some(stem) => format!("{stem}ies"),
        None if hisses => format!("{noun}es"),
        None => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_others_are_many() {
        assert_eq!(counted(1usize, "file"), "1 file");
        assert_eq!([counted(0u64, "file"), counted(2u32, "file")], ["0 files", "2 files"]);
        assert_eq!(counted(-1i32, "number"), "-1 numbers");
        let nouns = ["entry", "key", "pass", "batch", "training image", "parameter"];
        let many = ["entries", "keys", "passes", "batches", "training images", "parameters"];
        assert_eq!(nouns.map(|noun| plural(2, noun)), many);
        assert_eq!(nouns.map(|noun| plural(1, noun)), nouns);
    }
}
