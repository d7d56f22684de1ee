//! `cuvee bench`: the documents it promises, what is measured, and what it says to bad input.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use serde_json::Value;

use crate::common::Place;

fn bench(place: &Place, flags: &str) -> Value {
    let args = format!("bench train --size xs --engine reference {flags}");
    place.json(&args.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn train_keeps_the_json_contract() {
    let document = bench(&Place::new(), "--steps 2 --warmup 1 --threads 1");
    let words = [("what", "train"), ("size", "xs"), ("engine", "reference"), ("precision", "f32")];
    for (key, word) in words {
        assert_eq!(document[key], word, "{document}");
    }
    assert_eq!(document["threads"], 1);
    for key in ["tokens_per_second", "median_ms", "min_ms", "first_loss", "last_loss"] {
        assert!(document[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {document}");
    }
    if cfg!(target_os = "linux") {
        // The parameters (xs with 256 ids: 117,056 numbers of 4 bytes) and two moments at the
        // least.
        assert!(
            document["peak_rss_bytes"].as_u64().is_some_and(|bytes| bytes > 3 * 4 * 117_056),
            "{document}"
        );
    }
    let steps: Vec<f64> =
        document["steps_ms"].as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).collect();
    let [a, b] = steps[..] else { panic!("2 steps, not the one of warm-up: {document}") };
    assert_eq!(document["median_ms"].as_f64(), Some((a + b) / 2.0));
    assert_eq!(document["min_ms"].as_f64(), Some(a.min(b)));
    let tokens_per_second = document["tokens_per_second"].as_f64().unwrap();
    let expected = 4.0 * 32.0 / ((a + b) / 2.0) * 1e3;
    assert!((tokens_per_second / expected - 1.0).abs() < 1e-12, "4 × 32 tokens a step: {document}");
    assert!(document.get("mfu").is_some_and(|mfu| mfu.is_null() || mfu.is_f64()), "{document}");
}

#[test]
fn the_task_is_learned() {
    // Chance is ln 256 = 5.55. Among 256 ids the next is one of 7 strides away until the stride is
    // seen, so that there is much to learn; at 1e-2 twenty steps are enough to be well under
    // chance.
    let document = bench(&Place::new(), "--steps 18 --warmup 2 --set train.lr=1e-2");
    let (first, last) =
        (document["first_loss"].as_f64().unwrap(), document["last_loss"].as_f64().unwrap());
    assert!((first - 256f64.ln()).abs() < 0.2, "{first}");
    assert!(last < first - 0.2, "{first} → {last}");
}

#[test]
fn losses_depend_on_the_seed_and_not_on_the_threads() {
    let place = Place::new();
    let losses = |flags: &str| {
        let document = bench(&place, &format!("--steps 3 --warmup 0 {flags}"));
        (document["first_loss"].as_f64().unwrap(), document["last_loss"].as_f64().unwrap())
    };
    let one = losses("--threads 1 --set train.micro_batch=1");
    assert_eq!(one, losses("--threads 3 --set train.micro_batch=1"));
    assert_ne!(one, losses("--threads 1 --set train.micro_batch=1 --seed 1"));
}

#[test]
fn the_environment_holds_kernels_to_an_instruction_set_which_changes_no_bit_of_f32() {
    let place = Place::new();
    let args = "bench train --size xs --engine fused --precision f32 --steps 2 --json";
    let args: Vec<&str> = args.split(' ').collect();
    let run = |isa: &str| place.cuvee(&args).env("CUVEE_ISA", isa).output().unwrap();
    let document = |isa: &str| -> Value {
        let output = run(isa);
        assert!(output.status.success(), "{isa}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let best = document("");
    let portable = document("portable");
    assert_eq!(portable["instructions"], "portable");
    assert_eq!(portable["last_loss"], best["last_loss"], "{portable}\n{best}");
    let name = best["instructions"].as_str().unwrap();
    assert_eq!(document(name)["instructions"], name);

    let output = run("sse9");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let expected =
        "error: CUVEE_ISA: expected one of portable, avx2, avx512, avx512bf16, found `sse9`";
    assert!(said.contains(expected) && said.contains("hint: "), "{said}");
}

#[test]
fn flags_change_what_is_measured() {
    let document = bench(&Place::new(), "--steps 1 --warmup 0 --batch 3 --context 7 --vocab 11");
    assert_eq!(document["tokens_per_step"], 21);
    assert!((document["first_loss"].as_f64().unwrap() - 11f64.ln()).abs() < 0.2, "{document}");
}

#[test]
fn people_read_the_figures_and_that_an_engine_has_no_profile() {
    let args = "bench train --size xs --engine reference --steps 1 --profile";
    let output = Place::new().ok(&args.split(' ').collect::<Vec<_>>());
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["Size xs", "tokens/s", "ms a step", "MFU", "peak memory", "loss "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("no profile") && said.contains("hint: --engine fused"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_profile_says_what_the_optimizer_costs() {
    for (optimizer, row) in [
        ("adamw", "optimizer: AdamW "),
        ("muon", "optimizer: Muon, and AdamW "),
        ("sgd", "optimizer: SGD "),
    ] {
        let args = format!(
            "bench train --size xs --engine fused --steps 1 --profile --json --optimizer {optimizer}"
        );
        let output = Place::new().ok(&args.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(row), "{row}: {said}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["optimizer"], optimizer);
        let rows = document["profile"].as_array().unwrap();
        let own = rows.iter().find(|own| own["name"] == row.trim_end()).unwrap();
        assert!(own["seconds"].as_f64().unwrap() > 0.0, "{document}");
    }
}

#[test]
fn bad_flags_are_named_with_a_hint() {
    let place = Place::new();
    let cases = [
        ("--engine refrence", "did you mean `reference`"),
        ("--precision f23", "did you mean `f32`"),
        ("--optimizer moun", "did you mean `muon`"),
        (
            "--set train.optimizer.momentum=0.9",
            "train.optimizer.momentum: expected one of the keys",
        ),
        ("--threads 0", "train.threads: expected 1 to 1024, found 0"),
        ("--threads 1025", "train.threads: expected 1 to 1024, found 1025"),
        ("--steps 0", "expected at least 1 step to time beside the 2 of --warmup"),
        ("--batch 0", "train.batch_size: expected at least 1"),
        ("--batch 4000000000", "4000000000 sequences × 32 tokens"),
        ("--context 0", "train.context: expected 1 to"),
        ("--vocab 0", "model.vocab_size: expected"),
        ("--set train.stpes=3", "did you mean `steps`"),
        ("--set mixture.loss=erma", "unknown field `mixture`"),
        ("--set model.init=export", "expected no model.init"),
        ("--set train.tokens=500", "either `steps` or `tokens`"),
    ];
    for (flags, expected) in cases {
        let args = format!("bench train --size xs {flags}");
        let said = place.fails(2, &args.split(' ').collect::<Vec<_>>());
        assert!(said.contains(expected) && said.contains("hint: "), "{flags}:\n{said}");
    }
    let said = place.fails(2, &["bench", "train", "--size", "xxl"]);
    assert!(said.contains("[possible values: xs, s, m, l]"), "{said}");
}

#[test]
fn tokenize_keeps_the_json_contract() {
    let place = Place::new();
    cuvee_testkit::write_file(
        &place.path("tokenizer.json"),
        cuvee_testkit::tiny_tokenizer_json().as_bytes(),
    );
    let args = "bench tokenize --tokenizer tokenizer.json --text prose.jsonl code.jsonl --threads 2 --passes 3";
    let document = place.json(&args.split(' ').collect::<Vec<_>>());
    assert_eq!((&document["what"], &document["threads"]), (&"tokenize".into(), &2.into()));
    let texts = [cuvee_testkit::prose(1, 300), cuvee_testkit::code_like(2, 300)].concat();
    assert_eq!(document["bytes"], texts.iter().map(String::len).sum::<usize>(), "{document}");
    let tokens = document["tokens"].as_u64().unwrap();
    assert!(tokens > 0 && tokens <= document["bytes"].as_u64().unwrap(), "{document}");
    let passes: Vec<f64> =
        document["passes_ms"].as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).collect();
    let [first, a, b] = passes[..] else { panic!("3 passes: {document}") };
    let rate = |ms: f64| document["bytes"].as_f64().unwrap() / 1e3 / ms;
    for (key, ms) in
        [("megabytes_per_second", first), ("later_megabytes_per_second", (a + b) / 2.0)]
    {
        let found = document[key].as_f64().unwrap();
        assert!((found / rate(ms) - 1.0).abs() < 1e-9, "{key}: {document}");
    }
    let less = place.json(&[args.split(' ').collect(), vec!["--bytes", "1000"]].concat());
    assert!((1000..3000).contains(&less["bytes"].as_u64().unwrap()), "{less}");
}

#[test]
fn tokenize_needs_no_arguments() {
    let place = Place::new();
    let document = place.json(&["bench", "tokenize", "--bytes", "300000", "--passes", "1"]);
    assert_eq!((&document["what"], &document["made_up"]), (&"tokenize".into(), &true.into()));
    let number = |key: &str| document[key].as_u64().unwrap();
    assert!((300_000..310_000).contains(&number("bytes")), "{document}");
    assert!(number("tokens") > 0 && number("tokens") < number("bytes") / 2, "{document}");
    assert!(document["megabytes_per_second"].as_f64().unwrap() > 0.0, "{document}");
    // Either alone is made up for.
    cuvee_testkit::write_file(
        &place.path("t.json"),
        cuvee_testkit::tiny_tokenizer_json().as_bytes(),
    );
    let args = "bench tokenize --bytes 1000 --passes 1";
    let with = |more: &str| {
        let args = format!("{args} {more}");
        place.json(&args.split(' ').collect::<Vec<_>>())["made_up"].clone()
    };
    assert_eq!([with("--tokenizer t.json"), with("--text prose.jsonl")], [true, false]);
}

#[test]
fn load_keeps_the_json_contract() {
    let document =
        Place::new().json(&["bench", "load", "--tokens", "1000000", "--seconds", "0.01"]);
    assert_eq!(document["what"], "load");
    for key in
        ["tokens_per_second", "first_batch_ms", "bytes_per_second", "memcpy_bytes_per_second"]
    {
        assert!(document[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {document}");
    }
    let f = |key: &str| document[key].as_f64().unwrap();
    assert!(
        (f("bytes_per_second") / f("tokens_per_second") - 2.0).abs() < 1e-9,
        "two bytes a token"
    );
    assert!(
        (f("bytes_per_second") / f("memcpy_bytes_per_second") / f("share_of_memcpy") - 1.0).abs()
            < 1e-9
    );
}

#[test]
fn bad_requests_to_the_data_benches_are_refused_with_a_hint() {
    let place = Place::new();
    cuvee_testkit::write_file(
        &place.path("t.json"),
        cuvee_testkit::tiny_tokenizer_json().as_bytes(),
    );
    place.write("empty.txt", "");
    for (code, args, words) in [
        (
            2,
            "tokenize --tokenizer t.json --text prose.jsonl --threads 0",
            "--threads: expected 1 to 1024",
        ),
        (2, "tokenize --tokenizer t.json --text prose.jsonl --passes 0", "at least one pass"),
        (2, "tokenize --tokenizer t.json --text empty.txt", "expected some text"),
        (1, "tokenize --tokenizer t.json --text nowhere.txt", "no file for `nowhere.txt`"),
        (1, "tokenize --tokenizer prose.jsonl --text prose.jsonl", "tokenizer.json"),
        (
            1,
            "tokenize --tokenizer t.json --text prose.jsonl --text-column texts",
            "no column `texts`",
        ),
        (2, "load --tokens 10", "--tokens: expected 1000000 to"),
        (2, "load --seconds 0", "--seconds: expected up to 60"),
    ] {
        let args: Vec<&str> = std::iter::once("bench").chain(args.split(' ')).collect();
        let said = place.fails(code, &args);
        assert!(said.contains(words) && said.contains("hint: "), "{args:?}:\n{said}");
    }
}
