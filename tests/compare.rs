//! `cuvee compare`: many ordinary runs and one verdict, whatever happens on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Place, SMALL, metrics};

/// Three arms of [`SMALL`], three seeds.
const ARMS: &str = r#"
[compare]
seeds = 3
arms = [
    { name = "uniform", set = { mixture.sampling = "uniform" } },
    { name = "skewed", set = { mixture.sampling = { strategy = "fixed", shares = { prose = 0.9, code = 0.1 } } } },
    { name = "erma+va", set = { mixture.sampling = "va", mixture.loss = { strategy = "erma", every = 4 } } },
]
"#;

/// A place with a config of `compare`, on one thread a run: what is computed does not depend on the
/// machine's number of cores.
fn place(compare: &str) -> Place {
    let place = Place::new();
    write(&place, compare);
    place
}

fn write(place: &Place, compare: &str) {
    place.write("config.toml", &config(compare));
}

fn config(compare: &str) -> String {
    format!("{}{compare}", SMALL.replace("context = 32", "context = 32\nthreads = 1"))
}

/// The comparison of [`ARMS`] in the folder `whole`, made once, and what it found. What is declared
/// names the place, so that others like it lie beside it.
fn whole() -> &'static (Place, Value) {
    static WHOLE: OnceLock<(Place, Value)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let place = Place::shared("compare");
        write(&place, ARMS);
        let found = place.json(&["compare", "config.toml", "--out", "whole", "--jobs", "2"]);
        (place, found)
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn arm<'a>(comparison: &'a Value, name: &str) -> &'a Value {
    let arms = comparison["arms"].as_array().unwrap();
    arms.iter().find(|arm| arm["name"] == name).unwrap_or_else(|| panic!("no arm {name}"))
}

/// A run's records without what depends on the clock.
fn timeless(run: &Path) -> Vec<Value> {
    let mut records = metrics(run);
    for record in &mut records {
        record.as_object_mut().unwrap().remove("tokens_per_second");
    }
    records
}

#[test]
fn a_comparison_is_ordinary_runs_and_a_verdict_on_every_arm() {
    let (place, found) = whole();
    let folder = place.path("whole");
    assert_eq!(
        found,
        &serde_json::from_str::<Value>(&read(&folder.join("comparison.json"))).unwrap()
    );
    assert_eq!(found["baseline"], "uniform");
    assert_eq!(found["seeds"], serde_json::json!([1, 2, 3]));
    let names: Vec<&str> =
        found["arms"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["uniform", "skewed", "erma+va", "uniform~"]);
    for name in names {
        let of = arm(found, name);
        for key in [
            "seeds",
            "mean_loss",
            "ci95",
            "worst_domain_loss",
            "difference",
            "difference_ci95",
            "speedup",
            "verdict",
            "losses",
            "sd_seeds",
            "se_windows",
            "p_value",
            "p_holm",
            "mde",
            "seeds_needed",
            "equivalent_within",
            "n",
            "exploratory",
            "design",
            "baseline_noise",
            "aa_verdict",
        ] {
            assert!(of.get(key).is_some(), "{name} lacks {key}");
        }
        // Y is what the run's own log says, and the mean is their mean.
        let mut losses = Vec::new();
        for (place_of_seed, seed) in [1, 2, 3].into_iter().enumerate() {
            let run = folder.join(name).join(format!("seed-{seed}"));
            let last =
                metrics(&run).into_iter().rfind(|r| r["kind"] == "eval" && r["split"] == "valid");
            let expected = last.unwrap()["mean_loss"].as_f64().unwrap();
            let loss = of["losses"][place_of_seed].as_f64().unwrap();
            assert!((loss - expected).abs() < 1e-12 * expected, "{name} {seed}: {loss} {expected}");
            losses.push(loss);
            for file in ["config.toml", "plan.json", "checkpoints", "export/model.safetensors"] {
                assert!(run.join(file).exists(), "{name} {seed} lacks {file}");
            }
        }
        let mean = losses.iter().sum::<f64>() / 3.0;
        assert!((of["mean_loss"].as_f64().unwrap() - mean).abs() < 1e-12 * mean);
    }
    // The baseline's repetition begins with the same model and reads other text.
    let first = |name: &str| timeless(&folder.join(name).join("seed-2"));
    let (base, again) = (first("uniform"), first("uniform~"));
    assert_eq!(base[0], again[0], "the evaluation before the first step");
    assert_ne!(base[1]["loss"], again[1]["loss"]);
    for file in ["compare.json", "losses.csv", "report.html"] {
        assert!(folder.join(file).exists(), "{file}");
    }
    let csv = read(&folder.join("losses.csv"));
    assert_eq!(csv.lines().count(), 1 + 4 * 3 * 2, "{csv}");

    // Each is what `train` makes of its config.
    let config = folder.join("erma+va/seed-3/config.toml");
    place.ok(&["train", config.to_str().unwrap(), "--out", "trained", "-q"]);
    assert_eq!(timeless(&place.path("trained")), first_of(&folder, "erma+va", 3));

    // Nothing is made twice, and the verdict is the same to the byte.
    let before = read(&folder.join("comparison.json"));
    let modified = |file: &str| fs::metadata(folder.join(file)).unwrap().modified().unwrap();
    let log = modified("skewed/seed-1/metrics.jsonl");
    place.ok(&["compare", "config.toml", "--out", "whole"]);
    assert_eq!(read(&folder.join("comparison.json")), before);
    assert_eq!(modified("skewed/seed-1/metrics.jsonl"), log);

    // The same runs, found again.
    let runs = place.json(&["compare", "whole"]);
    for name in ["uniform", "skewed", "erma+va", "uniform~"] {
        for key in ["losses", "difference", "sd_seeds", "se_windows", "p_value"] {
            assert_eq!(arm(&runs, name)[key], arm(found, name)[key], "{name} {key}");
        }
    }
}

