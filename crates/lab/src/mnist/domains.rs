//! The two domains of one seed: MNIST's training images dealt out, the second domain's labels
//! damaged.

use super::digits::{Digits, Image};
use super::mlp::CLASSES;
use super::settings::MnistSettings;
use crate::random::stream;

/// Number of domains: clean, and with random labels.
pub(super) const DOMAINS: usize = 2;

/// A domain of one seed: images and the labels it is trained on.
pub(super) struct Domain<'a> {
    pub(super) train: Vec<(&'a Image, u8)>,
    pub(super) held_out: Vec<(&'a Image, u8)>,
    pub(super) pixels: usize,
}

/// Deals the training images out to two domains and their held-out splits, and damages the second
/// one's labels unless `clean`.
pub(super) fn split<'a>(
    settings: &MnistSettings,
    digits: &'a Digits,
    seed: u64,
    clean: bool,
) -> Vec<Domain<'a>> {
    let order = stream(settings.seed, seed, "deal");
    let labels = stream(settings.seed, seed, "labels");
    let mut deck: Vec<usize> = (0..digits.images.len()).collect();
    // Fisher and Yates.
    for last in (1..deck.len()).rev() {
        deck.swap(last, order.below(last as u64, last as u64 + 1) as usize);
    }
    let mut cards = deck.into_iter();
    (0..DOMAINS)
        .map(|domain| {
            let mut deal = |count: usize| -> Vec<(&Image, u8)> {
                let card = |index: usize| {
                    let draw = labels.nested(index as u64);
                    let random = domain == 1 && !clean && draw.unit(0) < settings.random_labels;
                    let label = if random {
                        draw.below(1, CLASSES as u64) as u8
                    } else {
                        digits.labels[index]
                    };
                    (&digits.images[index], label)
                };
                cards.by_ref().take(count).map(card).collect()
            };
            Domain {
                train: deal(settings.samples),
                held_out: deal(settings.held_out),
                pixels: digits.pixels,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_share_no_image_and_only_the_second_has_random_labels() {
        let digits = Digits {
            images: (0..40).map(|i| vec![(i, 1.0)]).collect(),
            labels: vec![3; 40],
            pixels: 40,
        };
        let settings = MnistSettings {
            samples: 15,
            held_out: 5,
            random_labels: 1.0,
            ..MnistSettings::default()
        };
        let domains = split(&settings, &digits, 0, false);
        let mut seen: Vec<u16> = Vec::new();
        for domain in &domains {
            assert_eq!((domain.train.len(), domain.held_out.len()), (15, 5));
            seen.extend(domain.train.iter().chain(&domain.held_out).map(|(image, _)| image[0].0));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 40);
        assert!(domains[0].train.iter().all(|(_, label)| *label == 3));
        // All of twenty random digits are 3 once in 10²⁰.
        assert!(domains[1].train.iter().any(|(_, label)| *label != 3));
        assert!(split(&settings, &digits, 0, true)[1].train.iter().all(|(_, label)| *label == 3));
    }
}
