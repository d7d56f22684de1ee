// Causal attention and its gradient by plain multiply-adds: for f32, and for bf16 with heads that
// the kernels on tensor cores do not take. Heads may be of any width.
//
// The scheme is that of attention.cu and attention_backward.cu, whose comments say what is
// computed: a block has a tile of queries, or of keys, goes through tiles of the others, and adds
// to nothing that is another block's. What differs:
//
// A tile is 64 rows, and a block has 16 × 16 threads. Of every product [64, 64] thread (y, x) has
// rows y + 16 i and columns x + 16 j, i and j from 0 to 3: a row belongs to 16 neighbouring lanes.
// Scores sum over a head's width 16 columns at a time, which are brought to shared memory in
// between. Of a result, [64, e], a block has 64 columns (`blockIdx.y` says which): wider heads
// compute their scores once for each 64.
#include "attention.h"

namespace attention_plain {

using attention::Place;
using attention::QueryBlock;
using attention::first_key;
using attention::place_of_block;
using attention::query_block;
using attention::smaller;

constexpr int THREADS = 256;
constexpr int SIDE = 64;   // Rows of a tile, and columns of a result.
constexpr int DEPTH = 16;  // Columns that are summed over at once.
// Rows in shared memory are an odd number of words apart: 16 rows lie in 16 banks.
constexpr int DEPTH_APART = DEPTH + 1;
constexpr int SIDE_APART = SIDE + 1;

struct Shared {
  float left[SIDE * DEPTH_APART];
  float right[SIDE * DEPTH_APART];
  // The left operand of a sum over a tile's rows, [64, 64], and 64 columns of the tile.
  float weights[SIDE * SIDE_APART];
  float tile[SIDE * SIDE_APART];
};

typedef float Part[4][4];

__device__ __forceinline__ int thread_y() { return (int)threadIdx.x / 16; }
__device__ __forceinline__ int thread_x() { return (int)threadIdx.x % 16; }

__device__ __forceinline__ void zero(Part& part) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) part[i][j] = 0;
}

// `to` ← 64 rows of `COLUMNS` columns from `from` on, zeros beyond `rows` and `columns`.
template <int COLUMNS, class E>
__device__ __forceinline__ void load(float* to, const E* from, int stride, int rows, int columns) {
#pragma unroll 4
  for (int i = (int)threadIdx.x; i < SIDE * COLUMNS; i += THREADS) {
    const int row = i / COLUMNS, column = i % COLUMNS;
    const bool valid = row < rows && column < columns;
    to[row * (COLUMNS + 1) + column] = valid ? widen(from[(u64)row * stride + column]) : 0;
  }
}

// `scores` ← the products of `left`'s rows and `right`'s, e wide.
template <class E>
__device__ __forceinline__ void multiply_rows(Part& scores, Shared& shared, const E* left,
                                              int left_stride, int left_rows, const E* right,
                                              int right_stride, int right_rows, int e) {
  zero(scores);
  for (int column = 0; column < e; column += DEPTH) {
    __syncthreads();  // What was there has been read.
    load<DEPTH>(shared.left, left + column, left_stride, left_rows, e - column);
    load<DEPTH>(shared.right, right + column, right_stride, right_rows, e - column);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      float of_left[4], of_right[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        of_left[i] = shared.left[(thread_y() + 16 * i) * DEPTH_APART + k];
        of_right[i] = shared.right[(thread_x() + 16 * i) * DEPTH_APART + k];
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) scores[i][j] += of_left[i] * of_right[j];
    }
  }
}

// `sums` += `weights` · 64 columns of a tile of `rows` rows.
template <class E>
__device__ __forceinline__ void add_product(Part& sums, Shared& shared, const Part& weights,
                                            const E* tile, int stride, int rows, int columns) {
  __syncthreads();  // What was there has been read.
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
      shared.weights[(thread_y() + 16 * i) * SIDE_APART + thread_x() + 16 * j] = weights[i][j];
  load<SIDE>(shared.tile, tile, stride, rows, columns);
  __syncthreads();
#pragma unroll 4
  for (int k = 0; k < SIDE; k++) {
    float of_weights[4], of_tile[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      of_weights[i] = shared.weights[(thread_y() + 16 * i) * SIDE_APART + k];
      of_tile[i] = shared.tile[k * SIDE_APART + thread_x() + 16 * i];
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) sums[i][j] += of_weights[i] * of_tile[j];
  }
}

