// Causal attention forward in bf16 on tensor cores: out = softmax(mask(q kᵀ / √e)) v of each head.
// (After FlashAttention-2; Dao, 2023.)
//
// A block has 64 M queries of one head, each of its 4 warps 16 M of them, and goes through the keys
// that they see, a tile of KEYS at a time. While it works with one tile of keys and values, the
// next one comes. Each warp holds in registers its scores with those keys, and of each query the
// largest score so far, the sum of exponentials and the weighted sum of values, which shrink when a
// larger score comes. Nothing is added across warps, so the order of every sum is fixed.
//
// A NaN or infinity reaches every query that sees its key. One in a *value* may reach earlier
// queries of the same tile of keys too: their weight for it is zero, and so not its product.
#include "attention.h"

namespace attention {

template <int E, int M, int KEYS, bool KEPT>
__device__ __forceinline__ void forward(const bf16* qkv, int stride, bf16* out, int out_stride,
                                        float* log_sums, const u32* documents, int context,
                                        int query_heads, int kv_heads, int e, float scale) {
  constexpr int QUERIES = 16 * M * WARPS;
  bf16* queries = dynamic_shared<bf16>();
  bf16* keys = queries + QUERIES * E;  // Two tiles, by turns.
  bf16* values = keys + 2 * KEYS * E;  // Two tiles, by turns.

  const int tiles = (context + QUERIES - 1) / QUERIES;
  const Place place = place_from_last(tiles, query_heads);
  const int kv_head = place.head / (query_heads / kv_heads);
  const u64 sequence = (u64)place.sequence * context;
  qkv += sequence * stride;
  const bf16* of_keys = qkv + (query_heads + kv_head) * e;
  const bf16* of_values = of_keys + kv_heads * e;
  if (documents) documents += sequence;

  // The block's queries, then those of this warp; none where the sequence ends before them.
  const int block_first = place.tile * QUERIES;
  const int block_end = smaller(block_first + QUERIES, context);
  const int row = warp_id() * 16 * M, first = block_first + row;
  const int end = smaller(first + 16 * M, context);
  const bool any = first < context;

  begin_tile<QUERIES, E>(queries, qkv + (u64)block_first * stride + place.head * e, stride,
                         block_end - block_first, e);
  copy_commit();
  int key = first_key(documents, block_first) / KEYS * KEYS;
  begin_tile<KEYS, E>(keys, of_keys + (u64)key * stride, stride, context - key, e);
  begin_tile<KEYS, E>(values, of_values + (u64)key * stride, stride, context - key, e);
  copy_commit();

  // Keys before `begin` are seen by none of the warp's queries, those from `every` on, as far as
  // documents go, by all.
  const int begin = any ? first_key(documents, first) : 0;
  const int every = any ? first_key(documents, end - 1) : 0;
  const int r = lane_id() / 4, k = lane_id() % 4 * 2;
  int begins[M][2];
  float largest[M][2], sum[M][2];
  float result[M][E / 8][4];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = first + 16 * m + 8 * half + r;
      begins[m][half] = query < context ? first_key(documents, query) : 0;
      largest[m][half] = -INFINITY;
      sum[m][half] = 0;
    }
#pragma unroll
    for (int n = 0; n < E / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) result[m][n][i] = 0;
  }

  copy_wait<1>();
  __syncthreads();
  Rows<E, M, KEPT> own;
  own.tile = queries, own.row = row;
  own.keep();

  const float scale2 = scale * LOG2_E;
  for (int turn = 0; key < block_end; key += KEYS, turn ^= 1) {
    copy_wait<0>();
    // These keys are there for all, and nobody reads those of the turn before any more.
    __syncthreads();
    const int next = key + KEYS;
    if (next < block_end) {
      begin_tile<KEYS, E>(keys + (turn ^ 1) * KEYS * E, of_keys + (u64)next * stride, stride,
                          context - next, e);
      begin_tile<KEYS, E>(values + (turn ^ 1) * KEYS * E, of_values + (u64)next * stride, stride,
                          context - next, e);
      copy_commit();
    }
    if (!any || key >= end || next <= begin) continue;

    float scores[M][KEYS / 8][4];
    multiply_rows(scores, own, keys + turn * KEYS * E);
    if (next - 1 > first || key < every) {
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int of = key + 8 * n + k + i % 2, query = first + 16 * m + 8 * (i / 2) + r;
            if (of > query || of < begins[m][i / 2]) scores[m][n][i] = -INFINITY;
          }
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float top = largest[m][half];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
          top = fmaxf(top, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
        top = fmaxf(top, shfl_xor(top, 1));
        top = fmaxf(top, shfl_xor(top, 2));
        // A query that has seen no key yet has no largest score: −∞ − −∞ would be NaN.
        const float shift = top == -INFINITY ? 0 : top * scale2;
        const float shrink = quick_exp2(largest[m][half] * scale2 - shift);
        largest[m][half] = top;
        float part = 0;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            scores[m][n][i] = quick_exp2(scores[m][n][i] * scale2 - shift);
            part += scores[m][n][i];
          }
        sum[m][half] = sum[m][half] * shrink + part;
#pragma unroll
        for (int n = 0; n < E / 8; n++) {
          result[m][n][2 * half] *= shrink;
          result[m][n][2 * half + 1] *= shrink;
        }
      }
    add_product<E>(result, scores, values + turn * KEYS * E);
  }

  // `sum` has been that of a lane's own columns.
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = sum[m][half];
      total += shfl_xor(total, 1);
      total += shfl_xor(total, 2);
      sum[m][half] = 1 / total;
      const int query = first + 16 * m + 8 * half + r;
      if (k == 0 && query < context) {
        const float top = largest[m][half] == -INFINITY ? 0 : largest[m][half] * scale;
        log_sums[((u64)place.sequence * query_heads + place.head) * context + query] =
            top + logf(total);
      }
    }
  out += (sequence + first) * out_stride + place.head * e;
  store_rows<E, M>(result, sum, queries, row, out, out_stride, end - first, e);
}

}  // namespace attention

#define ATTENTION(NAME, E, M, KEYS, KEPT)                                                      \
  extern "C" __global__ void __launch_bounds__(128)                                            \
  NAME(const bf16* qkv, int stride, bf16* out, int out_stride, float* log_sums,                \
       const u32* documents, int context, int query_heads, int kv_heads, int e, float scale) { \
    attention::forward<E, M, KEYS, KEPT>(qkv, stride, out, out_stride, log_sums, documents,    \
                                         context, query_heads, kv_heads, e, scale);            \
  }

// As many keys at a time as leave a thread enough registers.
ATTENTION(attention_64_bf16, 64, 2, 64, true)
ATTENTION(attention_128_bf16, 128, 2, 32, false)
