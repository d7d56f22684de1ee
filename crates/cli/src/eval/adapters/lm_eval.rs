//! Samples as lm-evaluation-harness logs them (`--log_samples`): `arguments` with context and
//! continuation of each request, and `target`. A task is what the file's name says.
//!
//! `arguments` is `{"gen_args_0": {"arg_0": CONTEXT, "arg_1": CONTINUATION}, …}`, in older versions
//! a list of pairs. The lengths by which it divides leave out the space that it puts before a
//! choice.
//!
//! Choices may stand in the contexts, before one continuation, as of Winogrande. The target is then
//! that continuation and says nothing of which is right: that follows from the harness's own scores
//! (`filtered_resps`) and whether the largest was right (`acc`).

use serde_json::{Map, Value};

use super::item::{Adapter, Answer, Fault, Item, Line, found};

pub(super) const ADAPTER: Adapter =
    Adapter { name: "lm-eval", keys: "`arguments`, `target`; `doc_id`", fits, read };

fn fits(keys: &Map<String, Value>) -> bool {
    keys.contains_key("arguments") && keys.contains_key("target")
}

fn read(lines: &[Line], name: &str) -> Result<Vec<Item>, Fault> {
    let task = task(name);
    lines.iter().map(|line| item(line, task)).collect()
}

/// `samples_TASK_DATE` is of the task in its middle.
fn task(name: &str) -> &str {
    let inner = name.strip_prefix("samples_").and_then(|rest| rest.rsplit_once('_'));
    inner.map_or(name, |(task, _)| task)
}

fn item(line: &Line, task: &str) -> Result<Item, Fault> {
    let requests: Vec<&Value> = match line.value("arguments") {
        Some(Value::Object(requests)) => requests.values().collect(),
        Some(Value::Array(requests)) => requests.iter().collect(),
        other => return Err(line.fault("arguments", "requests", found(other))),
    };
    let answer = |(place, request): (usize, &&Value)| {
        let part = |at: usize| request.get(format!("arg_{at}")).or_else(|| request.get(at));
        match [0, 1].map(|at| part(at).and_then(Value::as_str)) {
            [Some(context), Some(continuation)] => {
                let key = format!("arguments[{place}]");
                let continuation = line.not_empty(&key, continuation.to_owned())?;
                Ok(Answer::new(context.to_owned(), continuation))
            }
            _ => {
                let fault =
                    line.fault("arguments", "context and continuation", found(Some(request)));
                Err(fault.with_hint(
                    "only log-likelihoods of continuations are scored here; for texts as a whole there is --text",
                ))
            }
        }
    };
    let mut answers = requests.iter().enumerate().map(answer).collect::<Result<Vec<_>, _>>()?;
    if answers.is_empty() {
        return Err(line.fault("arguments", "at least one request", "none"));
    }
    answers.truncate(answers.len() - asked_again(line, &answers));
    let delimited = answers
        .iter()
        .all(|answer| answer.continuation.len() > 1 && answer.continuation.starts_with(' '));
    if delimited {
        answers.iter_mut().for_each(|answer| answer.uncounted = 1);
    }
    let gold = if answers.len() == 1 { vec![0] } else { gold(line, &answers)? };
    let item = line.item(task.to_owned(), answers, ("target", gold))?;
    Ok(Item { id: line.name("doc_id"), ..item })
}

/// How many answers at the end are no choices: with `acc_mutual_info` each is asked for once more,
/// without its context, behind all others.
fn asked_again(line: &Line, answers: &[Answer]) -> usize {
    let (first, again) = answers.split_at(answers.len() / 2);
    let is_bare = |answer: &Answer| answer.context.trim().is_empty();
    let same = |(one, other): (&Answer, &Answer)| one.continuation == other.continuation;
    let by_looks = || !first.iter().any(is_bare) && first.iter().zip(again).all(same);
    let is_twice = first.len() == again.len()
        && again.iter().all(is_bare)
        && (line.value("acc_mutual_info").is_some() || by_looks());
    if is_twice { again.len() } else { 0 }
}

/// The right choices: by their places, or the one that is spelled as the target.
fn gold(line: &Line, answers: &[Answer]) -> Result<Vec<usize>, Fault> {
    let value = line.value("target");
    let gold = match value {
        Some(Value::Number(place)) => place.as_u64().map(|place| vec![place as usize]),
        Some(Value::String(text)) => {
            let text = text.trim();
            let is_spelled = |at: &usize| answers[*at].continuation.trim() == text;
            let spelled: Vec<usize> = (0..answers.len()).filter(is_spelled).collect();
            if spelled.len() == answers.len() {
                return found_right(line, answers.len());
            }
            places(text).or((spelled.len() == 1).then_some(spelled))
        }
        _ => None,
    };
    gold.ok_or_else(|| {
        line.fault("target", "the place of the right choice, or its text", found(value))
    })
}

/// The places in a text such as `1` or `[0, 2]`.
fn places(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    inner.split(',').map(|place| place.trim().parse().ok()).collect()
}

/// The right one of `count` contexts, by what the harness found: the likeliest, or of two the
/// other.
fn found_right(line: &Line, count: usize) -> Result<Vec<usize>, Fault> {
    let score = |place: usize| -> Option<f64> {
        let score = line.value("filtered_resps")?.get(place)?.get(0)?;
        score.as_f64().or_else(|| score.as_str()?.parse().ok())
    };
    let scores: Option<Vec<f64>> = (0..count).map(score).collect();
    let likeliest = scores.map(|scores| {
        (1..count).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
    });
    let was_right = line.value("acc").and_then(Value::as_f64).map(|acc| acc == 1.0);
    match (likeliest, was_right) {
        (Some(place), Some(true)) => Ok(vec![place]),
        (Some(place), Some(false)) if count == 2 => Ok(vec![1 - place]),
        _ => {
            let expected = "the place of the right context, all continuations being alike, or `filtered_resps` and `acc` that tell it";
            Err(line.fault("target", expected, found(line.value("target"))))
        }
    }
}
