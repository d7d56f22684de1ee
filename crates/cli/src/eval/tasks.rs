//! From the scores of items to those of tasks, and from these to their means.
//!
//! The numbers are those of lm-evaluation-harness and of OLMES: the answer that is taken is the
//! first of the largest log-likelihoods, as they are (`acc`), by token, by character (`acc_norm`)
//! and by byte (`acc_bytes`).

use cuvee_report::{Estimate, Normalised, TaskScore};

use super::adapters::Item;
use super::estimate;

/// What was found of one answer.
pub struct AnswerScore {
    /// Of all its tokens, in nats.
    pub log_likelihood: f64,
    /// The same without special tokens, and the bytes of the others.
    pub plain: (f64, usize),
    /// Its tokens.
    pub tokens: usize,
    /// Whether its context was cut.
    pub truncated: bool,
}

/// An item with what was found of its answers.
pub struct ItemScore {
    /// The item.
    pub item: Item,
    /// One an answer.
    pub answers: Vec<AnswerScore>,
}

/// Each task of the items, in the order of their first ones.
pub fn tasks<'a>(scores: impl Iterator<Item = &'a ItemScore>) -> Vec<TaskScore> {
    let mut tasks: Vec<(&str, Vec<&ItemScore>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for score in scores {
        let name = score.item.task.as_str();
        let place = *places.entry(name).or_insert_with(|| {
            tasks.push((name, Vec::new()));
            tasks.len() - 1
        });
        tasks[place].1.push(score);
    }
    tasks.into_iter().map(|(name, items)| task(name, &items)).collect()
}

fn task(name: &str, items: &[&ItemScore]) -> TaskScore {
    let of_right = |of: &dyn Fn(&AnswerScore) -> f64| {
        let right: Vec<f64> = items.iter().map(|score| of(right(score))).collect();
        estimate::mean(&right)
    };
    let choices: Vec<Choices> =
        items.iter().filter(|score| score.answers.len() > 1).map(|s| Choices::of(s)).collect();
    let by = |of: &dyn Fn(&[Choices]) -> Normalised<Estimate>| {
        (!choices.is_empty()).then(|| of(&choices))
    };
    let truncated = |score: &&ItemScore| score.answers.iter().filter(|a| a.truncated).count();
    TaskScore {
        name: name.to_owned(),
        group: items.first().and_then(|score| score.item.group.clone()),
        tasks: None,
        items: items.len() as u64,
        truncated: items.iter().map(truncated).sum::<usize>() as u64,
        log_likelihood: of_right(&|answer| answer.log_likelihood),
        bits_per_byte: of_right(&|answer| {
            let (nats, bytes) = answer.plain;
            -nats / std::f64::consts::LN_2 / bytes.max(1) as f64
        }),
        accuracy: by(&|all| {
            each(
                all,
                |choices| choices.right,
                |right| estimate::share(right.iter().filter(|right| **right).count(), right.len()),
            )
        }),
        probability: by(&|all| each(all, |choices| choices.probability, estimate::mean)),
    }
}

/// What `of` the items' choices comes to by `sum`, for each normalisation.
fn each<T>(
    all: &[Choices],
    of: impl Fn(&Choices) -> Normalised<T>,
    sum: impl Fn(&[T]) -> Estimate,
) -> Normalised<Estimate> {
    let over = |pick: fn(Normalised<T>) -> T| {
        sum(&all.iter().map(|choices| pick(of(choices))).collect::<Vec<_>>())
    };
    Normalised {
        raw: over(|by| by.raw),
        token: over(|by| by.token),
        character: over(|by| by.character),
        byte: over(|by| by.byte),
    }
}

/// The right answer; of several, the likeliest.
fn right(score: &ItemScore) -> &AnswerScore {
    let mut gold = score.item.gold.iter().map(|&place| &score.answers[place]);
    let first = gold.next().unwrap_or(&score.answers[0]);
    gold.fold(
        first,
        |best, other| {
            if other.log_likelihood > best.log_likelihood { other } else { best }
        },
    )
}

/// What an item with choices says, by each normalisation.
#[derive(Clone, Copy)]
struct Choices {
    /// Whether a right answer is the likeliest.
    right: Normalised<bool>,
    /// What the right answers have of the softmax over all.
    probability: Normalised<f64>,
}

impl Choices {
    fn of(score: &ItemScore) -> Self {
        let ItemScore { item, answers } = score;
        let length = |of: &dyn Fn(usize) -> usize| -> Vec<f64> {
            let of = |(place, answer): (usize, &AnswerScore)| {
                answer.log_likelihood / of(place).max(1) as f64
            };
            answers.iter().enumerate().map(of).collect()
        };
        let by = Normalised {
            raw: length(&|_| 1),
            token: length(&|place| answers[place].tokens),
            character: length(&|place| item.answers[place].counted().chars().count()),
            byte: length(&|place| item.answers[place].counted().len()),
        };
        Self {
            right: by.map(|scores| item.gold.contains(&first_largest(scores))),
            probability: by.map(|scores| {
                let shares = softmax(scores);
                let mut gold = item.gold.clone();
                gold.sort_unstable();
                gold.dedup();
                gold.into_iter().map(|place| shares[place]).sum()
            }),
        }
    }
}

fn first_largest(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, place| if scores[place] > scores[best] { place } else { best })
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = shares.iter().sum();
    shares.into_iter().map(|share| share / total).collect()
}

