//! From the `[model]` section to a model that is known to fit together.

use std::path::{Path, PathBuf};

use cuvee_words::printable_path;
use serde::{Deserialize, Serialize};

use super::family::{Arithmetic, Family, Switch};
use super::preset::{Preset, PresetShape};
use super::rope::{RopeScaling, Rotary};
use crate::error::{Result, TrainError};

/// The `[model]` section: a preset, or lengths, or a pretrained checkpoint. Lengths given beside a
/// preset override it; nothing given at all is preset `s`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// Named size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Width of the residual stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Decoder layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Query heads; `dim / heads` is a head's width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Key and value heads, a divisor of `heads`; default: as many (Ainslie et al., GQA, 2023).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width of the feed-forward layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ffn: Option<usize>,
    /// Whether the output head is the embedding; default: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// Base of the rotary frequencies; default 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// How rotary frequencies are changed for a longer context; default: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// ε of RMSNorm; default 1e-5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_eps: Option<f64>,
    /// Whether each head's queries and keys are normalised; default: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qk_norm: Option<bool>,
    /// Whether the query, key and value projections have biases; default: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qkv_bias: Option<bool>,
    /// What the model is exported as; default: the family it came from, else the first that has
    /// its arithmetic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// A folder with `config.json` and `model.safetensors` to continue from, relative to the
    /// config's folder. The program also takes the name of a model on the Hub, and puts the folder
    /// it was fetched to in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Rows of the embedding; default: the tokenizer's vocabulary. May be larger, never smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Whether the model that `init` names gets the rows of another tokenizer; default: it keeps
    /// its own, and another tokenizer is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vocabulary>,
}

/// What becomes of a pretrained model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// It stays.
    Keep,
    /// It becomes that of the run's tokenizer.
    Resize,
}

/// The shape of a decoder, its parts known to fit together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Rows of the embedding, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub dim: usize,
    /// Decoder layers, L.
    pub layers: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads, G; H is a multiple of it.
    pub kv_heads: usize,
    /// Width of a head, E; even.
    pub head_dim: usize,
    /// Width of the feed-forward layer, F.
    pub ffn: usize,
    /// Longest sequence, in tokens.
    pub max_context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// ε of RMSNorm.
    pub norm_eps: f64,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// How the rotary frequencies are changed for a longer context.
    #[serde(default, skip_serializing_if = "RopeScaling::is_default")]
    pub rope_scaling: RopeScaling,
    /// Whether each head's queries and keys go through an RMSNorm before they are rotated.
    #[serde(default, skip_serializing_if = "is_off")]
    pub qk_norm: bool,
    /// Whether the query, key and value projections have biases.
    #[serde(default, skip_serializing_if = "is_off")]
    pub qkv_bias: bool,
    /// The layers without rotary positions, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nope_layers: Vec<usize>,
    /// The last positions that attention sees, itself among them. It is not computed: sequences
    /// must not be longer, see [`ModelConfig::longest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// The family it is exported as, where that is not the first that has its arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
}

fn is_off(switch: &bool) -> bool {
    !switch
}

/// A field of a [`ModelConfig`] that does not fit the others.
pub(crate) struct Misfit {
    /// The field's name.
    pub(crate) field: &'static str,
    /// What it must be.
    pub(crate) expected: String,
    /// What it is.
    pub(crate) found: String,
}

/// Widest layer, in numbers a token.
const MAX_WIDTH: usize = 1 << 20;

