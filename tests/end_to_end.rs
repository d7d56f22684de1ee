//! The whole path through the real binary, on generated text.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use crate::common::{Place, metrics, of_kind};

#[test]
fn train_learns_both_domains_and_leaves_a_whole_run_folder() {
    let place = Place::new();
    let document = place.json(&["train", "config.toml", "--set", "train.steps=30", "--out", "run"]);
    assert_eq!(document["steps"], 30);
    for domain in document["domains"].as_array().unwrap() {
        let (first, last) =
            (domain["first_loss"].as_f64().unwrap(), domain["last_loss"].as_f64().unwrap());
        // ln 400 = 5.99 at the start; thirty steps of generated text take off more than a nat.
        assert!((first - 400f64.ln()).abs() < 0.5, "{domain}");
        assert!(last < first - 1.0, "{domain}");
    }
    for file in [
        "config.toml",
        "plan.json",
        "metrics.jsonl",
        "report.html",
        "checkpoints/step-00000030/model.safetensors",
        "checkpoints/step-00000030/optimizer.safetensors",
        "checkpoints/step-00000030/state.json",
        "export/config.json",
        "export/model.safetensors",
        "export/tokenizer.json",
        "export/generation_config.json",
    ] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    let kept = std::fs::read_dir(place.path("run/checkpoints")).unwrap().count();
    assert_eq!(kept, 2, "checkpoint.keep defaults to 2");
}

#[test]
fn metrics_have_the_documented_keys_and_count_what_was_drawn() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let records = metrics(&place.path("run"));
    let (steps, evals) = (of_kind(&records, "step"), of_kind(&records, "eval"));
    assert_eq!(steps.len(), 10);
    assert_eq!(evals.iter().map(|e| e["step"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 5, 10]);
    for (i, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], i as u64 + 1);
        assert_eq!(step["tokens"], (i as u64 + 1) * 4 * 32);
        for key in ["loss", "lr", "tokens_per_second", "gradient_norm", "clip_factor"] {
            assert!(
                step[key].as_f64().is_some_and(|x| x.is_finite() && x >= 0.0),
                "{key} of {step}"
            );
        }
        let domains = &step["domains"];
        for (name, share, multiplier) in [("prose", 0.75, 0.5 / 0.75), ("code", 0.25, 2.0)] {
            let domain = &domains[name];
            assert_eq!(domain["sampling_weight"], share);
            assert!(
                (domain["multiplier"].as_f64().unwrap() - multiplier).abs() < 1e-12,
                "{domain}"
            );
            assert_eq!(domain["loss_weight"], 1.0);
            assert_eq!(domain["sequences"], (share * 4.0) as u64);
            assert!(
                domain["loss"].as_f64().is_some() && domain["epochs"].as_f64().is_some(),
                "{domain}"
            );
        }
    }
    for step in steps {
        // train.clip is 1.0 unless the config says otherwise.
        let factor = (1.0 / step["gradient_norm"].as_f64().unwrap()).min(1.0);
        assert_eq!(step["clip_factor"], factor, "{step}");
    }
    for eval in evals {
        assert_eq!(eval["split"], "valid");
        assert!(eval["mean_loss"].as_f64().is_some_and(|x| x > 0.0), "{eval}");
        assert!(eval["mean_loss_standard_error"].as_f64().is_some_and(|x| x > 0.0), "{eval}");
        for name in ["prose", "code"] {
            assert!(eval["domains"][name]["loss"].as_f64().is_some_and(|x| x > 0.0));
            assert!(eval["domains"][name]["bits_per_byte"].as_f64().is_some_and(|x| x > 0.0));
            assert!(eval["domains"][name]["standard_error"].as_f64().is_some_and(|x| x > 0.0));
            assert_eq!(eval["domains"][name]["windows"], 4);
        }
    }
}

