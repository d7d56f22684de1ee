#![allow(clippy::unwrap_used)]

use super::*;

const LOSSES: [f64; 8] = [3.1, 2.9, 2.7, 2.62, 2.5, 2.45, 2.4, 2.36];

fn tables(runs: std::ops::Range<usize>, swapped: bool) -> (String, String) {
    let mut mixtures = String::from(if swapped { "index,code,web\n" } else { "index,web,code\n" });
    let mut metrics = String::from("index,loss,other\n");
    for run in runs {
        let web = (run + 1) as f64 / 10.0;
        let (first, second) = if swapped { (1.0 - web, web) } else { (web, 1.0 - web) };
        mixtures.push_str(&format!("{run},{first},{second}\n"));
        metrics.push_str(&format!("{run},{},1\n", LOSSES[run]));
    }
    (mixtures, metrics)
}

fn named<'a>(name: &'a str, text: &'a str) -> NamedText<'a> {
    NamedText { name, text }
}

#[test]
fn the_document_has_its_five_fields_in_order() {
    let (mixtures, metrics) = tables(0..8, false);
    let request = FitRequest {
        mixtures: named("m", &mixtures),
        metrics: named("l", &metrics),
        target: "loss",
        test: None,
        runs: Some(7),
        seed: 1,
        law: "linear",
    };
    let document = fit(&request).unwrap();
    assert_eq!((document.law, document.n), ("linear", 7));
    assert!(document.spearman > 0.9 && document.loo_r2 > 0.5, "{document:?}");
    let json = serde_json::to_string(&document).unwrap();
    let places: Vec<usize> = ["\"law\"", "\"n\"", "\"spearman\"", "\"regret_at_1\"", "\"loo_r2\""]
        .map(|field| json.find(field).unwrap())
        .into();
    assert!(places.is_sorted(), "{json}");
    assert_eq!(fit(&request).unwrap(), document);
    let auto = fit(&FitRequest { law: AUTO, ..request }).unwrap();
    assert!(auto.loo_r2 > 0.5, "{auto:?}");
}

#[test]
fn a_test_is_over_the_same_domains_in_whatever_order() {
    let trained = tables(0..6, false);
    let with = |(mixtures, metrics): (&str, &str)| {
        fit(&FitRequest {
            mixtures: named("m", &trained.0),
            metrics: named("l", &trained.1),
            target: "loss",
            test: Some((named("t", mixtures), named("u", metrics))),
            runs: None,
            seed: 0,
            law: "linear",
        })
    };
    let (own, swapped) = (tables(4..8, false), tables(4..8, true));
    let score = with((&own.0, &own.1)).unwrap();
    assert_eq!(score, with((&swapped.0, &swapped.1)).unwrap());
    assert_eq!((score.spearman, score.regret_at_1), (1.0, 0.0));
    let other = own.0.replace("code", "books");
    let error = with((&other, &own.1)).unwrap_err();
    assert!(error.to_string().contains("columns web, code, found web, books in t"), "{error}");
}

#[test]
fn what_cannot_be_fitted_is_said() {
    let (mixtures, metrics) = tables(0..8, false);
    let request = FitRequest {
        mixtures: named("m", &mixtures),
        metrics: named("l", &metrics),
        target: "loss",
        test: None,
        runs: None,
        seed: 0,
        law: "linear",
    };
    let said = |request: FitRequest| fit(&request).unwrap_err().to_string();
    assert!(said(FitRequest { target: "los", ..request }).contains("targets loss, other"));
    assert!(said(FitRequest { law: "liner", ..request }).contains("found `liner`"));
    assert!(said(FitRequest { runs: Some(9), ..request }).contains("at most the 8 runs"));
    assert!(said(FitRequest { runs: Some(2), ..request }).contains("at least 3 different"));
    assert!(said(FitRequest { runs: Some(1), law: AUTO, ..request }).contains("hint: "));
}
