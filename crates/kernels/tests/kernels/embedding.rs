//! Rows of a table by token, and their gradient.

use candle_core::{Device, Tensor};
use cuvee_kernels::{Backend, Buffer, Cpu};

use crate::tools::{U32, close, filled, flat, gradients, random, variable, wide};

#[test]
fn embeddings_match_autograd_both_ways() {
    let kernels = Cpu::<f32>::new(1).unwrap();
    // Tokens that come once, thrice and never, the first and the last of the vocabulary among them.
    for (v, d, ids) in
        [(97, 33, vec![0u32, 96, 5, 5, 41, 5, 0]), (1, 1, vec![0]), (3, 16, vec![2; 9])]
    {
        let n = ids.len();
        let mut table = Buffer::zeros(v * d);
        table.copy_from_slice(&random(v * d, 1));
        let mut x = Buffer::zeros((n + 1) * d); // room for a row more
        kernels.embed(&table, d, &ids, &mut x);
        let variable = variable(&wide(&table), &[v, d]);
        let index = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
        let expected = variable.index_select(&index, 0).unwrap();
        assert_eq!(wide(&x[..n * d]), flat(&expected));
        assert!(x[n * d..].iter().all(|&x| x == 0.0));

        let mut dx = Buffer::zeros(n * d);
        dx.copy_from_slice(&random(n * d, 2));
        let before = random(v * d, 3);
        let gradient = filled(v, d, &before);
        kernels.embed_backward(d, &ids, &dx, &gradient, 1);
        let gradient = gradient.read(0..v * d);
        let [expected] = gradients(&expected, &wide(&dx), [&variable]);
        let expected: Vec<f64> =
            expected.iter().zip(&before).map(|(new, &old)| new + f64::from(old)).collect();
        // At most n additions of numbers of at most 1.
        close("dE", &wide(&gradient), &expected, |_| (n * (n + 1)) as f64 * U32);
    }
}
