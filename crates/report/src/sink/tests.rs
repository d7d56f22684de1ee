//! Both loggers together, read back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::event::{Events, Field, fields};
use super::*;
use crate::record::{EvalDomainRecord, PerDomain, StepDomainRecord};

/// A folder with a run, and Trackio's beside it.
struct Place {
    dir: tempfile::TempDir,
    spec: LogSpec,
    settings: Value,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = LogSpec {
            tensorboard: true,
            trackio: TrackioProject::Named("blends".into()),
            trackio_dir: Some(dir.path().join("trackio")),
        };
        fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir, spec, settings: json!({"seed": 3, "train": {"lr": 0.001}}) }
    }

    fn open(&self, resumed: Option<ResumePoint>) -> Loggers {
        self.try_open(resumed).unwrap()
    }

    fn try_open(&self, resumed: Option<ResumePoint>) -> Result<Loggers> {
        Loggers::open(&Opening {
            spec: &self.spec,
            folder: &self.dir.path().join("run"),
            name: "quick",
            group: Some("uniform"),
            config: "seed = 3\n\n[train]\nlr = 0.001\n",
            settings: &self.settings,
            resumed,
            variable: |_| None,
        })
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.dir.path().join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => all.extend(self.files(path.to_str().unwrap())),
                false => all.push(path),
            }
        }
        all.sort();
        all
    }

    /// Every event in the order that readers take them: its step, `start`, or its numbers.
    fn events(&self) -> Vec<(u64, Event)> {
        let mut all = Vec::new();
        for path in self.files("run/tensorboard") {
            let bytes = fs::read(&path).unwrap();
            let mut events = Events::new(&bytes[..], bytes.len() as u64);
            let version = events.next().unwrap().unwrap();
            assert!(fields(&version).any(|f| f == (3, Field::Bytes(b"brain.Event:2"))));
            while let Some(event) = events.next().unwrap() {
                all.push(parse(&event));
            }
            assert_eq!(events.position(), bytes.len() as u64);
        }
        all
    }

    /// The lines of all fragments.
    fn lines(&self) -> Vec<Value> {
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
        let text: String = self.files("trackio/inbox").iter().map(read).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The numbers that TensorBoard has at the end, by name and step; each once.
    fn curves(&self) -> BTreeMap<(String, u64), f64> {
        let mut curves = BTreeMap::new();
        for (step, event) in self.events() {
            match event {
                Event::Numbers(numbers) => {
                    for (tag, value) in numbers {
                        let twice = curves.insert((tag.clone(), step), f64::from(value));
                        assert_eq!(twice, None, "{tag} at step {step} stands there twice");
                    }
                }
                Event::Start => {
                    let later: Vec<_> = curves.keys().filter(|(_, at)| *at >= step).collect();
                    assert!(later.is_empty(), "{later:?} stand before a start at {step}");
                }
                Event::Text(..) => {}
            }
        }
        curves
    }
}

#[derive(Debug, PartialEq)]
enum Event {
    Start,
    Text(String, String),
    Numbers(Vec<(String, f32)>),
}

fn bytes<'a>(message: &'a [u8], path: &[u32]) -> &'a [u8] {
    path.iter().fold(message, |message, wanted| {
        let found = fields(message).find_map(|(number, value)| match value {
            Field::Bytes(bytes) if number == *wanted => Some(bytes),
            _ => None,
        });
        found.unwrap_or_default()
    })
}

fn text(message: &[u8], path: &[u32]) -> String {
    String::from_utf8(bytes(message, path).to_vec()).unwrap()
}

