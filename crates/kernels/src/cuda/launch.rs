//! How kernels are launched.

use crate::device::{Argument, Device, Kernel};
use crate::element::ElementType;

/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// A kernel that there is for each element type.
#[derive(Clone, Copy)]
pub(super) struct Typed {
    f32: Kernel,
    bf16: Kernel,
}

impl Typed {
    /// The two of a file.
    pub(super) const fn new(file: &'static str, f32: &'static str, bf16: &'static str) -> Self {
        Self { f32: Kernel { file, name: f32 }, bf16: Kernel { file, name: bf16 } }
    }

    /// That of `element`.
    pub(super) fn of(self, element: ElementType) -> Kernel {
        match element {
            ElementType::F32 => self.f32,
            ElementType::Bf16 => self.bf16,
        }
    }
}

/// Blocks and the threads of each, whole warps and at most `most`, that together are as many as
/// `items` or a few more.
pub(super) fn spread(items: usize, most: usize) -> (usize, usize) {
    let blocks = items.div_ceil(most);
    (blocks, items.div_ceil(blocks.max(1)).next_multiple_of(WARP))
}

/// Runs a kernel in `grid` blocks, if there are any.
pub(super) fn launch<D: Device>(
    device: &D,
    kernel: Kernel,
    [x, y]: [usize; 2],
    threads: usize,
    shared: usize,
    arguments: &[Argument<'_, D::Memory>],
) {
    if x * y > 0 {
        device.launch(kernel, [x, y, 1], threads, shared, arguments);
    }
}

/// Runs a kernel of which each thread takes four of `items`.
pub(super) fn launch_by_fours<D: Device>(
    device: &D,
    kernel: Kernel,
    items: usize,
    arguments: &[Argument<'_, D::Memory>],
) {
    let (blocks, threads) = spread(items.div_ceil(4), 256);
    launch(device, kernel, [blocks, 1], threads, 0, arguments);
}

/// A number of things, as kernels' `int`.
///
/// # Panics
/// If it is beyond that.
pub(super) fn count<'a, M>(n: usize) -> Argument<'a, M> {
    assert!(i32::try_from(n).is_ok(), "{n} of something on the device");
    Argument::U32(n as u32)
}

/// Whether, as kernels' `int`.
pub(super) fn flag<'a, M>(yes: bool) -> Argument<'a, M> {
    Argument::U32(u32::from(yes))
}
