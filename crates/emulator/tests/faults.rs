//! What the emulator promises to find: each fault is an error that names the kernel and says what
//! it did, and the first error stays.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_emulator::{Emulator, Memory};
use cuvee_kernels::{Argument, Device, ElementType, Kernel, Operand, Product};

use Argument::{Null, U32};

/// What a kernel of `faulty.cu` is found to do: the device's message. The first argument is memory
/// of 1,024 bytes; `{name}` begins the message.
fn fault_on(
    device: &Emulator,
    name: &'static str,
    blocks: usize,
    threads: usize,
    arguments: Vec<Argument<'_, Memory>>,
) -> String {
    let out = device.allocate(1024);
    let mut all = vec![Argument::Memory(&out, 0)];
    all.extend(arguments);
    device.launch(Kernel { file: "faulty", name }, [blocks, 1, 1], threads, 256, &all);
    let error = device.status().unwrap_err();
    let start = format!("kernel `{name}` of faulty.cu: ");
    assert!(error.hint.starts_with("the fault is in the kernel"), "{}", error.hint);
    error.message.strip_prefix(&start).expect(&error.message).to_string()
}

/// As [`fault_on`], with the threads in order.
fn fault(
    name: &'static str,
    blocks: usize,
    threads: usize,
    more: Vec<Argument<'_, Memory>>,
) -> String {
    fault_on(&Emulator::new(), name, blocks, threads, more)
}

/// That a fault is found in every order of the threads: one of these.
#[track_caller]
fn always(name: &'static str, blocks: usize, threads: usize, expected: &[&str]) {
    for seed in [None, Some(0), Some(1), Some(2), Some(3)] {
        let device = seed.map_or_else(Emulator::new, Emulator::shuffled);
        let found = fault_on(&device, name, blocks, threads, vec![]);
        assert!(expected.iter().any(|one| found.contains(one)), "{seed:?}: {found}");
    }
}

#[test]
fn races_within_a_block_are_found_in_every_order() {
    let race = ["has written since the last barrier", "has read since the last barrier"];
    let of_variables = [race[0], race[1], "which nothing in this block has written"];
    always("race", 1, 256, &of_variables);
    always("race_of_rounds", 1, 256, &race);
    always("race_of_lanes", 1, 32, &of_variables);
    always("race_of_warps", 1, 64, &of_variables);
    always("race_of_writers", 1, 64, &race);
}

#[test]
fn a_race_is_named_with_both_threads() {
    assert_eq!(
        fault("race_of_rounds", 1, 64, vec![]),
        "thread 0 of block (0, 0, 0) writes 4 bytes of a __shared__ variable, which thread 63 has \
         read since the last barrier"
    );
}

#[test]
fn threads_in_another_order_err_in_another_place() {
    let first = |device: Emulator| fault_on(&device, "race_of_writers", 1, 64, vec![]);
    assert!(first(Emulator::new()).starts_with("thread 1 of"));
    let found: Vec<String> = (0..4).map(|seed| first(Emulator::shuffled(seed))).collect();
    assert!(found.iter().any(|one| one != &found[0]), "{found:?}");
    assert_eq!(found[2], first(Emulator::shuffled(2)), "a seed is one order");
}

#[test]
fn races_between_blocks_are_found() {
    always("race_of_blocks", 2, 64, &["which another block has written"]);
    always("blocks_in_a_row", 2, 64, &["which another block has written"]);
}

#[test]
fn accesses_outside_of_memory_are_found_and_named() {
    assert_eq!(
        fault("write_at", 1, 64, vec![U32(256)]),
        "thread 40 of block (0, 0, 0) writes 4 bytes at byte 1024 of the memory of argument 1, \
         which has 1024"
    );
    let before = fault("write_at", 1, 64, vec![U32(-1i32 as u32)]);
    assert!(before.contains("writes 4 bytes 4 before the memory of argument 1"), "{before}");
    let far = fault("write_at", 1, 64, vec![U32(1 << 30)]);
    assert!(far.contains("outside of all memory that the launch was given"), "{far}");
    let device = Emulator::new();
    let input = device.allocate(200);
    let read = fault_on(&device, "read_at", 1, 64, vec![Argument::Memory(&input, 100), U32(25)]);
    assert!(read.contains("reads 4 bytes at byte 200 of the memory of argument 2"), "{read}");
    let null = fault("read_at", 1, 64, vec![Null, U32(2)]);
    assert!(null.contains("reads at an address that is null"), "{null}");
}

