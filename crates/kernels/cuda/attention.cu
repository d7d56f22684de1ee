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
  const Pairs<KEYS, E> pairs = {queries + QUERIES * E};  // Of keys and values.
  const QueryBlock<bf16> block =
      query_block<QUERIES>(qkv, stride, documents, context, query_heads, kv_heads, e);
  begin_tile<QUERIES, E>(queries, block.queries, stride, block.end - block.first, e);
  copy_commit();
  int key = first_key(block.documents, block.first) / KEYS * KEYS;
  pairs.begin(0, block.keys, stride, block.values, stride, key, context, e);

  const int row = warp_id() * 16 * M;
  const Sight<M> sight(block.documents, block.first + row, context);
  float largest[M][2], sum[M][2];
  float result[M][E / 8][4];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) largest[m][half] = -INFINITY, sum[m][half] = 0;
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
  for (int turn = 0; key < block.end; key += KEYS, turn ^= 1) {
    pairs.wait();
    const int next = key + KEYS;
    if (next < block.end)
      pairs.begin(turn ^ 1, block.keys, stride, block.values, stride, next, context, e);
    if (!sight.some(key, next)) continue;

    float scores[M][KEYS / 8][4];
    multiply_rows(scores, own, pairs.first(turn));
    if (!sight.all(key, next)) sight.hide(scores, key, -INFINITY);
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
    add_product<E>(result, scores, pairs.second(turn));
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
      const int query = sight.first + 16 * m + 8 * half + lane_id() / 4;
      if (lane_id() % 4 == 0 && query < context) {
        const float top = largest[m][half] == -INFINITY ? 0 : largest[m][half] * scale;
        log_sums[block.numbers + query] = top + logf(total);
      }
    }
  out += (block.sequence + sight.first) * out_stride + block.column;
  store_rows<E, M>(result, sum, queries, row, out, out_stride, sight.end - sight.first, e);
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