// `out` ← the block's columns of `rows` rows, times `factor`, rounded.
template <class E>
__device__ __forceinline__ void store(const Part& result, const float (&factor)[4], E* out,
                                      int stride, int rows, int columns) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = thread_y() + 16 * i, column = thread_x() + 16 * j;
      if (row < rows && column < columns)
        out[(u64)row * stride + column] = narrow<E>(result[i][j] * factor[i]);
    }
}

template <class E>
__device__ __forceinline__ void forward(const E* qkv, int stride, E* out, int out_stride,
                                        float* log_sums, const u32* documents, int context,
                                        int query_heads, int kv_heads, int e, float scale) {
  __shared__ Shared shared;
  const QueryBlock<E> block =
      query_block<SIDE>(qkv, stride, documents, context, query_heads, kv_heads, e);
  const int first = block.first, rows = block.end - first, from = (int)blockIdx.y * SIDE;
  Part result;
  zero(result);
  float largest[4], sum[4];
  int begins[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int query = first + thread_y() + 16 * i;
    largest[i] = -INFINITY, sum[i] = 0;
    begins[i] = query < context ? first_key(block.documents, query) : 0;
  }
  for (int key = first_key(block.documents, first) / SIDE * SIDE; key < first + rows; key += SIDE) {
    const int key_rows = smaller(SIDE, context - key);
    Part p;
    const u64 at = (u64)key * stride;
    multiply_rows(p, shared, block.queries, stride, rows, block.keys + at, stride, key_rows, e);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float top = largest[i];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int of = key + thread_x() + 16 * j;
        const bool seen = of <= first + thread_y() + 16 * i && of >= begins[i];
        p[i][j] = seen ? p[i][j] * scale : -INFINITY;
        top = fmaxf(top, p[i][j]);
      }
#pragma unroll
      for (int lane = 1; lane < 16; lane *= 2) top = fmaxf(top, shfl_xor(top, lane));
      const float shift = top == -INFINITY ? 0 : top;
      const float shrink = expf(largest[i] - shift);
      largest[i] = top;
      sum[i] *= shrink;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        p[i][j] = expf(p[i][j] - shift);
        sum[i] += p[i][j];
        result[i][j] *= shrink;
      }
    }
    add_product(result, shared, p, block.values + at + from, stride, key_rows, e - from);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int lane = 1; lane < 16; lane *= 2) sum[i] += shfl_xor(sum[i], lane);
    const int query = first + thread_y() + 16 * i;
    if (from == 0 && thread_x() == 0 && query < context) {
      const float top = largest[i] == -INFINITY ? 0 : largest[i];
      log_sums[block.numbers + query] = top + logf(sum[i]);
    }
    sum[i] = 1 / sum[i];
  }
  out += (block.sequence + first) * out_stride + block.column + from;
  store(result, sum, out, out_stride, rows, e - from);
}

// dk and dv of 64 keys: scores are transposed, a row a key.
template <class E>
__device__ __forceinline__ void by_keys(const E* qkv, E* d_qkv, int stride, const E* d_out,
                                        int out_stride, const float* log_sums, const float* deltas,
                                        const u32* documents, int context, int query_heads,
                                        int kv_heads, int e, float scale) {
  __shared__ Shared shared;
  const Place place = place_of_block((context + SIDE - 1) / SIDE, kv_heads);
  const int repeats = query_heads / kv_heads;
  const u64 sequence = (u64)place.sequence * context;
  const int from = (int)blockIdx.y * SIDE;
  qkv += sequence * stride;
  d_out += sequence * out_stride;
  if (documents) documents += sequence;

  const int first = place.tile * SIDE, rows = smaller(SIDE, context - first);
  const u64 to_keys = (sequence + first) * stride + (query_heads + place.head) * e;
  const E* keys = qkv + (u64)first * stride + (query_heads + place.head) * e;
  const E* values = keys + kv_heads * e;
  Part d_keys, d_values;
  zero(d_keys);
  zero(d_values);
  for (int head = place.head * repeats; head < (place.head + 1) * repeats; head++) {
    const u64 numbers = ((u64)place.sequence * query_heads + head) * context;
    for (int at = first; at < context; at += SIDE) {
      if (first_key(documents, at) >= first + rows) break;  // Later documents' queries.
      const int query_rows = smaller(SIDE, context - at);
      const E* queries = qkv + (u64)at * stride + head * e;
      const E* gradients = d_out + (u64)at * out_stride + head * e;
      Part p, ds;
      multiply_rows(p, shared, keys, stride, rows, queries, stride, query_rows, e);
      multiply_rows(ds, shared, values, stride, rows, gradients, out_stride, query_rows, e);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int query = at + thread_x() + 16 * j;
        const bool valid = query < context;
        const float log_sum = valid ? log_sums[numbers + query] : 0;
        const float delta = valid ? deltas[numbers + query] : 0;
        const int begin = valid ? first_key(documents, query) : 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int key = first + thread_y() + 16 * i;
          const bool seen = valid && key <= query && key >= begin;
          p[i][j] = seen ? expf(p[i][j] * scale - log_sum) : 0;
          ds[i][j] = seen ? p[i][j] * (ds[i][j] - delta) : 0;
        }
      }
      add_product(d_values, shared, p, gradients + from, out_stride, query_rows, e - from);
      add_product(d_keys, shared, ds, queries + from, stride, query_rows, e - from);
    }
  }
  const float scales[4] = {scale, scale, scale, scale}, ones[4] = {1, 1, 1, 1};
  d_qkv += to_keys + from;
  store(d_keys, scales, d_qkv, stride, rows, e - from);
  store(d_values, ones, d_qkv + kv_heads * e, stride, rows, e - from);
}

