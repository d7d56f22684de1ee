// Generation: the keys and values of the tokens so far, [t, G e] each, and the attention of one new
// token over them.
#include "device.h"

namespace kv_cache {

// Keys and values of a row of `qkv` into the cache, one row a block.
template <class E>
inline void append(const E* qkv, E* keys, E* values, int stride, int first, int width, int at) {
  const E* row = qkv + (u64)blockIdx.x * stride + first;
  u64 place = ((u64)at + blockIdx.x) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    keys[place + i] = row[i];
    values[place + i] = row[width + i];
  }
}

// Keys that are looked at together: one a thread.
constexpr int TILE = 256;

// The element i of a head turned by the angles of its position, rounded; as it is without angles.
template <class E>
inline E turned(const E* head, const float* cos, const float* sin, int e, int i) {
  if (!cos) return head[i];
  int half = e / 2, pair = i < half ? i : i - half;
  float x = widen(head[pair]), y = widen(head[pair + half]);
  return narrow<E>(i < half ? x * cos[pair] - y * sin[pair] : y * cos[pair] + x * sin[pair]);
}

// softmax(q kᵀ / √e) v of one query head over the `t` tokens in the cache and the new one. The new
// one's key is turned here, and the first head of a group adds it to the cache.
//
// Keys come in tiles. What is summed up before a tile with a larger score is made smaller in
// proportion. The values' columns are shared by threads: `groups` of them have the same column and
// every groups-th key of a tile.
//
// Shared memory: query and key, [e] each, the tile's scores, and the sums, [groups, e].
template <class E>
inline void step(const E* qkv, const float* cos, const float* sin, E* keys, E* values, E* out,
                 int queries, int kv, int e, int t) {
  __shared__ float scratch[33];
  float* query = dynamic_shared<float>();
  float *key = query + e, *scores = key + e, *sums = scores + TILE;
  int head = blockIdx.x, share = queries / kv, group = head / share, width = kv * e;
  const E *of_key = qkv + (queries + group) * e, *of_value = of_key + width;
  u64 column = (u64)group * e, place = (u64)t * width + column;
  for (int i = threadIdx.x; i < e; i += TILE) {
    E own = turned(of_key, cos, sin, e, i);
    query[i] = widen(turned(qkv + head * e, cos, sin, e, i));
    key[i] = widen(own);
    if (head % share == 0) {
      keys[place + i] = own;
      values[place + i] = of_value[i];
    }
  }
  int lanes = e < TILE ? (e + 31) / 32 * 32 : TILE, groups = TILE / lanes;
  int own_group = threadIdx.x / lanes, own_column = threadIdx.x % lanes;
  for (int i = threadIdx.x; i < groups * e; i += TILE) sums[i] = 0;
  __syncthreads();
  float scale = 1.0f / sqrtf((float)e), largest = -INFINITY, total = 0;
  for (int first = 0; first <= t; first += TILE) {
    int token = first + threadIdx.x;
    float score = -INFINITY;
    if (token <= t) {
      const E* cached = keys + (u64)token * width + column;
      score = 0;
      // The new key is not read from where another block may be writing it.
      if (token == t)
        for (int i = 0; i < e; i++) score += query[i] * key[i];
      else
        for (int i = 0; i < e; i++) score += query[i] * widen(cached[i]);
      score *= scale;
    }
    // There is a token in every tile: the largest score is a number.
    float before = largest;
    largest = fmaxf(largest, block_max(score, scratch));
    float smaller = expf(before - largest), p = expf(score - largest);
    total = total * smaller + block_sum(p, scratch);
    scores[threadIdx.x] = p;
    __syncthreads();
    int count = t + 1 - first < TILE ? t + 1 - first : TILE;
    for (int i = own_column; own_group < groups && i < e; i += lanes) {
      float sum = sums[own_group * e + i] * smaller;
      for (int j = own_group; j < count; j += groups) {
        const E* value = first + j == t ? of_value : values + (u64)(first + j) * width + column;
        sum += scores[j] * widen(value[i]);
      }
      sums[own_group * e + i] = sum;
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < e; i += TILE) {
    float sum = 0;
    for (int j = 0; j < groups; j++) sum += sums[j * e + i];
    out[head * e + i] = narrow<E>(sum / total);
  }
}

}  // namespace kv_cache

#define KV_CACHE(E, APPEND, STEP)                                                             \
  extern "C" __global__ void __launch_bounds__(256) APPEND(                                   \
      const E* qkv, E* keys, E* values, int stride, int first, int width, int at) {           \
    kv_cache::append<E>(qkv, keys, values, stride, first, width, at);                         \
  }                                                                                           \
  extern "C" __global__ void __launch_bounds__(256) STEP(                                     \
      const E* qkv, const float* cos, const float* sin, E* keys, E* values, E* out,           \
      int queries, int kv, int e, int t) {                                                    \
    kv_cache::step<E>(qkv, cos, sin, keys, values, out, queries, kv, e, t);                   \
  }

KV_CACHE(float, cache_append_f32, attention_step_f32)
KV_CACHE(bf16, cache_append_bf16, attention_step_bf16)
