//! `cuvee eval --text`, `cuvee eval --items` and `cuvee generate` through the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::Place;

/// A place with a small trained run.
fn trained() -> Place {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    place
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// −log p of each token of a text behind `prefix`, by the logits that `generate` prints.
fn nats(place: &Place, prefix: &str, text: &str) -> Vec<f64> {
    let prompt = format!("{prefix}{text}");
    let output = place.ok(&["generate", "run", "--prompt", &prompt, "--logits"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<usize> = document["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as usize)
        .collect();
    let rows = document["logits"].as_array().unwrap();
    let loss = |(row, id): (&Value, &usize)| {
        let logits: Vec<f64> = row.as_array().unwrap().iter().map(number).collect();
        logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[*id]
    };
    rows.iter().zip(&ids[1..]).map(loss).collect()
}

/// Where arithmetic is in bf16, of 8 bits, logits of a few nats are off by some hundredths.
const BF16: f64 = 0.05;

#[test]
fn whole_documents_are_scored_behind_the_end_of_text_a_row_a_source() {
    let place = trained();
    let texts = |n: usize| -> Vec<String> { (0..n).map(|i| format!("let x{i} = {i};")).collect() };
    cuvee_testkit::write_texts(&place.path("paloma/code/val/a.jsonl"), &texts(3));
    cuvee_testkit::write_texts(&place.path("paloma/code/val/b.jsonl"), &texts(1));
    place.write("paloma/words/val/note.txt", "the river and the road");
    place.write("paloma/README.md", "about");
    let document = place.json(&["eval", "run", "--text", "paloma"]);
    let rows = document["domains"].as_array().unwrap();
    let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["code", "words"]);
    let mut all = (0.0, 0.0);
    for (row, texts) in
        rows.iter().zip([[texts(3), texts(1)].concat(), vec!["the river and the road".into()]])
    {
        assert_eq!(row["documents"], texts.len());
        assert_eq!(row["bytes"], texts.iter().map(String::len).sum::<usize>());
        let nats: Vec<Vec<f64>> =
            texts.iter().map(|text| nats(&place, "<|endoftext|>", text)).collect();
        assert_eq!(row["tokens"], nats.iter().map(Vec::len).sum::<usize>());
        let tokens = number(&row["tokens"]);
        let sum: f64 = nats.iter().flatten().sum();
        assert!((number(&row["loss"]) - sum / tokens).abs() < BF16, "{row}");
        let bits = number(&row["loss"]) / 2f64.ln() * tokens / number(&row["bytes"]);
        assert!((number(&row["bits_per_byte"]) - bits).abs() < 1e-12);
        assert!((number(&row["perplexity"]).ln() - number(&row["loss"])).abs() < 1e-12);
        all = (all.0 + number(&row["loss"]) * tokens, all.1 + tokens);
    }
    let mean = (number(&rows[0]["loss"]) + number(&rows[1]["loss"])) / 2.0;
    assert!((number(&document["mean_loss"]) - mean).abs() < 1e-12);
    assert!((number(&document["weighted_mean"]["loss"]["value"]) - all.0 / all.1).abs() < 1e-12);
    // One document has no spread, and so has no mean of which it is part.
    assert!(rows[0]["standard_error"].is_f64() && rows[1]["standard_error"].is_null());
    assert!(document["mean_loss_standard_error"].is_null());
    // Short windows: as many tokens, seen after fewer.
    let short = place.json(&["eval", "run", "--text", "paloma/words", "--context", "4"]);
    let row = &short["domains"][0];
    assert_eq!((&row["tokens"], &row["bytes"]), (&rows[1]["tokens"], &rows[1]["bytes"]));
    assert_eq!(number(&row["windows"]), (number(&row["tokens"]) / 4.0).ceil());
    assert_eq!(row["name"], "note");
    assert_ne!(row["loss"], rows[1]["loss"]);
}

#[test]
fn two_tokenizers_count_the_same_bytes_and_special_tokens_are_no_text() {
    let place = trained();
    place.edit("vocab_size = 400", "vocab_size = 300");
    place.ok(&["train", "config.toml", "--out", "other", "-q"]);
    let plain = "let total = 1;\nlet other = 2;\n".repeat(20);
    place.write("plain.txt", &plain);
    place.write("special.txt", &format!("{plain}<|endoftext|>{plain}"));
    let eval =
        |run: &str, file: &str| place.json(&["eval", run, "--text", file])["domains"][0].clone();
    let [one, other] = ["run", "other"].map(|run| eval(run, "plain.txt"));
    assert_eq!((&one["bytes"], &other["bytes"]), (&json!(plain.len()), &json!(plain.len())));
    assert_ne!(one["tokens"], other["tokens"]);
    for (run, plain_row) in [("run", &one), ("other", &other)] {
        let special = eval(run, "special.txt");
        assert_eq!(special["bytes"], 2 * plain.len());
        // The text is cut into words on both sides of the token alike.
        assert_eq!(number(&special["tokens"]), 2.0 * number(&plain_row["tokens"]));
    }
}

#[test]
fn items_are_scored_the_same_in_every_format_and_as_the_logits_say() {
    let place = trained();
    let questions = [("let x", [" = 1;", " the river"]), ("the river ", ["and", "let let"])];
    let gold = [0, 1];
    let (mut own, mut olmes, mut samples) = (String::new(), String::new(), String::new());
    for (doc, ((context, choices), gold)) in questions.iter().zip(gold).enumerate() {
        let line = json!({"context": context, "choices": choices, "gold": gold, "task": "t"});
        own += &format!("{line}\n");
        for (idx, choice) in choices.iter().enumerate() {
            let request = json!({"context": context, "continuation": choice});
            let line = json!({"request": request, "doc_id": doc, "idx": idx, "label": gold, "task_name": "t"});
            olmes += &format!("{line}\n");
        }
        let arguments: Value =
            choices.iter().map(|choice| json!([context, choice])).collect::<Vec<_>>().into();
        samples += &format!(
            "{}\n",
            json!({"doc_id": doc, "target": gold.to_string(), "arguments": arguments})
        );
    }
    place.write("own.jsonl", &own);
    place.write("requests.jsonl", &olmes);
    place.write("samples_t_2026.jsonl", &samples);
    let args = ["eval", "run", "--items", "own.jsonl", "--scores", "scores.jsonl"];
    let document = place.json(&args);
    let task = &document["tasks"][0];
    assert_eq!((&task["name"], &task["items"]), (&json!("t"), &json!(2)));
    let scores = std::fs::read_to_string(place.path("scores.jsonl")).unwrap();
    let scores: Vec<Value> =
        scores.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut right = [0.0; 2];
    for (score, (context, choices)) in scores.iter().zip(questions) {
        let context = context.trim_end();
        let found: Vec<f64> =
            score["log_likelihoods"].as_array().unwrap().iter().map(number).collect();
        for ((found, choice), tokens) in
            found.iter().zip(choices).zip(score["tokens"].as_array().unwrap())
        {
            let space = if choice.starts_with(' ') { "" } else { " " };
            let nats = nats(&place, "", &format!("{context}{space}{choice}"));
            let own = &nats[nats.len() - tokens.as_u64().unwrap() as usize..];
            assert!((found + own.iter().sum::<f64>()).abs() < BF16 * own.len() as f64, "{score}");
        }
        let gold = score["gold"][0].as_u64().unwrap() as usize;
        right[0] += f64::from(u8::from(found[gold] > found[1 - gold])) / 2.0;
        right[1] += 1.0 / (1.0 + (found[1 - gold] - found[gold]).exp()) / 2.0;
    }
    assert_eq!(number(&task["accuracy"]["raw"]["value"]), right[0]);
    assert!((number(&task["probability"]["raw"]["value"]) - right[1]).abs() < 1e-12);
    for (file, name) in [("requests.jsonl", "t"), ("samples_t_2026.jsonl", "t")] {
        let other = place.json(&["eval", "run", "--items", file]);
        let other = &other["tasks"][0];
        assert_eq!(other["name"], name);
        for key in ["log_likelihood", "bits_per_byte", "items", "truncated"] {
            assert_eq!(other[key], task[key], "{file}: {key}");
        }
        assert_eq!(other["accuracy"]["raw"], task["accuracy"]["raw"], "{file}");
        assert_eq!(other["probability"]["token"], task["probability"]["token"], "{file}");
    }
}

#[test]
fn blimp_has_a_row_a_paradigm_and_a_mean_a_field() {
    let place = trained();
    let line = |uid: &str, field: &str, good: &str, bad: &str| {
        json!({"sentence_good": good, "sentence_bad": bad, "UID": uid, "field": field}).to_string()
    };
    place.write("a.jsonl", &line("one", "syntax", "let x = 1;", "x let 1 =;"));
    let lines = [
        line("two", "syntax", "let y = 2;", "y let 2 =;"),
        line("two", "syntax", "let z = 2;", "z let 2 =;"),
        line("three", "morphology", "the river", "river the"),
    ];
    place.write("b.jsonl", &lines.join("\n"));
    let document = place.json(&["eval", "run", "--items", "a.jsonl", "b.jsonl"]);
    let names = |key: &str| -> Vec<Value> {
        document[key].as_array().unwrap().iter().map(|row| row["name"].clone()).collect()
    };
    assert_eq!(names("tasks"), ["one", "two", "three"]);
    assert_eq!(names("groups"), ["syntax", "morphology"]);
    let value = |row: &Value| number(&row["accuracy"]["raw"]["value"]);
    let tasks = document["tasks"].as_array().unwrap();
    let mean = tasks.iter().map(value).sum::<f64>() / 3.0;
    assert!((value(&document["mean"]) - mean).abs() < 1e-12);
    assert_eq!(value(&document["groups"][0]), (value(&tasks[0]) + value(&tasks[1])) / 2.0);
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_file_and_line() {
    let place = trained();
    place.write("a.txt", "text");
    place.write("good.jsonl", r#"{"context": "a", "continuation": " b"}"#);
    for (args, said) in [
        (&["--text", "a.txt", "--data", "config.toml"][..], "found --data and --text"),
        (&["--text", "a.txt", "--items", "good.jsonl"], "found --text and --items"),
        (
            &["--text", "a.txt", "--sequences", "3"],
            "--sequences: expected it with a config's domains",
        ),
        (&["--text", "a.txt", "--context", "0"], "of 0 tokens"),
        (&["--scores", "s.jsonl"], "--scores: expected it with --items FILE only"),
        (&["--text", "a.txt", "--set", "train.lr=1"], "`cuvee eval --text` takes no --set"),
        (&["--items", "good.jsonl", "--out", "x"], "`cuvee eval --items` takes no --out"),
    ] {
        let said_all = place.fails(2, &[&["eval", "run"], args].concat());
        assert!(said_all.contains(said) && said_all.contains("hint: "), "{said_all}");
    }
    let fails = |code: i32, args: &[&str], said: &[&str]| {
        let text = place.fails(code, &[&["eval", "run"], args].concat());
        for said in said.iter().chain(&["hint: "]) {
            assert!(text.contains(said), "{text}");
        }
    };
    fails(2, &["--text", "nowhere"], &["`--text`: expected files of text", "found none at "]);
    place.write("empty/a.jsonl", "{\"text\": \"\"}\n");
    fails(1, &["--text", "empty"], &["a.jsonl", "expected text in `a`, found none"]);
    place.write("column.jsonl", "{\"body\": \"x\"}\n");
    fails(1, &["--text", "column.jsonl"], &["column.jsonl", "`text`"]);
    let good = place.json(&["eval", "run", "--text", "column.jsonl", "--text-column", "body"]);
    assert_eq!(good["domains"][0]["bytes"], 1);
    place.write("bad.jsonl", "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 5}\n");
    fails(1, &["--items", "good.jsonl", "bad.jsonl"], &["bad.jsonl: line 1: `gold`", "found 5"]);
    // More tokens than the model's 32.
    let long = json!({"context": "a", "continuation": "zq ".repeat(60)}).to_string();
    place.write("long.jsonl", &format!("\n{long}\n"));
    fails(1, &["--items", "long.jsonl"], &["long.jsonl: line 2: answer 0", "at most 32 tokens"]);
    // A long context is cut, and that is said.
    let long = json!({"context": "zq ".repeat(60), "continuation": "zq"}).to_string();
    place.write("cut.jsonl", &long);
    let output = place.ok(&["eval", "run", "--items", "cut.jsonl", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["tasks"][0]["truncated"], 1);
    assert!(String::from_utf8(output.stderr).unwrap().contains("the beginning is left out"));
}

#[test]
fn many_texts_are_the_same_side_by_side_as_alone() {
    let place = trained();
    place.write("prompts.txt", "let x\n\nthe river\n");
    place.write("prompts.jsonl", "\"let x\"\n{\"prompt\": \"the river\"}\n");
    let warm =
        ["--tokens", "40", "--temperature", "1.1", "--top-k", "50", "--repetition-penalty", "1.2"];
    let texts = |extra: &[&str]| {
        let args = [&["generate", "run"][..], extra, &warm].concat();
        place.json(&args)["texts"].as_array().unwrap().clone()
    };
    let together = texts(&["--prompts", "prompts.txt", "--samples", "3"]);
    assert_eq!(together.len(), 6);
    let one_by_one = texts(&["--prompts", "prompts.jsonl", "--samples", "3", "--at-once", "1"]);
    assert_eq!(together, one_by_one);
    assert_ne!(together[0]["tokens"], together[1]["tokens"], "samples differ");
    let alone = texts(&["--prompt", "let x"]);
    assert_eq!(alone[0]["tokens"], together[0]["tokens"]);
    for text in &together {
        let count = text["tokens"].as_array().unwrap().len();
        assert_eq!(text["log_probabilities"].as_array().unwrap().len(), count);
        assert!(["end", "length"].contains(&text["ended"].as_str().unwrap()));
    }
    // As text: in order, a blank line between.
    let args = ["generate", "run", "--prompts", "prompts.txt", "--tokens", "3"];
    let shown = String::from_utf8(place.ok(&args).stdout).unwrap();
    let document = place.json(&args);
    let expected: Vec<String> = document["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| format!("{}{}\n", t["prompt"].as_str().unwrap(), t["text"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, expected.join("\n"));
    // Past the context of 32 a text goes on.
    let long = place.json(&["generate", "run", "--prompt", "let x", "--tokens", "100"]);
    let ended = long["ended"].as_str().unwrap();
    assert!(ended == "end" || long["tokens"].as_array().unwrap().len() == 100);
}

#[test]
fn scores_never_replace_the_items_and_a_broken_model_says_nothing() {
    let place = trained();
    place.write("items.jsonl", "{\"context\": \"let\", \"continuation\": \" x\"}\n");
    let before = std::fs::read(place.path("items.jsonl")).unwrap();
    for scores in ["items.jsonl", "./items.jsonl", "nowhere/scores.jsonl"] {
        let args = ["eval", "run", "--items", "items.jsonl", "--scores", scores];
        let said = place.fails(1, &args);
        assert!(said.contains("--scores") && said.contains("hint: "), "{said}");
    }
    assert_eq!(std::fs::read(place.path("items.jsonl")).unwrap(), before);
    let many = place.fails(2, &["generate", "run", "--prompt", "a", "--samples", "99999999999"]);
    assert!(many.contains("--samples") && many.contains("hint: "), "{many}");
    let most = usize::MAX.to_string();
    let two = ["generate", "run", "--prompt", "a", "--prompt", "b", "--tokens", "1", "--json"];
    place.ok(&[&two[..], &["--at-once", &most]].concat());
    // Gains beyond what products hold: every logit is no number.
    let file = place.path("run/export/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let begin = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..begin]).unwrap();
    let offsets = &header["model.norm.weight"]["data_offsets"];
    let [from, to] = [0, 1].map(|at| begin + offsets[at].as_u64().unwrap() as usize);
    for number in bytes[from..to].chunks_exact_mut(4) {
        number.copy_from_slice(&f32::MAX.to_le_bytes());
    }
    std::fs::write(&file, bytes).unwrap();
    let said = place.fails(1, &["generate", "run/export", "--prompt", "a", "--tokens", "3"]);
    assert!(said.contains("logit"), "{said}");
}

#[test]
fn a_closed_pipe_ends_a_text_quietly() {
    let place = trained();
    // As many tokens as would take days.
    let args =
        ["generate", "run", "--prompt", "let x", "--tokens", "1000000000", "--temperature", "1"];
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"))
        .current_dir(place.path("."))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 5];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"let x");
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn what_generate_cannot_do_is_refused() {
    let place = trained();
    place.write("bad.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"a\"}\n");
    place.write("none.txt", "\n\n");
    for (code, args, said) in [
        (2, &["--tokens", "1"][..], "expected a text to continue, found none"),
        (2, &["--prompt", "a", "--samples", "0"], "--samples: expected at least 1"),
        (2, &["--prompt", "a", "--at-once", "0"], "--at-once: expected at least 1"),
        (2, &["--prompt", "a", "--prompt", "b", "--logits"], "expected one prompt"),
        (2, &["--prompt", "a", "--min-p", "1.5"], "found 1.5"),
        (
            2,
            &["--prompt", "a", "--repetition-penalty", "0"],
            "repetition_penalty: expected more than 0",
        ),
        (
            1,
            &["--prompts", "bad.jsonl"],
            "bad.jsonl: line 2: expected a JSON string, or an object with `prompt`, found an object with `text`",
        ),
        (1, &["--prompts", "none.txt"], "none.txt: expected prompts, found none"),
        (1, &["--prompts", "nowhere.txt"], "nowhere.txt"),
    ] {
        let text = place.fails(code, &[&["generate", "run"], args].concat());
        assert!(text.contains(said), "{text}");
    }
}
