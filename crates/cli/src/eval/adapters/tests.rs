//! The same questions in every format, and what is wrong with lines.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn read_text(name: &str, text: &str) -> anyhow::Result<Vec<Item>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    read(&path)
}

fn answers(item: &Item) -> Vec<(&str, &str, &str)> {
    let each = item.answers.iter();
    each.map(|answer| (&*answer.context, &*answer.continuation, answer.counted())).collect()
}

#[test]
fn a_question_is_the_same_in_every_format() {
    let own = r#"{"context": "Q: 1+1?\nA:", "choices": [" two", " three"], "gold": 0, "id": 7, "task": "sums"}

{"context": "Q: 1+2?\nA:", "choices": [" two", " three"], "gold": [1]}"#;
    let olmes = r#"{"request_type": "loglikelihood", "doc": {}, "request": {"context": "Q: 1+1?\nA:", "continuation": " two"}, "idx": 0, "task_name": "sums", "doc_id": 0, "native_id": 7, "label": 0}
{"request": {"context": "Q: 1+1?\nA:", "continuation": " three"}, "idx": 1, "task_name": "sums", "doc_id": 0, "native_id": 7, "label": 0}
{"request": {"context": "A:", "continuation": " three"}, "idx": 1, "task_name": "sums", "doc_id": 1000000, "native_id": 7, "label": 0}
{"request": {"context": "Q: 1+2?\nA:", "continuation": " three"}, "idx": 1, "doc_id": 1, "label": 1}
{"request": {"context": "Q: 1+2?\nA:", "continuation": " two"}, "idx": 0, "doc_id": 1, "label": 1}"#;
    let lm_eval = r#"{"doc_id": 7, "doc": {}, "target": "0", "arguments": {"gen_args_0": {"arg_0": "Q: 1+1?\nA:", "arg_1": " two"}, "gen_args_1": {"arg_0": "Q: 1+1?\nA:", "arg_1": " three"}}, "acc": 1.0}
{"doc_id": 8, "target": "three", "arguments": [["Q: 1+2?\nA:", " two"], ["Q: 1+2?\nA:", " three"]]}"#;
    for (name, text, task, lines) in [
        ("a.jsonl", own, ["sums", "a"], [1, 3]),
        ("requests.jsonl", olmes, ["sums", "requests"], [1, 4]),
        ("samples_sums_2026-01-01T00-00-00.5.jsonl", lm_eval, ["sums", "sums"], [1, 2]),
    ] {
        let items = read_text(name, text).unwrap();
        assert_eq!(items.len(), 2, "{name}");
        for (item, question) in items.iter().zip(["Q: 1+1?\nA:", "Q: 1+2?\nA:"]) {
            let counted =
                if name.starts_with("samples") { ["two", "three"] } else { [" two", " three"] };
            let expected = [(question, " two", counted[0]), (question, " three", counted[1])];
            assert_eq!(answers(item), expected, "{name}");
        }
        assert_eq!(items[0].id.as_deref(), Some("7"), "{name}");
        let found: Vec<_> = items.iter().map(|item| (item.gold.clone(), item.line)).collect();
        assert_eq!(found, [(vec![0], lines[0]), (vec![1], lines[1])], "{name}");
        assert_eq!([&items[0].task, &items[1].task], task, "{name}");
    }
    let blimp = r#"{"sentence_good": "He runs.", "sentence_bad": "He run.", "field": "syntax", "UID": "agreement", "pairID": "0"}"#;
    let item = read_text("x.jsonl", blimp).unwrap().remove(0);
    assert_eq!(answers(&item), [("", "He runs.", "He runs."), ("", "He run.", "He run.")]);
    assert_eq!(
        (&*item.task, item.group.as_deref(), &item.gold[..]),
        ("agreement", Some("syntax"), &[0][..])
    );
    let alone = r#"{"context": "a", "continuation": "b"}"#;
    assert_eq!(read_text("x.jsonl", alone).unwrap()[0].gold, [0]);
    let target =
        r#"{"target": " Rome", "arguments": {"gen_args_0": {"arg_0": "In", "arg_1": " Rome"}}}"#;
    assert_eq!(answers(&read_text("x.jsonl", target).unwrap()[0]), [("In", " Rome", "Rome")]);
}

