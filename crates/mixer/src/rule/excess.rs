//! How much a model has to learn yet of each domain, by a reference model: the excess loss of
//! DoReMi (arXiv:2305.10429).

use crate::domain::DomainId;

/// λ_i: over the tokens of domain i's sequences, the mean of max(ℓ_proxy − ℓ_ref, 0).
///
/// Each token is clipped by itself, as the paper's own code does. Clipped once a domain, tokens of
/// which the reference knows less would cancel what others have to learn yet.
///
/// `sequence_domains` has one entry a sequence; both lists of losses hold the tokens of one
/// sequence after the other, as many for each. A domain without a sequence is `None`. A loss that
/// is not a number makes its domain's excess one that is none.
pub fn excess_losses(
    domains: usize,
    sequence_domains: &[DomainId],
    proxy: &[f32],
    reference: &[f32],
) -> Vec<Option<f64>> {
    let context = (proxy.len() / sequence_domains.len().max(1)).max(1);
    let mut sums = vec![(0.0, 0_usize); domains];
    let pairs = proxy.chunks_exact(context).zip(reference.chunks_exact(context));
    for (domain, (proxy, reference)) in sequence_domains.iter().zip(pairs) {
        let Some((sum, tokens)) = sums.get_mut(domain.0) else { continue };
        for (proxy, reference) in proxy.iter().zip(reference) {
            let excess = f64::from(*proxy) - f64::from(*reference);
            // Not `max`, which would make 0 of what is not a number.
            *sum += if excess < 0.0 { 0.0 } else { excess };
        }
        *tokens += proxy.len();
    }
    sums.iter().map(|(sum, tokens)| (*tokens > 0).then(|| sum / *tokens as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_clipped_by_itself() {
        // Domain 0 is 2 above at one token and 2 below at the other: clipped once, it would be 0.
        let proxy = [3.0, 1.0, 1.5, 1.0, 2.0, 2.0];
        let reference = [1.0, 3.0, 1.0, 1.0, 3.0, 4.0];
        let found = excess_losses(4, &[0, 2, 1].map(DomainId), &proxy, &reference);
        assert_eq!(found, [Some(1.0), Some(0.0), Some(0.25), None]);
        let by_domain = (proxy[0] - reference[0] + proxy[1] - reference[1]).max(0.0);
        assert_eq!(by_domain, 0.0);
    }

    #[test]
    fn what_is_no_number_is_not_taken_for_no_excess() {
        let found = excess_losses(1, &[DomainId(0)], &[f32::NAN, 1.0], &[1.0, 1.0]);
        assert!(found[0].is_some_and(f64::is_nan), "{found:?}");
        assert_eq!(excess_losses(2, &[], &[], &[]), [None, None]);
        assert_eq!(excess_losses(1, &[DomainId(7)], &[1.0], &[0.0]), [None]);
    }
}
