#![allow(clippy::unwrap_used)]

use super::*;
use crate::error::SearchError;
use proptest::prelude::*;

const MIXTURES: &str = "run,name,index,web,code\na,first,0,0.25,0.75\nb,second,1,1,0\n";
const METRICS: &str = "run,name,index,web,math/bpb\nb,second,1,3.5,4\na,first,0,2.5,1e0\n";

fn read(mixtures: &str, metrics: &str) -> crate::Result<Swarm> {
    let named = |name, text| NamedText { name, text };
    read_olmix(named("ratios.csv", mixtures), named("metrics.csv", metrics))
}

/// The message of what is wrong.
fn wrong(mixtures: &str, metrics: &str) -> String {
    let error = read(mixtures, metrics).unwrap_err();
    assert!(matches!(error, SearchError::BadValue { .. }));
    let message = error.to_string();
    assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
    message
}

#[test]
fn olmix_tables_are_joined_by_their_first_column_in_whatever_order() {
    let swarm = read(MIXTURES, METRICS).unwrap();
    assert_eq!(
        (swarm.domains.as_slice(), swarm.targets.as_slice()),
        (
            ["web".to_owned(), "code".to_owned()].as_slice(),
            ["web".to_owned(), "math/bpb".to_owned()].as_slice(),
        )
    );
    assert_eq!(swarm.runs[0].name, "a");
    assert_eq!(
        (swarm.runs[0].sampling.as_slice(), swarm.runs[0].tune.as_slice()),
        ([0.25, 0.75].as_slice(), [2.5, 1.0].as_slice(),)
    );
    assert_eq!(swarm.runs[1].tune, [3.5, 4.0]);
    assert_eq!(swarm.runs[1].objective, swarm.runs[1].sampling);
}

#[test]
fn row_numbers_of_a_data_frame_and_regmixs_index_are_read() {
    let mixtures = ",run,name,index,web,code\n0,a,x,0,0.5,0.5\n1,b,y,1,0.2,0.8\n";
    let metrics = ",run,name,index,loss\n0,b,y,1,2\n1,a,x,0,1\n";
    let swarm = read(mixtures, metrics).unwrap();
    assert_eq!((swarm.runs[0].name.as_str(), swarm.runs[0].tune[0]), ("a", 1.0));
    let swarm = read("index,web\n7,1\n", "index,loss\n7,2\n").unwrap();
    assert_eq!((swarm.runs[0].name.as_str(), swarm.domains.len()), ("7", 1));
}

#[test]
fn a_byte_order_mark_crlf_quotes_and_blank_lines_are_read() {
    let mixtures =
        "\u{feff}run,\"web, clean\",code\r\n\r\na,0.25,\"0.75\"\r\n\"b \"\"x\"\"\",1,0\r\n";
    let metrics = "run,loss\na, 2.5\n\n\"b \"\"x\"\"\",3\n";
    let swarm = read(mixtures, metrics).unwrap();
    assert_eq!(swarm.domains[0], "web, clean");
    assert_eq!((swarm.runs[1].name.as_str(), swarm.runs[0].tune[0]), ("b \"x\"", 2.5));
    // Lines are counted as an editor does.
    let late = wrong("run,web\r\n\r\na,1\r\n\r\n\r\nb,x\r\n", "run,loss\na,1\nb,2\n");
    assert!(late.contains("found `x` in ratios.csv, line 6, column 2 (`web`)"), "{late}");
}

