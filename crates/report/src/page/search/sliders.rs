//! Sliders over a fitted law: mixtures by hand, with what the law says of them.
//!
//! In: the law's coefficients for each target, and mixtures with their predictions. Out: HTML with
//! the numbers beside it; the script evaluates the closed form, so that nothing is asked of
//! anybody. Without scripts the tables show the first mixture.

use std::fmt::Write;

use serde_json::{Value, json};

use super::form::predicted;
use crate::page::html::{script_json, text};

/// The script that moves the sliders.
pub(crate) const SCRIPT: &str = include_str!("law.js");

/// How far what a law's description says may lie from what the law said: rounding alone.
const ROUNDING: f64 = 1e-9;

/// Numbers of mixtures tried that a page holds: what the distance to the nearest is taken from.
const NUMBERS: usize = 30_000;

/// What the sliders are over.
pub(crate) struct Sliders<'a> {
    /// Names of the domains. `[K]`
    pub(crate) domains: &'a [String],
    /// Names of the targets and their weights in the mean. `[M]`
    pub(crate) targets: Vec<(&'a str, f64)>,
    /// The law of each target, as it describes itself. `[M]`
    pub(crate) laws: &'a [Value],
    /// Mixtures to start from, the first at once.
    pub(crate) mixtures: Vec<Named<'a>>,
    /// Passes over a domain that a share of 1 makes of the final run; NaN where unknown. `[K]`
    pub(crate) epochs_per_share: Vec<f64>,
    /// The mixtures that were run.
    pub(crate) tried: Vec<&'a [f64]>,
}

/// A mixture and what is predicted of it.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) shares: &'a [f64],
    /// Of each target. `[M]`
    pub(crate) losses: Vec<f64>,
    /// Weighted by the targets' weights.
    pub(crate) mean: f64,
}

impl Sliders<'_> {
    /// Whether the laws' descriptions say all that the laws do, by the mixtures whose predictions
    /// are known: a law of another form, or one that looks at more than the shares drawn, has none.
    pub(crate) fn can_be_moved(&self) -> bool {
        let agrees = |mixture: &Named| {
            mixture.losses.len() == self.laws.len()
                && self.laws.iter().zip(&mixture.losses).all(|(law, loss)| {
                    let found = predicted(law, mixture.shares);
                    found
                        .is_some_and(|found| (found - loss).abs() <= ROUNDING * loss.abs().max(1.0))
                })
        };
        !self.laws.is_empty() && !self.mixtures.is_empty() && self.mixtures.iter().all(agrees)
    }

    /// The sliders, or nothing where there is no law to move them over.
    pub(crate) fn html(&self) -> String {
        let (true, Some(first)) = (self.can_be_moved(), self.mixtures.first()) else {
            return String::new();
        };
        let mut out = String::from("<div class=\"mixture\">\n");
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<p>Predicted: <output>{:.4} nats a token</output>. <span>The nearest mixture that was \
             run is <span class=\"far\">–</span> away.</span> <label>Start from \
             <select><option value=\"\">a mixture of your own</option>",
            first.mean
        );
        for (place, mixture) in self.mixtures.iter().enumerate() {
            let _ = write!(out, "<option value=\"{place}\">{}</option>", text(mixture.name));
        }
        out.push_str("</select></label></p>\n<div class=\"beside\">\n");
        out.push_str(&self.shares(first));
        out.push_str(&self.losses(first));
        let data = script_json(&self.json());
        let _ = write!(
            out,
            "</div>\n<script type=\"application/json\" class=\"law\">{data}</script>\n</div>\n"
        );
        out
    }

    fn shares(&self, first: &Named) -> String {
        let epochs = self.knows_epochs();
        let caption = "Shares of the mixture: moving one keeps the ratios of the others and the sum \
                       at 100 %. Marked: a share that no run was near.";
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table>\
             <caption>{caption}</caption>\n<thead><tr><th scope=\"col\">domain</th>\
             <th scope=\"col\" class=\"n\">share (%)</th><th scope=\"col\" class=\"slide\"></th>{}\
             </tr></thead>\n<tbody>\n",
            if epochs { "<th scope=\"col\" class=\"n\">passes</th>" } else { "" }
        );
        for (place, name) in self.domains.iter().enumerate() {
            let (name, share) = (text(name), first.shares.get(place).copied().unwrap_or(0.0));
            let passes = self.epochs_per_share.get(place).map_or(f64::NAN, |each| each * share);
            let passes = match passes.is_finite() {
                true => format!("{passes:.2}"),
                false => "–".to_owned(),
            };
            let _ = writeln!(
                out,
                "<tr data-domain><th scope=\"row\">{name}</th><td class=\"n\">\
                 <input type=\"number\" min=\"0\" max=\"100\" step=\"any\" value=\"{:.2}\" \
                 aria-label=\"share of {name} in per cent\"></td><td class=\"slide\">\
                 <input type=\"range\" min=\"0\" max=\"1\" step=\"any\" value=\"{share}\" \
                 aria-label=\"share of {name}\"></td>{}</tr>",
                100.0 * share,
                match epochs {
                    true => format!("<td class=\"n epochs\">{passes}</td>"),
                    false => String::new(),
                }
            );
        }
        out.push_str("</tbody></table></div>\n");
        out
    }

    fn losses(&self, first: &Named) -> String {
        let caption = format!(
            "Predicted losses, nats a token, and what they differ by from those of the {}.",
            text(first.name)
        );
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table>\
             <caption>{caption}</caption>\n<thead><tr><th scope=\"col\">target</th>\
             <th scope=\"col\" class=\"n\">weight</th><th scope=\"col\" class=\"n\">loss</th>\
             <th scope=\"col\" class=\"n\">difference</th></tr></thead>\n<tbody>\n"
        );
        for ((name, weight), loss) in self.targets.iter().zip(&first.losses) {
            let _ = writeln!(
                out,
                "<tr data-target><th scope=\"row\">{}</th><td class=\"n\">{weight:.3}</td>\
                 <td class=\"n\">{loss:.4}</td><td class=\"n\">+0.0000</td></tr>",
                text(name)
            );
        }
        out.push_str("</tbody></table></div>\n");
        out
    }

    fn knows_epochs(&self) -> bool {
        self.epochs_per_share.iter().any(|each| each.is_finite())
    }

    fn json(&self) -> Value {
        let domains = self.domains.len();
        let fits = self.tried.len() * domains <= NUMBERS;
        let tried: &[&[f64]] = if fits { &self.tried } else { &[] };
        let over = |pick: fn(f64, f64) -> f64, none: f64| -> Vec<f64> {
            let shares = |domain: usize| self.tried.iter().filter_map(move |run| run.get(domain));
            (0..domains)
                .map(|domain| shares(domain).copied().reduce(pick).unwrap_or(none))
                .collect()
        };
        let mixture = |mixture: &Named| {
            json!({
                "name": mixture.name, "shares": mixture.shares, "losses": mixture.losses,
                "mean": mixture.mean,
            })
        };
        json!({
            "weights": self.targets.iter().map(|(_, weight)| weight).collect::<Vec<_>>(),
            "laws": self.laws,
            "mixtures": self.mixtures.iter().map(mixture).collect::<Vec<_>>(),
            "epochs": (0..domains).map(|domain| self.epochs_per_share.get(domain)).collect::<Vec<_>>(),
            "tried": tried,
            "least": over(f64::min, 0.0),
            "most": over(f64::max, 1.0),
        })
    }
}