/// The numbers of `value`.
fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The log says of every evaluation what its windows say, under every strategy that measures.
#[test]
fn every_evaluation_keeps_the_losses_of_its_windows() {
    let place = Place::new();
    let erma = r#"mixture.loss={ strategy = "erma", every = 5 }"#;
    let importance = "domain.prose.importance=3.0";
    place.ok(&["train", "config.toml", "--out", "run", "-q", "--set", erma, "--set", importance]);
    let records = metrics(&place.path("run"));
    let evaluations = of_kind(&records, "eval");
    let places: Vec<_> =
        evaluations.iter().map(|e| (e["split"].clone(), e["step"].clone())).collect();
    let expected = [("valid", 0), ("tune", 5), ("valid", 5), ("tune", 10), ("valid", 10)];
    assert_eq!(places, expected.map(|(split, step)| (split.into(), step.into())));
    let mut data = Vec::new();
    for eval in evaluations {
        let file = format!("run/eval/step-{:08}.json", eval["step"].as_u64().unwrap());
        let text = std::fs::read_to_string(place.path(&file)).unwrap();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&kept["step"], &kept["context"]), (&eval["step"], &32.into()));
        let (mut mean, mut square) = (0.0, 0.0);
        for (name, importance) in [("prose", 0.75), ("code", 0.25)] {
            let windows = &kept["splits"][eval["split"].as_str().unwrap()][name];
            let (losses, numbers_of) = (numbers(&windows["losses"]), numbers(&windows["windows"]));
            let n = losses.len() as f64;
            assert_eq!(numbers_of.len(), losses.len());
            assert!(numbers_of.windows(2).all(|pair| pair[0] < pair[1]), "{windows}");
            assert_eq!(windows["tokens"], 32 * losses.len() as u64);
            assert_eq!(windows["importance"], importance);
            data.push(windows["data"].as_str().unwrap().to_owned());
            let domain = &eval["domains"][name];
            let loss = losses.iter().sum::<f64>() / n;
            let variance = losses.iter().map(|l| (l - loss).powi(2)).sum::<f64>() / (n - 1.0);
            let error = (variance / n).sqrt();
            assert_eq!(domain["windows"], losses.len() as u64);
            // The same sums in the same order, but for a rounding or two.
            let near = |found: &serde_json::Value, expected: f64| {
                let found = found.as_f64().unwrap();
                assert!((found - expected).abs() < 1e-12, "{found} {expected}");
            };
            near(&domain["loss"], loss);
            near(&domain["standard_error"], error);
            mean += importance * loss;
            square += (importance * error).powi(2);
        }
        assert!((eval["mean_loss"].as_f64().unwrap() - mean).abs() < 1e-12);
        let found = eval["mean_loss_standard_error"].as_f64().unwrap();
        assert!((found - square.sqrt()).abs() < 1e-12);
    }
    // The same text at every step; another one in each domain and split.
    data.sort();
    data.dedup();
    assert_eq!(data.len(), 4);
}

#[test]
fn one_window_has_no_standard_error() {
    let place = Place::new();
    let one = ["--set", "eval.sequences=1", "--set", "train.steps=2"];
    place.ok(&[&["train", "config.toml", "--out", "run", "-q"], &one[..]].concat());
    for eval in of_kind(&metrics(&place.path("run")), "eval") {
        let domain = eval["domains"]["prose"].as_object().unwrap();
        assert_eq!(
            (&domain["windows"], &domain["standard_error"]),
            (&1.into(), &serde_json::Value::Null)
        );
        assert!(eval["mean_loss_standard_error"].is_null());
    }
    let evaluated = place.json(&["eval", "run", "--sequences", "1"]);
    assert!(evaluated["domains"][0]["standard_error"].is_null());
}

#[test]
fn the_result_has_a_line_of_the_mean_and_ghost_is_warned_of() {
    let place = Place::new();
    let ghost = r#"mixture.sampling={ strategy = "va", variance = "ghost" }"#;
    let args = ["train", "config.toml", "--out", "run", "--set", "train.steps=2", "--set", ghost];
    let said = String::from_utf8(place.ok(&args).stderr).unwrap();
    let mean = said.lines().find(|line| line.trim_start().starts_with("mean ")).expect("a mean");
    let last = metrics(&place.path("run")).pop().unwrap()["mean_loss"].as_f64().unwrap();
    assert!(mean.contains(&format!("{last:.3}")), "{said}");
    assert!(said.contains("warning: variance = \"ghost\" is deprecated"), "{said}");
    assert!(said.contains("hint: variance = \"sketch\""), "{said}");
    let plain = ["train", "config.toml", "--out", "plain", "--set", "train.steps=2"];
    assert!(!String::from_utf8(place.ok(&plain).stderr).unwrap().contains("deprecated"));
}