#[test]
fn accesses_outside_of_shared_memory_are_found() {
    let device = Emulator::new();
    let kernel = Kernel { file: "faulty", name: "write_shared_at" };
    device.launch(kernel, [1; 3], 64, 256, &[U32(0)]);
    assert_eq!(device.status(), Ok(()));
    device.launch(kernel, [1; 3], 64, 256, &[U32(1)]);
    let message = device.status().unwrap_err().message;
    let expected =
        "thread 63 of block (0, 0, 0) writes 4 bytes at byte 256 of dynamic shared memory";
    assert!(message.contains(expected), "{message}");
    let index = fault("index_too_large", 1, 32, vec![U32(1)]);
    assert!(index.contains("thread 31 of block (0, 0, 0) uses index 32 of an array"), "{index}");
}

#[test]
fn shared_memory_that_the_block_has_not_written_is_found() {
    assert_eq!(
        fault("unwritten", 2, 32, vec![]),
        "thread 0 of block (1, 0, 0) reads 4 bytes of a __shared__ variable, which nothing in this \
         block has written"
    );
    let dynamic = fault("unwritten_dynamic", 1, 32, vec![]);
    assert!(dynamic.contains("dynamic shared memory, at byte 0, which nothing"), "{dynamic}");
}

#[test]
fn vectors_on_no_multiple_of_their_size_are_found() {
    let device = Emulator::new();
    let input = device.allocate(1024);
    let found = fault_on(&device, "misaligned", 1, 32, vec![Argument::Memory(&input, 0)]);
    assert!(found.contains("no multiple of the alignment of the type"), "{found}");
}

#[test]
fn copies_come_when_they_are_committed_and_waited_for_and_not_before() {
    for (commits, waits) in [(0, 0), (1, 0), (0, 2), (1, 1)] {
        let device = Emulator::new();
        let input = device.allocate(1024);
        let more = vec![Argument::Memory(&input, 0), U32(commits), U32(waits)];
        let found = fault_on(&device, "copy_too_early", 1, 32, more);
        assert!(found.contains("which a copy has not brought yet"), "{found}");
    }
    let device = Emulator::new();
    let (input, out) = (device.allocate(512), device.allocate(512));
    device.write(&input, 0, &[7; 512]);
    let kernel = Kernel { file: "faulty", name: "copy_too_early" };
    let arguments = [Argument::Memory(&out, 0), Argument::Memory(&input, 0), U32(1), U32(2)];
    device.launch(kernel, [1; 3], 32, 0, &arguments);
    let mut bytes = [0; 512];
    device.read(&out, 0, &mut bytes);
    assert_eq!((device.status(), bytes), (Ok(()), [7; 512]));
}

#[test]
fn threads_that_wait_for_ever_are_found() {
    let shuffle = ["has ended, while lanes of its warp wait", "for which its warp has"];
    always("half_a_warp", 1, 64, &shuffle);
    always("half_a_block", 1, 64, &["waits for ever"]);
    let part = fault("race_of_lanes", 1, 31, vec![]);
    assert!(part.contains("is at warp_sum, for which its warp has 31 lanes, not 32"), "{part}");
}

#[test]
fn integers_without_a_result_and_a_trap_are_found() {
    let found = fault("int_too_small", 1, 32, vec![U32(70_000)]);
    assert!(found.contains("has a product that is too large for its type"), "{found}");
    let found = fault("divide", 1, 32, vec![U32(0)]);
    assert!(found.contains("divides an integer by zero"), "{found}");
    let device = Emulator::new();
    device.launch(Kernel { file: "faulty", name: "trap" }, [1; 3], 32, 0, &[]);
    assert!(device.status().unwrap_err().message.contains("stops itself"));
}

