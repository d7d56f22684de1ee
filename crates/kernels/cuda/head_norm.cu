// RMSNorm of each query and key, y = x · s · gain with s = 1 / √(mean x² + ε), and its gradient. A
// warp takes a head, each lane two neighbours of it at a time.
#include "vectors.h"

namespace head_norm {

// Head `item` of all normed heads of all rows: x goes to `kept` and s to `scale`.
template <class E>
inline void forward(E* qkv, E* kept, float* scale, const float* gains, float eps, int rows,
                    int stride, int kept_stride, int queries, int normed, int e) {
  u64 item = (u64)blockIdx.x * (blockDim.x / 32) + warp_id();
  if (item >= (u64)rows * normed) return;
  int head = (int)(item % normed);
  u64 row = item / normed;
  E* own = qkv + row * stride + (u64)head * e;
  E* copy = kept + row * kept_stride + (u64)head * e;
  const float* gain = gains + (head < queries ? 0 : e);
  float sum = 0;
  for (int i = 2 * lane_id(); i < e; i += 64) {
    Pack<E, 2> x = load<2>(own + i);
    store(copy + i, x);
    for (int j = 0; j < 2; j++) sum += widen(x.at[j]) * widen(x.at[j]);
  }
  float s = 1.0f / sqrtf(warp_sum(sum) / (float)e + eps);
  if (lane_id() == 0) scale[item] = s;
  for (int i = 2 * lane_id(); i < e; i += 64) {
    Pack<E, 2> x = load<2>(own + i);
    for (int j = 0; j < 2; j++) x.at[j] = narrow<E>(widen(x.at[j]) * s * gain[i + j]);
    store(own + i, x);
  }
}

// The heads of up to `most` rows of one sequence, shared among the block's warps:
//
//   dy   ← dx = s · (dy · gain − x · s² · mean(x · dy · gain))
//   gain ← Σ dy · x · s
//
// A sequence takes `parts` blocks, each of which leaves its sum of the gains' gradients in its own
// row of `gradients`, [2e]. Each warp adds up its own before, in shared memory.
template <class E>
inline void backward(const E* kept, const float* scale, const float* gains, E* d_qkv,
                     float* gradients, int stride, int kept_stride, int queries, int normed, int e,
                     int context, int most, int parts) {
  float* sums = dynamic_shared<float>();
  int warps = blockDim.x / 32;
  int part = blockIdx.x % parts, first = part * most;
  int rows = context - first < most ? context - first : most;
  u64 from = (u64)(blockIdx.x / parts) * context + first;
  float* own_sums = sums + warp_id() * 2 * e;
  // A lane adds to the same places of both gains in all that follows, and to no other's.
  for (int i = 2 * lane_id(); i < e; i += 64)
    for (int j = 0; j < 2; j++) own_sums[i + j] = own_sums[e + i + j] = 0;
  for (int item = warp_id(); item < rows * normed; item += warps) {
    int head = item % normed, at = head < queries ? 0 : e;
    u64 row = from + item / normed;
    const E* x = kept + row * kept_stride + (u64)head * e;
    E* dy = d_qkv + row * stride + (u64)head * e;
    float sum = 0, s = scale[row * normed + head];
    for (int i = 2 * lane_id(); i < e; i += 64) {
      Pack<E, 2> own = load<2>(x + i), above = load<2>(dy + i);
      for (int j = 0; j < 2; j++)
        sum += widen(own.at[j]) * widen(above.at[j]) * gains[at + i + j];
    }
    float c = warp_sum(sum) * s * s * s / (float)e;
    for (int i = 2 * lane_id(); i < e; i += 64) {
      Pack<E, 2> own = load<2>(x + i), above = load<2>(dy + i);
      for (int j = 0; j < 2; j++) {
        float value = widen(own.at[j]), d = widen(above.at[j]);
        above.at[j] = narrow<E>(d * gains[at + i + j] * s - value * c);
        own_sums[at + i + j] += d * value * s;
      }
      store(dy + i, above);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * e; i += blockDim.x) {
    float sum = 0;
    for (int warp = 0; warp < warps; warp++) sum += sums[warp * 2 * e + i];
    gradients[(u64)blockIdx.x * 2 * e + i] = sum;
  }
}

}  // namespace head_norm

#define HEAD_NORM(E, FORWARD, BACKWARD)                                                         \
  extern "C" __global__ void __launch_bounds__(256) FORWARD(                                    \
      E* qkv, E* kept, float* scale, const float* gains, float eps, int rows, int stride,       \
      int kept_stride, int queries, int normed, int e) {                                        \
    head_norm::forward<E>(qkv, kept, scale, gains, eps, rows, stride, kept_stride, queries,     \
                          normed, e);                                                           \
  }                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) BACKWARD(                                   \
      const E* kept, const float* scale, const float* gains, E* d_qkv, float* gradients,        \
      int stride, int kept_stride, int queries, int normed, int e, int context, int most,       \
      int parts) {                                                                              \
    head_norm::backward<E>(kept, scale, gains, d_qkv, gradients, stride, kept_stride, queries,  \
                           normed, e, context, most, parts);                                    \
  }

HEAD_NORM(float, head_norm_f32, head_norm_backward_f32)
HEAD_NORM(bf16, head_norm_bf16, head_norm_backward_bf16)