#[test]
fn a_second_run_reuses_the_shards_and_takes_a_folder_of_its_own() {
    let place = Place::new();
    let first = place.json(&["prepare", "config.toml"]);
    let second = place.json(&["prepare", "config.toml"]);
    for (before, after) in
        first["domains"].as_array().unwrap().iter().zip(second["domains"].as_array().unwrap())
    {
        assert_eq!(before["reused"], false);
        assert_eq!(after["reused"], true);
        assert_eq!(before["splits"], after["splits"]);
    }
    let short = ["train", "config.toml", "--set", "train.steps=1"];
    assert_eq!(place.json(&short)["run"], "runs/config");
    assert_eq!(place.json(&short)["run"], "runs/config-2");
}

#[test]
fn the_same_seed_gives_the_same_model_and_another_seed_another() {
    let place = Place::new();
    let model = |out: &str, seed: &str| {
        place.ok(&[
            "train",
            "config.toml",
            "--set",
            "train.steps=3",
            "--seed",
            seed,
            "--out",
            out,
            "-q",
        ]);
        std::fs::read(place.path(out).join("export/model.safetensors")).unwrap()
    };
    let (a, b, c) = (model("a", "7"), model("b", "7"), model("c", "8"));
    assert!(a == b, "two runs of one seed differ");
    assert!(a != c, "two seeds give one model");
}

#[test]
fn eval_agrees_with_the_last_evaluation_of_the_run() {
    let place = Place::new();
    let trained = place.json(&["train", "config.toml", "--out", "run"]);
    for path in ["run", "run/export", "run/checkpoints/step-00000010"] {
        let evaluated = place.json(&["eval", path]);
        for (a, b) in trained["domains"]
            .as_array()
            .unwrap()
            .iter()
            .zip(evaluated["domains"].as_array().unwrap())
        {
            assert_eq!(
                a["last_loss"], b["loss"],
                "{path}: the same parameters on the same windows"
            );
            for key in ["name", "tokens", "perplexity", "bits_per_byte"] {
                assert!(!b[key].is_null(), "{key} of {b}");
            }
        }
        let mean = (evaluated["domains"][0]["loss"].as_f64().unwrap()
            + evaluated["domains"][1]["loss"].as_f64().unwrap())
            / 2.0;
        assert!((evaluated["mean_loss"].as_f64().unwrap() - mean).abs() < 1e-12);
    }
    let fewer = place.json(&["eval", "run", "--sequences", "1", "--context", "16"]);
    assert_eq!(fewer["domains"][0]["tokens"], 16);
}

#[test]
fn generate_is_reproducible_and_stays_on_stdout() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let text = |extra: &[&str]| {
        let args = [&["generate", "run", "--prompt", "let x", "--tokens", "12"], extra].concat();
        String::from_utf8(place.ok(&args).stdout).unwrap()
    };
    let greedy = text(&[]);
    assert!(
        greedy.starts_with("let x") && greedy.ends_with('\n') && greedy.len() > "let x\n".len(),
        "{greedy:?}"
    );
    assert_eq!(greedy, text(&[]));
    let warm = |seed: &str| text(&["--temperature", "1.5", "--seed", seed]);
    assert_eq!(warm("1"), warm("1"));
    assert!((2..8).any(|seed| warm(&seed.to_string()) != warm("1")), "temperature changes nothing");
    let document = place.json(&["generate", "run", "--prompt", "let x", "--tokens", "12"]);
    assert_eq!(format!("let x{}\n", document["text"].as_str().unwrap()), greedy);
    assert_eq!(document["tokens"].as_array().unwrap().len(), 12);
}

