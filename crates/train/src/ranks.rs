//! What the ranks of a run agree on.

use cuvee_kernels::Collective;

use crate::error::{Result, TrainError};

/// Whether any rank says yes.
///
/// # Errors
/// [`TrainError::Ranks`].
pub fn any_rank(ranks: &dyn Collective, own: bool) -> Result<bool> {
    if ranks.size() == 1 {
        return Ok(own);
    }
    Ok(ranks.all_gather(&[own.into()])?.iter().any(|said| said.contains(&1)))
}

/// Checks that every rank has what rank 0 has of each of `things`, a name with a text.
///
/// # Errors
/// [`TrainError::RanksDiffer`] on every rank, naming the first rank and thing that differ, with the
/// first lines that do; [`TrainError::Ranks`].
pub fn check_same_on_ranks(
    ranks: &dyn Collective,
    things: &[(&'static str, String)],
) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    for (what, own) in things {
        let all = ranks.all_gather(own.as_bytes())?;
        let Some((expected, others)) = all.split_first() else { continue };
        if let Some(rank) = others.iter().position(|other| other != expected) {
            let (expected, found) = first_difference(expected, &others[rank]);
            return Err(TrainError::RanksDiffer { what, rank: rank + 1, expected, found });
        }
    }
    Ok(())
}

/// The first lines of two texts that are not the same; nothing of one that has ended.
fn first_difference(expected: &[u8], found: &[u8]) -> (String, String) {
    let [expected, found] = [expected, found].map(String::from_utf8_lossy);
    let (mut left, mut right) = (expected.lines(), found.lines());
    loop {
        match (left.next(), right.next()) {
            (Some(left), Some(right)) if left == right => {}
            (left, right) => {
                return [left, right].map(|line| line.unwrap_or("nothing").to_owned()).into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cuvee_testkit::on_ranks;

    #[test]
    fn one_rank_that_says_yes_says_it_for_all() {
        for (asking, expected) in [(2, true), (9, false)] {
            let said = on_ranks(3, |ranks| any_rank(&*ranks, ranks.rank() == asking).unwrap());
            assert_eq!(said, [expected; 3]);
        }
    }

    #[test]
    fn a_rank_that_differs_is_named_with_the_first_line_that_does() {
        let check = |value: fn(usize) -> &'static str| {
            on_ranks(3, |ranks| {
                let things = [("data", "d".to_owned()), ("config", value(ranks.rank()).to_owned())];
                check_same_on_ranks(&*ranks, &things).map_err(|error| error.to_string())
            })
        };
        assert_eq!(check(|_| "a\nb = 1"), [Ok(()), Ok(()), Ok(())]);
        for said in check(|rank| if rank == 2 { "a\nb = 2\nc" } else { "a\nb = 1" }) {
            let said = said.unwrap_err();
            let told = "rank 2 has another config than rank 0: expected `b = 1`, found `b = 2`";
            assert!(said.starts_with(told) && said.contains("\nhint: "), "{said}");
        }
        let longer = check(|rank| if rank == 1 { "a\nb" } else { "a" }).swap_remove(1);
        assert!(longer.unwrap_err().contains("rank 1 has another config"), "a line more");
    }
}