fn parse(event: &[u8]) -> (u64, Event) {
    let (step, _) = event::step_and_tag(event);
    let time = fields(event).find_map(|(number, value)| match value {
        Field::Fixed64(bits) if number == 1 => Some(f64::from_le_bytes(bits)),
        _ => None,
    });
    assert!(time.unwrap() > 1.7e9);
    if fields(bytes(event, &[7])).any(|field| field == (1, Field::Varint(1))) {
        return (step, Event::Start);
    }
    if text(event, &[5, 1, 9, 1, 1]) == "text" {
        return (step, Event::Text(text(event, &[5, 1, 1]), text(event, &[5, 1, 8, 8])));
    }
    let numbers = fields(bytes(event, &[5])).filter_map(|(_, value)| match value {
        Field::Bytes(value) => fields(value).find_map(|(number, field)| match field {
            Field::Fixed32(bits) if number == 2 => {
                Some((text(value, &[1]), f32::from_le_bytes(bits)))
            }
            _ => None,
        }),
        _ => None,
    });
    (step, Event::Numbers(numbers.collect()))
}

fn step(step: u64) -> StepRecord {
    let domain = |loss| StepDomainRecord {
        loss,
        importance: 0.5,
        sampling_weight: 0.75,
        loss_weight: 1.0,
        loss_weight_error: None,
        multiplier: 0.5,
        sequences: 3,
        epochs: 0.125,
        objective_mean: loss.map(|_| 0.25),
        gradient_deviation: loss.map(|_| 2.0),
    };
    StepRecord {
        step,
        loss: 4.0 / step as f64,
        headroom: Some(1.25),
        clip_factor: f64::NAN,
        domains: PerDomain(vec![
            ("web/en\n".into(), domain(Some(2.5))),
            ("a \"b\"".into(), domain(None)),
        ]),
        ..StepRecord::sample()
    }
}

fn eval(step: u64, split: &str) -> EvalRecord {
    let quality = EvalDomainRecord {
        loss: 2.0,
        perplexity: f64::INFINITY,
        bits_per_byte: 1.25,
        standard_error: None,
        windows: 1,
        loss_variance: None,
    };
    let domains = PerDomain(vec![("web/en\n".into(), quality)]);
    EvalRecord { step, split: split.into(), domains, ..EvalRecord::sample() }
}

