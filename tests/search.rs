//! `cuvee search`: cheap runs, a law, a proposal and its confirmation, whatever happens on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Place, SMALL};

/// Cheap runs of six steps; the noise of so short runs hides everything, so the pilot is overruled.
const SEARCH: &str = r#"
[search]
proxy = { train = { steps = 6 }, eval = { tune_sequences = 4 } }
runs = 12
confirm_seeds = 2
anyway = true
"#;

/// A place with a config of `search`, one thread a run: what is computed does not depend on the
/// machine's number of cores.
fn place(search: &str) -> Place {
    let place = Place::new();
    write(&place, search);
    place
}

fn write(place: &Place, search: &str) {
    place.write("config.toml", &config(search));
}

fn config(search: &str) -> String {
    format!("{}{search}", SMALL.replace("context = 32", "context = 32\nthreads = 1"))
}

/// A search that was made from its pilot to its result, in one go.
struct Whole {
    place: Place,
    output: Output,
    files: BTreeMap<String, String>,
}

/// That of [`SEARCH`] in the folder `whole`, made once. What is declared names the place, so that
/// others like it lie beside it.
fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let place = Place::shared("search");
        write(&place, SEARCH);
        let output = place.ok(&["search", "config.toml", "--out", "whole", "--json"]);
        let files = files(&place.path("whole"));
        Whole { place, output, files }
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn document(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a search leaves besides its runs, by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut names: Vec<String> = [
        "search.json",
        "pilot.json",
        "swarm.csv",
        "fit.json",
        "proposal.json",
        "confirm.toml",
        "confirm/comparison.json",
        "confirm/losses.csv",
        "result.json",
        "mixture.toml",
    ]
    .map(String::from)
    .to_vec();
    let outputs = fs::read_dir(folder.join("outputs")).unwrap();
    names.extend(outputs.map(|e| format!("outputs/{}", e.unwrap().file_name().display())));
    assert!(names.len() > 12, "{names:?}");
    names.into_iter().map(|name| (name.clone(), read(&folder.join(name)))).collect()
}

fn same_files(a: &BTreeMap<String, String>, other: &Path) {
    let b = files(other);
    assert!(a.keys().eq(b.keys()), "{:?} {:?}", a.keys(), b.keys());
    for (name, text) in a {
        assert_eq!(text, &b[name], "{name}");
    }
}

