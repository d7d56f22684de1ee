#![allow(clippy::unwrap_used)]
use super::*;

fn output(two_knobs: bool) -> Output {
    let names = ["web", "code \"x\"", "unused", "it's.math"].map(str::to_owned);
    let sampling = [0.5, 0.3, 0.0, 0.2];
    let objective = if two_knobs { [0.25, 0.25, 0.0, 0.5] } else { sampling };
    let mut output = Output::new(names.into(), &sampling, &objective).unwrap();
    output.paths =
        ["data/web", "data/code x", "data/unused", "data/it's"].map(str::to_owned).into();
    output.epochs = vec![0.4, 2.5, 0.0, 1.0];
    output
}

fn written(name: &str, output: &Output) -> String {
    (format_named(name).unwrap().render)(output)
}

#[test]
fn cuvee_lists_every_domain_and_says_what_was_verified() {
    let mut verified = output(false);
    verified.verified = Verified::Better { by: 0.01234, within: 0.004 };
    let expected = r#"# cuvee search: verified better than uniform by 0.0123 ± 0.0040 nats a token

[mixture]

[mixture.sampling]
strategy = "fixed"

[mixture.sampling.shares]
web = 0.500000
"code \"x\"" = 0.300000
unused = 0.000000
"it's.math" = 0.200000
"#;
    assert_eq!(written("cuvee", &verified), expected);
}

#[test]
fn cuvee_takes_both_knobs() {
    let expected = r#"# cuvee search: not verified

[mixture]
objective = "reweighted"

[mixture.sampling]
strategy = "fixed"

[mixture.sampling.shares]
web = 0.500000
"code \"x\"" = 0.300000
unused = 0.000000
"it's.math" = 0.200000

[mixture.loss]
strategy = "fixed"

[mixture.loss.shares]
web = 0.250000
"code \"x\"" = 0.250000
unused = 0.000000
"it's.math" = 0.500000
"#;
    assert_eq!(written("cuvee", &output(true)), expected);
}

#[test]
fn megatron_gets_a_blend_that_a_shell_reads() {
    let expected = r"# cuvee search: not verified
# sampling alone: this program has no weights for the objective
# weights are shares of samples of --seq-length tokens
--data-path \
    0.500000 data/web \
    0.300000 'data/code x' \
    0.200000 'data/it'\''s'
";
    assert_eq!(written("megatron", &output(true)), expected);
}

#[test]
fn nemo_gets_weights_and_prefixes_as_strings() {
    let expected = r#"# cuvee search: not verified
# weights are shares of samples of seq_length tokens
paths = [
    "0.500000", "data/web",
    "0.300000", "data/code x",
    "0.200000", "data/it's",
]
"#;
    assert_eq!(written("nemo", &output(false)), expected);
}

#[test]
fn automodel_gets_the_objective_too() {
    let expected = r#"# cuvee search: not verified
# weights are shares of samples of seq_length tokens
domain_mixture:
  domains:
    - name: "web"
      path: "data/web"
      sampling_weight: 0.500000
      objective_weight: 0.250000
    - name: "code \"x\""
      path: "data/code x"
      sampling_weight: 0.300000
      objective_weight: 0.250000
    - name: "it's.math"
      path: "data/it's"
      sampling_weight: 0.200000
      objective_weight: 0.500000
dataset:
  _target_: nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining
  paths:
    - "0.500000"
    - "data/web"
    - "0.300000"
    - "data/code x"
    - "0.200000"
    - "data/it's"
"#;
    assert_eq!(written("automodel", &output(true)), expected);
    assert!(!written("automodel", &output(false)).contains("domain_mixture"));
}

#[test]
fn levanter_gets_train_weights_by_component() {
    let expected = r#"# cuvee search: not verified
# weights are shares of sequences; keys are those of `components`
data:
  train_weights:
    "web": 0.500000
    "code \"x\"": 0.300000
    "it's.math": 0.200000
"#;
    assert_eq!(written("levanter", &output(false)), expected);
}

#[test]
fn olmo_core_gets_ratios_and_the_repetition_that_they_need() {
    let expected = r#"# cuvee search: not verified
# ratios are shares of requested_tokens
sources:
  - source_name: "web"
    target_ratio: 0.500000
    paths: ["data/web"]
  - source_name: "code \"x\""
    target_ratio: 0.300000
    paths: ["data/code x"]
    max_repetition_ratio: 2.5250
  - source_name: "it's.math"
    target_ratio: 0.200000
    paths: ["data/it's"]
    max_repetition_ratio: 1.0100
"#;
    assert_eq!(written("olmo-core", &output(false)), expected);
}

#[test]
fn datasets_gets_probabilities_of_examples() {
    let expected = r#"# cuvee search: not verified
# probabilities are shares of examples: pack examples to one length, or divide by
# their mean tokens, for these to be shares of tokens
dataset = interleave_datasets(
    [
        domains["web"],
        domains["code \"x\""],
        domains["it's.math"],
    ],
    probabilities=[0.500000, 0.300000, 0.200000],
    seed=0,
    stopping_strategy="all_exhausted",
)
"#;
    assert_eq!(written("datasets", &output(false)), expected);
    // Web's examples are twice as long: half as many of them make up its tokens.
    let mut lengths = output(false);
    lengths.tokens_per_example = vec![200.0, 100.0, 0.0, 100.0];
    let text = written("datasets", &lengths);
    assert!(text.contains("probabilities=[0.333333, 0.400000, 0.266667]"), "{text}");
}

#[test]
fn every_program_says_what_its_weights_count() {
    for format in FORMATS {
        let text = (format.render)(&output(false));
        assert!(text.starts_with("# cuvee search: ") && text.ends_with('\n'), "{}", format.name);
        assert!(format.semantics.contains("shares of"), "{}", format.name);
    }
    let error = format_named("torch").err().unwrap().to_string();
    assert!(error.contains("olmo-core") && error.contains("torch"), "{error}");
}

#[test]
fn names_that_occur_twice_and_numbers_that_are_no_shares_are_refused() {
    let twice = vec!["a".to_owned(), "a".to_owned()];
    assert!(Output::new(twice, &[0.5, 0.5], &[0.5, 0.5]).is_err());
    let names = vec!["a".to_owned(), "b".to_owned()];
    assert!(Output::new(names.clone(), &[0.5], &[0.5, 0.5]).is_err());
    assert!(Output::new(names, &[0.5, -0.5], &[0.5, 0.5]).is_err());
}