#[test]
fn what_generate_refuses_comes_before_its_first_word() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    place.write("run/export/generation_config.json", r#"{"eos_token_id": "</s>"}"#);
    let output = place.cuvee(&["generate", "run", "--prompt", "let x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("generation_config.json") && said.contains("eos_token_id"), "{said}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    for (flag, value) in [("--temperature", "-1"), ("--top-p", "-0.5")] {
        let said = place.fails(2, &["generate", "run", "--prompt", "x", flag, value]);
        assert!(said.contains(&format!("found {value}")) && said.contains("hint: "), "{said}");
    }
}

#[test]
fn the_export_starts_another_run_where_it_left_off() {
    let place = Place::new();
    let first = place.json(&["train", "config.toml", "--set", "train.steps=20", "--out", "run"]);
    let set = format!("model.init={}", place.path("run/export").display());
    let second = place.json(&["train", "config.toml", "--set", &set, "--out", "again"]);
    for (a, b) in
        first["domains"].as_array().unwrap().iter().zip(second["domains"].as_array().unwrap())
    {
        assert_eq!(a["last_loss"], b["first_loss"]);
    }
}

#[test]
fn documents_of_a_run_from_a_model_end_as_the_models_own_and_its_export_says_so() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--set", "train.steps=1", "--out", "run", "-q"]);
    let read = |file: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(place.path(file)).unwrap()).unwrap()
    };
    place.write(
        "run/export/generation_config.json",
        r#"{"eos_token_id": [5, 0], "bos_token_id": 7, "temperature": 0.7, "do_sample": true}"#,
    );
    place.edit("train = { vocab_size = 400 }", "file = \"run/export/tokenizer.json\"");
    let run = |out: &str, more: &[&str]| {
        let set = ["--set", "model.init=run/export", "--set", "train.steps=1", "--out", out];
        let args = [&["train", "config.toml", "--set", "data.dir=shards"], &set[..], more].concat();
        String::from_utf8(place.ok(&args).stderr).unwrap()
    };
    let said = run("again", &["--set", "train.context=40"]);
    assert_eq!(read("shards/prose/shard.json")["end_of_text"], 5);
    for file in ["again/export/config.json", "again/export/generation_config.json"] {
        let ids = read(file);
        assert_eq!(ids["eos_token_id"], serde_json::json!([5, 0]), "{file}");
        assert_eq!(ids["bos_token_id"], 7, "{file}");
    }
    assert_eq!(read("again/export/generation_config.json")["temperature"], 0.7);
    let contains = |said: &str, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(said.contains(part), "{part:?} in {said}"));
    };
    contains(&said, &["train.context = 40", "32 positions", "max_position_embeddings"]);
    // A run that goes on keeps its end of text, whatever the model's files say meanwhile.
    place.write("run/export/generation_config.json", r#"{"eos_token_id": 9}"#);
    run("again", &["--set", "train.context=40", "--resume"]);
    assert_eq!(read("shards/prose/shard.json")["end_of_text"], 5);
    // Another token that the config names is said.
    let said = run("other", &["--set", "tokenizer.end_of_text=!"]);
    contains(&said, &["documents end with `!`", "with id 9", "tokenizer.end_of_text"]);
}

#[test]
fn a_column_splits_one_source_into_domains() {
    let place = Place::new();
    let lines: Vec<_> = cuvee_testkit::prose(3, 200)
        .into_iter()
        .map(|t| (t, serde_json::json!({ "language": "en" })))
        .chain(
            cuvee_testkit::code_like(4, 200)
                .into_iter()
                .map(|t| (t, serde_json::json!({ "language": "rust" }))),
        )
        .collect();
    cuvee_testkit::write_jsonl(&place.path("mixed.jsonl"), &lines);
    place.write(
        "split.toml",
        r#"
        tokenizer.train.vocab_size = 400
        model.preset = "xs"
        mixture = { objective = "importance", sampling = "uniform" }
        train = { steps = 2, batch_size = 4, context = 32 }
        [[domain]]
        name = "mixed"
        domain_by = "meta.language"
        importance = { en = 3.0, rust = 1.0 }
        source = { path = "mixed.jsonl" }
        "#,
    );
    let document = place.json(&["train", "split.toml", "--out", "run"]);
    let names: Vec<_> =
        document["domains"].as_array().unwrap().iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["mixed/en", "mixed/rust"]);
    let records = metrics(&place.path("run"));
    let step = of_kind(&records, "step")[0];
    assert_eq!(step["domains"]["mixed/en"]["multiplier"], 1.5);
    assert_eq!(step["domains"]["mixed/rust"]["multiplier"], 0.5);
}

