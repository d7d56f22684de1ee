//! Cuvee's own: `context` with `continuation`, or with `choices` and `gold`; `id` and `task` where
//! there are any.

use serde_json::{Map, Value};

use super::item::{Adapter, Answer, Fault, Item, Line, found};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "items",
    keys: "`continuation`, or `choices` and `gold`; `context`",
    fits,
    read,
};

fn fits(keys: &Map<String, Value>) -> bool {
    keys.contains_key("continuation") || keys.contains_key("choices")
}

fn read(lines: &[Line], name: &str) -> Result<Vec<Item>, Fault> {
    lines.iter().map(|line| item(line, name)).collect()
}

fn item(line: &Line, name: &str) -> Result<Item, Fault> {
    let context = match line.value("context") {
        None => String::new(),
        Some(_) => line.text("context")?,
    };
    let task = line.name("task").unwrap_or_else(|| name.to_owned());
    let item = match (line.value("continuation"), line.value("choices")) {
        (Some(_), None) => {
            let answer = Answer::new(context, line.continuation("continuation")?);
            line.item(task, vec![answer], ("continuation", vec![0]))
        }
        (None, Some(Value::Array(choices))) if choices.len() > 1 => {
            let answers: Vec<Answer> = (0..choices.len())
                .map(|place| {
                    let key = format!("choices[{place}]");
                    match choices[place].as_str() {
                        Some(text) => line
                            .not_empty(&key, text.to_owned())
                            .map(|text| Answer::new(context.clone(), text)),
                        None => Err(line.fault(&key, "a text", found(Some(&choices[place])))),
                    }
                })
                .collect::<Result<_, _>>()?;
            line.item(task, answers, ("gold", gold(line)?))
        }
        (None, Some(other)) => {
            Err(line.fault("choices", "a list of two texts or more", found(Some(other))))
        }
        (Some(_), Some(_)) => {
            Err(line.fault("choices", "it or `continuation`", "both in one item"))
        }
        (None, None) => {
            let keys: Vec<String> = line.keys.keys().map(|key| format!("`{key}`")).collect();
            let expected = "it, or `choices` with `gold`";
            Err(line.fault("continuation", expected, keys.join(", ")))
        }
    }?;
    Ok(Item { id: line.name("id"), ..item })
}

/// The place of the right choice, or of all that are right.
fn gold(line: &Line) -> Result<Vec<usize>, Fault> {
    let place = |value: &Value| value.as_u64().map(|place| place as usize);
    let value = line.value("gold");
    let places = match value {
        Some(Value::Array(places)) if !places.is_empty() => places.iter().map(place).collect(),
        Some(one) => place(one).map(|place| vec![place]),
        None => None,
    };
    places.ok_or_else(|| {
        line.fault("gold", "the place of the right choice, from 0, or a list of some", found(value))
    })
}
