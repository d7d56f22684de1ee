//! A perceptron with one hidden layer of ReLUs, by hand: sparse images in, logits and per-sample
//! gradients out.
//!
//! A sample's gradient is never formed. Its outer-product factors are kept: with activations a (x
//! or h, and 1 for the bias) and output gradients δ of a layer, ⟨∇_j, ∇_k⟩ = Σ_layers (a_j·a_k +
//! 1)(δ_j·δ_k) exactly, which gives norms, means and variances of whole gradients from small Gram
//! matrices (Goodfellow, *Efficient per-example gradient computations*, 2015). Cost: O(non-zero
//! pixels · hidden) a sample; O(non-zero pixels + hidden) an inner product.

use super::digits::Image;
use crate::linalg::{axpy, dot};
use crate::random::{normals, stream};

/// Number of digits.
pub(super) const CLASSES: usize = 10;

/// Parameters; `w1` is [pixels][hidden], `w2` is [hidden][10].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mlp {
    w1: Vec<f64>,
    b1: Vec<f64>,
    w2: Vec<f64>,
    b2: Vec<f64>,
}

/// One sample's activations and output gradients.
#[derive(Clone, Debug)]
pub(super) struct Factors<'a> {
    image: &'a Image,
    hidden: Vec<f64>,
    delta1: Vec<f64>,
    delta2: [f64; CLASSES],
}

impl Mlp {
    /// Normal values of variance 2/fan-in (He and others, 2015); biases 0.
    pub(super) fn new(seed: u64, index: u64, pixels: usize, hidden: usize) -> Self {
        Self {
            w1: normals(&stream(seed, index, "w1"), pixels * hidden, 2.0 / pixels as f64),
            b1: vec![0.0; hidden],
            w2: normals(&stream(seed, index, "w2"), hidden * CLASSES, 2.0 / hidden as f64),
            b2: vec![0.0; CLASSES],
        }
    }

    /// Hidden activations and logits.
    fn forward(&self, image: &Image) -> (Vec<f64>, [f64; CLASSES]) {
        let width = self.b1.len();
        let mut hidden = self.b1.clone();
        for (pixel, value) in image {
            let row = usize::from(*pixel) * width;
            axpy(&mut hidden, *value, &self.w1[row..row + width]);
        }
        let mut logits = [0.0; CLASSES];
        logits.copy_from_slice(&self.b2);
        for (h, row) in hidden.iter_mut().zip(self.w2.chunks_exact(CLASSES)) {
            *h = h.max(0.0);
            axpy(&mut logits, *h, row);
        }
        (hidden, logits)
    }

    /// Cross-entropy of `label`, nats.
    pub(super) fn loss(&self, image: &Image, label: u8) -> f64 {
        let logits = self.forward(image).1;
        let largest = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
        largest + sum.ln() - logits[usize::from(label)]
    }

    /// The likeliest digit; the smaller of equals.
    pub(super) fn predict(&self, image: &Image) -> u8 {
        let logits = self.forward(image).1;
        let mut best = 0;
        for (class, logit) in (0u8..).zip(logits) {
            if logit > logits[usize::from(best)] {
                best = class;
            }
        }
        best
    }

    /// Factors of ∇ℓ at one sample.
    pub(super) fn factors<'a>(&self, image: &'a Image, label: u8) -> Factors<'a> {
        let (hidden, logits) = self.forward(image);
        let largest = logits.iter().copied().fold(f64::MIN, f64::max);
        let mut delta2 = logits.map(|l| (l - largest).exp());
        let sum: f64 = delta2.iter().sum();
        delta2.iter_mut().for_each(|p| *p /= sum);
        delta2[usize::from(label)] -= 1.0;
        let rows = self.w2.chunks_exact(CLASSES);
        let delta1 =
            hidden.iter().zip(rows).map(|(h, row)| if *h > 0.0 { dot(row, &delta2) } else { 0.0 });
        let delta1 = delta1.collect();
        Factors { image, hidden, delta1, delta2 }
    }

    /// θ ← θ + scale·∇ℓ.
    pub(super) fn add(&mut self, scale: f64, gradient: &Factors) {
        let width = self.b1.len();
        for (pixel, value) in gradient.image {
            let row = usize::from(*pixel) * width;
            axpy(&mut self.w1[row..row + width], scale * value, &gradient.delta1);
        }
        axpy(&mut self.b1, scale, &gradient.delta1);
        for (h, row) in gradient.hidden.iter().zip(self.w2.chunks_exact_mut(CLASSES)) {
            axpy(row, scale * h, &gradient.delta2);
        }
        axpy(&mut self.b2, scale, &gradient.delta2);
    }
}