impl ModelSpec {
    /// The model asked for: `pretrained`, the one that `init` names, or without it what the preset
    /// and the lengths make.
    ///
    /// `tokenizer_vocab` is the tokenizer's largest id + 1, `context` the training context in
    /// tokens. `max_context` is `context`, or the pretrained model's if that is longer.
    ///
    /// # Errors
    /// [`TrainError::Config`] for lengths that do not fit together, a vocabulary smaller than the
    /// tokenizer's, or lengths that contradict `pretrained`.
    pub fn resolve(
        &self,
        tokenizer_vocab: usize,
        context: usize,
        pretrained: Option<&ModelConfig>,
    ) -> Result<ModelConfig> {
        let config = match pretrained {
            Some(pretrained) if self.resizes() => {
                let vocab_size = self.vocab_size.unwrap_or(tokenizer_vocab);
                self.continued(&ModelConfig { vocab_size, ..pretrained.clone() }, context)?
            }
            Some(pretrained) => self.continued(pretrained, context)?,
            None if self.resizes() => {
                return Err(TrainError::config(
                    "model.vocabulary",
                    "a pretrained model to resize, in model.init",
                    "no model.init",
                    "remove the key: a new model has the rows of its tokenizer",
                ));
            }
            None => self.fresh(tokenizer_vocab, context)?,
        };
        if let Some(window) = config.sliding_window.filter(|window| *window < context) {
            return Err(TrainError::config(
                "train.context",
                format!("at most {window}, the sliding window of the model that model.init names"),
                context,
                format!(
                    "attention is computed over the whole sequence, which is the same up to that \
                     length: set train.context = {window}, or choose a model without a window"
                ),
            ));
        }
        if config.vocab_size < tokenizer_vocab {
            let key = if pretrained.is_some() { "model.init" } else { "model.vocab_size" };
            return Err(TrainError::config(
                key,
                format!(
                    "a vocabulary of at least the tokenizer's {}",
                    cuvee_words::counted(tokenizer_vocab, "id")
                ),
                config.vocab_size,
                match pretrained {
                    Some(_) if !self.resizes() => {
                        "use the tokenizer the model was trained with, or give the model this one's rows with model.vocabulary = \"resize\""
                    }
                    _ => "use the tokenizer the model was trained with, or remove model.vocab_size",
                },
            ));
        }
        config.validate()?;
        Ok(config)
    }

    /// Whether a pretrained model gets the rows of another tokenizer.
    pub fn resizes(&self) -> bool {
        self.vocabulary == Some(Vocabulary::Resize)
    }

    /// The folder `init` names, if it names one.
    ///
    /// # Errors
    /// [`TrainError::Config`] if there is no such folder with a `config.json`.
    pub fn init_dir(&self, base: &Path) -> Result<Option<PathBuf>> {
        let Some(init) = &self.init else { return Ok(None) };
        let dir = base.join(init);
        if dir.join("config.json").is_file() {
            return Ok(Some(dir));
        }
        let looks_like_hub =
            !dir.exists() && init.split('/').count() == 2 && !init.starts_with(['.', '/', '~']);
        let hint = if looks_like_hub {
            let folder = init.split('/').next().unwrap_or_default();
            format!(
                "a model of the Hub is fetched by a build with the feature `hub`, and where there is no folder `{folder}` \
                 that it could be in; else download `{init}` and name its folder"
            )
        } else {
            "give a run's export folder, or a Hugging Face model's with config.json and model.safetensors".to_owned()
        };
        Err(TrainError::config(
            "model.init",
            "a folder with a config.json",
            format!("`{}`", printable_path(dir)),
            hint,
        ))
    }

    fn fresh(&self, tokenizer_vocab: usize, context: usize) -> Result<ModelConfig> {
        let PresetShape { dim, layers, heads, ffn } = self.preset.unwrap_or(Preset::S).shape();
        let dim = self.dim.unwrap_or(dim);
        let heads = self.heads.unwrap_or(heads);
        if heads == 0 || !dim.is_multiple_of(heads) {
            return Err(TrainError::config(
                "model.heads",
                format!("a divisor of model.dim = {dim}"),
                heads,
                "choose dim = heads × head width, a head being 32 to 128 wide",
            ));
        }
        Ok(ModelConfig {
            vocab_size: self.vocab_size.unwrap_or(tokenizer_vocab),
            dim,
            layers: self.layers.unwrap_or(layers),
            heads,
            kv_heads: self.kv_heads.unwrap_or(heads),
            head_dim: dim / heads,
            ffn: self.ffn.unwrap_or(ffn),
            max_context: context,
            rope_theta: self.rope_theta.unwrap_or(10_000.0),
            norm_eps: self.norm_eps.unwrap_or(1e-5),
            tied: self.tied.unwrap_or(true),
            rope_scaling: self.rope_scaling.unwrap_or_default(),
            qk_norm: self.qk_norm.unwrap_or(false),
            qkv_bias: self.qkv_bias.unwrap_or(false),
            nope_layers: Vec::new(),
            sliding_window: None,
            family: None,
        }
        .exported_as(self.family))
    }

