//! What goes to a device's memory and comes back; and a device that has failed.

use cuvee_emulator::Emulator;
use cuvee_kernels::{Backend, Cuda, ElementType};

use crate::tools::{Case, floats, found, gradient, ids, random, wide};

struct Ways;

impl Case<4> for Ways {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 4] {
        let mut numbers = k.floats(9);
        k.write(&mut numbers, 3, &random(4, 1));
        k.write(&mut numbers, 9, &[]);
        // Ids that become fewer, and more than there was room for.
        let table = floats(k, &random(12, 2));
        let mut ids = ids(k, &[3, 1]);
        let mut rows = |values: &[u32]| {
            let mut x = k.floats(3 * 3);
            k.write_ids(values, &mut ids);
            k.embed(&table, 3, &ids, &mut x);
            k.read(&x, 0..9)
        };
        let (one, three) = (rows(&[2]), rows(&[0, 3, 0]));
        let sum = gradient(k, 1, 6, &random(6, 3));
        [k.read(&numbers, 0..9), one, three, k.read_gradient(&sum, 2..5)]
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let [numbers, one, three, part] = found(&Ways, ElementType::F32);
    let (values, table) = (wide(&random(4, 1)), wide(&random(12, 2)));
    let zeros = [0.0; 9];
    numbers.exactly("numbers", &[&zeros[..3], &values[..], &zeros[..2]].concat());
    one.exactly("one row", &[&table[6..9], &zeros[..6]].concat());
    three.exactly("three rows", &[&table[..3], &table[9..], &table[..3]].concat());
    part.exactly("part of a gradient", &wide(&random(6, 3))[2..5]);
}

#[test]
fn after_the_first_error_nothing_is_done_and_zeros_are_read() {
    let k = Cuda::new(Emulator::new().limited(4096), ElementType::Bf16);
    let mut small = k.floats(16);
    k.write(&mut small, 0, &[1.0; 16]);
    assert!(k.status().is_ok());
    let large = k.floats(1 << 20);
    let first = k.status().unwrap_err();
    // Kernels, products and sums with memory that is not there.
    let gain = k.floats(4);
    let (mut y, mut scale) = (k.activations(2, 4), k.floats(2));
    k.norm(2, &large, &gain, 1e-5, &mut y, &mut scale);
    let mut gradient = k.gradient(3, 4);
    k.linear_gradient(
        2,
        &k.activations(2, 3),
        &y,
        &gradient,
        0,
        &mut crate::tools::workspace(&k, 2, 3, 4),
    );
    assert_eq!(k.reduce(&mut [vec![&mut gradient]]), 0.0);
    assert_eq!(k.read(&small, 0..16), [0.0; 16]);
    assert_eq!(k.status(), Err(first));
}