#[test]
fn a_launch_that_cannot_be_is_refused() {
    let one = |name, grid, threads, shared, arguments: &[Argument<'_, Memory>]| {
        let device = Emulator::new();
        device.launch(Kernel { file: "faulty", name }, grid, threads, shared, arguments);
        device.status().unwrap_err().message
    };
    let unknown = one("rase", [1; 3], 32, 0, &[]);
    let expected = "`faulty.cu` has no kernel `rase`; it has `race`, `race_of_rounds`";
    assert!(unknown.starts_with(expected), "{unknown}");
    let device = Emulator::new();
    device.launch(Kernel { file: "nowhere", name: "race" }, [1; 3], 32, 0, &[]);
    let message = device.status().unwrap_err().message;
    assert_eq!(message, "there is no source `nowhere.cu` with a kernel `race`");
    let of_race = |what: &str| format!("kernel `race` of faulty.cu expects {what}");
    assert_eq!(one("race", [1; 3], 32, 0, &[]), of_race("1 arguments, not 0"));
    let kind = one("race", [1; 3], 32, 0, &[U32(1)]);
    assert_eq!(kind, of_race("an address as argument 1, not an int or u32"));
    let most = one("race", [1; 3], 257, 0, &[Null]);
    assert_eq!(most, of_race("1 to 256 threads a block, not 257"));
    assert!(one("race", [1, 0, 1], 32, 0, &[Null]).contains("blocks, not [1, 0, 1]"));
    assert!(one("race", [1, 70_000, 1], 32, 0, &[Null]).contains("blocks, not [1, 70000, 1]"));
    assert!(one("race", [1; 3], 32, 300_000, &[Null]).contains("shared memory, not 300000"));
}

#[test]
fn the_first_error_stays_and_nothing_happens_after_it() {
    let device = Emulator::new().limited(1000);
    let kept = device.allocate(600);
    device.write(&kept, 0, &[1; 600]);
    drop(device.allocate(400));
    let refused = device.allocate(401);
    let error = device.status().unwrap_err();
    let message = "there is no memory for 401 bytes more on the emulator";
    assert_eq!(error.to_string(), format!("{message}\nhint: {}", error.hint));
    device.write(&refused, 0, &[1; 401]);
    device.launch(Kernel { file: "nowhere", name: "none" }, [1; 3], 1, 0, &[]);
    let mut bytes = [7; 4];
    device.read(&kept, 0, &mut bytes);
    assert_eq!((bytes, device.status()), ([0; 4], Err(error)));
}

#[test]
fn memory_is_zero_at_first_and_calls_stay_within_it() {
    let device = Emulator::new();
    let (a, b) = (device.allocate(10), device.allocate(10));
    device.write(&a, 2, &[1, 2, 3, 4]);
    device.copy(&a, 2, &b, 5, 4);
    device.zero(&b, 6, 1);
    let mut bytes = [9; 10];
    device.read(&b, 0, &mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0, 0, 1, 0, 3, 4, 0]);
    device.copy(&a, 2, &b, 7, 4);
    assert!(device.status().unwrap_err().message.contains("4 bytes from byte 7 of a memory of 10"));
    let other = Emulator::new();
    other.zero(&a, 0, 1);
    assert!(other.status().unwrap_err().message.contains("memory of another device"));
}

#[test]
fn a_matrix_outside_of_its_memory_is_refused() {
    let device = Emulator::new();
    let memory = device.allocate(4 * (3 * 5 + 4));
    let operand = |at, stride| {
        let (memory, element, transposed) = (&memory, ElementType::F32, false);
        Operand { memory, at, stride, element, transposed }
    };
    let multiply = |left| {
        let out = operand(0, 5);
        let right = operand(0, 4);
        let product = Product { left, right, rows: 4, columns: 4, depth: 4, out, add: None };
        device.product(&product);
        device.status()
    };
    assert_eq!(multiply(operand(0, 5)), Ok(()));
    let message = multiply(operand(4, 5)).unwrap_err().message;
    assert_eq!(message, "76 bytes from byte 4 of a memory of 76 bytes");
}