#[test]
fn inspect_says_what_each_thing_is() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let prepared = place.json(&["prepare", "config.toml"]);
    let shard = prepared["domains"][0]["folder"].as_str().unwrap().to_string();
    let say = |path: &str| String::from_utf8(place.ok(&["inspect", path]).stdout).unwrap();
    assert!(say("run").contains("step 10"), "{}", say("run"));
    assert!(say("run/export").contains("LlamaForCausalLM"), "{}", say("run/export"));
    assert!(say(&shard).contains("prose"), "{}", say(&shard));
    assert!(
        say(&format!("{shard}/train.idx")).contains("u16"),
        "{}",
        say(&format!("{shard}/train.idx"))
    );
    let strategies = say("strategies");
    for name in
        ["proportional", "uniform", "importance", "fixed", "temperature", "unimax", "schedule"]
    {
        assert!(strategies.contains(name), "{strategies}");
    }
}

#[test]
fn the_page_of_strategies_is_what_the_program_says() {
    let page = std::fs::read_to_string(cuvee_testkit::workspace_root().join("docs/strategies.md"))
        .unwrap();
    let said = String::from_utf8(Place::new().ok(&["inspect", "strategies"]).stdout).unwrap();
    assert!(page.contains(said.trim()), "docs/strategies.md needs the table again:\n{said}");
}

#[test]
fn the_example_config_of_the_guide_is_one() {
    let place = Place::new();
    let guide =
        std::fs::read_to_string(cuvee_testkit::workspace_root().join("docs/configuration.md"))
            .unwrap();
    let blocks: Vec<&str> =
        guide.split("```toml").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert!(blocks.len() >= 3, "the guide shows the sections of a config");
    // What the guide says is read as one config; only its source and the size of the work are made
    // to fit this folder.
    let config = blocks.concat().replace("wiki/*.jsonl.zst", "prose.jsonl").replace("4096", "400");
    place.write("guide.toml", &config);
    let small = [
        "model.preset=xs",
        "train.steps=1",
        "train.batch_size=2",
        "train.context=16",
        "eval.sequences=1",
    ];
    let sets: Vec<&str> = small.iter().flat_map(|s| ["--set", s]).collect();
    place.ok(&[&["train", "guide.toml", "--out", "run"][..], &sets].concat());
}