/// Names and numbers of a step as both loggers are to have them: no `null`, one line a name.
const STEP: [(&str, f64); 16] = [
    ("train/loss", 2.0),
    ("train/lr", 1e-3),
    ("train/gradient_norm", 0.5),
    ("train/tokens_per_second", 1234.5),
    ("train/headroom", 1.25),
    (r"domain/web/en\n/loss", 2.5),
    (r"domain/web/en\n/sampling_weight", 0.75),
    (r"domain/web/en\n/loss_weight", 1.0),
    (r"domain/web/en\n/multiplier", 0.5),
    (r"domain/web/en\n/epochs", 0.125),
    (r"domain/web/en\n/gradient_deviation", 2.0),
    (r"domain/web/en\n/objective_mean", 0.25),
    (r#"domain/a "b"/sampling_weight"#, 0.75),
    (r#"domain/a "b"/loss_weight"#, 1.0),
    (r#"domain/a "b"/multiplier"#, 0.5),
    (r#"domain/a "b"/epochs"#, 0.125),
];

#[test]
fn tensorboard_is_told_every_finite_number_under_a_printable_name() {
    let place = Place::new();
    let mut loggers = place.open(None);
    loggers.eval(&eval(0, "valid")).unwrap();
    loggers.step(&step(2)).unwrap();
    // No sync, no close: a crash here loses nothing.
    let numbers = |table: &[(&str, f64)]| {
        Event::Numbers(
            table.iter().map(|(tag, value)| ((*tag).to_owned(), *value as f32)).collect(),
        )
    };
    let evaluation = [
        ("eval/valid/mean_loss", 2.0),
        (r"eval/valid/web/en\n/loss", 2.0),
        (r"eval/valid/web/en\n/bits_per_byte", 1.25),
    ];
    let config = "    seed = 3\n    \n    [train]\n    lr = 0.001\n";
    assert_eq!(
        place.events(),
        [
            (0, Event::Start),
            (0, Event::Text("config".into(), config.into())),
            (0, numbers(&evaluation)),
            (2, numbers(&STEP)),
        ]
    );
}

#[test]
fn trackio_is_told_the_same_in_lines_that_its_inbox_takes() {
    let place = Place::new();
    let mut loggers = place.open(None);
    loggers.step(&step(2)).unwrap();
    loggers.eval(&eval(2, "valid")).unwrap();
    loggers.sync().unwrap();
    loggers.step(&step(3)).unwrap();
    drop(loggers);
    let known: Value =
        serde_json::from_slice(&fs::read(place.dir.path().join("run/trackio.json")).unwrap())
            .unwrap();
    let run_id = known["run_id"].as_str().unwrap();
    let lines = place.lines();
    let ids = lines.iter().map(|line| line["log_id"].as_str().unwrap().to_owned());
    let expected = [format!("{run_id}-2"), format!("{run_id}-2-valid"), format!("{run_id}-3")];
    assert_eq!(ids.collect::<Vec<_>>(), expected);
    let metrics: Vec<(&str, f64)> = lines[0]["metrics"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(tag, value)| (tag.as_str(), value.as_f64().unwrap()))
        .collect();
    assert_eq!(metrics, STEP);
    for (line, step) in lines.iter().zip([2, 2, 3]) {
        let fixed = ["v", "kind", "project", "run", "run_id", "step"].map(|key| line[key].clone());
        let expected = json!([1, "metric", "blends", "quick", run_id, step]);
        assert_eq!(json!(fixed), expected);
        assert!(line["timestamp"].as_str().unwrap().ends_with("+00:00"));
    }
    let config = json!({
        "seed": 3, "train": {"lr": 0.001}, "_Created": known["created"], "_Group": "uniform"
    });
    assert_eq!([&lines[0]["config"], &lines[1]["config"]], [&config, &Value::Null]);
    let names: Vec<_> = place.files("trackio/inbox");
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["00000000.jsonl", "00000001.jsonl"]);
}

#[test]
fn a_resumed_run_stands_in_tensorboard_as_one_that_never_stopped() {
    for evaluated in [true, false] {
        let whole = Place::new();
        let mut loggers = whole.open(None);
        let place = Place::new();
        let mut first = place.open(None);
        for n in 1..=9 {
            for loggers in [&mut loggers, &mut first] {
                loggers.eval(&eval(n, "tune")).unwrap();
                loggers.step(&step(n)).unwrap();
                loggers.eval(&eval(n, "valid")).unwrap();
            }
        }
        drop(first);
        // A crash of the system in the middle of a record, and a second resumption of one step.
        let path = place.files("run/tensorboard").remove(0);
        let mut torn = fs::read(&path).unwrap();
        torn.truncate(torn.len() - 3);
        fs::write(&path, torn).unwrap();
        for (from, to) in [(6, 8), (6, 7), (7, 9)] {
            let mut again = place.open(Some(ResumePoint { step: from, evaluated }));
            if !evaluated {
                again.eval(&eval(from, "valid")).unwrap();
            }
            for n in from + 1..=to {
                again.eval(&eval(n, "tune")).unwrap();
                again.step(&step(n)).unwrap();
                again.eval(&eval(n, "valid")).unwrap();
            }
        }
        assert_eq!(place.curves(), whole.curves(), "evaluated: {evaluated}");
        let events = place.events();
        let texts = events.iter().filter(|(_, event)| matches!(event, Event::Text(..))).count();
        assert_eq!(texts, 1);
        // Going on at the very beginning.
        place.open(Some(ResumePoint { step: 0, evaluated }));
        assert_eq!(place.curves(), BTreeMap::new());
    }
}

#[test]
fn a_start_says_which_steps_an_onlooker_is_to_forget() {
    let place = Place::new();
    let mut loggers = place.open(None);
    (1..=5).for_each(|n| loggers.step(&step(n)).unwrap());
    place.open(Some(ResumePoint { step: 3, evaluated: true }));
    let starts = place.events().into_iter().filter(|(_, event)| *event == Event::Start);
    assert_eq!(starts.map(|(step, _)| step).collect::<Vec<_>>(), [0, 4]);
}

#[test]
fn a_resumed_run_is_the_same_run_to_trackio_and_a_new_one_is_another() {
    let place = Place::new();
    let mut loggers = place.open(None);
    (1..=3).for_each(|n| loggers.step(&step(n)).unwrap());
    drop(loggers);
    let mut loggers = place.open(Some(ResumePoint { step: 2, evaluated: true }));
    loggers.step(&step(3)).unwrap();
    drop(loggers);
    let ids = |lines: &[Value]| {
        let id = |line: &Value| line["log_id"].as_str().unwrap().to_owned();
        lines.iter().map(id).collect::<std::collections::BTreeSet<_>>()
    };
    // Four lines in two folders; step 3 twice under one identity.
    let lines = place.lines();
    assert_eq!((lines.len(), ids(&lines).len()), (4, 3));
    assert_eq!(lines.iter().filter(|line| !line["config"].is_null()).count(), 2);
    let mut loggers = place.open(None);
    loggers.step(&step(3)).unwrap();
    drop(loggers);
    assert_eq!(ids(&place.lines()).len(), 4);
}

#[test]
fn what_is_off_writes_nothing_and_a_new_run_leaves_nothing_of_an_older_one() {
    let mut place = Place::new();
    place.open(None).step(&step(1)).unwrap();
    let stranger = place.dir.path().join("run/tensorboard/events.out.tfevents.1.host");
    fs::write(&stranger, "not ours").unwrap();
    place.spec = LogSpec { tensorboard: false, ..LogSpec::default() };
    let before = place.files("trackio");
    place.open(None).step(&step(1)).unwrap();
    assert_eq!(place.files("run"), [stranger]);
    assert_eq!(place.files("trackio"), before);
}

#[test]
fn trackio_may_empty_the_inbox_while_a_run_writes() {
    let place = Place::new();
    let mut loggers = place.open(None);
    loggers.step(&step(1)).unwrap();
    loggers.sync().unwrap();
    fs::remove_dir_all(place.dir.path().join("trackio/inbox")).unwrap();
    loggers.step(&step(2)).unwrap();
    loggers.sync().unwrap();
    assert_eq!(place.lines().len(), 1);
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_named() {
    let place = Place::new();
    fs::write(place.dir.path().join("run/tensorboard"), "a file").unwrap();
    let error = place.try_open(None).err().unwrap().to_string();
    assert!(error.contains("tensorboard") && error.contains("\nhint: "), "{error}");
    fs::remove_file(place.dir.path().join("run/tensorboard")).unwrap();
    fs::write(place.dir.path().join("trackio"), "a file").unwrap();
    // Trackio's folder is elsewhere: training goes on, and whoever started it is told once.
    let mut loggers = place.open(None);
    let warning = loggers.warning().unwrap();
    assert!(warning.contains("inbox") && warning.contains("\nhint: "), "{warning}");
    loggers.step(&step(1)).unwrap();
    loggers.sync().unwrap();
    assert_eq!(loggers.warning(), None);
    drop(loggers);
    fs::remove_file(place.dir.path().join("trackio")).unwrap();
    fs::write(place.dir.path().join("run/trackio.json"), "{\"run\"").unwrap();
    let resumed = Some(ResumePoint { step: 1, evaluated: false });
    let error = place.try_open(resumed).err().unwrap().to_string();
    assert!(error.contains("trackio.json") && error.contains("\nhint: "), "{error}");
}

#[test]
fn the_section_says_false_or_a_project_and_nothing_else() {
    let read = |text: &str| serde_json::from_str::<LogSpec>(text);
    assert_eq!(read("{}").unwrap(), LogSpec::default());
    let named = read(r#"{"tensorboard": false, "trackio": "blends", "trackio_dir": "t"}"#).unwrap();
    assert_eq!(named.trackio, TrackioProject::Named("blends".into()));
    for spec in [LogSpec::default(), named] {
        assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }
    for (text, said) in [
        (r#"{"trackio": true}"#, "found true, which names none"),
        (r#"{"trackio": " -"}"#, "no letter and no digit"),
        (r#"{"trackio": 3}"#, "false, or the name of a project"),
        (r#"{"tensorbord": true}"#, "unknown field `tensorbord`"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