fn first_of(folder: &Path, arm: &str, seed: u64) -> Vec<Value> {
    timeless(&folder.join(arm).join(format!("seed-{seed}")))
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_report() {
    let (place, _) = whole();
    let args = ["compare", "config.toml", "--out", "killed", "-q", "--jobs", "2"];
    for moment in [40, 90, 160, 250, 400, 600] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"))
            .current_dir(place.path("."))
            .env("CUVEE_CACHE", place.path("cache"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.ok(&args);
    let (whole, killed) = (place.path("whole"), place.path("killed"));
    for file in ["comparison.json", "losses.csv", "compare.json"] {
        assert_eq!(read(&whole.join(file)), read(&killed.join(file)), "{file}");
    }
    for name in ["uniform", "skewed", "erma+va", "uniform~"] {
        for seed in 1..=3 {
            assert_eq!(
                first_of(&whole, name, seed),
                first_of(&killed, name, seed),
                "{name} {seed}"
            );
        }
    }
}

#[test]
fn parts_made_apart_give_the_verdict_of_the_whole() {
    let (place, _) = whole();
    for part in ["2/3", "1/3", "3/3"] {
        place.ok(&["compare", "config.toml", "--out", "parts", "-q", "--shard", part]);
        let done = place.path("parts/comparison.json").exists();
        assert!(!done, "a part gives no verdict");
    }
    place.ok(&["compare", "config.toml", "--out", "parts", "-q", "--collect"]);
    let comparison = |folder: &str| read(&place.path(folder).join("comparison.json"));
    assert_eq!(comparison("parts"), comparison("whole"));
}

#[test]
fn a_plan_says_what_it_will_cost_and_show_and_runs_nothing() {
    let (place, _) = whole();
    let plan = place.json(&["compare", "config.toml", "--out", "planned", "--plan"]);
    assert_eq!(plan["runs"], 12);
    assert!(plan["seconds"].as_f64().unwrap() > 0.0 && plan["bytes"].as_u64().unwrap() > 0);
    // An arm that differs in nothing that takes time is not timed again.
    let steps = plan["seconds_per_step"].as_array().unwrap();
    assert_eq!((&steps[0], &steps[0]), (&steps[1], &steps[3]));
    assert!(steps.len() == 4 && steps[2].as_f64().unwrap() > 0.0, "{plan}");
    let rows = plan["resolution_in_standard_deviations"].as_array().unwrap();
    let six = rows.iter().find(|row| row["seeds"] == 6).unwrap();
    assert!((six["detectable"].as_f64().unwrap() - 1.4345).abs() < 1e-3, "{six}");
    assert!(!place.path("planned").exists(), "a plan writes nothing");
    // With the scatter of an earlier comparison, in nats.
    let args = ["compare", "config.toml", "--out", "planned", "--plan", "--pilot", "whole"];
    let words = String::from_utf8(place.ok(&args).stderr).unwrap();
    assert!(words.contains("By the scatter of the pilot, 3 seeds will resolve:"), "{words}");
    assert!(words.contains("  skewed "), "{words}");
}

#[test]
fn an_arm_that_is_decided_at_a_look_is_run_no_further() {
    // A learning rate that learns nothing is worse at once.
    let place = place(
        "\n[compare]\nlooks = [3, 5]\narms = [{ name = \"base\" }, { name = \"still\", set = { train.lr = 1e-9 } }, { name = \"near\", set = { mixture.sampling = { strategy = \"fixed\", shares = { prose = 0.7, code = 0.3 } } } }]\n",
    );
    let found = place.json(&["compare", "config.toml", "--out", "c"]);
    let runs = |name: &str| fs::read_dir(place.path("c").join(name)).unwrap().count();
    assert_eq!((runs("base"), runs("still"), runs("near")), (5, 3, 5));
    assert_eq!(arm(&found, "still")["verdict"], "worse");
    assert_eq!(arm(&found, "still")["n"], 3);
    assert_eq!(found["looks"][0]["decided"], serde_json::json!(["still"]));
}

#[test]
fn a_run_that_can_no_longer_become_better_is_stopped() {
    let arms = "arms = [{ name = \"base\" }, { name = \"still\", set = { train.lr = 1e-9 } }]\n";
    let compare = format!("\n[compare]\nseeds = 4\nfutility = true\n{arms}");
    let place = Place::new();
    write(&place, &compare);
    let set = ["--set", "train.steps=12", "--set", "eval.every=2"];
    let found = place.json(&[&["compare", "config.toml", "--out", "c"], &set[..]].concat());
    // Static arms from two thirds on; the first two seeds say too little.
    for (seed, steps) in [(1, 12), (2, 12), (3, 8), (4, 8)] {
        let records = metrics(&place.path(&format!("c/still/seed-{seed}")));
        assert_eq!(records.iter().filter(|r| r["kind"] == "step").count(), steps, "seed {seed}");
    }
    assert_eq!(arm(&found, "still")["verdict"], "futile");
    assert_eq!(arm(&found, "still")["stopped_at"], 8);
    // Going on changes nothing.
    let again = place.json(&[&["compare", "config.toml", "--out", "c"], &set[..]].concat());
    assert_eq!(again, found);
}

#[test]
fn a_run_that_diverges_has_no_result_and_the_others_have() {
    let place = place(
        "\n[compare]\nseeds = 2\narms = [{ name = \"base\" }, { name = \"wild\", set = { train.lr = 1e30, train.clip = 0.0, train.warmup = 0 } }]\n",
    );
    let found = place.json(&["compare", "config.toml", "--out", "c"]);
    assert_eq!(arm(&found, "wild")["losses"], serde_json::json!([null, null]));
    assert_eq!(arm(&found, "wild")["verdict"], "none");
    assert!(found["notes"].to_string().contains("wild"), "{}", found["notes"]);
    assert!(arm(&found, "base")["mean_loss"].as_f64().is_some());
    let again = place.json(&["compare", "config.toml", "--out", "c"]);
    assert_eq!(again, found);
    let said = place.ok(&["compare", "config.toml", "--out", "c"]).stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("\nnote: wild diverged at seed 1, 2, so "), "{said}");
}

#[test]
fn one_seed_gives_no_verdict_and_says_so() {
    let place = place(&ARMS.replace("seeds = 3", "seeds = 1"));
    let found = place.json(&["compare", "config.toml", "--out", "c"]);
    assert_eq!(arm(&found, "skewed")["verdict"], "none");
    assert!(arm(&found, "skewed")["sentence"].as_str().unwrap().contains("one seed"), "{found}");
}

#[test]
fn more_seeds_make_the_verdict_exploratory_and_nothing_else_may_change() {
    let two = ARMS.replace("seeds = 3", "seeds = 2");
    let place = place(&two);
    let found = place.json(&["compare", "config.toml", "--out", "c"]);
    assert_eq!(found["exploratory"], false);
    let declared = read(&place.path("c/compare.json"));
    write(&place, ARMS);
    let more = place.json(&["compare", "config.toml", "--out", "c"]);
    assert_eq!(
        (&more["exploratory"], &arm(&more, "skewed")["exploratory"]),
        (&true.into(), &true.into())
    );
    assert_eq!(more["seeds"], serde_json::json!([1, 2, 3]));
    for (change, said) in [
        (ARMS.replace("seeds = 3", "seeds = 1"), "seeds: 2 was declared"),
        (
            ARMS.replace("prose = 0.9, code = 0.1", "prose = 0.8, code = 0.2"),
            "arm `skewed`: mixture.sampling.shares.code: 0.1 → 0.2",
        ),
        (ARMS.replace("seeds = 3", "seeds = 3\nmargin = 0.02"), "margin: 0.01 → 0.02"),
        (
            ARMS.replace("\"skewed\"", "\"leaning\""),
            "arms: uniform, skewed, erma+va, uniform~ → uniform, leaning, erma+va, uniform~",
        ),
        (
            ARMS.replace("seeds = 3", "seeds = 3\nbaseline = \"skewed\""),
            "baseline: uniform → skewed",
        ),
    ] {
        write(&place, &change);
        let error = place.fails(2, &["compare", "config.toml", "--out", "c"]);
        assert!(error.contains("declares another comparison") && error.contains(said), "{error}");
        assert!(error.lines().last().unwrap().starts_with("hint: "), "{error}");
    }
    // An edited declaration is no declaration.
    write(&place, &two);
    place.write("c/compare.json", &declared.replace("\"margin\": 0.01", "\"margin\": 0.05"));
    let error = place.fails(2, &["compare", "config.toml", "--out", "c"]);
    assert!(error.contains("was changed after it was written"), "{error}");
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_runs() {
    let place = place("");
    let refused = |compare: &str, said: &[&str]| {
        write(&place, compare);
        let error = place.fails(2, &["compare", "config.toml", "--out", "c"]);
        for said in said {
            assert!(error.contains(said), "{compare}\n{error}");
        }
        assert!(error.lines().any(|line| line.starts_with("hint: ")), "{error}");
        assert!(!place.path("c").exists(), "{compare}: something was written");
    };
    let arms = |set: &str| {
        format!(
            "\n[compare]\nseeds = 2\narms = [{{ name = \"a\" }}, {{ name = \"b\", set = {{ {set} }} }}]\n"
        )
    };
    refused("", &["expected a section [compare]"]);
    refused(
        &arms("mixture.smapling = \"va\""),
        &["arm `b`", "unknown field `smapling`", "did you mean `sampling`?"],
    );
    refused(&arms("mixtrue.sampling = \"va\""), &["arm `b`", "did you mean `mixture`?"]);
    refused(&arms("train.steps = 20"), &["arm `b`", "train.steps", "found 20, and 10"]);
    refused(&arms("train.context = 16"), &["arm `b`", "train.context"]);
    refused(&arms("eval.sequences = 8"), &["arm `b`", "eval.sequences"]);
    refused(
        &arms("tokenizer.train = { vocab_size = 500 }"),
        &["arm `b`", "tokenizer.train.vocab_size"],
    );
    refused(&arms("\"domain.code.importance\" = 3.0"), &["arm `b`", "domain.code.importance"]);
    refused(&arms("train.engine = \"reference\""), &["arm `b`", "train.engine"]);
    refused(&arms("seed = 4"), &["arm `b`", "seed", "compare.seeds"]);
    refused(
        &arms("mixture.sampling = { strategy = \"va\", variance = \"sketch\" }"),
        &["one engine", "reference"],
    );
    refused(
        &format!("{}baseline = \"uniform\"\n", arms("train.lr = 0.1")),
        &["compare.baseline: expected one of the arms, found `uniform`", "the arms are a, b"],
    );
    write(
        &place,
        &format!("{}looks = [2, 3]\n", arms("train.lr = 0.1").replace("seeds = 2\n", "")),
    );
    let error = place.fails(2, &["compare", "config.toml", "--out", "c", "--shard", "1/2"]);
    assert!(error.contains("compare.looks"), "{error}");
    let error = place.fails(2, &["compare", "config.toml", "--out", "c", "--collect"]);
    assert!(error.contains("expected the folder of a comparison"), "{error}");
    let error = place.fails(2, &["compare", "config.toml", "--resume"]);
    assert!(error.contains("takes no --resume"), "{error}");
}

#[test]
fn runs_that_cannot_be_compared_say_why() {
    let place = place("");
    let train = |out: &str, set: &[&str]| {
        let sets = set.iter().flat_map(|s| ["--set", s]);
        let args: Vec<&str> =
            ["train", "config.toml", "-q", "--out", out].into_iter().chain(sets).collect();
        place.ok(&args);
    };
    train("a", &[]);
    train("b", &["train.lr=0.01"]);
    train("b2", &["train.lr=0.01", "seed=2"]);
    train("a2", &["seed=2"]);
    let found = place.json(&["compare", "a", "a2", "b", "b2"]);
    assert_eq!(arm(&found, "b")["n"], 2);
    assert_eq!(arm(&found, "b")["config"], serde_json::json!(["train.lr = 0.01"]));
    let found = place.json(&["compare", "a", "b", "b2", "--baseline", "b"]);
    assert_eq!((&found["baseline"], &arm(&found, "a")["n"]), (&"b".into(), &1.into()));
    assert_eq!(arm(&found, "a")["verdict"], "none");
    train("steps", &["train.steps=11"]);
    train("windows", &["eval.sequences=3"]);
    train("engine", &["train.engine=reference"]);
    train("vocabulary", &["tokenizer.train.vocab_size=500"]);
    let refused = |runs: &[&str], said: &str| {
        let error = place.fails(2, &[&["compare"], runs].concat());
        assert!(error.contains(said) && error.contains("\nhint: "), "{runs:?}: {error}");
    };
    refused(&["a", "steps"], "their steps differ: 10, and 11");
    refused(&["a", "windows"], "number of windows of `prose`: 4, and 3");
    refused(&["a", "engine"], "the engine reference in f32");
    refused(&["a", "vocabulary"], "held-out tokens (text or tokenizer)");
    refused(&["a", "a"], "are runs of one arm and one seed, 1");
    // Of a run on a GPU nothing but its plan tells.
    let plan = read(&place.path("b/plan.json"));
    assert!(plan.contains("\"device\": \"cpu\""), "{plan}");
    place.write("b/plan.json", &plan.replace("\"device\": \"cpu\"", "\"device\": \"cuda:1\""));
    refused(&["a", "b"], "computed on different devices, which differ by rounding: the processor");
    // Of older runs it is not known.
    place.write("b/plan.json", &plan.replace("  \"device\": \"cpu\",\n", ""));
    place.ok(&["compare", "a", "b"]);
    refused(&["a", "b", "--baseline", "c"], "the arms are a, b");
    refused(&["a", "cache"], "expected a run folder");
    refused(&["a", "nothing"], "expected a run folder");
    refused(&["a", "b", "--plan"], "takes no --plan");
}

#[test]
fn threads_are_shared_out_among_the_runs_at_once() {
    let place = Place::new();
    place.write("config.toml", &format!("{SMALL}{ARMS}"));
    let plan = |jobs: &str| {
        let args = ["compare", "config.toml", "--out", "c", "--plan", "--json", "--jobs", jobs];
        let output = place.cuvee(&args).env("RAYON_NUM_THREADS", "4").output().unwrap();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        (plan["jobs"].as_u64().unwrap(), plan["threads"].as_u64().unwrap())
    };
    assert_eq!(plan("2"), (2, 2));
    assert_eq!(plan("1"), (1, 4));
    assert_eq!(plan("4"), (4, 1));
    let error = place.fails(2, &["compare", "config.toml", "--jobs", "0"]);
    assert!(error.contains("--jobs: expected at least 1"), "{error}");
}

#[test]
fn runs_that_wait_for_the_baseline_find_it_wherever_it_stands() {
    let arms = "arms = [{ name = \"still\", set = { train.lr = 1e-9 } }, { name = \"base\" }]\n";
    let place =
        place(&format!("\n[compare]\nseeds = 3\nfutility = true\nbaseline = \"base\"\n{arms}"));
    let args = ["compare", "config.toml", "--out", "c", "--jobs", "1"];
    let set = ["--set", "train.steps=12", "--set", "eval.every=2"];
    let found = place.json(&[&args[..], &set[..]].concat());
    assert_eq!(arm(&found, "still")["stopped_at"], 8);
    // An evaluation that comes too seldom to ask at is no silent leave.
    let set = ["--set", "train.steps=12", "--set", "eval.every=12"];
    let error = place.fails(2, &[&["compare", "config.toml", "--out", "d"], &set[..]].concat());
    assert!(error.contains("compare.futility: expected an evaluation of `still`"), "{error}");
}

#[test]
fn runs_of_another_comparison_are_never_taken_for_this_ones() {
    let two = ARMS.replace("seeds = 3", "seeds = 2");
    let place = place(&two);
    place.ok(&["compare", "config.toml", "--out", "c", "-q"]);
    fs::create_dir(place.path("d")).unwrap();
    fs::rename(place.path("c/skewed"), place.path("d/skewed")).unwrap();
    let error = place.fails(2, &["compare", "config.toml", "--out", "d"]);
    assert!(error.contains("holds runs, but no compare.json"), "{error}");
    // Finished runs too are checked, against what is declared.
    fs::rename(place.path("d/skewed/seed-1"), place.path("c/erma+va/seed-9")).unwrap();
    fs::remove_dir_all(place.path("c/erma+va/seed-1")).unwrap();
    fs::rename(place.path("c/erma+va/seed-9"), place.path("c/erma+va/seed-1")).unwrap();
    let error = place.fails(2, &["compare", "config.toml", "--out", "c"]);
    assert!(error.contains("holds a run that is not of this comparison"), "{error}");
    assert!(error.contains("mixture.sampling.strategy: \"fixed\" → \"va\""), "{error}");
    let error = place.fails(2, &["compare", "config.toml", "--out", "e", "--set", "order_seed=4"]);
    assert!(error.contains("expected no order_seed"), "{error}");
}

#[test]
fn a_look_that_was_not_declared_is_exploratory() {
    let place = place(&ARMS.replace("seeds = 3", "seeds = 2"));
    place.ok(&["compare", "config.toml", "--out", "c", "-q", "--shard", "1/2"]);
    let found = place.json(&["compare", "config.toml", "--out", "c", "--collect"]);
    assert_eq!((&found["exploratory"], &arm(&found, "skewed")["n"]), (&true.into(), &1.into()));
    assert!(found["notes"].to_string().contains("4 runs are not finished"), "{}", found["notes"]);
    place.ok(&["compare", "config.toml", "--out", "c", "-q"]);
    let found = place.json(&["compare", "c"]);
    assert_eq!(found["exploratory"], false);
    let found = place.json(&["compare", "c", "--set", "compare.margin=0.5"]);
    assert_eq!(found["exploratory"], true);
    let error = place.fails(2, &["compare", "c", "--out", "c"]);
    assert!(error.contains("holds a comparison of its own"), "{error}");
}

/// The binary at work on `config` in the folder `out`, a run at a time.
fn beside(place: &Place, config: &str, out: &str, more: &[&str]) -> std::process::Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"))
        .current_dir(place.path("."))
        .env("CUVEE_CACHE", place.path("cache"))
        .args([&["compare", config, "--out", out, "--jobs", "1"], more].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn ended_well(child: std::process::Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn two_processes_share_one_folder_and_come_to_the_same_verdict() {
    let (place, _) = whole();
    // Whatever arms are decided at a look or stopped, both decide alike.
    let looks = ARMS.replace("seeds = 3", "looks = [2, 4]\nfutility = true");
    place.write("looks.toml", &config(&looks));
    let often = ["--set", "eval.every=2"];
    let alone = ["compare", "looks.toml", "--out", "alone", "-q", "--jobs", "1"];
    place.ok(&[&alone[..], &often].concat());
    for (config, out, expected, more) in
        [("config.toml", "shared", "whole", &[][..]), ("looks.toml", "looks", "alone", &often[..])]
    {
        let processes = [0, 1].map(|_| beside(place, config, out, more));
        for process in processes {
            ended_well(process);
        }
        let (expected, shared) = (place.path(expected), place.path(out));
        for file in ["comparison.json", "losses.csv", "compare.json"] {
            assert_eq!(read(&expected.join(file)), read(&shared.join(file)), "{out} {file}");
        }
        for name in ["uniform", "skewed", "erma+va", "uniform~"] {
            for seed in 1..=2 {
                assert_eq!(first_of(&expected, name, seed), first_of(&shared, name, seed));
            }
        }
        assert!(shared.join("report.html").exists());
    }
}

#[test]
fn a_worker_that_is_overtaken_takes_what_the_first_one_declared() {
    let place = Place::new();
    place.write("config.toml", &format!("{SMALL}{ARMS}"));
    // The threads follow from the runs at once, and the number type from the processor.
    let worker = |part, jobs, precision| {
        ["compare", "config.toml", "--shard", part, "--jobs", jobs, "--set", precision]
    };
    let first = worker("1/6", "2", "train.precision=f32");
    place.ok(&[&first[..], &["--out", "first", "-q"]].concat());
    let declared: Value = serde_json::from_str(&read(&place.path("first/compare.json"))).unwrap();
    let threads = &declared["declared"]["threads"];
    let second = worker("2/6", "1", "train.precision=auto");
    let said = place.overtaken(&second, "c", "first/compare.json");
    let shared = format!("engine in f32, 1 at once with {threads} thread");
    assert!(said.contains(&shared), "{shared}: {said}");
    assert!(place.path("c/skewed/seed-1/export").exists(), "{said}");
}

#[test]
fn a_run_that_another_process_holds_is_left_to_it_and_made_where_that_leaves_it_unfinished() {
    let place = place(&ARMS.replace("seeds = 3", "seeds = 2"));
    place.ok(&["compare", "config.toml", "--out", "whole", "-q", "--jobs", "1"]);
    // What is compared is declared, and one run is made: not that of the baseline's first seed.
    place.ok(&["compare", "config.toml", "--out", "c", "-q", "--shard", "2/8"]);
    let held = place.path("c/uniform/seed-1");
    assert!(!held.exists() && place.path("c/skewed/seed-1/export").exists());
    fs::create_dir_all(&held).unwrap();
    let lock = fs::File::create(held.join(".lock")).unwrap();
    lock.lock().unwrap();
    let mut child = beside(&place, "config.toml", "c", &[]);
    let names = ["uniform", "skewed", "erma+va", "uniform~"];
    let others = names.iter().flat_map(|name| [1, 2].map(|seed| format!("c/{name}/seed-{seed}")));
    let others: Vec<_> = others.map(|run| place.path(&run)).filter(|run| *run != held).collect();
    while !others.iter().all(|run| run.join("export").exists()) {
        assert!(child.try_wait().unwrap().is_none(), "it has ended without all other runs");
        std::thread::sleep(Duration::from_millis(5));
    }
    // All else is done, and nothing is given up.
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it does not wait");
    assert!(!place.path("c/comparison.json").exists() && !held.join("metrics.jsonl").exists());
    drop(lock);
    let said = ended_well(child);
    assert!(said.contains("another process makes runs of this folder, too"), "{said}");
    assert!(said.contains("waiting for 1 run that another process makes"), "{said}");
    let comparison = |folder: &str| read(&place.path(folder).join("comparison.json"));
    assert_eq!(comparison("c"), comparison("whole"));
}

#[test]
fn a_model_is_declared_by_its_weights_and_may_lie_elsewhere_but_not_be_another() {
    let place = place(
        "\n[compare]\nseeds = 2\narms = [{ name = \"a\" }, { name = \"b\", set = { train.lr = 0.01 } }]\n",
    );
    for (out, seed) in [("one", "7"), ("two", "8")] {
        place.ok(&["train", "config.toml", "--out", out, "-q", "--seed", seed]);
    }
    let compare = |model: &str| {
        let init = format!("model={{init=\"{model}\"}}");
        ["compare", "config.toml", "--out", "c", "-q", "--set"]
            .iter()
            .map(ToString::to_string)
            .chain([init])
            .collect::<Vec<_>>()
    };
    let args = compare("one/export");
    place.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let weights = |run: &str| fs::read(place.path(run).join("export/model.safetensors")).unwrap();
    let hash = cuvee_data::sha256_hex(&weights("one"));
    let declared: Value = serde_json::from_str(&read(&place.path("c/compare.json"))).unwrap();
    for arm in declared["declared"]["arms"].as_array().unwrap() {
        assert_eq!(arm["init_sha256"], hash.as_str());
    }
    let plan: Value = serde_json::from_str(&read(&place.path("c/b/seed-2/plan.json"))).unwrap();
    assert_eq!(plan["init_sha256"], hash.as_str());
    let found = read(&place.path("c/comparison.json"));

    // Elsewhere it is the same: a run that is missing is made, and no other.
    fs::rename(place.path("one"), place.path("moved")).unwrap();
    fs::remove_dir_all(place.path("c/b/seed-2")).unwrap();
    let args = compare("moved/export");
    place.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(read(&place.path("c/comparison.json")), found);

    // Another one in the same folder is not.
    let other = cuvee_data::sha256_hex(&weights("two"));
    fs::copy(
        place.path("two/export/model.safetensors"),
        place.path("moved/export/model.safetensors"),
    )
    .unwrap();
    let error = place.fails(2, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = format!(
        "arm `a`: model.init: weights of sha256 {hash:.12}… → weights of sha256 {other:.12}…"
    );
    assert!(error.contains("declares another comparison") && error.contains(&said), "{error}");

    // Runs from two models of one name are two arms.
    let train = |out: &str, seed: &str| {
        let set = "model={init=\"moved/export\"}";
        place.ok(&["train", "config.toml", "--out", out, "-q", "--seed", seed, "--set", set]);
    };
    train("x", "1");
    fs::rename(place.path("moved"), place.path("away")).unwrap();
    fs::create_dir(place.path("moved")).unwrap();
    fs::rename(place.path("away/export"), place.path("moved/export")).unwrap();
    train("y", "2");
    let alike = place.json(&["compare", "x", "y"]);
    assert_eq!(alike["arms"].as_array().unwrap().len(), 1, "{alike}");
    fs::copy(
        place.path("c/a/seed-1/export/model.safetensors"),
        place.path("moved/export/model.safetensors"),
    )
    .unwrap();
    train("z", "2");
    let apart = place.json(&["compare", "x", "z"]);
    assert_eq!(apart["arms"].as_array().unwrap().len(), 2, "{apart}");
    assert!(arm(&apart, "z")["config"].to_string().contains("model.init = weights of sha256"));
}