// dq of 64 queries.
template <class E>
__device__ __forceinline__ void by_queries(const E* qkv, E* d_qkv, int stride, const E* d_out,
                                           int out_stride, const float* log_sums,
                                           const float* deltas, const u32* documents, int context,
                                           int query_heads, int kv_heads, int e, float scale) {
  __shared__ Shared shared;
  const QueryBlock<E> block =
      query_block<SIDE>(qkv, stride, documents, context, query_heads, kv_heads, e);
  const int first = block.first, rows = block.end - first, from = (int)blockIdx.y * SIDE;
  const E* gradients = d_out + (block.sequence + first) * out_stride + block.column;
  Part result;
  zero(result);
  float log_sum[4], delta[4];
  int begins[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int query = first + thread_y() + 16 * i;
    const bool valid = query < context;
    log_sum[i] = valid ? log_sums[block.numbers + query] : 0;
    delta[i] = valid ? deltas[block.numbers + query] : 0;
    begins[i] = valid ? first_key(block.documents, query) : 0;
  }
  for (int key = first_key(block.documents, first) / SIDE * SIDE; key < first + rows; key += SIDE) {
    const int key_rows = smaller(SIDE, context - key);
    const u64 at = (u64)key * stride;
    Part p, ds;
    multiply_rows(p, shared, block.queries, stride, rows, block.keys + at, stride, key_rows, e);
    multiply_rows(ds, shared, gradients, out_stride, rows, block.values + at, stride, key_rows, e);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int of = key + thread_x() + 16 * j;
        const bool seen = of <= first + thread_y() + 16 * i && of >= begins[i];
        ds[i][j] = seen ? expf(p[i][j] * scale - log_sum[i]) * (ds[i][j] - delta[i]) : 0;
      }
    add_product(result, shared, ds, block.keys + at + from, stride, key_rows, e - from);
  }
  const float scales[4] = {scale, scale, scale, scale};
  d_qkv += (block.sequence + first) * stride + block.column + from;
  store(result, scales, d_qkv, stride, rows, e - from);
}

}  // namespace attention_plain

#define ATTENTION_PLAIN(E, NAME)                                                               \
  extern "C" __global__ void __launch_bounds__(256)                                            \
  NAME(const E* qkv, int stride, E* out, int out_stride, float* log_sums,                      \
       const u32* documents, int context, int query_heads, int kv_heads, int e, float scale) { \
    attention_plain::forward(qkv, stride, out, out_stride, log_sums, documents, context,       \
                             query_heads, kv_heads, e, scale);                                 \
  }

#define ATTENTION_PLAIN_BACKWARD(E, BY, NAME)                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                            \
  NAME(const E* qkv, E* d_qkv, int stride, const E* d_out, int out_stride,                     \
       const float* log_sums, const float* delta, const u32* documents, int context,           \
       int query_heads, int kv_heads, int e, float scale) {                                    \
    attention_plain::BY(qkv, d_qkv, stride, d_out, out_stride, log_sums, delta, documents,     \
                        context, query_heads, kv_heads, e, scale);                             \
  }

ATTENTION_PLAIN(float, attention_plain_f32)
ATTENTION_PLAIN(bf16, attention_plain_bf16)
ATTENTION_PLAIN_BACKWARD(float, by_keys, attention_plain_by_keys_f32)
ATTENTION_PLAIN_BACKWARD(bf16, by_keys, attention_plain_by_keys_bf16)
ATTENTION_PLAIN_BACKWARD(float, by_queries, attention_plain_by_queries_f32)
ATTENTION_PLAIN_BACKWARD(bf16, by_queries, attention_plain_by_queries_bf16)
