//! BLiMP (Warstadt et al., 2020): two sentences, of which the first is grammatical. A task is its
//! `UID`, a group its `field`.

use serde_json::{Map, Value};

use super::item::{Adapter, Answer, Fault, Item, Line};

pub(super) const ADAPTER: Adapter =
    Adapter { name: "blimp", keys: "`sentence_good`, `sentence_bad`; `UID`, `field`", fits, read };

fn fits(keys: &Map<String, Value>) -> bool {
    keys.contains_key("sentence_good") || keys.contains_key("sentence_bad")
}

fn read(lines: &[Line], name: &str) -> Result<Vec<Item>, Fault> {
    let item = |line: &Line| {
        let answer = |key| line.continuation(key).map(|text| Answer::new(String::new(), text));
        let answers = vec![answer("sentence_good")?, answer("sentence_bad")?];
        let task = line.name("UID").unwrap_or_else(|| name.to_owned());
        let item = line.item(task, answers, ("sentence_good", vec![0]))?;
        Ok(Item { id: line.name("pairID"), group: line.name("field"), ..item })
    };
    lines.iter().map(item).collect()
}
