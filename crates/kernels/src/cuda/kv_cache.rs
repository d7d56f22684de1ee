//! Launches of `kv_cache.cu`: a layer's keys and values so far, and one token more.

use super::launch::{Typed, WARP, count, launch};
use super::memory::{Activations, Rotations, allocate, bytes};
use crate::device::{Argument, Device};
use crate::element::ElementType;
use crate::ops::Heads;

const APPEND: Typed = Typed::new("kv_cache", "cache_append_f32", "cache_append_bf16");
const STEP: Typed = Typed::new("kv_cache", "attention_step_f32", "attention_step_bf16");

/// Tokens that a cache has room for at first.
const FIRST: usize = 64;
/// Threads of a block, and the keys that it looks at together: TILE of the source.
const TILE: usize = 256;

/// One layer's keys and values of the tokens so far, `[t, G e]` each.
pub struct KvCache<D: Device> {
    store: Option<Store<D>>,
    /// t.
    tokens: usize,
}

struct Store<D: Device> {
    keys: D::Memory,
    values: D::Memory,
    /// Tokens that there is room for.
    capacity: usize,
}

// By hand: derived, it would ask that D has a default.
impl<D: Device> Default for KvCache<D> {
    fn default() -> Self {
        Self { store: None, tokens: 0 }
    }
}

impl<D: Device> KvCache<D> {
    /// With room for `more` tokens of `width` bytes each: twice as much each time, so that what is
    /// there is not copied for every token.
    fn reserve(&mut self, device: &D, more: usize, width: usize) -> &Store<D> {
        let needed = self.tokens + more;
        let store = match self.store.take() {
            Some(store) if store.capacity >= needed => store,
            old => {
                let capacity = needed.next_power_of_two().max(FIRST);
                let new = || allocate(device, capacity * width);
                let store = Store { keys: new(), values: new(), capacity };
                if let Some(old) = old.filter(|_| self.tokens > 0) {
                    device.copy(&old.keys, 0, &store.keys, 0, self.tokens * width);
                    device.copy(&old.values, 0, &store.values, 0, self.tokens * width);
                }
                store
            }
        };
        self.store.insert(store)
    }

    /// Adds the keys and values of the first rows of `qkv`.
    pub(super) fn append(
        &mut self,
        device: &D,
        element: ElementType,
        rows: usize,
        heads: Heads,
        qkv: &Activations<D>,
    ) {
        let (tokens, width) = (self.tokens, heads.kv * heads.dim);
        let store = self.reserve(device, rows, width * bytes(element));
        let arguments = [
            qkv.of(rows, heads.columns()),
            Argument::Memory(&store.keys, 0),
            Argument::Memory(&store.values, 0),
            count(qkv.stride),
            count(heads.query * heads.dim),
            count(width),
            count(tokens),
        ];
        let threads = width.next_multiple_of(WARP).min(256);
        launch(device, APPEND.of(element), [rows, 1], threads, 0, &arguments);
        self.tokens += rows;
    }

    /// The attention of one token more, in row `row` of `qkv` and `out`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn step(
        &mut self,
        device: &D,
        element: ElementType,
        row: usize,
        heads: Heads,
        rotations: Option<&Rotations<D>>,
        qkv: &Activations<D>,
        out: &Activations<D>,
    ) {
        let (tokens, e) = (self.tokens, heads.dim);
        let store = self.reserve(device, 1, heads.kv * e * bytes(element));
        let (cos, sin) = match rotations {
            Some(Rotations { cos, sin, .. }) => {
                (cos.from(tokens * (e / 2), e / 2), sin.from(tokens * (e / 2), e / 2))
            }
            None => (Argument::Null, Argument::Null),
        };
        let arguments = [
            qkv.from(row, 1, heads.columns()),
            cos,
            sin,
            Argument::Memory(&store.keys, 0),
            Argument::Memory(&store.values, 0),
            out.from(row, 1, heads.query * e),
            count(heads.query),
            count(heads.kv),
            count(e),
            count(tokens),
        ];
        // The query, the key, a tile's scores, and the sums of threads that share columns.
        let groups = TILE / e.next_multiple_of(WARP).min(TILE);
        let shared = 4 * (2 * e + TILE + groups * e);
        launch(device, STEP.of(element), [heads.query, 1], TILE, shared, &arguments);
        self.tokens += 1;
    }
}
