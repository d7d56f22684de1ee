//! Launches of `embedding.cu`.

use super::launch::{count, flag, launch, spread};
use super::memory::{Floats, Gradient, Ids, Scratch};
use crate::device::{Argument, Device, Kernel};

const FORWARD: Kernel = Kernel { file: "embedding", name: "embed" };
const BACKWARD: Kernel = Kernel { file: "embedding", name: "embed_backward" };
const JOIN: Kernel = Kernel { file: "embedding", name: "embed_join" };

/// Rows that one block adds up, at most. Some tokens are a twentieth of a text.
const PIECE: usize = 64;

/// Said of a piece whose sum is one of several of its token.
const PARTIAL: u32 = 1 << 31;

/// x ← rows `ids` of `table`.
pub(super) fn forward<D: Device>(
    device: &D,
    table: &Floats<D>,
    d: usize,
    ids: &Ids<D>,
    x: &Floats<D>,
) {
    ids.check_below(table.len / d);
    let rows = ids.values().len();
    let (columns, threads) = spread(d.div_ceil(4), 256);
    let arguments = [table.of(0), ids.argument(), x.of(rows * d), count(d)];
    launch(device, FORWARD, [rows, columns], threads, 0, &arguments);
}

/// Rows `ids` of the gradient += the rows of dx; where it does not `add`, all of it is 0 before.
pub(super) fn backward<D: Device>(
    device: &D,
    d: usize,
    ids: &Ids<D>,
    dx: &Floats<D>,
    gradient: &Gradient<D>,
    add: bool,
    scratch: &mut Scratch<D>,
) {
    ids.check_below(gradient.rows);
    if !add {
        device.zero(&gradient.floats.memory, 0, 4 * gradient.len());
    }
    let rows = ids.values().len();
    if rows == 0 {
        return;
    }
    let Pieces { order, starts, places, firsts, joined } = Pieces::of(ids.values(), gradient.rows);
    // All tables go to the device at once, and what the pieces of several add up to lies behind.
    let tables = [&order, &starts, &places, &firsts, &joined];
    let mut at = [0; 6];
    for (index, table) in tables.iter().enumerate() {
        at[index + 1] = at[index] + 4 * table.len();
    }
    let [order_at, starts_at, places_at, firsts_at, joined_at, end] = at;
    let partial_at = end.next_multiple_of(16);
    let partial = firsts.last().copied().unwrap_or(0) as usize;
    let memory = scratch.fit(device, partial_at + 4 * partial * d);
    device.write(memory, 0, bytemuck::cast_slice(&tables.map(Vec::as_slice).concat()));
    let from = |at| Argument::Memory(memory, at);
    let (columns, threads) = spread(d.div_ceil(4), 256);
    let arguments = [
        dx.of(rows * d),
        from(order_at),
        from(starts_at),
        from(places_at),
        gradient.floats.of(0),
        from(partial_at),
        count(d),
        flag(add),
    ];
    launch(device, BACKWARD, [places.len(), columns], threads, 0, &arguments);
    let arguments = [
        from(partial_at),
        from(firsts_at),
        from(joined_at),
        gradient.floats.of(0),
        count(d),
        flag(add),
    ];
    launch(device, JOIN, [joined.len(), columns], threads, 0, &arguments);
}

/// The rows sorted by token, keeping their order, and cut into pieces of one token each.
struct Pieces {
    /// Rows, by token.
    order: Vec<u32>,
    /// Where in `order` each piece begins, and the end.
    starts: Vec<u32>,
    /// Of each piece its token if it is the only one of it, or else where its sum goes among the
    /// partial ones, with [`PARTIAL`].
    places: Vec<u32>,
    /// Of each token with several pieces the first of its partial sums, and the end.
    firsts: Vec<u32>,
    /// Those tokens.
    joined: Vec<u32>,
}

impl Pieces {
    /// Of rows with these tokens, all below `v`.
    fn of(ids: &[u32], v: usize) -> Self {
        // Where the rows of each token begin, which then moves on to where they end.
        let mut next = vec![0u32; v + 1];
        ids.iter().for_each(|&id| next[id as usize + 1] += 1);
        for token in 0..v {
            next[token + 1] += next[token];
        }
        let mut order = vec![0; ids.len()];
        for (row, &id) in (0..).zip(ids) {
            order[next[id as usize] as usize] = row;
            next[id as usize] += 1;
        }
        let (mut starts, mut places) = (Vec::new(), Vec::new());
        let (mut firsts, mut joined) = (Vec::new(), Vec::new());
        let (mut from, mut partial) = (0, 0);
        for (token, &to) in (0..).zip(&next[..v]) {
            let several = to - from > PIECE as u32;
            if several {
                firsts.push(partial);
                joined.push(token);
            }
            for start in (from..to).step_by(PIECE) {
                starts.push(start);
                places.push(if several { PARTIAL | partial } else { token });
                partial += u32::from(several);
            }
            from = to;
        }
        starts.push(from);
        firsts.push(partial);
        Self { order, starts, places, firsts, joined }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_piece_of_its_token_and_in_order() {
        // Tokens that come never, once, as often as a piece holds, and more often.
        let often = |id: u32, times: usize| std::iter::repeat_n(id, times);
        let ids: Vec<u32> = [3, 6, 3]
            .into_iter()
            .chain(often(5, 2 * PIECE + 1))
            .chain([3])
            .chain(often(2, PIECE))
            .chain(often(6, PIECE))
            .collect();
        let Pieces { order, starts, places, firsts, joined } = Pieces::of(&ids, 8);
        let mut tokens = Vec::new();
        for (piece, &place) in places.iter().enumerate() {
            let rows = &order[starts[piece] as usize..starts[piece + 1] as usize];
            let token = ids[rows[0] as usize];
            assert!(rows.len() <= PIECE && rows.is_sorted());
            assert!(rows.iter().all(|&row| ids[row as usize] == token));
            if place & PARTIAL == 0 {
                assert_eq!(place, token);
            } else {
                let partial = place & !PARTIAL;
                let index = firsts.partition_point(|&first| first <= partial) - 1;
                assert_eq!(joined[index], token);
            }
            tokens.push(token);
        }
        assert_eq!(tokens, [2, 3, 5, 5, 5, 6, 6]);
        assert_eq!((firsts, joined), (vec![0, 3, 5], vec![5, 6]));
        let mut all = order;
        all.sort_unstable();
        assert!(all.into_iter().eq(0..ids.len() as u32));
    }
}
