//! Matrix product speed.
use cuvee_kernels::*;
use std::time::Instant;
fn bench<E: Element>(name: &str, m: usize, n: usize, k: usize)
where
    Panels<E>: Pack,
{
    let mut a = Matrix::<E>::zeros(m, k);
    let mut x = Matrix::<E>::zeros(k, n);
    let at = Matrix::<E>::zeros(k, m);
    for (i, v) in a.data_mut().iter_mut().enumerate() {
        *v = E::narrow((i % 7) as f32)
    }
    for (i, v) in x.data_mut().iter_mut().enumerate() {
        *v = E::narrow((i % 5) as f32)
    }
    let mut b = Panels::<E>::zeros(n, k);
    b.pack_columns(x.data(), x.stride(), k, n);
    let mut c = vec![0f32; m * n];
    let mut e = Matrix::<E>::zeros(m, n);
    let mut scratch = vec![];
    let es = e.stride();
    let mut t = [f64::MAX; 3];
    for _ in 0..(4e9 / (2. * (m * n * k) as f64)).max(5.) as usize {
        let s = Instant::now();
        multiply(a.data(), a.stride(), m, &b, Rounded { out: e.data_mut(), stride: es });
        t[0] = t[0].min(s.elapsed().as_secs_f64());
        let s = Instant::now();
        multiply(a.data(), a.stride(), m, &b, Summed { out: &mut c, stride: n, add: true });
        t[1] = t[1].min(s.elapsed().as_secs_f64());
        let s = Instant::now();
        b.pack_columns(x.data(), x.stride(), k, n);
        multiply_transposed(
            at.data(),
            at.stride(),
            m,
            &b,
            Summed { out: &mut c, stride: n, add: true },
            &mut scratch,
        );
        t[2] = t[2].min(s.elapsed().as_secs_f64());
    }
    let (mut p, mut r) = (f64::MAX, f64::MAX);
    let w = vec![1f32; n * k];
    for _ in 0..5 {
        let s = Instant::now();
        b.pack_columns(x.data(), x.stride(), k, n);
        p = p.min(s.elapsed().as_secs_f64());
        let s = Instant::now();
        Pack::go(&mut b, &w, k, n);
        r = r.min(s.elapsed().as_secs_f64());
    }
    println!("pack columns {:.2} rows {:.2} ns/element", 1e9 * p / (n * k) as f64, 1e9 * r / (n * k) as f64);
    println!(
        "{name} m{m} n{n} k{k}: store {:.0} add {:.0} transposed+pack {:.0} GFLOP/s",
        2e-9 * (m * n * k) as f64 / t[0],
        2e-9 * (m * n * k) as f64 / t[1],
        2e-9 * (m * n * k) as f64 / t[2]
    );
}
fn main() {
    for (m, n, k) in [
        (256, 384, 128),
        (256, 704, 128),
        (256, 128, 352),
        (256, 4096, 128),
        (512, 1152, 384),
        (512, 2048, 384),
        (512, 384, 1024),
        (512, 16384, 384),
        (512, 384, 16384),
        (384, 128, 256),
        (4096, 128, 256),
        (16384, 384, 512),
        (2048, 384, 512),
    ] {
        bench::<bf16>("bf16", m, n, k);
        if std::env::args().len() > 1 {
            bench::<f32>("f32", m, n, k);
        }
    }
}

trait Pack {
    fn go(&mut self, w: &[f32], k: usize, n: usize);
}
impl Pack for Panels<bf16> {
    fn go(&mut self, w: &[f32], k: usize, n: usize) {
        self.pack_rows(w, k, n, k)
    }
}
impl Pack for Panels<f32> {
    fn go(&mut self, w: &[f32], k: usize, n: usize) {
        self.pack_rows(w, k, n, k)
    }
}
