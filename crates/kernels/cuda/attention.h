// What the kernels of attention share: the place of a block, tiles of bf16 in shared memory, and
// products of them on tensor cores.
//
// **Tiles.** A tile is some rows of one head, E wide, row after row in shared memory; E is the
// head's width e rounded up, and what is beyond e is zero, so that it adds nothing to any sum. A
// row's *chunks* of 8 numbers, 16 bytes, lie in an order that turns from row to row: the 8 rows of
// a matrix that ldmatrix reads then lie in 8 different eighths of the 128 bytes that shared memory
// gives at once. The same holds for the chunks that fragments are stored to.
//
// **Fragments.** A warp multiplies 16 × 16 by 16 × 8 at once: `mma_16816`, whose comment in
// device.h says which lane holds what. Lane l has r = l / 4 and k = 2 (l % 4), and of a result
// [16, 8]
//
//     c[0], c[1] = row r, columns k and k + 1        c[2], c[3] = row r + 8, the same columns
//
// so that a row's numbers lie in 4 neighbouring lanes: sums over it are two shuffles. Of a left
// operand [16, 16] it has
//
//     a[0] = row r, columns k, k + 1                 a[1] = row r + 8, the same columns
//     a[2] = row r, columns k + 8, k + 9             a[3] = row r + 8, the same columns
//
// Two results [16, 8] side by side, rounded, are therefore a left operand [16, 16] as they stand:
// what a softmax gives goes from one product to the next without leaving its lane.
#pragma once

#include "device.h"

namespace attention {

// Threads of a block on tensor cores: 4 warps, each with its own rows.
constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;
constexpr float LOG2_E = 1.4426950408889634f;

// 2^x in one instruction; what is below 2^-126 is 0.
__device__ __forceinline__ float quick_exp2(float x) {
#ifdef CUVEE_ON_CPU
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

// Which tile of which head of which sequence a block has. Blocks of one head follow each other:
// what they share is in the cache.
struct Place {
  int tile, head, sequence;
};

__device__ __forceinline__ Place place_of_block(int tiles, int heads) {
  const int block = (int)blockIdx.x;
  return {block % tiles, block / tiles % heads, block / tiles / heads};
}

// The first key that the query at `row` of its sequence sees, of whose rows `documents` says where
// their documents begin; with none of them it is the sequence's first.
__device__ __forceinline__ int first_key(const u32* documents, int row) {
  return documents ? (int)documents[row] : 0;
}

// A block that has some queries of one head: rows `first` to `end` of their sequence.
template <class T>
struct QueryBlock {
  int first, end;
  const T *queries, *keys, *values;  // The first of the block's, and of its sequence's for its head.
  const u32* documents;              // Its sequence's.
  u64 sequence;                      // Its sequence's first row, among all.
  int column;                        // Its head's first column, among all heads'.
  u64 numbers;                       // Where the numbers of its head's queries begin.
};

// That of this block. The last queries have the most to do: they come first.
template <int ROWS, class T>
__device__ __forceinline__ QueryBlock<T> query_block(const T* qkv, int stride, const u32* documents,
                                                     int context, int query_heads, int kv_heads,
                                                     int e) {
  const int tiles = (context + ROWS - 1) / ROWS;
  const Place place = place_of_block(tiles, query_heads);
  const int kv_head = place.head / (query_heads / kv_heads);
  QueryBlock<T> block;
  block.first = (tiles - 1 - place.tile) * ROWS;
  block.end = smaller(block.first + ROWS, context);
  block.sequence = (u64)place.sequence * context;
  block.column = place.head * e;
  qkv += block.sequence * stride;
  block.queries = qkv + (u64)block.first * stride + block.column;
  block.keys = qkv + (query_heads + kv_head) * e;
  block.values = block.keys + kv_heads * e;
  block.documents = documents ? documents + block.sequence : nullptr;
  block.numbers = ((u64)place.sequence * query_heads + place.head) * context;
  return block;
}

// The queries of a warp, 16 M rows of their sequence from `first` on, and which keys they see.
template <int M>
struct Sight {
  int first, end;    // None where the sequence ends before them: `end` is 0.
  int begin, every;  // Keys before `begin` none sees; those from `every` on all, within documents.
  int begins[M][2];  // The first key of query 16 m + 8 half + r.

  __device__ __forceinline__ Sight(const u32* documents, int first, int context)
      : first(first), end(first < context ? smaller(first + 16 * M, context) : 0) {
    begin = end ? first_key(documents, first) : 0;
    every = end ? first_key(documents, end - 1) : 0;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int query = first + 16 * m + 8 * half + lane_id() / 4;
        begins[m][half] = query < context ? first_key(documents, query) : 0;
      }
  }

  // Whether some query sees some key from `key` to `next`; whether all see all of them.
  __device__ __forceinline__ bool some(int key, int next) const {
    return key < end && next > begin;
  }
  __device__ __forceinline__ bool all(int key, int next) const {
    return next - 1 <= first && key >= every;
  }

  // `value` in the place of what is of a key, from `key` on, that the query does not see.
  template <int N>
  __device__ __forceinline__ void hide(float (&scores)[M][N][4], int key, float value) const {
    const int r = lane_id() / 4, k = lane_id() % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int of = key + 8 * n + k + i % 2, query = first + 16 * m + 8 * (i / 2) + r;
          if (of > query || of < begins[m][i / 2]) scores[m][n][i] = value;
        }
  }
};

