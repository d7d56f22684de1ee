// RMSNorm: y = x · s · gain with s = 1 / √(mean x² + ε), one block a row; and its gradient.
//
// A row is read twice, for its sum and for its result; the second time it is in the cache.
#include "device.h"

// `norm` is a function of CUDA's.
namespace rms_norm {

template <class E>
struct alignas(4 * sizeof(E)) Four {
  E at[4];
};

// Four neighbours of a row of d floats; zeros beyond its end. Rows lie on 16 bytes where d is a
// multiple of 4.
inline Four<float> load(const float* row, int column, int d) {
  if (d % 4 == 0) return *reinterpret_cast<const Four<float>*>(row + column);
  Four<float> four = {};
  for (int i = 0; i < 4; i++)
    if (column + i < d) four.at[i] = row[column + i];
  return four;
}

inline void store(float* row, int column, int d, const Four<float>& four) {
  if (d % 4 == 0) {
    *reinterpret_cast<Four<float>*>(row + column) = four;
    return;
  }
  for (int i = 0; i < 4; i++)
    if (column + i < d) row[column + i] = four.at[i];
}

// Rows of activations have room for whole fours, and nobody reads what is beyond d.
template <class E>
inline void round_to(E* row, int column, const Four<float>& four) {
  Four<E> rounded;
  for (int i = 0; i < 4; i++) rounded.at[i] = narrow<E>(four.at[i]);
  *reinterpret_cast<Four<E>*>(row + column) = rounded;
}

template <class E>
inline void forward(const float* x, const float* gain, float eps, E* y, float* scale, int d,
                    int stride) {
  __shared__ float scratch[33];
  x += (u64)blockIdx.x * d;
  y += (u64)blockIdx.x * stride;
  float sum = 0;
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
    Four<float> own = load(x, column, d);
    for (int i = 0; i < 4; i++) sum += own.at[i] * own.at[i];
  }
  float s = 1.0f / sqrtf(block_sum(sum, scratch) / (float)d + eps);
  if (threadIdx.x == 0) scale[blockIdx.x] = s;
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
    Four<float> own = load(x, column, d), gains = load(gain, column, d);
    for (int i = 0; i < 4; i++) own.at[i] *= s * gains.at[i];
    round_to(y, column, own);
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
    *reinterpret_cast<Four<float>*>(sums + column) = {};
  for (int t = part * rows; t < last; t++) {
    u64 row = (u64)sequence * context + t;
    const float *of_x = x + row * d, *of_dy = dy + row * d;
    float sum = 0;
    for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
      Four<float> own = load(of_x, column, d), above = load(of_dy, column, d);
      Four<float> factor = load(gain, column, d);
      for (int i = 0; i < 4; i++) sum += own.at[i] * above.at[i] * factor.at[i];
    }
    float s = scale[row];
    float c = block_sum(sum, scratch) * s * s * s / (float)d;
    for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x) {
      Four<float> own = load(of_x, column, d), above = load(of_dy, column, d);
      Four<float> factor = load(gain, column, d), result = {};
      if (!overwrite) result = load(dx + row * d, column, d);
      Four<float>& total = *reinterpret_cast<Four<float>*>(sums + column);
      for (int i = 0; i < 4; i++) {
        result.at[i] += above.at[i] * factor.at[i] * s - own.at[i] * c;
        total.at[i] += above.at[i] * own.at[i] * s;
      }
      store(dx + row * d, column, d, result);
      round_to(rounded + row * stride, column, result);
    }
  }
  for (int column = 4 * threadIdx.x; column < d; column += 4 * blockDim.x)
    store(gains + (u64)blockIdx.x * d, column, d,
          *reinterpret_cast<const Four<float>*>(sums + column));
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
