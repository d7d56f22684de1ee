//! Cases that run on both backends, their inputs and comparisons.

use cuvee_emulator::Emulator;
use cuvee_kernels::{Backend, Cpu, Cuda, Element, ElementType, Heads, bf16};
use cuvee_testkit::close;
pub use cuvee_testkit::{EXP, U32, random};

/// Both element types.
pub const ELEMENTS: [ElementType; 2] = [ElementType::F32, ElementType::Bf16];

/// Largest relative error of rounding an f32 to an element.
pub fn unit(element: ElementType) -> f64 {
    match element {
        ElementType::F32 => 0.0,
        ElementType::Bf16 => 1.0 / 256.0,
    }
}

/// An f32 rounded to an element.
pub fn rounded(element: ElementType, x: f32) -> f64 {
    f64::from(match element {
        ElementType::F32 => x,
        ElementType::Bf16 => <bf16 as Element>::narrow(x).widen(),
    })
}

/// All of them.
pub fn all_rounded(element: ElementType, values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| rounded(element, x)).collect()
}

/// The numbers in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// What kernels make of some inputs, on any backend.
pub trait Case<const N: usize> {
    /// The results, each a list of numbers.
    fn run<K: Backend>(&self, kernels: &K) -> [Vec<f32>; N];
}

/// One result of a case on both backends.
pub struct Found {
    pub cpu: Vec<f64>,
    pub device: Vec<f64>,
}

/// Runs a case on both, on the device in several orders of its threads.
#[track_caller]
pub fn found<const N: usize>(case: &impl Case<N>, element: ElementType) -> [Found; N] {
    found_on(case, element, |device| device)
}

/// The same with a backend that is set up first.
#[track_caller]
pub fn found_on<const N: usize>(
    case: &impl Case<N>,
    element: ElementType,
    set_up: impl Fn(Cuda<Emulator>) -> Cuda<Emulator>,
) -> [Found; N] {
    let cpu = match element {
        ElementType::F32 => case.run(&Cpu::<f32>::new(1).unwrap()),
        ElementType::Bf16 => case.run(&Cpu::<bf16>::new(1).unwrap()),
    };
    let on = |emulator: Emulator| {
        let kernels = set_up(Cuda::new(emulator, element));
        let results = case.run(&kernels);
        if let Err(error) = kernels.status() {
            panic!("{error}");
        }
        results
    };
    let device = on(Emulator::new());
    let bits = |results: &[Vec<f32>; N]| -> Vec<Vec<u32>> {
        results.iter().map(|result| result.iter().map(|x| x.to_bits()).collect()).collect()
    };
    for seed in [1, 2] {
        let shuffled = on(Emulator::shuffled(seed));
        assert!(bits(&shuffled) == bits(&device), "other bits in the order of seed {seed}");
    }
    let mut device = device.into_iter();
    cpu.map(|cpu| Found { cpu: wide(&cpu), device: wide(&device.next().unwrap()) })
}

impl Found {
    /// Both are within a bound of what is expected, element by element.
    #[track_caller]
    pub fn close(&self, what: &str, expected: &[f64], bound: impl Fn(usize) -> f64) {
        close(&format!("{what} on the device"), &self.device, expected, &bound);
        close(&format!("{what} on the processor"), &self.cpu, expected, &bound);
    }

    /// Both are within a bound of each other, element by element.
    #[track_caller]
    pub fn agree(&self, what: &str, bound: impl Fn(usize) -> f64) {
        close(what, &self.device, &self.cpu, bound);
    }

    /// Both are exactly this.
    #[track_caller]
    pub fn exactly(&self, what: &str, expected: &[f64]) {
        self.close(what, expected, |_| 0.0);
    }
}

/// f32 numbers on a backend.
pub fn floats<K: Backend>(k: &K, values: &[f32]) -> K::Floats {
    let mut floats = k.floats(values.len());
    k.write(&mut floats, 0, values);
    floats
}

/// Whole numbers on a backend.
pub fn ids<K: Backend>(k: &K, values: &[u32]) -> K::Ids {
    let mut ids = K::Ids::default();
    k.write_ids(values, &mut ids);
    ids
}

/// A parameter `[o, i]`, packed.
pub fn matrix<K: Backend>(k: &K, o: usize, i: usize, values: &[f32]) -> K::Matrix {
    let mut matrix = k.matrix(o, i);
    k.pack(&floats(k, values), &mut matrix);
    matrix
}

/// A gradient `[o, i]` after its first turn, which left `values`.
pub fn gradient<K: Backend>(k: &K, o: usize, i: usize, values: &[f32]) -> K::Gradient {
    let gradient = k.gradient(o, i);
    k.begin_gradient(&gradient, 1);
    k.gain_gradient(1, &floats(k, values), &gradient, 0);
    gradient
}

/// Activations `[rows, columns]`, with room for `extra` rows more: those that the backward pass of
/// a norm rounds, which adds nothing where the gradient is zero.
pub fn activations<K: Backend>(
    k: &K,
    rows: usize,
    columns: usize,
    values: &[f32],
    extra: usize,
) -> K::Activations {
    let mut rounded = k.activations(rows + extra, columns);
    let zeros = |len| k.floats(len);
    k.norm_backward(
        rows,
        rows,
        &zeros(rows * columns),
        &zeros(columns),
        &zeros(rows),
        &zeros(rows * columns),
        false,
        &mut floats(k, values),
        &mut rounded,
        &mut zeros(columns),
    );
    rounded
}

/// What activations hold, exactly: their product with the unit matrix. Of a row with a NaN all is
/// one.
pub fn read<K: Backend>(k: &K, x: &K::Activations, rows: usize, columns: usize) -> Vec<f32> {
    let mut one = vec![0.0; columns * columns];
    (0..columns).for_each(|i| one[i * columns + i] = 1.0);
    let mut y = k.floats(rows * columns);
    k.linear_floats(rows, x, &matrix(k, columns, columns, &one), &mut y);
    k.read(&y, 0..rows * columns)
}

/// A workspace for what is tested here.
pub fn workspace<K: Backend>(k: &K, rows: usize, v: usize, widest: usize) -> K::Workspace {
    k.workspace(rows, 1, Heads { query: 1, kv: 1, dim: 2 }, v, widest, true)
}
