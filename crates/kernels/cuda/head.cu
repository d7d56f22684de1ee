// The softmax of the output head and its cross-entropy: a row of logits z, [v], a block. With t the
// target, c the largest logit, S = Σ e^(z − c) and L = log S + c the loss is L − z_t.
//
// A row is read once for c and S together, and for the gradient once more, mostly from the cache. A
// NaN among the logits makes S a NaN, and with that the loss and the row's gradient.
#include "vectors.h"

namespace head {

// The lowest number: a logit of −∞ less this is no NaN.
constexpr float LOWEST = -3.402823466e38f;

// Four neighbours of a row of v logits, −∞ beyond its end. A row has room for whole fours.
inline Four load_logits(const float* row, int column, int v) {
  Four four = load<4>(row + column);
  for (int i = 0; i < 4; i++)
    if (column + i >= v) four.at[i] = -INFINITY;
  return four;
}

// c and S of a row, which every thread of the block gets. A thread's sum begins anew, in
// proportion, with each logit that is larger than those before.
inline void largest_and_sum(const float* row, int v, float* scratch, float& largest, float& sum) {
  float own = LOWEST, total = 0;
#pragma unroll 4
  for (int column = 4 * threadIdx.x; column < v; column += 4 * blockDim.x) {
    Four z = load_logits(row, column, v);
    float top = fmaxf(fmaxf(z.at[0], z.at[1]), fmaxf(z.at[2], z.at[3]));
    if (top > own) {
      total *= expf(own - top);
      own = top;
    }
    for (int i = 0; i < 4; i++) total += expf(z.at[i] - own);
  }
  largest = block_max(own, scratch);
  sum = block_sum(total * expf(own - largest), scratch);
}

}  // namespace head

extern "C" __global__ void __launch_bounds__(1024) head_losses(const float* logits,
                                                               const u32* targets, float* losses,
                                                               int v, int stride) {
  __shared__ float scratch[33];
  const float* row = logits + (u64)blockIdx.x * stride;
  float largest, sum;
  head::largest_and_sum(row, v, scratch, largest, sum);
  if (threadIdx.x == 0)
    losses[blockIdx.x] = logf(sum) + (largest - row[targets[blockIdx.x]]);
}

namespace head {

// The loss, and the gradient of loss_scale (loss + z L²) by the logits, rounded:
//
//   loss_scale ((1 + 2 z L) e^(z − c) / S − 1_t)
//
// `squares`, if it is given, gets L². Rows of the gradient have room for whole fours.
template <class E>
inline void gradient(const float* logits, const u32* targets, const float* loss_scales,
                     float* losses, float* squares, float z_loss, E* gradients, int v, int stride) {
  __shared__ float scratch[33];
  const float* __restrict__ row = logits + (u64)blockIdx.x * stride;
  E* __restrict__ own = gradients + (u64)blockIdx.x * stride;
  float largest, sum;
  largest_and_sum(row, v, scratch, largest, sum);
  float loss_scale = loss_scales[blockIdx.x], factor = loss_scale / sum;
  int target = targets[blockIdx.x];
  if (squares) factor *= 1.0f + 2.0f * z_loss * (logf(sum) + largest);
  if (threadIdx.x == 0) {
    float log_sum = logf(sum);
    losses[blockIdx.x] = log_sum + (largest - row[target]);
    if (squares) squares[blockIdx.x] = (log_sum + largest) * (log_sum + largest);
  }
#pragma unroll 4
  for (int column = 4 * threadIdx.x; column < v; column += 4 * blockDim.x) {
    Four z = load_logits(row, column, v);
    for (int i = 0; i < 4; i++) {
      float softmax = expf(z.at[i] - largest) * factor;
      z.at[i] = column + i == target ? softmax - loss_scale : softmax;
    }
    store(own + column, narrow<E>(z));
  }
}

}  // namespace head

#define HEAD(E, NAME)                                                                         \
  extern "C" __global__ void __launch_bounds__(1024) NAME(                                    \
      const float* logits, const u32* targets, const float* loss_scales, float* losses,       \
      float* squares, float z_loss, E* gradient, int v, int stride) {                         \
    head::gradient<E>(logits, targets, loss_scales, losses, squares, z_loss, gradient, v,     \
                      stride);                                                                \
  }

HEAD(float, head_gradient_f32)
HEAD(bf16, head_gradient_bf16)