    /// A pretrained model keeps its shape: what else is asked for must agree with it.
    fn continued(&self, pretrained: &ModelConfig, context: usize) -> Result<ModelConfig> {
        let shape = self.preset.map(Preset::shape);
        let asked = [
            ("model.dim", self.dim.or(shape.map(|s| s.dim)), pretrained.dim),
            ("model.layers", self.layers.or(shape.map(|s| s.layers)), pretrained.layers),
            ("model.heads", self.heads.or(shape.map(|s| s.heads)), pretrained.heads),
            ("model.kv_heads", self.kv_heads, pretrained.kv_heads),
            ("model.ffn", self.ffn.or(shape.map(|s| s.ffn)), pretrained.ffn),
            ("model.vocab_size", self.vocab_size, pretrained.vocab_size),
        ];
        let contradiction = |key: &str, expected: String, found: String| {
            TrainError::config(
                key,
                format!("{expected}, as in the pretrained model"),
                found,
                "remove the key: with model.init the shape comes from the checkpoint",
            )
        };
        for (key, wanted, has) in asked {
            if let Some(wanted) = wanted
                && wanted != has
            {
                return Err(contradiction(key, has.to_string(), wanted.to_string()));
            }
        }
        let switches = [
            ("model.tied", self.tied, pretrained.tied),
            ("model.qk_norm", self.qk_norm, pretrained.qk_norm),
            ("model.qkv_bias", self.qkv_bias, pretrained.qkv_bias),
        ];
        for (key, wanted, has) in switches {
            if let Some(wanted) = wanted
                && wanted != has
            {
                return Err(contradiction(key, has.to_string(), wanted.to_string()));
            }
        }
        if let Some(wanted) = self.rope_scaling
            && wanted != pretrained.rope_scaling
        {
            let said = |scaling| serde_json::to_string(&scaling).unwrap_or_default();
            let (has, wanted) = (said(pretrained.rope_scaling), said(wanted));
            return Err(contradiction("model.rope_scaling", has, wanted));
        }
        let reals = [
            ("model.rope_theta", self.rope_theta, pretrained.rope_theta),
            ("model.norm_eps", self.norm_eps, pretrained.norm_eps),
        ];
        for (key, wanted, has) in reals {
            if let Some(wanted) = wanted
                && wanted != has
            {
                return Err(contradiction(key, has.to_string(), wanted.to_string()));
            }
        }
        let model =
            ModelConfig { max_context: pretrained.max_context.max(context), ..pretrained.clone() };
        Ok(match self.family {
            None => model,
            named => model.exported_as(named),
        })
    }
}

impl ModelConfig {
    /// Checks that the lengths fit together.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the config's key for the length, what it must be and what it
    /// is.
    pub fn validate(&self) -> Result<()> {
        let Some(Misfit { field, expected, found }) = self.misfit() else { return Ok(()) };
        let (key, hint) = match field {
            "max_context" => ("train.context".to_owned(), "256 to 4096 are usual"),
            "head_dim" | "heads" => (
                "model.heads".to_owned(),
                "choose dim = heads × head width, a head being 32 to 128 wide",
            ),
            "family" => (
                "model.family".to_owned(),
                "remove the key: an export then is of the family that has the model's arithmetic",
            ),
            "kv_heads" => (
                "model.kv_heads".to_owned(),
                "with kv_heads = heads every query head has its own keys",
            ),
            field => (format!("model.{field}"), "remove the key to take its default"),
        };
        Err(TrainError::config(key, expected, found, hint))
    }

