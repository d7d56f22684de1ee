//! Requests as OLMES writes them (`requests.jsonl`): a line a choice, `request` with context and
//! continuation, `idx` the choice's place, `label` that of the right one. Lines that follow one
//! another with one `doc_id` are an item. Requests without the question, which OLMES numbers from
//! 1,000,000 on, are passed over.

use serde_json::{Map, Value};

use super::item::{Adapter, Answer, Fault, Item, Line};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "olmes",
    keys: "`request` with `context` and `continuation`, `doc_id`, `idx`, `label`; `task_name`",
    fits,
    read,
};

/// From here on documents are the questions' choices without the questions.
const UNCONDITIONAL: u64 = 1_000_000;

fn fits(keys: &Map<String, Value>) -> bool {
    keys.contains_key("request") && keys.contains_key("doc_id")
}

fn read(lines: &[Line], name: &str) -> Result<Vec<Item>, Fault> {
    let mut conditional = Vec::with_capacity(lines.len());
    for line in lines {
        if line.number("doc_id")? < UNCONDITIONAL {
            conditional.push(line);
        }
    }
    let document = |line: &Line| (line.name("task_name"), line.name("doc_id"));
    let items = conditional.chunk_by(|a, b| document(a) == document(b));
    items.map(|lines| item(lines, name)).collect()
}

fn item(lines: &[&Line], name: &str) -> Result<Item, Fault> {
    let first = lines[0];
    let mut answers = Vec::with_capacity(lines.len());
    for line in lines {
        let context = line.text("request.context")?;
        let answer = Answer::new(context, line.continuation("request.continuation")?);
        answers.push((line.number("idx")?, *line, answer));
    }
    answers.sort_by_key(|(place, ..)| *place);
    let misplaced = answers.iter().zip(0u64..).find(|((place, ..), expected)| place != expected);
    if let Some(((place, line, _), expected)) = misplaced {
        let expected = format!("{expected}: the choices of a document numbered from 0");
        return Err(line.fault("idx", &expected, place.to_string()));
    }
    let gold = match answers.len() {
        1 => vec![0],
        _ => vec![first.number("label")? as usize],
    };
    let task = first.name("task_name").unwrap_or_else(|| name.to_owned());
    let answers = answers.into_iter().map(|(.., answer)| answer).collect();
    let item = first.item(task, answers, ("label", gold))?;
    let id = first.name("native_id").or_else(|| first.name("doc_id"));
    Ok(Item { id, ..item })
}