/// The mean of each group of tasks that belong to one, each task counting once.
pub fn groups(tasks: &[TaskScore]) -> Vec<TaskScore> {
    let mut names: Vec<&str> = Vec::new();
    for name in tasks.iter().filter_map(|task| task.group.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let of_group = |name: &str| {
        let own: Vec<TaskScore> =
            tasks.iter().filter(|task| task.group.as_deref() == Some(name)).cloned().collect();
        mean(name, &own)
    };
    names.into_iter().map(of_group).collect()
}

/// The mean of tasks, each counting once; accuracy and probability over those that have choices.
pub fn mean(name: &str, tasks: &[TaskScore]) -> TaskScore {
    let over = |of: fn(&TaskScore) -> Estimate| estimate::macro_mean(tasks.iter().map(of));
    let by = |of: fn(&TaskScore) -> Option<Normalised<Estimate>>| {
        let all: Vec<Normalised<Estimate>> = tasks.iter().filter_map(of).collect();
        let over = |pick: fn(&Normalised<Estimate>) -> Estimate| {
            estimate::macro_mean(all.iter().map(pick))
        };
        (!all.is_empty()).then(|| Normalised {
            raw: over(|by| by.raw),
            token: over(|by| by.token),
            character: over(|by| by.character),
            byte: over(|by| by.byte),
        })
    };
    TaskScore {
        name: name.to_owned(),
        group: None,
        tasks: Some(tasks.len() as u64),
        items: tasks.iter().map(|task| task.items).sum(),
        truncated: tasks.iter().map(|task| task.truncated).sum(),
        log_likelihood: over(|task| task.log_likelihood),
        bits_per_byte: over(|task| task.bits_per_byte),
        accuracy: by(|task| task.accuracy),
        probability: by(|task| task.probability),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::eval::adapters::Answer;

    /// An item of choices with these log-likelihoods and tokens.
    fn item(task: &str, gold: &[usize], answers: &[(&str, f64, usize)]) -> ItemScore {
        let answer = |(text, ..): &(&str, f64, usize)| Answer {
            context: String::new(),
            continuation: (*text).to_owned(),
            uncounted: 0,
        };
        let score = |&(text, log_likelihood, tokens): &(&str, f64, usize)| AnswerScore {
            log_likelihood,
            plain: (log_likelihood, text.len()),
            tokens,
            truncated: false,
        };
        ItemScore {
            item: Item {
                line: 1,
                id: None,
                task: task.to_owned(),
                group: Some("g".to_owned()),
                answers: answers.iter().map(answer).collect(),
                gold: gold.to_vec(),
            },
            answers: answers.iter().map(score).collect(),
        }
    }

    #[test]
    fn choices_are_compared_as_they_are_by_token_by_character_and_by_byte() {
        // "ä" is one character of two bytes.
        let answers = [("ab", -2.0, 2), ("ääää", -4.2, 7)];
        let items = [item("t", &[1], &answers), item("t", &[0], &answers)];
        let task = tasks(items.iter()).remove(0);
        // Raw −2 > −4.2; by token −1 < −0.6; by character −1 > −1.05; by byte −1 < −0.525: once
        // each is right, of two.
        let first = Choices::of(&items[0]);
        let expected = Normalised { raw: false, token: true, character: false, byte: true };
        assert_eq!(first.right, expected);
        let accuracy = task.accuracy.unwrap();
        assert_eq!(accuracy.raw, estimate::share(1, 2));
        let p = 1.0 / (1.0 + f64::exp(2.2));
        assert!((first.probability.raw - p).abs() < 1e-15);
        let p = 1.0 / (1.0 + f64::exp(-1.0 + 4.2 / 8.0));
        assert!((first.probability.byte - p).abs() < 1e-15);
        let bits = std::f64::consts::LN_2.recip();
        let expected = estimate::mean(&[4.2 / 8.0 * bits, 1.0 * bits]);
        assert!((task.bits_per_byte.value - expected.value).abs() < 1e-15);
        assert_eq!(task.log_likelihood, estimate::mean(&[-4.2, -2.0]));
    }

    #[test]
    fn the_first_of_equals_is_taken_and_each_of_several_right_answers_is_right() {
        let equals = [("a", -1.0, 1), ("b", -1.0, 1), ("c", -3.0, 1)];
        let right = |gold: &[usize]| Choices::of(&item("t", gold, &equals)).right.raw;
        assert!(right(&[0]) && !right(&[1]) && right(&[2, 0]));
        let both = Choices::of(&item("t", &[0, 1, 1], &equals)).probability.raw;
        let third = Choices::of(&item("t", &[2], &equals)).probability.raw;
        assert!((both + third - 1.0).abs() < 1e-15);
    }

    #[test]
    fn tasks_count_once_in_means_and_those_without_choices_have_no_accuracy() {
        let items = [
            item("a", &[0], &[("x", -1.0, 1), ("y", -2.0, 1)]),
            item("b", &[0], &[("x", -3.0, 1)]),
            item("a", &[0], &[("x", -1.0, 1), ("y", -2.0, 1)]),
        ];
        let tasks = tasks(items.iter());
        let names: Vec<_> = tasks.iter().map(|task| (&*task.name, task.items)).collect();
        assert_eq!(names, [("a", 2), ("b", 1)]);
        assert!(tasks[1].accuracy.is_none());
        let mean = mean("mean", &tasks);
        assert_eq!((mean.items, mean.tasks), (3, Some(2)));
        assert_eq!(mean.log_likelihood, Estimate { value: -2.0, standard_error: None });
        assert_eq!(mean.accuracy.unwrap().raw.value, 1.0);
        assert_eq!(groups(&tasks)[0].log_likelihood, mean.log_likelihood);
    }
}