#[test]
fn a_search_goes_from_its_pilot_to_a_result_that_was_run() {
    let Whole { place, output, .. } = whole();
    let whole: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = place.path("whole");
    assert_eq!(whole["stopped"], false);
    for (file, part) in
        [("pilot", "pilot"), ("fit", "fit"), ("proposal", "proposal"), ("result", "result")]
    {
        assert_eq!(document(&folder.join(format!("{file}.json"))), whole[part], "{file}");
    }

    // The swarm is the pilot and the others, and says what each drew and came to on both splits.
    let table = read(&folder.join("swarm.csv"));
    let columns: Vec<&str> = table.lines().next().unwrap().split(',').collect();
    for column in ["p:prose", "a:code", "seen:prose", "available:code", "tune:prose", "valid:code"]
    {
        assert!(columns.contains(&column), "{columns:?}");
    }
    let declared = &document(&folder.join("search.json"))["declared"];
    let runs = |key: &str| declared[key].as_array().unwrap().len();
    assert_eq!(table.lines().count() - 1, runs("pilot") + runs("swarm"));
    assert_eq!(runs("pilot"), 6);
    // The uniform runs of the pilot are those of the swarm.
    assert_eq!(runs("swarm"), 12 - 3);

    // The proposal is a mixture, predicted before it was run.
    let proposal = &whole["proposal"];
    let shares: f64 =
        proposal["proposed"].as_array().unwrap().iter().map(|d| d["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    assert_eq!(whole["result"]["predictions"], proposal["hash"]);
    assert_eq!(proposal["predictions"]["mixtures"][0]["role"], "uniform");

    // What is printed of it begins with what was found, not with what was predicted.
    let said = String::from_utf8_lossy(&output.stderr);
    let result = whole["result"]["sentence"].as_str().unwrap();
    assert!(result.starts_with("verified: ") || result.starts_with("not verified: "), "{result}");
    assert!(said.contains(&format!("{result}\n  mixture")), "{said}");
    let mixture = read(&folder.join("mixture.toml"));
    let verified = whole["result"]["verified"] == true;
    assert_eq!(mixture.contains("not verified"), !verified, "{mixture}");

    // The confirmation is a comparison like any other, with seeds of its own.
    let comparison = document(&folder.join("confirm/comparison.json"));
    assert_eq!(comparison["baseline"], "uniform");
    let cheap: Vec<&Value> = ["pilot", "swarm"]
        .iter()
        .flat_map(|key| declared[*key].as_array().unwrap())
        .map(|run| &run["seed"])
        .collect();
    let fresh = comparison["seeds"].as_array().unwrap();
    assert!(fresh.iter().all(|seed| !cheap.contains(&seed)), "{fresh:?} {cheap:?}");
    let by_hand =
        place.json(&["compare", "whole/confirm.toml", "--out", "whole/confirm", "--collect"]);
    assert_eq!(by_hand, comparison);
    // The fragment is a config's section.
    let config = config("");
    let (before, after) = config.split_once("[mixture]").unwrap();
    let after = &after[after.find("\n[").unwrap()..];
    place.write("mixed.toml", &format!("{before}{after}\n{mixture}"));
    place.ok(&["train", "mixed.toml", "--out", "mixed", "--set", "train.steps=2"]);
    // A second time nothing is made, and everything is said again.
    let before = files(&folder);
    place.ok(&["search", "config.toml", "--out", "whole", "-q"]);
    assert_eq!(files(&folder), before);
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_files() {
    let Whole { place, files, .. } = whole();
    let args = ["search", "config.toml", "--out", "killed", "-q", "--jobs", "2"];
    for moment in [60, 200, 400, 700, 1000, 1500, 2000] {
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
    same_files(files, &place.path("killed"));
}

#[test]
fn stages_one_by_one_and_in_parts_leave_what_the_whole_leaves() {
    let Whole { place, files, .. } = whole();
    fn stage<'a>(stage: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let common = ["config.toml", "--out", "parts", "-q"];
        [&["search", stage], &common[..], more].concat()
    }
    // Each needs what those before it leave.
    for (later, earlier) in
        [("swarm", "pilot"), ("fit", "swarm"), ("propose", "swarm"), ("confirm", "propose")]
    {
        let said = place.fails(2, &stage(later, &[]));
        assert!(said.contains(&format!("hint: cuvee search {earlier} ")), "{later}: {said}");
    }
    for (name, leaves) in
        [("pilot", "pilot.json"), ("swarm", "swarm.csv"), ("confirm", "result.json")]
    {
        for part in ["2/3", "1/3", "3/3"] {
            place.ok(&stage(name, &["--shard", part]));
            assert!(!place.path("parts").join(leaves).exists(), "a part of {name} judges nothing");
        }
        place.ok(&stage(name, &["--collect"]));
        assert!(place.path("parts").join(leaves).exists(), "{name}");
        if name == "swarm" {
            place.ok(&stage("fit", &[]));
            place.ok(&stage("propose", &[]));
        }
    }
    same_files(files, &place.path("parts"));
}

#[test]
fn a_search_that_cannot_pay_stops_after_its_pilot_and_says_so() {
    let search = SEARCH.replace("anyway = true\n", "").replace("runs = 12", "runs = 8");
    let place = place(&search);
    let output = place.ok(&["search", "config.toml", "--out", "s", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\nstop: ") && said.contains("Nothing more was run."), "{said}");
    assert!(said.contains("hint: --set search.anyway=true"), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["stopped"], true);
    assert_eq!(document["pilot"]["hopeless"], true);
    assert!(!place.path("s/swarm").exists() && !place.path("s/confirm").exists());
    place.ok(&["search", "swarm", "config.toml", "--out", "s", "-q"]);
    assert!(!place.path("s/swarm").exists());
}

#[test]
fn what_was_declared_is_not_searched_otherwise() {
    let place = place(SEARCH);
    place.ok(&["search", "pilot", "config.toml", "--out", "s", "-q"]);
    for (set, said) in [
        ("search.kappa=0.1", "search.kappa: 0.01 → 0.1"),
        ("search.seed=9", "search.seed: 1 → 9"),
        ("search.runs=14", "search.runs: 12 → 14"),
        ("search.law=auto", "search.law: power-log-linear → auto"),
        ("search.confirm_seeds=3", "search.confirm_seeds: 2 → 3"),
        ("train.lr=0.1", "train.lr: 0.003 → 0.1"),
        ("domain.code.max_epochs=500", "domain.code.max_epochs: absent → 500"),
        ("eval.sequences=3", "eval.sequences: 4 → 3"),
    ] {
        let error = place.fails(2, &["search", "config.toml", "--out", "s", "--set", set]);
        assert!(error.contains("declares another search; changed since:"), "{set}: {error}");
        assert!(error.contains(said), "{set}: {error}");
    }
    // What changes no run may change.
    place.ok(&[
        "search",
        "pilot",
        "config.toml",
        "--out",
        "s",
        "-q",
        "--set",
        "search.anyway=false",
    ]);
    let (path, text) = (place.path("s/search.json"), read(&place.path("s/search.json")));
    fs::write(&path, text.replace("\"kappa\": 0.01", "\"kappa\": 0.02")).unwrap();
    let error = place.fails(2, &["search", "config.toml", "--out", "s"]);
    assert!(error.contains("was changed after it was written"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = place.fails(2, &["search", "config.toml", "--out", "s"]);
    assert!(error.contains("no search.json that declares"), "{error}");
}

#[test]
fn predictions_that_were_edited_are_not_confirmed() {
    let place = place(SEARCH);
    for stage in ["pilot", "swarm", "fit", "propose"] {
        place.ok(&["search", stage, "config.toml", "--out", "s", "-q"]);
    }
    let path = place.path("s/proposal.json");
    let proposal = document(&path);
    let gain = proposal["predictions"]["gain_over_uniform"].to_string();
    let edited = read(&path)
        .replace(&format!("\"gain_over_uniform\": {gain}"), "\"gain_over_uniform\": 1.5");
    assert_ne!(edited, read(&path));
    fs::write(&path, edited).unwrap();
    let error = place.fails(2, &["search", "confirm", "config.toml", "--out", "s"]);
    assert!(error.contains("what is predicted before the mixtures are run"), "{error}");
}

#[test]
fn bad_input_is_refused_by_its_key_before_anything_is_written() {
    let place = place(SEARCH);
    for (set, said) in [
        ("search.rnus=3", "hint: did you mean `runs`?"),
        ("search.proxy.train.stpes=3", "hint: did you mean `steps`?"),
        ("search.proxy.model.preest=xs", "hint: did you mean `preset`?"),
        ("search.proxy.eval.evry=3", "hint: did you mean `every`?"),
        ("search.proxy.trian={}", "hint: did you mean `train`?"),
        ("search.runs=0", "search.runs: expected 1 to"),
        ("search.runs=2", "search.runs"),
        ("search.hours=2", "either `runs` or `hours`"),
        ("search.kappa=-1", "search.kappa: expected 0 or more"),
        ("search.law=power-log", "hint: did you mean `power-log-linear`?"),
        ("search.confirm_seeds=1", "one seed gives no verdict"),
        ("search.freeze=[[\"prose\", \"poems\"]]", "found `poems`"),
        ("search.freeze=[[\"prose\", \"prose\"]]", "`prose` twice"),
        ("search.proxy.train.steps=0", "search.proxy.train.steps: expected at least 1"),
        ("search.proxy.train.warmup=100", "search.proxy.train.warmup: expected at most"),
        ("search.proxy.train={ steps = 3, tokens = \"1k\" }", "either `steps` or `tokens`"),
        ("search.jobs=0", "search.jobs"),
        ("search.two_knob=4", "hint: law = \"two-knob\""),
        ("search={ law = \"auto\", two_knob = 4 }", "search.two_knob: expected a law that"),
        ("search={ law = \"unimax\", two_knob = 4 }", "search.two_knob: expected a law that"),
        ("search.seed=9223372036854775807", "search.seed: expected at most 92233720368537"),
        ("search.seed=9223372036853775806", "search.seed: expected at most 92233720368537"),
        ("seed=9223372036854775807", ": seed: expected at most 92233720368537"),
        ("order_seed=3", "expected no order_seed"),
        ("domain.prose.importance=-1", "importance"),
        ("train.steps=100000000", "domain.max_epochs: expected domains that can fill"),
    ] {
        let caps = ["--set", "domain.prose.max_epochs=4", "--set", "domain.code.max_epochs=4"];
        let caps = if set.starts_with("train.steps") { &caps[..] } else { &[] };
        let args = [&["search", "config.toml", "--out", "s", "--set", set], caps].concat();
        let error = place.fails(2, &args);
        assert!(error.contains(said), "{set}: {error}");
        assert!(error.contains("\nhint: "), "{set}: {error}");
        assert!(!place.path("s").exists(), "{set}");
    }
    let error = place.fails(2, &["search", "config.toml", "--out", "s", "--jobs", "0"]);
    assert!(error.contains("--jobs: expected at least 1"), "{error}");
    let error = place.fails(2, &["search", "config.toml", "--shard", "1/2"]);
    assert!(error.contains("expected a stage"), "{error}");
    write(&place, "");
    let error = place.fails(2, &["search", "config.toml"]);
    assert!(error.contains("expected a section [search]"), "{error}");
    let alone: String = {
        let config = SMALL.replace("code = 0.25", "").replace("prose = 0.75,", "prose = 1.0");
        let begin = config.find("[[domain]]\nname = \"code\"").unwrap();
        let end = config.find("[mixture]").unwrap();
        format!("{}{}{SEARCH}", &config[..begin], &config[end..])
    };
    place.write("config.toml", &alone);
    let error = place.fails(2, &["search", "config.toml", "--out", "s"]);
    assert!(error.contains("expected at least 2 domains to mix, found 1"), "{error}");
    // A folder of something else.
    write(&place, SEARCH);
    place.ok(&["train", "config.toml", "--out", "run", "-q", "--set", "train.steps=1"]);
    let error = place.fails(2, &["search", "config.toml", "--out", "run"]);
    assert!(error.contains("holds a run, not a search"), "{error}");
}

#[test]
fn a_plan_says_what_it_costs_and_makes_nothing() {
    let place = place(SEARCH);
    let plan = place.json(&["search", "config.toml", "--out", "s", "--plan"]);
    assert_eq!((plan["runs"].as_u64(), plan["least_runs"].as_u64()), (Some(12), Some(12)));
    let stages = plan["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["pilot", "swarm", "confirm"]);
    assert_eq!(stages[0]["runs"], 6);
    assert_eq!(stages[2]["runs"], 12);
    assert!(plan["seconds"].as_f64().unwrap() > 0.0 && plan["bytes"].as_u64().unwrap() > 0);
    assert!(!place.path("s").exists());
}

#[test]
fn a_plan_counts_the_runs_of_rules_and_of_rounds() {
    let place = place(SEARCH);
    for (law, runs) in
        [("doremi", Some(2)), ("mixmin", Some(2)), ("demix", Some(3)), ("unimax", None)]
    {
        let law = format!("search.law={law}");
        let plan = ["search", "config.toml", "--out", "s", "--plan", "--json", "--set", &law];
        let output = place.ok(&plan);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("enough") && !said.contains("in the swarm"), "{said}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let stages = plan["stages"].as_array().unwrap();
        let of_rule = stages.iter().find(|stage| stage["stage"] == "rule");
        assert_eq!(of_rule.map(|stage| stage["runs"].as_u64().unwrap()), runs, "{law}: {plan}");
        assert!(of_rule.is_none_or(|stage| stage["seconds"].as_f64().unwrap() > 0.0));
        // 64 averages are evaluated on windows of 32 tokens, at most 4 of each of the 2 domains.
        let evaluated = of_rule.map_or(0, |stage| stage["evaluated_tokens"].as_u64().unwrap());
        let windows = if law.ends_with("demix") { 2..=8 } else { 0..=0 };
        assert!(windows.contains(&(evaluated / (64 * 32))), "{law}: {plan}");
        assert_eq!(evaluated % (64 * 32), 0, "{law}: {plan}");
    }
    write(&place, &SEARCH.replace("runs = 12", "runs = 20\nbatch = 4"));
    let output = place.ok(&["search", "config.toml", "--out", "s", "--plan", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let row = said.lines().find(|line| line.trim_start().starts_with("rounds")).unwrap();
    assert!(row.contains("8 runs") && row.ends_with("at most"), "{said}");
    assert!(!place.path("s").exists());
}

#[test]
fn a_cap_that_makes_mixtures_one_has_each_run_once_in_a_folder_of_its_own() {
    // The prior asks for more than the cap leaves, and a cheap run is longer than the final one.
    let search = SEARCH.replace("steps = 6", "steps = 12");
    let place = place(&search);
    let free = place.json(&["search", "config.toml", "--out", "free", "--plan"]);
    assert_eq!(free["domains"], 2);
    place.ok(&["search", "pilot", "config.toml", "--out", "free", "-q"]);
    let declared = &document(&place.path("free/search.json"))["declared"];
    let epochs = declared["domains"][0]["epochs_per_share"].as_f64().unwrap();
    let cap = format!("domain.prose.max_epochs={}", 0.5 * epochs);
    let args = ["search", "config.toml", "--out", "s", "--set", &cap];
    place.ok(&[&args[..], &["-q"]].concat());
    let declared = &document(&place.path("s/search.json"))["declared"];
    let (prior, cap) = (&declared["domains"][0]["prior"], &declared["domains"][0]["cap"]);
    assert!((prior.as_f64().unwrap() - 0.5).abs() < 1e-6, "{prior} {cap}");
    for stage in ["pilot", "swarm"] {
        let mut mixtures = BTreeMap::new();
        for run in declared[stage].as_array().unwrap() {
            let known = mixtures.entry(run["mixture"].to_string()).or_insert(&run["sampling"]);
            for (one, other) in
                known.as_array().unwrap().iter().zip(run["sampling"].as_array().unwrap())
            {
                let apart = one.as_f64().unwrap() - other.as_f64().unwrap();
                assert!(apart.abs() < 1e-8, "{run}");
            }
        }
    }
    let table = read(&place.path("s/swarm.csv"));
    let mut names: Vec<&str> =
        table.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let runs = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), runs, "{names:?}");
}

#[test]
fn a_law_that_needs_more_runs_gets_them_where_nobody_says_how_many() {
    let place = place(&SEARCH.replace("runs = 12\n", ""));
    for (sets, runs) in [
        (&["search.law=regmix"][..], 18),
        (&["search.law=power-log-linear"], 12),
        (&["search.law=regmix", "search.batch=2"], 18),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let args = ["search", "config.toml", "--out", "s", "--plan"];
        assert_eq!(place.json(&[&args[..], &sets].concat())["runs"], runs, "{sets:?}");
    }
}

/// A learning rate that ends a run without a result.
const WILD: &str = "{ lr = 1e30, clip = 0.0, warmup = 0 }";

#[test]
fn a_confirmation_in_which_all_runs_diverge_says_why() {
    let place = place(
        &format!("{SEARCH}law = \"unimax\"\n[search.proxy.train]\nlr = 3e-3\n")
            .replace("proxy = { train = { steps = 6 }, eval = { tune_sequences = 4 } }\n", ""),
    );
    let wild = ["--set", "train.lr=1e30", "--set", "train.clip=0.0", "--set", "train.warmup=0"];
    let error = place.fails(2, &[&["search", "config.toml", "--out", "s"], &wild[..]].concat());
    assert!(error.contains("all 6 diverged; uniform seed 1000001 ended after step"), "{error}");
    assert!(error.contains("hint: a lower train.lr") && !error.contains("--collect"), "{error}");
}

#[test]
fn a_pilot_without_results_says_what_its_runs_met() {
    let search = SEARCH.replace("train = { steps = 6 }", &format!("train = {WILD}"));
    let place = place(&search);
    let error = place.fails(2, &["search", "pilot", "config.toml", "--out", "s"]);
    assert!(error.contains("note: left out: pilot/uniform/seed-1 ended after step"), "{error}");
    assert!(error.contains("6 runs of the pilot have no result; pilot/uniform/seed-1"), "{error}");
    assert!(error.contains("hint: a lower learning rate (search.proxy.train.lr)"), "{error}");
}

#[test]
fn a_confirmation_is_not_collected_before_all_of_its_runs_are_there() {
    let place = place(&format!("{SEARCH}law = \"unimax\"\n"));
    place.ok(&["search", "propose", "config.toml", "--out", "s", "-q"]);
    place.ok(&["search", "confirm", "config.toml", "--out", "s", "-q", "--shard", "1/2"]);
    for stage in [&["search", "confirm"][..], &["search"]] {
        let args = [stage, &["config.toml", "--out", "s", "--collect"]].concat();
        let error = place.fails(2, &args);
        assert!(error.contains("expected finished runs of the confirmation, "), "{error}");
        assert!(error.contains("hint: cuvee search confirm config.toml --out s"), "{error}");
        assert!(!place.path("s/result.json").exists());
    }
    place.ok(&["search", "confirm", "config.toml", "--out", "s", "-q", "--shard", "2/2"]);
    place.ok(&["search", "confirm", "config.toml", "--out", "s", "-q", "--collect"]);
    assert!(place.path("s/result.json").exists());
}

#[test]
fn to_collect_makes_no_run_of_a_rule_and_no_round() {
    let place = place(SEARCH);
    let args = ["search", "config.toml", "--out", "s", "--collect", "--set", "search.law=mixmin"];
    let error = place.fails(2, &args);
    assert!(error.contains("expected the finished run alone-1 seed 1 of the rule"), "{error}");
    assert!(error.contains("hint: cuvee search propose config.toml --out s"), "{error}");
    assert!(!place.path("s/rule").exists());
    write(&place, &SEARCH.replace("runs = 12", "runs = 16\nbatch = 2\nlaw = \"linear\""));
    let stage = |stage: &'static str| ["search", stage, "config.toml", "--out", "t", "-q"];
    place.ok(&stage("pilot"));
    let error = place.fails(2, &[&stage("swarm")[..], &["--collect"]].concat());
    assert!(error.contains("hint: cuvee search swarm config.toml --out t"), "{error}");
    assert!(!place.path("t/swarm").exists() && !place.path("t/swarm.csv").exists());
    place.ok(&stage("swarm"));
    place.ok(&[&stage("swarm")[..], &["--collect"]].concat());
}

#[test]
fn a_fit_that_was_cut_short_is_written_anew() {
    let place = place(SEARCH);
    for stage in ["pilot", "swarm", "fit"] {
        place.ok(&["search", stage, "config.toml", "--out", "s", "-q"]);
    }
    let (path, whole) = (place.path("s/fit.json"), read(&place.path("s/fit.json")));
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = place.fails(2, &["search", "propose", "config.toml", "--out", "s"]);
    assert!(error.contains("hint: cuvee search fit config.toml --out s writes it anew"), "{error}");
    place.ok(&["search", "fit", "config.toml", "--out", "s", "-q"]);
    assert_eq!(read(&path), whole);
}

#[test]
fn hours_are_turned_into_runs_once() {
    let search = SEARCH.replace("runs = 12", "hours = 0.02");
    let place = place(&search);
    place.ok(&["search", "pilot", "config.toml", "--out", "s", "-q"]);
    let runs = document(&place.path("s/search.json"))["declared"]["runs"].clone();
    assert!(runs.as_u64().unwrap() >= 12, "{runs}");
    place.ok(&["search", "pilot", "config.toml", "--out", "s", "-q"]);
    let error =
        place.fails(2, &["search", "config.toml", "--out", "t", "--set", "search.hours=0.000001"]);
    assert!(error.contains("search.hours: expected time for 12 runs"), "{error}");
    assert!(!error.contains("hint: search.hours = 0.00,"), "{error}");
    assert!(!place.path("t").exists());
    // Nor does a worker count anew that another one overtakes.
    let longer = ["search", "pilot", "config.toml", "--set", "search.hours=0.03"];
    place.overtaken(&[&longer[..], &["--shard", "1/6"]].concat(), "u", "s/search.json");
}

#[test]
fn frozen_domains_keep_the_ratio_of_the_prior() {
    let place = place(&SEARCH.replace("runs = 12", "runs = 14\nfreeze = [[\"prose\", \"code\"]]"));
    // A third domain, since two frozen ones leave nothing to search.
    cuvee_testkit::write_texts(&place.path("more.jsonl"), &cuvee_testkit::prose(7, 200));
    let config = read(&place.path("config.toml")).replace(
        "[mixture]",
        "[[domain]]\nname = \"more\"\nsource = { path = \"more.jsonl\" }\n\n[mixture]",
    );
    place.write("config.toml", &config.replace("code = 0.25", "code = 0.25, more = 0.5"));
    place.ok(&["search", "config.toml", "--out", "s", "-q"]);
    let proposal = document(&place.path("s/proposal.json"));
    let share = |i: usize| proposal["proposed"][i]["share"].as_f64().unwrap();
    assert!((share(0) / share(1) - 3.0).abs() < 1e-6, "{proposal}");
}

#[test]
fn rules_make_their_own_runs_and_are_confirmed_alike() {
    for rule in ["unimax", "doremi", "mixmin", "demix"] {
        let place = place(&format!("{SEARCH}law = \"{rule}\"\n"));
        let whole = place.json(&["search", "config.toml", "--out", "s"]);
        assert_eq!(whole["proposal"]["law"], rule);
        assert!(whole["proposal"]["predictions"]["gain_over_uniform"].is_null());
        let sentence = whole["result"]["sentence"].as_str().unwrap();
        assert!(sentence.contains("verified: "), "{sentence}");
        assert!(!place.path("s/swarm").exists() && !place.path("s/pilot").exists());
        let again = place.json(&["search", "config.toml", "--out", "s"]);
        assert_eq!(again, whole, "{rule}");
        let error = place.fails(2, &["search", "pilot", "config.toml", "--out", "s"]);
        assert!(error.contains("hint: cuvee search propose "), "{error}");
    }
}

#[test]
fn later_runs_are_asked_for_in_rounds_and_killed_they_go_on() {
    let search = SEARCH.replace("runs = 12", "runs = 16\nbatch = 2\nlaw = \"linear\"");
    let place = place(&search);
    place.ok(&["search", "config.toml", "--out", "whole", "-q"]);
    let rounds = document(&place.path("whole/rounds.json"));
    assert!(!rounds["ended"].is_null(), "{rounds}");
    let args = ["search", "config.toml", "--out", "killed", "-q"];
    for moment in [1500, 2500, 3500] {
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
    same_files(&files(&place.path("whole")), &place.path("killed"));
    assert_eq!(document(&place.path("killed/rounds.json")), rounds);
    let error = place.fails(2, &["search", "swarm", "config.toml", "--out", "s", "--shard", "1/2"]);
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn what_is_drawn_and_what_counts_are_searched_apart_where_that_is_asked_for() {
    let search = format!("{SEARCH}law = \"two-knob\"\ntwo_knob = 4\n");
    let place = place(&search);
    place.ok(&["search", "config.toml", "--out", "s", "-q"]);
    let table = read(&place.path("s/swarm.csv"));
    assert_eq!(table.lines().filter(|line| line.contains("two-knob")).count(), 4);
    // The other layout has one mixture a run.
    let tables = ["--mixtures", "ratios.csv", "--metrics", "metrics.csv"];
    let said = place.ok(&[&["search", "export", "s"], &tables[..]].concat()).stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("note: left out: 4 runs in which what is drawn"), "{said}");
    let exported = read(&place.path("ratios.csv"));
    assert_eq!(exported.lines().count(), table.lines().count() - 4);
    assert!(!exported.contains("two-knob"), "{exported}");
    let proposal = document(&place.path("s/proposal.json"));
    let mixtures = proposal["predictions"]["mixtures"].as_array().unwrap();
    assert!(mixtures.iter().any(|m| m["role"] == "proposal"));
}

/// A swarm over three domains, of which nobody drew the last, as two tables.
fn tables(place: &Place, name: &str, from: usize, runs: usize) {
    let (mut mixtures, mut metrics) =
        (String::from("index,web,code,none\n"), String::from("index,loss,other\n"));
    for run in from..from + runs {
        let web = 0.05 + 0.9 * ((run * 37) % 101) as f64 / 101.0;
        let loss = 2.0 - 0.3 * web.powf(0.5) - 0.2 * (1.0 - web).powf(0.5);
        mixtures.push_str(&format!("{run},{web},{},0\n", 1.0 - web));
        metrics.push_str(&format!("{run},{loss},{}\n", 3.0 - web));
    }
    place.write(&format!("{name}-mixtures.csv"), &mixtures);
    place.write(&format!("{name}-metrics.csv"), &metrics);
}

#[test]
fn a_law_is_fitted_to_tables_and_scored_by_runs_that_were_kept_aside() {
    let place = Place::new();
    tables(&place, "train", 0, 40);
    tables(&place, "test", 40, 30);
    let fit =
        ["search", "fit", "--mixtures", "train-mixtures.csv", "--metrics", "train-metrics.csv"];
    let test = ["--test-mixtures", "test-mixtures.csv", "--test-metrics", "test-metrics.csv"];
    let found = place.json(&[&fit[..], &["--target", "loss"], &test].concat());
    let keys: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["law", "n", "spearman", "regret_at_1", "loo_r2"] {
        assert!(keys.contains(&key), "{keys:?}");
    }
    assert_eq!((found["law"].as_str(), found["n"].as_u64()), (Some("power-log-linear"), Some(40)));
    assert!(found["spearman"].as_f64().unwrap() > 0.95, "{found}");
    assert!(found["loo_r2"].as_f64().unwrap() > 0.9, "{found}");
    for law in ["linear", "log-linear", "auto"] {
        let found = place.json(&[&fit[..], &["--target", "loss", "--law", law]].concat());
        assert_eq!(found["n"], 40, "{law}");
    }
    let some = [&fit[..], &["--target", "loss", "--runs", "20"], &test].concat();
    let with = |seed: &str| place.json(&[&some[..], &["--seed", seed]].concat());
    assert_eq!(with("3"), with("3"));
    assert_eq!(with("3")["n"], 20);
    for (args, said) in [
        (&["--target", "lsos"][..], "lsos"),
        (&["--target", "loss", "--law", "lineer"], "lineer"),
        (&["--target", "loss", "--runs", "41"], "41"),
        (&["--target", "loss", "--runs", "2"], "2"),
        (&["--target", "loss", "--runs", "0"], "--runs: expected at least 1, found 0"),
        (&["--target", "loss", "--test-mixtures", "no.csv", "--test-metrics", "no.csv"], "no.csv"),
    ] {
        let error = place.fails(2, &[&fit[..], args].concat());
        assert!(error.contains(said) && error.contains("\nhint: "), "{args:?}: {error}");
    }
    place.write("train-metrics.csv", "index,loss\n0,much\n");
    let error = place.fails(2, &[&fit[..], &["--target", "loss"]].concat());
    assert!(error.contains("train-metrics.csv"), "{error}");
}

#[test]
fn a_swarm_goes_out_in_another_programs_layout_and_comes_back() {
    let Whole { place, .. } = whole();
    let tables = ["--mixtures", "ratios.csv", "--metrics", "metrics.csv"];
    place.ok(&[&["search", "export", "whole"], &tables[..]].concat());
    let own = "whole/swarm.csv";
    for (ratios, metrics) in [("x.csv", "x.csv"), ("x.csv", "./x.csv"), (own, "x.csv")] {
        let swarm = read(&place.path(own));
        let args = ["search", "export", "whole", "--mixtures", ratios, "--metrics", metrics];
        let error = place.fails(2, &args);
        assert!(error.contains("expected a file of its own"), "{error}");
        assert_eq!(read(&place.path(own)), swarm);
        assert!(!place.path("x.csv").exists());
    }
    let ratios = read(&place.path("ratios.csv"));
    assert!(ratios.lines().next().unwrap().starts_with("run,name,index,"), "{ratios}");
    place.ok(&[&["search", "import"], &tables[..], &["back.csv"]].concat());
    place.ok(&["search", "export", "back.csv", "--mixtures", "r2.csv", "--metrics", "m2.csv"]);
    assert_eq!(read(&place.path("r2.csv")).lines().count(), ratios.lines().count());
    assert_eq!(read(&place.path("m2.csv")), read(&place.path("metrics.csv")));
    let fitted = place.json(&[&["search", "fit"], &tables[..], &["--target", "prose"]].concat());
    assert_eq!(fitted["n"].as_u64().unwrap() as usize, ratios.lines().count() - 1);
}

#[test]
fn domains_of_a_swarm_are_merged_and_split_afterwards() {
    let place = Place::new();
    tables(&place, "train", 0, 20);
    let tables = ["--mixtures", "train-mixtures.csv", "--metrics", "train-metrics.csv"];
    place.ok(&[&["search", "import"], &tables[..], &["s.csv"]].concat());
    let merged = place.json(&["search", "regroup", "s.csv", "m.csv", "--merge", "all=code,none"]);
    assert_eq!(merged["domains"], serde_json::json!(["web", "all"]));
    let split =
        place.json(&["search", "regroup", "m.csv", "n.csv", "--split", "all=code:0.25,more:0.75"]);
    assert_eq!(split["domains"], serde_json::json!(["web", "code", "more"]));
    for (args, said) in [
        (["--merge", "all=code,nothing"], "nothing"),
        (["--merge", "all"], "NAME=A,B"),
        (["--split", "code=x:much"], "NAME=A:0.3,B:0.7"),
        (["--split", "nothing=x:1"], "nothing"),
    ] {
        let error = place.fails(2, &[&["search", "regroup", "s.csv", "x.csv"], &args[..]].concat());
        assert!(error.contains(said) && error.contains("\nhint: "), "{args:?}: {error}");
        assert!(!place.path("x.csv").exists());
    }
}

#[test]
fn the_laws_are_listed_as_the_guide_lists_them() {
    let place = Place::new();
    let table = String::from_utf8(place.ok(&["inspect", "laws"]).stdout).unwrap();
    let guide = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/search.md")));
    assert!(
        guide.contains(&table),
        "docs/search.md lacks the table of `cuvee inspect laws`:\n{table}"
    );
    let rows = place.json(&["inspect", "laws"]);
    let rows = rows["laws"].as_array().unwrap();
    assert_eq!(rows.len(), table.lines().count() - 2);
    for name in ["power-log-linear", "exposure", "two-knob", "doremi", "unimax"] {
        assert!(rows.iter().any(|row| row["name"] == name), "{name}");
    }
}