// 16 bytes at once.
struct alignas(16) Chunk {
  u32 words[4];
};

// Where in a tile the chunk lies that is `right` chunks, 0 or 1, to the right of `column`, a
// multiple of 16 or with no `right` of 8, in row `row`: its 8 chunks of 8 are turned by row % 8.
//
// What depends on the lane comes before the constants: a kernel has few of those.
template <int E>
__device__ __forceinline__ int at(int row, int column, int right = 0) {
  static_assert(E % 64 == 0, "a row begins on a multiple of 128 bytes");
  const int chunk = column / 8;
  return row * E + ((row % 8 ^ right) ^ chunk % 8) * 8 + chunk / 8 * 64;
}

// Begins to bring `ROWS` rows, e wide and `stride` apart, into a tile: zeros from row `rows` on and
// beyond e, a multiple of 8. All threads of the block call it.
//
// A thread has one column of chunks, every 8 rows or a multiple of that, where a row's turn is the
// same again: so the places are one place and constants.
template <int ROWS, int E>
__device__ __forceinline__ void begin_tile(bf16* tile, const bf16* source, int stride, int rows,
                                           int e) {
  constexpr int APART = THREADS / (E / 8);
  static_assert(THREADS % (E / 8) == 0 && APART % 8 == 0 && ROWS % APART == 0, "as above");
  const int row = (int)threadIdx.x / (E / 8), column = (int)threadIdx.x % (E / 8) * 8;
  const int valid = column < e ? rows - row : 0;
  bf16* to = tile + at<E>(row, column);
  const bf16* from = source + (u64)row * stride + column;
#pragma unroll
  for (int i = 0; i < ROWS; i += APART, from += APART * stride)
    copy_async_16(to + i * E, from, i < valid);
}

// Tiles of ROWS rows of two matrices, keys and values or queries and d_out, that a block goes
// through: while it works with one pair, the next one comes.
template <int ROWS, int E>
struct Pairs {
  bf16* tiles;  // Two of the first matrix, by turns, and two of the second.

  __device__ __forceinline__ bf16* first(int turn) const { return tiles + turn * ROWS * E; }
  __device__ __forceinline__ bf16* second(int turn) const { return first(turn + 2); }
  __device__ __forceinline__ bf16* end() const { return first(4); }

  // Begins to bring their rows from `row` on, of `rows` in all, e wide.
  __device__ __forceinline__ void begin(int turn, const bf16* of_first, int first_stride,
                                        const bf16* of_second, int second_stride, int row,
                                        int rows, int e) const {
    begin_tile<ROWS, E>(first(turn), of_first + (u64)row * first_stride, first_stride, rows - row,
                        e);
    begin_tile<ROWS, E>(second(turn), of_second + (u64)row * second_stride, second_stride,
                        rows - row, e);
    copy_commit();
  }

  // Waits for those that come: they are there for all then, and nobody reads the others any more.
  __device__ __forceinline__ void wait() const {
    copy_wait<0>();
    __syncthreads();
  }
};

// The left operand [16, 16] that begins at `row` and `column` of a tile.
//
// The four matrices of ldmatrix are its upper left, lower left, upper right and lower right
// quarter, which are a[0] to a[3].
template <int E>
__device__ __forceinline__ void load_left(u32 (&a)[4], const bf16* tile, int row, int column) {
  ldmatrix_x4(a, tile + at<E>(row + lane_id() % 16, column, lane_id() / 16));
}

// Two right operands [16, 8] of a product with a tile's rows, Σ over columns: their columns are the
// tile's rows `row` to `row + 8` and on to `row + 16`, and their rows its columns from `column` on.
//
// b[0] of lane l is rows k, k + 1 of column r, which of the tile are two neighbours of row r, as
// ldmatrix gives them. Quarters: upper left and upper right are the first operand's b[0] and b[1],
// the lower ones the second's.
template <int E>
__device__ __forceinline__ void load_rows(u32 (&first)[2], u32 (&second)[2], const bf16* tile,
                                          int row, int column) {
  u32 r[4];
  ldmatrix_x4(r, tile + at<E>(row + lane_id() / 16 * 8 + lane_id() % 8, column, lane_id() / 8 % 2));
  first[0] = r[0], first[1] = r[1], second[0] = r[2], second[1] = r[3];
}

