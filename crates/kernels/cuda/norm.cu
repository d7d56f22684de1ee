// RMSNorm: y = x · s · gain with s = 1 / √(mean x² + ε), one block a row; and its gradient.
//
// A row is read twice, for its sum and for its result; the second time it is in the cache.
#include "vectors.h"

// `norm` is a function of CUDA's.
namespace rms_norm {

template <class E>
inline void forward(const float* x, const float* gain, float eps, E* y, float* scale, int d,
                    int stride) {
  __shared__ float scratch[33];
  x += (u64)blockIdx.x * d;
  y += (u64)blockIdx.x * stride;
  float sum = 0;
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
    Four own = load_row(x, column, d);
    for (int i = 0; i < 4; i++) sum += own.at[i] * own.at[i];
  }
  float s = 1.0f / sqrtf(block_sum(sum, scratch) / (float)d + eps);
  if (threadIdx.x == 0) scale[blockIdx.x] = s;
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
    Four own = load_row(x, column, d), gains = load_row(gain, column, d);
    for (int i = 0; i < 4; i++) own.at[i] *= s * gains.at[i];
    store(y + column, narrow<E>(own));
  }
}

// `rows` rows of one sequence at most, one after the other:
//
//   dx   ← dx + s · (dy · gain − x · s² · mean(x · dy · gain))
//   gain ← Σ dy · x · s
//
// A sequence takes `parts` blocks, each of which leaves its sum of the gain's gradient in its own
// row of `gains`. A thread adds to its own columns of that sum alone.
template <class E>
inline void backward(const float* x, const float* gain, const float* scale, const float* dy,
                     float* dx, E* rounded, float* gains, int d, int stride, int context, int rows,
                     int parts, int overwrite) {
  __shared__ float scratch[33];
  float* sums = dynamic_shared<float>();
  int sequence = blockIdx.x / parts, part = blockIdx.x % parts;
  int last = part * rows + rows < context ? part * rows + rows : context;
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x)
    store(sums + column, Four{});
  for (int t = part * rows; t < last; t++) {
    u64 row = (u64)sequence * context + t;
    const float *of_x = x + row * d, *of_dy = dy + row * d;
    float sum = 0;
    for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
      Four own = load_row(of_x, column, d), above = load_row(of_dy, column, d);
      Four factor = load_row(gain, column, d);
      for (int i = 0; i < 4; i++) sum += own.at[i] * above.at[i] * factor.at[i];
    }
    float s = scale[row];
    float c = block_sum(sum, scratch) * s * s * s / (float)d;
    for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
      Four own = load_row(of_x, column, d), above = load_row(of_dy, column, d);
      Four factor = load_row(gain, column, d), result = {};
      if (!overwrite) result = load_row(dx + row * d, column, d);
      Four total = load<4>(sums + column);
      for (int i = 0; i < 4; i++) {
        result.at[i] += above.at[i] * factor.at[i] * s - own.at[i] * c;
        total.at[i] += above.at[i] * own.at[i] * s;
      }
      store(sums + column, total);
      store_row(dx + row * d, column, d, result);
      store(rounded + row * stride + column, narrow<E>(result));
    }
  }
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x)
    store_row(gains + (u64)blockIdx.x * d, column, d, load<4>(sums + column));
}

}  // namespace rms_norm

#define NORM(E, FORWARD, BACKWARD)                                                           \
  extern "C" __global__ void __launch_bounds__(1024) FORWARD(                                \
      const float* x, const float* gain, float eps, E* y, float* scale, int d, int stride) { \
    rms_norm::forward<E>(x, gain, eps, y, scale, d, stride);                                 \
  }                                                                                          \
  extern "C" __global__ void __launch_bounds__(1024) BACKWARD(                               \
      const float* x, const float* gain, const float* scale, const float* dy, float* dx,     \
      E* rounded, float* gains, int d, int stride, int context, int rows, int parts,         \
      int overwrite) {                                                                       \
    rms_norm::backward<E>(x, gain, scale, dy, dx, rounded, gains, d, stride, context, rows,  \
                      parts, overwrite);                                                     \
  }

NORM(float, rms_norm_f32, rms_norm_backward_f32)
NORM(bf16, rms_norm_bf16, rms_norm_backward_bf16)