#[test]
fn shares_that_were_rounded_sum_to_one_after_reading() {
    let swarm = read("run,a,b,c\nx,0.333,0.333,0.333\n", "run,loss\nx,1\n").unwrap();
    assert!((swarm.runs[0].sampling.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    let message = wrong("run,a,b\nx,30,70\n", "run,loss\nx,1\n");
    assert!(message.contains("shares that sum to 1, found a sum of 100"), "{message}");
}

#[test]
fn what_is_wrong_in_a_table_is_said_with_its_line_and_column() {
    let metrics = "run,loss\na,1\nb,2\n";
    let cases = [
        (
            "run,web\na,1\nb,\n",
            metrics,
            "found an empty cell in ratios.csv, line 3, column 2 (`web`)",
        ),
        ("run,web\na,1\nb,NaN\n", metrics, "found `NaN` in ratios.csv, line 3, column 2"),
        ("run,web\na,inf\nb,1\n", metrics, "found `inf` in ratios.csv, line 2, column 2"),
        (
            "run,web\na,1\nb,1,0\n",
            metrics,
            "expected 2 cells, as in the header, found 3 in ratios.csv, line 3",
        ),
        ("run,web\na,1\nb\n", metrics, "found 1 in ratios.csv, line 3, column 2"),
        (
            "run,web,code\na,1,0\nb,1.5,-0.5\n",
            metrics,
            "found `-0.5` in ratios.csv, line 3, column 3 (`code`)",
        ),
        ("run,web\na,1\na,1\n", metrics, "found `a` again in ratios.csv, line 3, column 1"),
        (
            "run,web\na,1\n,1\n",
            metrics,
            "expected the run's name, found an empty cell in ratios.csv, line 3",
        ),
        (
            "run,web\na,1\nb,1\nc,1\n",
            metrics,
            "found run `c` without metrics in ratios.csv, line 4",
        ),
        ("run,web\na,1\n", metrics, "found run `b` without a mixture in metrics.csv, line 3"),
        ("run,web,web\na,1,0\n", metrics, "found `web` twice in ratios.csv, line 1, column 3"),
        ("run,web,\na,1,0\n", metrics, "a column without a name in ratios.csv, line 1, column 3"),
        ("run,name,index\na,b,0\n", metrics, "the columns run, name, index in ratios.csv, line 1"),
        ("", metrics, "an empty table in ratios.csv"),
        (
            "run,web\na,1\nb,1\n",
            "run,loss\na,1\nb,x\n",
            "found `x` in metrics.csv, line 3, column 2 (`loss`)",
        ),
        ("run,web\na,1\nb,1\n", "run,loss\na,1\na,2\n", "found `a` again in metrics.csv, line 3"),
    ];
    for (mixtures, metrics, expected) in cases {
        let message = wrong(mixtures, metrics);
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }
    let swarm = read(MIXTURES, METRICS).unwrap();
    assert_eq!(find_target(&swarm, "math/bpb").unwrap(), 1);
    let message = find_target(&swarm, "math").unwrap_err().to_string();
    assert!(message.contains("targets web, math/bpb, found `math`"), "{message}");
}

fn two_runs() -> Swarm {
    let run = |name: &str, seen: &[f64], valid: &[f64]| SwarmRun {
        name: name.to_owned(),
        kind: "uniform".to_owned(),
        seed: 3,
        block: 1,
        steps: 40,
        tokens: 81920.0,
        sampling: vec![0.5, 0.5],
        objective: vec![0.1, 0.9],
        seen: seen.to_vec(),
        tune: vec![2.5],
        valid: valid.to_vec(),
        curve: vec![(1024.0, vec![4.5]), (81920.0, vec![2.5])],
    };
    Swarm {
        domains: vec!["web".to_owned(), "c, c++".to_owned()],
        targets: vec!["web".to_owned()],
        available: vec![1e6, 0.1 + 0.2],
        runs: vec![run("u-1", &[40960.0, 40960.0], &[2.625]), run("u-2", &[], &[])],
    }
}

/// Golden: a change here makes older swarms unreadable.
const TABLE: &str = "\
name,kind,seed,block,steps,tokens,p:web,\"p:c, c++\",a:web,\"a:c, c++\",available:web,\
\"available:c, c++\",seen:web,\"seen:c, c++\",tune:web,valid:web,curve
u-1,uniform,3,1,40,81920,0.5,0.5,0.1,0.9,1000000,0.30000000000000004,40960,40960,2.5,2.625,1024 4.5;81920 2.5
u-2,uniform,3,1,40,81920,0.5,0.5,0.1,0.9,1000000,0.30000000000000004,,,2.5,,1024 4.5;81920 2.5
";

fn read_own(text: &str) -> crate::Result<Swarm> {
    read_table(NamedText { name: "swarm.csv", text })
}

#[test]
fn a_swarm_has_the_bytes_it_always_had() {
    assert_eq!(write_table(&two_runs()), TABLE);
    assert_eq!(read_own(TABLE).unwrap(), two_runs());
}

#[test]
fn what_is_wrong_in_a_swarm_is_said_with_its_line_and_column() {
    let cases = [
        (
            TABLE.replace("u-2,uniform,3", "u-2,uniform,-3"),
            "expected a whole number, found `-3` in swarm.csv, line 3, column 3",
        ),
        (
            TABLE.replace("1024 4.5;81920 2.5\nu-2", "1024 x\nu-2"),
            "points of a curve, found `1024 x` in swarm.csv, line 2, column 17",
        ),
        (
            TABLE.replace("40960,40960", "40960,"),
            "found an empty cell in swarm.csv, line 2, column 14",
        ),
        (
            TABLE.replace("seen:web", "saw:web"),
            "columns that begin with p: a: available: seen: tune: valid:",
        ),
        (TABLE.replace("a:web", "a:wiki"), "the same domains"),
        (TABLE.replace("name,kind", "kind,name"), "columns name, kind, seed"),
        (
            TABLE.replace(",0.5,0.5,0.1", ",,,0.1"),
            "found an empty cell in swarm.csv, line 2, column 7",
        ),
    ];
    for (text, expected) in cases {
        let message = read_own(&text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }
}

proptest! {
    #[test]
    fn a_swarm_survives_its_table_to_the_bit(
        names in prop::collection::btree_set("[a-z][a-z \",:;]{0,6}[a-z]", 2..5),
        values in prop::collection::vec(prop::num::f64::POSITIVE | prop::num::f64::ZERO, 40),
        runs in 1usize..4,
        known in any::<(bool, bool, bool)>(),
    ) {
        let domains: Vec<String> = names.into_iter().collect();
        let k = domains.len();
        let row = |at: usize, keep: bool| -> Vec<f64> {
            (0..if keep { k } else { 0 }).map(|index| values[(at + index) % 40]).collect()
        };
        let swarm = Swarm {
            targets: domains.clone(),
            available: row(1, known.0),
            runs: (0..runs).map(|run| SwarmRun {
                name: format!("run \"{run}\", again"),
                kind: "spread".to_owned(),
                seed: u64::MAX - run as u64,
                block: run,
                steps: 7,
                tokens: values[run],
                sampling: row(run, true),
                objective: row(run + 2, true),
                seen: row(run + 3, known.1),
                tune: row(run + 4, true),
                valid: row(run + 5, known.2),
                curve: (0..run).map(|at| (values[at], row(at, true))).collect(),
            }).collect(),
            domains,
        };
        prop_assert_eq!(read_own(&write_table(&swarm)).unwrap(), swarm);
    }

    #[test]
    fn olmix_tables_survive_a_round(shares in prop::collection::vec(1u32..1000, 2..6), loss in 0.0f64..9.0) {
        let sum: u32 = shares.iter().sum();
        let sampling: Vec<f64> = shares.iter().map(|share| f64::from(*share) / f64::from(sum)).collect();
        let mut swarm = read("run,x\na,1\n", "run,loss\na,1\n").unwrap();
        swarm.domains = (0..sampling.len()).map(|index| format!("d{index}, x")).collect();
        swarm.runs[0].objective = sampling.clone();
        swarm.runs[0].sampling = sampling;
        swarm.runs[0].tune = vec![loss];
        let (mixtures, metrics) = write_olmix(&swarm).unwrap();
        prop_assert_eq!(read(&mixtures, &metrics).unwrap(), swarm);
    }
}

#[test]
fn a_domain_called_as_a_column_of_names_is_refused_in_olmix_tables() {
    let mut swarm = two_runs();
    swarm.domains[0] = "index".to_owned();
    assert!(write_olmix(&swarm).unwrap_err().to_string().contains("found `index`"));
}
