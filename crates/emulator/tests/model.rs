//! What the emulator promises of CUDA's model: kernels that are right give what a GPU gives, in
//! every order of their threads.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_emulator::{Emulator, Memory};
use cuvee_kernels::{Argument, Device, Element, Kernel, bf16};

use Argument::{F32, Null, U32, U64};

/// Memory that holds these bytes.
fn upload(device: &Emulator, bytes: &[u8]) -> Memory {
    let memory = device.allocate(bytes.len());
    device.write(&memory, 0, bytes);
    memory
}

fn upload_f32(device: &Emulator, values: &[f32]) -> Memory {
    upload(device, &values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>())
}

fn upload_bf16(device: &Emulator, values: &[bf16]) -> Memory {
    upload(
        device,
        &values.iter().flat_map(|value| value.to_bits().to_ne_bytes()).collect::<Vec<_>>(),
    )
}

/// The first `count` f32 of a memory. The device has had no error.
fn download(device: &Emulator, memory: &Memory, count: usize) -> Vec<f32> {
    words(device, memory, count).into_iter().map(f32::from_bits).collect()
}

fn words(device: &Emulator, memory: &Memory, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; count * 4];
    device.read(memory, 0, &mut bytes);
    assert_eq!(device.status(), Ok(()));
    bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
}

fn whole(memory: &Memory) -> Argument<'_, Memory> {
    Argument::Memory(memory, 0)
}

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "sound", name }
}

/// Threads in order, and in three other orders.
fn devices() -> impl Iterator<Item = Emulator> {
    std::iter::once(Emulator::new()).chain((0..3).map(Emulator::shuffled))
}

/// Numbers between −1 and 1, the same for the same seed.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::narrow(value)).collect()
}

#[test]
fn what_is_written_before_a_barrier_is_read_after_it() {
    for device in devices() {
        for threads in [1, 7, 32, 200, 1024] {
            let input = numbers(threads * 3, 1);
            let (of_input, out) = (upload_f32(&device, &input), device.allocate(threads * 12));
            let arguments = [whole(&out), whole(&of_input)];
            device.launch(kernel("reverse"), [3, 1, 1], threads, 0, &arguments);
            let reversed: Vec<f32> =
                input.chunks(threads).flat_map(|block| block.iter().rev().copied()).collect();
            assert_eq!(download(&device, &out, threads * 3), reversed, "{threads} threads");
        }
    }
}

#[test]
fn dynamic_shared_memory_has_the_size_of_the_launch() {
    for device in devices() {
        let input = numbers(96, 2);
        let (of_input, out) = (upload_f32(&device, &input), device.allocate(96 * 4));
        let arguments = [whole(&out), whole(&of_input), U32(3)];
        device.launch(kernel("reverse_often"), [1, 1, 1], 96, 96 * 4, &arguments);
        let reversed: Vec<f32> = input.iter().rev().copied().collect();
        assert_eq!(download(&device, &out, 96), reversed);
    }
}

#[test]
fn every_thread_of_a_grid_runs_once_in_its_place() {
    for device in devices() {
        let out = device.allocate(3 * 2 * 2 * 5 * 16);
        device.launch(kernel("places"), [3, 2, 2], 5, 0, &[whole(&out)]);
        let expected: Vec<u32> =
            (0..60u32).flat_map(|i| [i / 5 % 3, i / 15 % 2, i / 30, i % 5]).collect();
        assert_eq!(words(&device, &out, 240), expected);
    }
}

