// What the gradient of attention needs of its result: delta = Σ out · d_out of each query.
#include "device.h"

namespace attention {

// delta ← Σ out · d_out of each row and head, `[H, context]` for each sequence. A warp has one.
template <class E>
__device__ __forceinline__ void fill_delta(const E* out, int out_stride, const E* d_out,
                                           int d_out_stride, float* delta, int rows, int context,
                                           int heads, int e) {
  const int which = (int)(blockIdx.x * (blockDim.x / 32)) + warp_id();
  const int row = which / heads, head = which % heads;
  if (row >= rows) return;  // The whole warp.
  out += (u64)row * out_stride + head * e;
  d_out += (u64)row * d_out_stride + head * e;
  float sum = 0;
  for (int i = lane_id(); i < e; i += 32) sum += widen(out[i]) * widen(d_out[i]);
  sum = warp_sum(sum);
  const u64 sequence = row / context;
  if (lane_id() == 0) delta[(sequence * heads + head) * context + row % context] = sum;
}

}  // namespace attention

#define ATTENTION_DELTA(E, NAME)                                                               \
  extern "C" __global__ void __launch_bounds__(256)                                            \
  NAME(const E* out, int out_stride, const E* d_out, int d_out_stride, float* delta, int rows, \
       int context, int heads, int e) {                                                        \
    attention::fill_delta(out, out_stride, d_out, d_out_stride, delta, rows, context,    \
                                heads, e);                                                     \
  }

ATTENTION_DELTA(float, attention_delta_f32)
ATTENTION_DELTA(bf16, attention_delta_bf16)