// Two right operands [16, 8] of a product with a tile, Σ over its rows: they are 16 of its rows
// from `row` on, and 8 of its columns from `column` on, and the next 8.
//
// Here two rows of one column make a register: ldmatrix transposes. Quarters: upper left and lower
// left are the first operand's b[0] and b[1], the right ones the second's.
template <int E>
__device__ __forceinline__ void load_columns(u32 (&first)[2], u32 (&second)[2], const bf16* tile,
                                             int row, int column) {
  u32 r[4];
  ldmatrix_x4_transposed(r, tile + at<E>(row + lane_id() % 16, column, lane_id() / 16));
  first[0] = r[0], first[1] = r[1], second[0] = r[2], second[1] = r[3];
}

// The left operands of a warp: its own 16 rows of a tile, or M times 16. They are kept in registers
// where there are enough, or read again each time.
template <int E, int M, bool KEPT>
struct Rows {
  const bf16* tile;
  int row;
  u32 kept[KEPT ? M : 1][KEPT ? E / 16 : 1][4];

  // Once the tile is there.
  __device__ __forceinline__ void keep() {
    if constexpr (KEPT) {
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int k = 0; k < E / 16; k++) load_left<E>(kept[m][k], tile, row + 16 * m, 16 * k);
    }
  }

  __device__ __forceinline__ void left(u32 (&a)[4], int m, int k) const {
    if constexpr (KEPT) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = kept[m][k][i];
    } else {
      load_left<E>(a, tile, row + 16 * m, 16 * k);
    }
  }
};

// result[m, n] ← Σ over columns of the warp's rows m and a tile's 8 N rows n: 16 M × 8 N numbers.
// result[m][n] is rows 16 m to 16 m + 16, columns 8 n to 8 n + 8.
template <int E, int M, int N, bool KEPT>
__device__ __forceinline__ void multiply_rows(float (&result)[M][N][4],
                                              const Rows<E, M, KEPT>& rows, const bf16* tile) {
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) result[m][n][i] = 0;
#pragma unroll
  for (int k = 0; k < E / 16; k++) {
    u32 a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) rows.left(a[m], m, k);
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
      u32 first[2], second[2];
      load_rows<E>(first, second, tile, 16 * n, 16 * k);
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma_16816(result[m][2 * n], a[m], first);
        mma_16816(result[m][2 * n + 1], a[m], second);
      }
    }
  }
}

// `sums` += the product of `left`, 16 M × 8 N numbers as multiply_rows leaves them, rounded, and a
// tile: Σ over its 8 N rows.
template <int E, int M, int N>
__device__ __forceinline__ void add_product(float (&sums)[M][E / 8][4],
                                            const float (&left)[M][N][4], const bf16* tile) {
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    u32 a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int i = 0; i < 4; i++)  // Columns k, k + 1 of rows r and r + 8; then k + 8, k + 9.
        a[m][i] = narrow_pair(left[m][2 * k + i / 2][i % 2 * 2],
                              left[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < E / 16; n++) {
      u32 first[2], second[2];
      load_columns<E>(first, second, tile, 16 * k, 16 * n);
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma_16816(sums[m][2 * n], a[m], first);
        mma_16816(sums[m][2 * n + 1], a[m], second);
      }
    }
  }
}

// A warp's result [16 M, E], each row times its factor and rounded, to `rows` rows of `out`,
// `stride` apart and e wide. factor[m][0] is that of row 16 m + r, factor[m][1] of 16 m + r + 8.
//
// It goes through the warp's own rows of `tile`, which nobody reads any more, so that whole chunks
// are written.
template <int E, int M>
__device__ __forceinline__ void store_rows(const float (&result)[M][E / 8][4],
                                           const float (&factor)[M][2], bf16* tile, int row,
                                           bf16* out, int stride, int rows, int e) {
  const int r = lane_id() / 4, k = lane_id() % 4 * 2;
  warp_sync();
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int n = 0; n < E / 8; n++) {
        const float x = result[m][n][2 * half] * factor[m][half];
        const float y = result[m][n][2 * half + 1] * factor[m][half];
        bf16* place = tile + at<E>(row + 16 * m + 8 * half + r, 8 * n) + k;
        *reinterpret_cast<u32*>(place) = narrow_pair(x, y);
      }
  warp_sync();
  for (int i = lane_id(); i < 16 * M * E / 8; i += 32) {
    const int of = i / (E / 8), column = i % (E / 8) * 8;
    if (of < rows && column < e) {
      *reinterpret_cast<Chunk*>(out + (u64)of * stride + column) =
          *reinterpret_cast<const Chunk*>(tile + at<E>(row + of, column));
    }
  }
}

}  // namespace attention