#[test]
fn lanes_see_each_other_and_sums_have_one_order() {
    let input = numbers(256, 3);
    // Sums of 32 and of 256 numbers of up to 1: half a unit in the last place an addition.
    let near = |found: f32, exact: f64, count: f64| {
        assert!((f64::from(found) - exact).abs() <= count * count * f64::from(f32::EPSILON));
    };
    let mut bits = None;
    for device in devices() {
        let (of_input, out) = (upload_f32(&device, &input), device.allocate(256 * 8 * 4));
        device.launch(kernel("shuffles"), [1, 1, 1], 256, 0, &[whole(&out), whole(&of_input)]);
        let found = download(&device, &out, 256 * 8);
        for (i, row) in found.chunks_exact(8).enumerate() {
            let warp = &input[i / 32 * 32..][..32];
            let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>();
            let largest = |values: &[f32]| values.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(row[..2], [input[i ^ 5], warp[3]]);
            assert_eq!(row[2..4], [(i ^ 1) as f32, (i ^ 16) as f32 + 0.5]);
            near(row[4], sum(warp), 5.0);
            assert_eq!(row[5], largest(warp));
            near(row[6], sum(&input), 8.0);
            assert_eq!(row[7], largest(&input));
            assert_eq!(row[6].to_bits(), found[6].to_bits(), "every thread has the same bits");
        }
        let found: Vec<u32> = found.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits.get_or_insert(found.clone()), &found, "whatever the order of the threads");
    }
}

#[test]
fn whole_warps_may_end_early() {
    for device in devices() {
        let out = device.allocate(4);
        device.launch(kernel("early_end"), [1, 1, 1], 128, 0, &[whole(&out)]);
        assert_eq!(download(&device, &out, 1), [2016.0]);
    }
}

#[test]
fn ldmatrix_gives_each_lane_its_pairs_plain_and_transposed() {
    let numbers: Vec<bf16> = (0..256).map(|i| bf16::from_bits(i as u16)).collect();
    for device in devices() {
        let (input, out) = (upload_bf16(&device, &numbers), device.allocate(32 * 16));
        for transposed in [0, 1] {
            let arguments = [whole(&out), whole(&input), U32(transposed)];
            device.launch(kernel("load_matrices"), [1, 1, 1], 32, 0, &arguments);
            for (i, pair) in words(&device, &out, 128).into_iter().enumerate() {
                let (lane, matrix) = (i / 4, i % 4);
                let at = |row: usize, column: usize| (matrix * 64 + row * 8 + column) as u32;
                let (r, c) = (lane / 4, lane % 4 * 2);
                let (low, high) = match transposed {
                    0 => (at(r, c), at(r, c + 1)),
                    _ => (at(c, r), at(c + 1, r)),
                };
                assert_eq!(pair, low | high << 16, "lane {lane}, matrix {matrix}");
            }
        }
    }
}

#[test]
fn tensor_cores_fed_by_copies_and_ldmatrix_give_the_product() {
    let (rows, columns, depth) = (48, 24, 80);
    let (a, b) = (rounded(&numbers(rows * depth, 4)), rounded(&numbers(columns * depth, 5)));
    for device in devices() {
        let (of_a, of_b) = (upload_bf16(&device, &a), upload_bf16(&device, &b));
        let out = device.allocate(rows * columns * 4);
        for transposed in [false, true] {
            let arguments = [
                whole(&out),
                whole(&of_a),
                whole(&of_b),
                U32(columns as u32),
                U32(depth as u32),
                U32(transposed.into()),
            ];
            device.launch(kernel("tensor_product"), [3, 3, 1], 32, 0, &arguments);
            for (i, &found) in download(&device, &out, rows * columns).iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let right =
                    |k| if transposed { b[column * depth + k] } else { b[k * columns + column] };
                let terms = (0..depth)
                    .map(|k| f64::from(a[row * depth + k].widen()) * f64::from(right(k).widen()));
                let exact: f64 = terms.clone().sum();
                // Half a unit in the last place of a sum that no partial sum exceeds, a term.
                let size: f64 = terms.map(f64::abs).sum();
                let bound = depth as f64 * size * f64::from(f32::EPSILON) / 2.0;
                assert!((f64::from(found) - exact).abs() <= bound, "{found} {exact}");
            }
        }
    }
}