    /// The first length that does not fit.
    pub(crate) fn misfit(&self) -> Option<Misfit> {
        let misfit =
            |field, expected: String, found: String| Some(Misfit { field, expected, found });
        // The largest values are beyond any machine's memory and keep every product within 64 bits.
        // Nothing is allocated for positions that no sequence has, so a file may promise any number
        // of those.
        let lengths = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("dim", self.dim, MAX_WIDTH),
            ("layers", self.layers, 1 << 12),
            ("heads", self.heads, 1 << 12),
            ("kv_heads", self.kv_heads, 1 << 12),
            ("ffn", self.ffn, MAX_WIDTH),
            ("max_context", self.max_context, u32::MAX as usize),
        ];
        for (field, length, largest) in lengths {
            if !(1..=largest).contains(&length) {
                return misfit(field, format!("1 to {largest}"), length.to_string());
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of the {} query heads", self.heads);
            return misfit("kv_heads", expected, self.kv_heads.to_string());
        }
        let widest = MAX_WIDTH / self.heads;
        if !(1..=widest).contains(&self.head_dim) || !self.head_dim.is_multiple_of(2) {
            let expected =
                format!("heads of an even width up to {widest}, since rotary positions turn pairs");
            return misfit("head_dim", expected, format!("a width of {}", self.head_dim));
        }
        let reals = [("rope_theta", self.rope_theta), ("norm_eps", self.norm_eps)];
        for (field, value) in reals {
            if !(value.is_finite() && value > 0.0) {
                return misfit(field, "a number above 0".to_owned(), value.to_string());
            }
        }
        if let Some((expected, found)) = self.rope_scaling.misfit(self.rope_theta) {
            return misfit("rope_scaling", expected, found);
        }
        if let Some(&layer) = self.nope_layers.last().filter(|layer| **layer >= self.layers) {
            return misfit("nope_layers", format!("one below {}", self.layers), layer.to_string());
        }
        if self.sliding_window == Some(0) {
            return misfit("sliding_window", "at least 1".to_owned(), "0".to_owned());
        }
        let arithmetic = self.arithmetic();
        match (Family::of(&arithmetic), self.family) {
            (Err(switch), _) => {
                let on = |other: &Switch| *other != switch && arithmetic[*other as usize];
                let others: Vec<_> =
                    Switch::ALL.into_iter().filter(on).map(Switch::field).collect();
                let expected = format!(
                    "none beside {}, since no family that transformers loads has both",
                    others.join(" and ")
                );
                misfit(switch.field(), expected, "both".to_owned())
            }
            (Ok(fits), Some(named)) => named.lacks(&arithmetic).and_then(|lack| {
                let expected = format!("`{}`, which has the model's arithmetic", fits.model_type());
                misfit("family", expected, format!("`{}`, which {lack}", named.model_type()))
            }),
            (Ok(_), None) => None,
        }
    }

    /// Which switches are on.
    fn arithmetic(&self) -> Arithmetic {
        Switch::ALL.map(|switch| match switch {
            Switch::QkNorm => self.qk_norm,
            Switch::QkvBias => self.qkv_bias,
            Switch::NopeLayers => !self.nope_layers.is_empty(),
            Switch::SlidingWindow => self.sliding_window.is_some(),
        })
    }

    /// The same model, exported as `family`; `None`: as the first family with its arithmetic.
    #[must_use]
    pub fn exported_as(mut self, family: Option<Family>) -> Self {
        // A model that is one of the family anyway is equal to one that nobody named.
        self.family = family.filter(|named| Family::of(&self.arithmetic()) != Ok(*named));
        self
    }

    /// The family that it is exported as.
    ///
    /// # Errors
    /// [`TrainError::Config`] where no family has its arithmetic, or the one it names has not.
    pub fn export_family(&self) -> Result<Family> {
        self.validate()?;
        // A model that fits together has one.
        Ok(self.family.or(Family::of(&self.arithmetic()).ok()).unwrap_or(Family::Llama))
    }

    /// The longest sequence that is computed as the model means it: within its context and within
    /// a sliding window, where it has one.
    pub fn longest(&self) -> usize {
        self.sliding_window.map_or(self.max_context, |window| window.min(self.max_context))
    }

    /// Whether a layer's queries and keys are rotated to their positions.
    pub fn rotates(&self, layer: usize) -> bool {
        !self.nope_layers.contains(&layer)
    }

    /// What the angles of positions are computed from.
    pub fn rotary(&self) -> Rotary {
        self.rope_scaling.rotary(self.head_dim, self.rope_theta)
    }

