//! The two losses of a regression study, as functions of z = θᵀx and y.

/// What y is, given θᵀx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// ℓ = ½ (θᵀx − y)².
    Linear,
    /// ℓ = ln(1 + e^z) − y z at z = θᵀx, y ∈ {0, 1}.
    Logistic,
}

impl Family {
    /// The study's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Logistic => "logistic",
        }
    }

    /// dℓ/dz at z = θᵀx: ∇ℓ = residual · x.
    pub(super) fn residual(self, z: f64, y: f64) -> f64 {
        match self {
            Self::Linear => z - y,
            Self::Logistic => logistic(z) - y,
        }
    }

    /// ℓ at z = θᵀx.
    pub(super) fn loss(self, z: f64, y: f64) -> f64 {
        match self {
            Self::Linear => 0.5 * (z - y) * (z - y),
            // ln(1 + e^z) without overflow.
            Self::Logistic => z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z,
        }
    }
}

/// 1/(1 + e^−z).
pub(super) fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_residual_is_the_derivative_of_the_loss(z in -30f64..30.0, y in 0u8..2) {
            // Central differences with h = 1e-4: error h²/6 |ℓ'''| (below 0.1·1e-8) and rounding
            // 1e-16·|ℓ|/h (below 1e-9).
            let (h, y) = (1e-4, f64::from(y));
            for family in [Family::Linear, Family::Logistic] {
                let slope = (family.loss(z + h, y) - family.loss(z - h, y)) / (2.0 * h);
                prop_assert!((slope - family.residual(z, y)).abs() < 1e-8, "{family:?} {slope}");
            }
        }
    }
}