#[test]
fn arguments_of_each_kind_arrive() {
    let device = Emulator::new();
    let out = device.allocate(48);
    let arguments = [
        Argument::Memory(&out, 8),
        Null,
        U32(-5i32 as u32),
        U32(4_000_000_000),
        F32(0.1),
        U64(1 << 40),
        U32(7),
        F32(8.5),
        U64(9),
        U32(10),
    ];
    device.launch(kernel("arguments"), [1, 1, 1], 1, 0, &arguments);
    let expected = [0.0, 0.0, 1.0, -5.0, 1.0, 0.1, 1.0, 7.0, 8.5, 1.0, 10.0];
    assert_eq!(download(&device, &out, 11), expected);
}

#[test]
fn numbers_are_rounded_as_the_kernels_of_the_processor_round() {
    let device = Emulator::new();
    // Ties to either side, the largest, infinities, small ones.
    let special = [0x3f80_8000, 0x3f81_8000, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000, 1, 0x8000_0000];
    let mut input: Vec<f32> = special.map(f32::from_bits).into();
    input.extend(numbers(1000, 6));
    let n = input.len();
    let (of_input, out) = (upload_f32(&device, &input), device.allocate(n.next_multiple_of(2) * 2));
    let arguments = [whole(&out), whole(&of_input), U32(n as u32)];
    device.launch(kernel("round_to_bf16"), [n.div_ceil(256), 1, 1], 256, 0, &arguments);
    for (i, pair) in words(&device, &out, n / 2).into_iter().enumerate() {
        let signed = [input[2 * i], -input[2 * i + 1]];
        let [low, high] = signed.map(|value| u32::from(<bf16 as Element>::narrow(value).to_bits()));
        assert_eq!(pair, low | high << 16, "{signed:?}");
    }
    // NaN stays NaN, those of a GPU too, whose mantissa is all ones.
    for nan in [0x7fc0_0000, 0x7fff_ffff, 0xffff_ffff] {
        let input = upload_f32(&device, &[f32::from_bits(nan)]);
        device.launch(kernel("round_to_bf16"), [1; 3], 1, 0, &[whole(&out), whole(&input), U32(1)]);
        assert!(bf16::from_bits(words(&device, &out, 1)[0] as u16).is_nan());
    }
}

#[test]
fn vectors_are_read_and_written_whole() {
    let device = Emulator::new();
    let values = rounded(&numbers(64, 7));
    let (input, out) = (upload_bf16(&device, &values), device.allocate(128));
    device.launch(kernel("by_vectors"), [1; 3], 8, 0, &[whole(&out), whole(&input)]);
    assert_eq!(words(&device, &out, 32), words(&device, &input, 32));
}

#[test]
fn emulators_run_side_by_side() {
    std::thread::scope(|scope| {
        for seed in 0..3 {
            scope.spawn(move || {
                let device = Emulator::shuffled(seed);
                let input = numbers(256, seed as u32);
                let (of_input, out) = (upload_f32(&device, &input), device.allocate(1024));
                let arguments = [whole(&out), whole(&of_input), U32(20)];
                device.launch(kernel("reverse_often"), [1; 3], 256, 1024, &arguments);
                assert_eq!(download(&device, &out, 256), input);
            });
        }
    });
}

#[test]
fn one_emulator_serves_several_threads_in_turn() {
    let device = Emulator::new();
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let device = &device;
            scope.spawn(move || {
                let input = numbers(256, seed);
                let (of_input, out) = (upload_f32(device, &input), device.allocate(1024));
                for _ in 0..2 {
                    let arguments = [whole(&out), whole(&of_input)];
                    device.launch(kernel("reverse"), [1; 3], 256, 0, &arguments);
                    let arguments = [whole(&of_input), whole(&out)];
                    device.launch(kernel("reverse"), [1; 3], 256, 0, &arguments);
                }
                assert_eq!(download(device, &of_input, 256), input);
            });
        }
    });
}