#[test]
fn learned_weights_are_measured_applied_and_recorded() {
    let place = Place::new();
    place.edit(
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        "sampling = { strategy = \"va\", epsilon = 0.1 }\nloss = { strategy = \"erma\", every = 4 }",
    );
    place.ok(&["train", "config.toml", "--out", "run", "-q", "--set", "train.batch_size=8"]);
    let records = metrics(&place.path("run"));
    let tune: Vec<_> =
        of_kind(&records, "eval").into_iter().filter(|e| e["split"] == "tune").collect();
    assert_eq!(tune.iter().map(|e| e["step"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8]);
    assert!(
        tune.iter()
            .all(|e| e["domains"]["code"]["loss_variance"].as_f64().is_some_and(|v| v > 0.0))
    );
    let steps = of_kind(&records, "step");
    let of = |step: usize, domain: &str, key: &str| steps[step]["domains"][domain][key].as_f64();
    for (i, _) in steps.iter().enumerate() {
        let (p, w, m) = ("sampling_weight", "loss_weight", "multiplier");
        let sum = |f: &dyn Fn(&str) -> f64| f("prose") + f("code");
        assert!((sum(&|d| of(i, d, p).unwrap()) - 1.0).abs() < 1e-12);
        assert!((sum(&|d| 0.5 * of(i, d, w).unwrap()) - 1.0).abs() < 1e-12, "Σ π w = 1");
        for domain in ["prose", "code"] {
            let expected = of(i, domain, "importance").unwrap() * of(i, domain, w).unwrap()
                / of(i, domain, p).unwrap();
            assert!((of(i, domain, m).unwrap() - expected).abs() < 1e-12, "m = π w / p");
            assert!(of(i, domain, m).unwrap() <= 1.0 / 0.1 + 1e-12, "the floor ε α: m ≤ 1/ε");
        }
    }
    // Nothing is known at the start; after a step v̂ is, and after four the loss weights have
    // moved.
    assert_eq!(of(0, "prose", "gradient_deviation"), None);
    assert!(of(1, "prose", "gradient_deviation").is_some_and(|v| v > 0.0));
    assert_eq!(of(3, "prose", "loss_weight"), Some(1.0));
    assert!(of(4, "prose", "loss_weight").is_some_and(|w| w != 1.0));
    assert!(of(4, "prose", "sampling_weight").is_some_and(|p| p != 0.5));
    // What sampling by v can win, and how well a loss weight is known, are said once there is
    // something to say.
    assert!(steps[0]["headroom"].is_null() && steps[1]["headroom"].as_f64().unwrap() >= 1.0);
    assert_eq!(of(3, "prose", "loss_weight_error"), None);
    assert!(of(4, "prose", "loss_weight_error").is_some_and(|e| e > 0.0));
    // Each measurement looks at other windows: with more of them than one measurement takes, the
    // fixed ones of the valid split would not move.
    assert_ne!(tune[0]["domains"]["prose"]["loss"], tune[1]["domains"]["prose"]["loss"]);
}

#[test]
fn learned_sampling_under_max_epochs_runs_to_its_end() {
    let place = Place::new();
    place.edit(
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        "sampling = { strategy = \"va\" }",
    );
    let train = ["train", "config.toml", "--out", "run", "--set", "train.batch_size=8"];
    let limit = |epochs: &'static str| ["--set", epochs];
    let said = place.ok(&[&train[..], &limit("domain.code.max_epochs=0.02")].concat());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("warning: max_epochs = 0.02 lets `code` have at most"), "{said}");
    let run = place.path("run");
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("plan.json")).unwrap()).unwrap();
    let code = &plan["domains"][1];
    let most = (code["windows"].as_f64().unwrap() * 0.02).ceil();
    assert!(most < 40.0, "the limit is below an even share of 80 sequences: {code}");
    assert!((code["largest_share"].as_f64().unwrap() - most / 80.0).abs() < 1e-12);
    let records = metrics(&run);
    let steps = of_kind(&records, "step");
    assert_eq!(steps.len(), 10);
    let taken: f64 =
        steps.iter().map(|s| s["domains"]["code"]["sequences"].as_f64().unwrap()).sum();
    assert!(taken <= most && taken >= most - 1.0, "{taken} of {most}");
    for step in &steps {
        assert_eq!(step["capped"], serde_json::json!(["code"]));
        let of = |key: &str| step["domains"]["code"][key].as_f64().unwrap();
        assert!((of("multiplier") * of("sampling_weight") - 0.5).abs() < 1e-12, "m grows");
    }
    // A run that met its limit goes on under a raised one, and is refused under one that cannot do.
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    place.ok(&[&train[..], &limit("domain.code.max_epochs=0.5"), &["--resume"]].concat());
    let records = metrics(&run);
    assert!(of_kind(&records, "step")[9].get("capped").is_none(), "a raised limit does not bind");
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    let refused = [
        &train[..],
        &limit("domain.code.max_epochs=0.001"),
        &limit("domain.prose.max_epochs=0.001"),
        &["--resume"],
    ]
    .concat();
    let said = place.fails(2, &refused);
    assert!(
        said.contains("max_epochs leaves") && said.contains("hint: raise max_epochs"),
        "{said}"
    );
}

#[test]
fn the_plan_says_how_large_the_batch_effectively_is() {
    let place = Place::new();
    // α = ½ each against p = (0.75, 0.25): 4 / (⅓ + 1) = 3.
    let plan = |set: &[&str], run: &str| {
        let said = place.ok(&[&["train", "config.toml", "--out", run][..], set].concat());
        String::from_utf8_lossy(&said.stderr).into_owned()
    };
    let said = plan(&[], "even");
    assert!(said.contains("effective batch: 3.0 of 4 sequences"), "{said}");
    assert!(!said.contains("fewer than half"), "{said}");
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("even/plan.json")).unwrap()).unwrap();
    assert!((document["effective_batch_size"].as_f64().unwrap() - 3.0).abs() < 1e-9);
    // p = (0.9, 0.1): 4 / (0.2778 + 2.5) = 1.44, below half.
    place.edit("{ prose = 0.75, code = 0.25 }", "{ prose = 0.9, code = 0.1 }");
    let said = plan(&[], "skewed");
    assert!(said.contains("effective batch: 1.4 of 4 sequences"), "{said}");
    assert!(said.contains("warning: ") && said.contains("`code` counts 5.00 times"), "{said}");
    // What is sampled is the objective: the whole batch.
    let said = plan(&["--set", "mixture.objective=sampled"], "sampled");
    assert!(said.contains("effective batch: 4.0 of 4 sequences"), "{said}");
    place.edit(
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        "sampling = { strategy = \"va\" }",
    );
    let said = plan(&[], "va");
    assert!(said.contains("at most 4 % more gradient variance"), "{said}");
}

