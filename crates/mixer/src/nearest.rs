//! The known name that a misspelt one is nearest to.

/// A hint for an unknown name: the nearest known one, or the list where none is near.
pub(crate) fn nearest_hint(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (edit_distance(name, k), *k)).min();
    match nearest {
        Some((distance, k)) if distance <= 1 + name.chars().count() / 3 => {
            format!("did you mean `{k}`?")
        }
        _ => format!("the domains are {}", known.join(", ")),
    }
}

/// Levenshtein distance in characters: O(length²) time, one row of memory.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            left = substituted.min(diagonal + 1).min(left + 1);
            row[j + 1] = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("wiki", "wikis", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn unknown_names_get_the_nearest_or_the_list() {
        assert_eq!(
            nearest_hint("wikipedai", &["github", "wikipedia"]),
            "did you mean `wikipedia`?"
        );
        assert_eq!(nearest_hint("books", &["github", "web"]), "the domains are github, web");
    }
}