    /// Width of all query heads together, H·E.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, G·E.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// What unit tests vary, so that a new field needs its value here alone.
#[cfg(test)]
impl ModelConfig {
    /// Grouped keys (2 query heads a key head), two layers, an odd vocabulary, an untied head.
    pub(crate) fn small() -> Self {
        Self {
            vocab_size: 17,
            dim: 8,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 4, // not dim / heads
            ffn: 12,
            max_context: 6,
            rope_theta: 100.0,
            norm_eps: 1e-5,
            tied: false,
            rope_scaling: RopeScaling::Default,
            qk_norm: false,
            qkv_bias: false,
            nope_layers: Vec::new(),
            sliding_window: None,
            family: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn resolve(spec: &ModelSpec) -> Result<ModelConfig> {
        assert_eq!(spec.init_dir(Path::new("."))?, None);
        spec.resolve(4096, 128, None)
    }

    #[test]
    fn presets_are_the_documented_sizes() {
        let sizes: Vec<_> = ["xs", "s", "m", "l"]
            .iter()
            .map(|name| serde_json::from_value(serde_json::json!(name)).unwrap())
            .map(|preset| {
                resolve(&ModelSpec { preset: Some(preset), ..ModelSpec::default() }).unwrap()
            })
            .map(|m| (m.dim, m.layers, m.heads, m.ffn, m.kv_heads, m.tied))
            .collect();
        assert_eq!(
            sizes,
            [
                (64, 2, 2, 176, 2, true),
                (128, 4, 4, 352, 4, true),
                (384, 6, 6, 1024, 6, true),
                (768, 12, 12, 2048, 12, true)
            ]
        );
    }

    #[test]
    fn parameters_and_flops_by_hand() {
        // s, V = 4096, tied: embedding 4096·128 = 524,288; a layer 4·128² + 3·128·352 + 2·128 =
        // 200,960; norm 128.
        let model = resolve(&ModelSpec::default()).unwrap();
        assert_eq!(model.parameters(), 524_288 + 4 * 200_960 + 128);
        assert_eq!(model.flops_per_token(128), 6 * model.parameters() + 12 * 4 * 128 * 128);
        // An untied head adds 524,288 numbers and no arithmetic.
        let untied = resolve(&ModelSpec { tied: Some(false), ..ModelSpec::default() }).unwrap();
        assert_eq!(untied.parameters(), model.parameters() + 524_288);
        assert_eq!(untied.flops_per_token(128), model.flops_per_token(128));
        // GQA with 1 of 4 key heads saves 2·(3/4)·128² a layer.
        let grouped = resolve(&ModelSpec { kv_heads: Some(1), ..ModelSpec::default() }).unwrap();
        assert_eq!(grouped.parameters(), model.parameters() - 4 * 24_576);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_by_name() {
        let check = |key: &str, spec: ModelSpec| {
            let message = resolve(&spec).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{key}: expected")) && message.contains("\nhint: "),
                "{message}"
            );
        };
        let spec = ModelSpec::default;
        check("model.heads", ModelSpec { heads: Some(3), ..spec() });
        check("model.heads", ModelSpec { heads: Some(0), ..spec() });
        check("model.heads", ModelSpec { dim: Some(12), ..spec() }); // heads of width 3
        check("model.kv_heads", ModelSpec { kv_heads: Some(3), ..spec() });
        check("model.kv_heads", ModelSpec { kv_heads: Some(0), ..spec() });
        check("model.layers", ModelSpec { layers: Some(0), ..spec() });
        check("model.ffn", ModelSpec { ffn: Some(usize::MAX), ..spec() });
        check("model.layers", ModelSpec { layers: Some(usize::MAX), ..spec() });
        check("model.vocab_size", ModelSpec { vocab_size: Some(4095), ..spec() });
        check("model.norm_eps", ModelSpec { norm_eps: Some(0.0), ..spec() });
        check("model.rope_theta", ModelSpec { rope_theta: Some(f64::NAN), ..spec() });
        check("model.init", ModelSpec { init: Some("no/such".into()), ..spec() });
        assert!(serde_json::from_str::<ModelSpec>(r#"{"width": 3}"#).is_err());
    }

    #[test]
    fn switches_that_no_family_has_together_and_families_without_them_are_refused() {
        let refused = |spec: ModelSpec| resolve(&spec).unwrap_err().to_string();
        let spec = ModelSpec::default;
        let message = refused(ModelSpec { qk_norm: Some(true), qkv_bias: Some(true), ..spec() });
        assert!(message.starts_with("model.qkv_bias: expected none beside qk_norm"), "{message}");
        assert!(message.contains("\nhint: remove the key"), "{message}");
        let llama = ModelSpec { family: Some(Family::Llama), qk_norm: Some(true), ..spec() };
        let message = refused(llama);
        assert!(message.starts_with("model.family: expected `qwen3`"), "{message}");
        assert!(message.contains("`llama`, which has no norms of queries and keys"), "{message}");
        let qwen = ModelSpec { family: Some(Family::Qwen2), ..spec() };
        assert!(refused(qwen).contains("`qwen2`, which always has biases"));
        // A plain model is a Mistral as much as a Llama.
        let mistral = resolve(&ModelSpec { family: Some(Family::Mistral), ..spec() }).unwrap();
        assert_eq!(mistral.export_family().unwrap(), Family::Mistral);
        let named = resolve(&ModelSpec { family: Some(Family::Llama), ..spec() }).unwrap();
        assert_eq!(named, resolve(&spec()).unwrap(), "what it is anyway");
        let biased = resolve(&ModelSpec { qkv_bias: Some(true), ..spec() }).unwrap();
        assert_eq!(biased.export_family().unwrap(), Family::Qwen2);
    }

    #[test]
    fn rope_scaling_that_cannot_be_computed_is_refused_by_name() {
        let check = |json: serde_json::Value, theta: f64, expected: &str| {
            let spec = ModelSpec {
                rope_scaling: Some(serde_json::from_value(json).unwrap()),
                rope_theta: Some(theta),
                ..ModelSpec::default()
            };
            let message = resolve(&spec).unwrap_err().to_string();
            assert!(message.starts_with("model.rope_scaling: expected "), "{message}");
            assert!(message.contains(expected), "{message}");
        };
        use serde_json::json;
        check(json!({"rope_type": "linear", "factor": 0}), 1e4, "a factor above 0, found 0");
        let llama3 = |low: f64, high: f64| {
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": low,
                   "high_freq_factor": high, "original_max_position_embeddings": 64})
        };
        check(llama3(4.0, 4.0), 1e4, "a high_freq_factor above the low_freq_factor of 4");
        let yarn = |key: &str, value: f64| {
            let mut json = json!({"rope_type": "yarn", "factor": 4,
                                  "original_max_position_embeddings": 64});
            json[key] = value.into();
            json
        };
        check(yarn("beta_fast", 0.5), 1e4, "a beta_fast of at least beta_slow = 1");
        check(yarn("attention_factor", 0.0), 1e4, "a scale of queries and keys above 0");
        check(yarn("factor", 4.0), 1.0, "a rope_theta above 1");
    }

    #[test]
    fn a_pretrained_model_keeps_its_arithmetic() {
        let qwen = ModelConfig { qk_norm: true, max_context: 64, ..ModelConfig::small() };
        let resolve = |spec: ModelSpec, context| spec.resolve(17, context, Some(&qwen));
        assert_eq!(resolve(ModelSpec::default(), 8).unwrap(), qwen);
        let spec = ModelSpec { qk_norm: Some(false), ..ModelSpec::default() };
        let message = resolve(spec, 8).unwrap_err().to_string();
        assert!(
            message.contains("model.qk_norm: expected true, as in the pretrained"),
            "{message}"
        );
        let scaling = Some(RopeScaling::Linear { factor: 2.0 });
        let spec = ModelSpec { rope_scaling: scaling, ..ModelSpec::default() };
        let message = resolve(spec, 8).unwrap_err().to_string();
        assert!(message.contains(r#"expected {"rope_type":"default"}"#), "{message}");
        let spec = ModelSpec { family: Some(Family::Llama), ..ModelSpec::default() };
        assert!(resolve(spec, 8).unwrap_err().to_string().contains("no norms of queries"));
        // A window is the longest sequence that is computed.
        let mistral = ModelConfig {
            sliding_window: Some(6),
            family: Some(Family::Mistral),
            max_context: 64,
            ..ModelConfig::small()
        };
        let spec = ModelSpec::default();
        assert_eq!(spec.resolve(17, 6, Some(&mistral)).unwrap().longest(), 6);
        let message = spec.resolve(17, 7, Some(&mistral)).unwrap_err().to_string();
        assert!(message.starts_with("train.context: expected at most 6, the sliding"), "{message}");
        assert!(message.contains("found 7\nhint: "), "{message}");
    }

    #[test]
    fn what_a_plain_model_says_of_itself_has_no_new_key() {
        let json = serde_json::to_value(ModelConfig::small()).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "vocab_size",
                "dim",
                "layers",
                "heads",
                "kv_heads",
                "head_dim",
                "ffn",
                "max_context",
                "rope_theta",
                "norm_eps",
                "tied"
            ]
        );
        assert_eq!(serde_json::from_value::<ModelConfig>(json).unwrap(), ModelConfig::small());
    }

    #[test]
    fn a_hub_id_is_told_apart_from_a_missing_folder() {
        let message = |init: &str| ModelSpec { init: Some(init.into()), ..ModelSpec::default() };
        assert!(
            resolve(&message("someone/some-model"))
                .unwrap_err()
                .to_string()
                .contains("a model of the Hub is fetched by")
        );
        assert!(
            resolve(&message("./some-model")).unwrap_err().to_string().contains("export folder")
        );
    }
}