/// 0.0047·(N/108M)^(−1/3), with the embedding counted where it is the head and not where it is not.
#[test]
fn an_automatic_rate_is_printed_with_its_source_and_kept_resolved() {
    let place = Place::new();
    place.edit("lr = 3e-3", "lr = \"auto\"");
    let auto = |out: &str, tied: &str| {
        let output = place.ok(&[
            "train",
            "config.toml",
            "--out",
            out,
            "--set",
            &format!("model.tied={tied}"),
        ]);
        let plan: serde_json::Value =
            serde_json::from_slice(&fs::read(place.path(out).join("plan.json")).unwrap()).unwrap();
        (String::from_utf8(output.stderr).unwrap(), plan)
    };
    let ((said, tied), (_, untied)) = (auto("tied", "true"), auto("untied", "false"));
    let expected = 0.0047 * (tied["parameters"].as_f64().unwrap() / 108e6).powf(-1.0 / 3.0);
    let found = tied["lr"].as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-12, "{found}, not {expected}");
    assert_eq!(untied["lr"], tied["lr"], "the head is multiplied with, the embedding is looked up");
    for part in ["lr = \"auto\": ", "0.0047·(N/108M)^(−1/3)", "Porian et al., 2024"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The config keeps the word, so that the run goes on under it.
    let config = fs::read_to_string(place.path("tied/config.toml")).unwrap();
    assert!(config.contains("lr = \"auto\""), "{config}");
    let peak = metrics(&place.path("tied"))
        .iter()
        .filter_map(|record| record["lr"].as_f64())
        .fold(0.0, f64::max);
    assert!((peak / expected - 1.0).abs() < 1e-12, "{peak}");
    place.ok(&[
        "train",
        "config.toml",
        "--out",
        "tied",
        "--resume",
        "-q",
        "--set",
        "model.tied=true",
    ]);
}

/// What a run is going to cost, before it costs it.
#[test]
fn a_plan_says_what_moves_what_and_what_it_costs() {
    let place = Place::new();
    let plan = |out: &str, set: &str| {
        let set = format!("train.optimizer={set}");
        let output = place.ok(&["train", "config.toml", "--out", out, "--set", &set]);
        let plan: serde_json::Value =
            serde_json::from_slice(&fs::read(place.path(out).join("plan.json")).unwrap()).unwrap();
        (String::from_utf8(output.stderr).unwrap(), plan)
    };
    let (said, adamw) = plan("adamw", "adamw");
    assert!(!said.contains("optimizer:"), "the usual one is not worth a line: {said}");
    let parameters = adamw["parameters"].as_u64().unwrap();
    assert_eq!(adamw["optimizer_bytes"], 8 * parameters);
    let (said, muon) = plan("muon", "{ name = \"muon\", lr = 0.02 }");
    assert!(said.contains("muon for the matrices of the layers at lr 0.02, adamw"), "{said}");
    assert!(!said.contains("note: muon"), "{said}");
    assert_eq!(muon["optimizer"]["name"], "muon");
    assert!(muon["optimizer_bytes"].as_u64() < adamw["optimizer_bytes"].as_u64());
    assert!(muon["flops"].as_f64() > adamw["flops"].as_f64());
    let (said, _) = plan("plain", "muon");
    assert!(said.contains("note: muon moves the matrices at train.lr, too"), "{said}");
    let (said, sgd) = plan("sgd", "{ name = \"sgd\", momentum = 0 }");
    assert!(said.contains("optimizer: sgd") && sgd["optimizer_bytes"] == 0, "{said}");
    assert!(!said.contains("note: sgd"), "{said}");
    place.edit("lr = 3e-3\n", "");
    let (said, _) = plan("default", "sgd");
    assert!(said.contains("note: sgd moves everything at 0.001, the default,"), "{said}");
}
