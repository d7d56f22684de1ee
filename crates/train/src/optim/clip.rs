//! Clipping by the global norm.

/// What gradients of global norm `norm` are multiplied by so that it is at most `clip`; 0 never
/// clips (Pascanu et al., 2013).
pub fn clip_scale(norm: f64, clip: f64) -> f64 {
    if clip > 0.0 && norm > clip { clip / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_bounds_the_norm() {
        // 5 → 1, one factor for all parameters: the direction is kept.
        assert_eq!(clip_scale(5.0, 1.0), 0.2);
        assert_eq!(clip_scale(5.0, 5.0), 1.0);
        assert_eq!(clip_scale(5.0, 0.0), 1.0);
    }
}