/// ⟨∇_j, ∇_k⟩ of all pairs, [n][n].
pub(super) fn gram(factors: &[Factors], pixels: usize) -> Vec<f64> {
    let n = factors.len();
    let (mut gram, mut dense) = (vec![0.0; n * n], vec![0.0; pixels]);
    for (j, first) in factors.iter().enumerate() {
        for (pixel, value) in first.image {
            dense[usize::from(*pixel)] = *value;
        }
        for (k, second) in factors.iter().enumerate().take(j + 1) {
            let pixels: f64 =
                second.image.iter().map(|(pixel, value)| value * dense[usize::from(*pixel)]).sum();
            let first_layer = (pixels + 1.0) * dot(&first.delta1, &second.delta1);
            let second_layer =
                (dot(&first.hidden, &second.hidden) + 1.0) * dot(&first.delta2, &second.delta2);
            gram[j * n + k] = first_layer + second_layer;
            gram[k * n + j] = first_layer + second_layer;
        }
        for (pixel, _) in first.image {
            dense[usize::from(*pixel)] = 0.0;
        }
    }
    gram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (Mlp, Vec<Image>) {
        let images =
            vec![vec![(0, 0.5), (3, 1.0)], vec![(1, 0.2), (3, 0.7), (4, 0.9)], vec![(2, 1.0)]];
        (Mlp::new(3, 0, 5, 7), images)
    }

    /// Every parameter, for derivatives by difference.
    fn parameters(mlp: &mut Mlp) -> Vec<&mut f64> {
        mlp.w1.iter_mut().chain(&mut mlp.b1).chain(&mut mlp.w2).chain(&mut mlp.b2).collect()
    }

    /// ∇ℓ, formed by adding it to nothing.
    fn formed(mlp: &Mlp, factors: &Factors) -> Vec<f64> {
        let mut zero = mlp.clone();
        parameters(&mut zero).into_iter().for_each(|p| *p = 0.0);
        zero.add(1.0, factors);
        parameters(&mut zero).into_iter().map(|p| *p).collect()
    }

    #[test]
    fn gradients_are_the_derivatives_of_the_loss() {
        let (mlp, images) = setup();
        let gradient = formed(&mlp, &mlp.factors(&images[1], 4));
        // Central differences: h² ℓ'''/6 ~ 1e-12 and rounding 1e-16/h = 1e-10; a margin of a
        // hundred.
        let h = 1e-6;
        for (i, expected) in gradient.iter().enumerate() {
            let at = |offset: f64| {
                let mut moved = mlp.clone();
                *parameters(&mut moved)[i] += offset;
                moved.loss(&images[1], 4)
            };
            assert!(((at(h) - at(-h)) / (2.0 * h) - expected).abs() < 1e-8, "parameter {i}");
        }
    }

    #[test]
    fn the_gram_matrix_holds_the_inner_products_of_whole_gradients() {
        let (mlp, images) = setup();
        let factors: Vec<Factors> =
            images.iter().zip([4, 0, 9]).map(|(image, y)| mlp.factors(image, y)).collect();
        let whole: Vec<Vec<f64>> = factors.iter().map(|f| formed(&mlp, f)).collect();
        let gram = gram(&factors, 5);
        for (j, first) in whole.iter().enumerate() {
            for (k, second) in whole.iter().enumerate() {
                assert!((gram[j * 3 + k] - dot(first, second)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn prediction_is_the_digit_of_least_loss() {
        let (mlp, images) = setup();
        for image in &images {
            let best = (0..10).min_by(|a, b| mlp.loss(image, *a).total_cmp(&mlp.loss(image, *b)));
            assert_eq!(Some(mlp.predict(image)), best);
        }
    }
}
