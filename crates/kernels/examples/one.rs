//! One product.
use cuvee_kernels::*; use std::time::Instant;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    let (m, n, k, which) = (a[0], a[1], a[2], a[3]);
    let at = Matrix::<bf16>::zeros(k, m); let al = Matrix::<bf16>::zeros(m, k); let x = Matrix::<bf16>::zeros(k, n);
    let mut b = Panels::<bf16>::zeros(n, k); b.pack_columns(x.data(), x.stride(), k, n);
    let mut c = Buffer::<f32>::zeros(m * n); let mut scratch = vec![];
    let mut ts = vec![];
    let s0 = Instant::now();
    while s0.elapsed().as_secs_f64() < 2. {
        let s = Instant::now();
        match which { 0 => multiply_transposed(at.data(), at.stride(), m, &b, Summed { out: &mut c, stride: n, add: true }, &mut scratch),
          1 => b.pack_columns(x.data(), x.stride(), k, n),
          2 => multiply(al.data(), al.stride(), m, &b, Summed { out: &mut c, stride: n, add: true }),
          3 => multiply(al.data(), al.stride(), m, &b, Summed { out: &mut c, stride: n, add: false }),
          _ => multiply_transposed(at.data(), at.stride(), m, &b, Summed { out: &mut c, stride: n, add: false }, &mut scratch) }
        ts.push(s.elapsed().as_secs_f64());
    }
    ts.sort_by(f64::total_cmp);
    println!("{m} {n} {k} mode {which}: median {:.0} best {:.0} GFLOP/s", 2e-9 * (m * n * k) as f64 / ts[ts.len() / 2], 2e-9 * (m * n * k) as f64 / ts[0]);
}