#[test]
fn contexts_may_be_the_choices_and_the_harness_found_which_is_right() {
    let line = |target: &str, more: &str| {
        let arguments = r#"{"gen_args_0": {"arg_0": "The cup", "arg_1": " is big."}, "gen_args_1": {"arg_0": "The box", "arg_1": " is big."}}"#;
        format!(r#"{{"target": {target}, "arguments": {arguments}{more}}}"#)
    };
    let found = |first: &str, second: &str, acc: &str| {
        format!(r#", "filtered_resps": [[{first}, "False"], [{second}, "False"]], "acc": {acc}"#)
    };
    let spelled = r#""is big.""#;
    for (target, more, gold) in [
        ("1", String::new(), 1),
        (r#""0""#, String::new(), 0),
        (spelled, found("\"-9.5\"", "\"-7.25\"", "1.0"), 1),
        (spelled, found("\"-9.5\"", "\"-7.25\"", "0.0"), 0),
        // The first of equals is the harness's choice.
        (spelled, found("-7.25", "-7.25", "0"), 1),
    ] {
        let item = read_text("x.jsonl", &line(target, &more)).unwrap().remove(0);
        let expected = [("The cup", " is big.", "is big."), ("The box", " is big.", "is big.")];
        assert_eq!((answers(&item), &item.gold[..]), (expected.to_vec(), &[gold][..]), "{more}");
    }
    let error = read_text("x.jsonl", &line(spelled, "")).unwrap_err().to_string();
    assert!(error.contains("`target`: expected the place of the right context"), "{error}");
    assert!(error.contains("found \"is big.\"") && error.contains("hint: "), "{error}");
}

#[test]
fn requests_without_their_context_are_no_choices() {
    let read = |more: &str, requests: &[[&str; 2]]| {
        let requests = serde_json::to_string(requests).unwrap();
        let line = format!(r#"{{"target": 1, "arguments": {requests}{more}}}"#);
        let item = read_text("x.jsonl", &line).unwrap().remove(0);
        item.answers.iter().map(|a| (a.context.clone(), a.continuation.clone())).collect::<Vec<_>>()
    };
    let twice = [["Q:", " a"], ["Q:", " b"], ["", " a"], ["", " b"]];
    assert_eq!(read("", &twice), [("Q:".to_owned(), " a".to_owned()), ("Q:".into(), " b".into())]);
    // Where no request has a context, or the contexts are the choices, the metric's name tells.
    let bare = [["", " a"], ["", " b"], ["", " a"], ["", " b"]];
    let contexts = [["A", " x"], ["B", " x"], ["", " A"], ["", " B"]];
    for requests in [bare, contexts] {
        assert_eq!(read(r#", "acc_mutual_info": 1.0"#, &requests).len(), 2);
        assert_eq!(read("", &requests).len(), 4);
    }
    assert_eq!(read("", &[["Q:", " a"], ["Q:", " b"], ["", " c"]]).len(), 3);
}

#[test]
fn what_is_wrong_is_said_with_line_and_key() {
    let good = r#"{"context": "a", "choices": ["b", "c"], "gold": 0}"#;
    for (line, said) in [
        (
            r#"{"context": "a", "choices": ["b", "c"], "gold": 2}"#,
            "line 2: `gold`: expected 0 to 1, a place among the choices, found 2",
        ),
        (
            r#"{"context": "a", "choices": ["b", "c"], "gold": -1}"#,
            "`gold`: expected the place of the right choice",
        ),
        (r#"{"context": "a", "choices": ["b", "c"]}"#, "found no such key"),
        (
            r#"{"context": "a", "choices": ["b", ""], "gold": 0}"#,
            "`choices[1]`: expected a continuation to score, found an empty text",
        ),
        (
            r#"{"context": "a", "choices": ["b", 3], "gold": 0}"#,
            "`choices[1]`: expected a text, found 3",
        ),
        (r#"{"context": "a", "choices": ["b"], "gold": 0}"#, "a list of two texts or more"),
        (
            r#"{"context": "a", "choises": ["b", "c"], "gold": 0}"#,
            "found `context`, `choises`, `gold`",
        ),
        (r#"{"context": 4, "continuation": "x"}"#, "`context`: expected a text, found 4"),
        (r#"{"context": "a", "continuation": ""}"#, "found an empty text"),
        (r#"{"continuation": "a", "choices": ["b", "c"], "gold": 0}"#, "both in one item"),
        ("[1, 2]", "line 2: expected a JSON object, found [1,2]"),
        ("{\"context\"", "line 2: expected a JSON object, found EOF"),
    ] {
        let error = read_text("x.jsonl", &format!("{good}\n{line}\n")).unwrap_err().to_string();
        assert!(error.contains("x.jsonl: line 2: ") && error.contains(said), "{error}");
        assert!(error.lines().last().unwrap().starts_with("hint: "), "{error}");
    }
    let olmes = |idx: u64, label: &str| {
        let of = |idx| {
            format!(
                r#"{{"request": {{"context": "a", "continuation": "b"}}, "idx": {idx}, "doc_id": 1, "label": {label}}}"#
            )
        };
        format!("{}\n{}", of(0), of(idx))
    };
    for (text, said) in [
        (String::new(), "expected items, found no line"),
        (r#"{"text": "a"}"#.to_owned(), "found `text`"),
        (
            olmes(2, "0"),
            "line 2: `idx`: expected 1: the choices of a document numbered from 0, found 2",
        ),
        (olmes(1, "5"), "line 1: `label`: expected 0 to 1"),
        (olmes(1, "\"A\""), "line 1: `label`: expected a whole number"),
        (
            r#"{"target": "x", "arguments": [["a", " b"], ["a", " c"]]}"#.to_owned(),
            "`target`: expected the place of the right choice, or its text",
        ),
        (
            r#"{"target": -1, "arguments": [["a", " b"], ["a", " c"]]}"#.to_owned(),
            "line 1: `target`: expected the place of the right choice, or its text, found -1",
        ),
        (r#"{"target": 1.0, "arguments": [["a", " b"], ["a", " c"]]}"#.to_owned(), "found 1.0"),
        (
            r#"{"target": 2, "arguments": [["a", " b"], ["a", " c"]]}"#.to_owned(),
            "`target`: expected 0 to 1, a place among the choices, found 2",
        ),
        (r#"{"target": "x", "arguments": [["a"]]}"#.to_owned(), "--text"),
        (
            r#"{"sentence_good": "a"}"#.to_owned(),
            "`sentence_bad`: expected a text, found no such key",
        ),
    ] {
        let error = read_text("x.jsonl", &text).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("hint: "), "{error}");
    }
}
