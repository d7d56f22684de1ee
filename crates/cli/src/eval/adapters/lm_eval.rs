//! Samples as lm-evaluation-harness logs them (`--log_samples`): `arguments` with context and
//! continuation of each request, and `target`. A task is what the file's name says.
//!
//! `arguments` is `{"gen_args_0": {"arg_0": CONTEXT, "arg_1": CONTINUATION}, …}`, in older versions
//! a list of pairs. The lengths by which it divides leave out the space that it puts before a
//! choice.

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

/// The right choices: by their places, or the one that is spelled as the target.
fn gold(line: &Line, answers: &[Answer]) -> Result<Vec<usize>, Fault> {
    let value = line.value("target");
    let text = match value {
        Some(Value::String(text)) => text.trim(),
        Some(Value::Number(number)) => {
            return Ok(vec![number.as_u64().map_or(usize::MAX, |n| n as usize)]);
        }
        _ => "",
    };
    let places = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let places: Option<Vec<usize>> =
        places.split(',').map(|place| place.trim().parse().ok()).collect();
    let spelled = |text: &str| {
        let mut places = (0..answers.len()).filter(|&at| answers[at].continuation.trim() == text);
        match (places.next(), places.next()) {
            (Some(only), None) => Some(vec![only]),
            _ => None,
        }
    };
    places.or_else(|| spelled(text)).ok_or_else(|| {
        line.fault("target", "the place of the right choice, or its text", found(value))
    })
}
