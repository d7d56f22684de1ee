// The bias of a linear layer: added to a product's sums before these are rounded; and its gradient,
// the sum of the rows of the output's gradient.
#include "vectors.h"

namespace bias {

// y ← x + bias, one row a block, four columns a thread. Rows of both are `stride` apart and have
// room for whole fours; x may be y.
template <class E>
inline void forward(const float* x, const float* bias, E* y, int o, int stride) {
  int column = 4 * (int)(blockIdx.y * blockDim.x + threadIdx.x);
  if (column >= o) return;
  u64 at = (u64)blockIdx.x * stride + column;
  Four sums = load<4>(x + at);
  for (int i = 0; i < 4; i++) sums.at[i] += column + i < o ? bias[column + i] : 0.0f;
  store(y + at, narrow<E>(sums));
}

// Columns of a block, eight a thread, and threads that share their rows.
constexpr int WIDTH = 32, SHARES = 8;

// `partial`[b, o] ← the sum of up to `most` rows of dy, those of block b. Each thread adds up every
// eighth of its columns' rows; then the eight sums are added in order.
template <class E>
inline void backward(const E* dy, float* partial, int rows, int o, int stride, int most) {
  __shared__ float sums[SHARES][8 * WIDTH];
  int place = threadIdx.x % WIDTH, share = threadIdx.x / WIDTH;
  int column = 8 * ((int)blockIdx.y * WIDTH + place);
  int first = blockIdx.x * most, last = rows - first < most ? rows : first + most;
  float own[8] = {};
  if (column < o) {
#pragma unroll 4
    for (int row = first + share; row < last; row += SHARES) {
      Pack<E, 8> values = load<8>(dy + (u64)row * stride + column);
      for (int i = 0; i < 8; i++) own[i] += widen(values.at[i]);
    }
  }
  for (int i = 0; i < 8; i++) sums[share][8 * place + i] = own[i];
  __syncthreads();
  // A thread, a column: there are as many of both.
  column = (int)blockIdx.y * 8 * WIDTH + (int)threadIdx.x;
  if (column >= o) return;
  float sum = 0;
  for (int i = 0; i < SHARES; i++) sum += sums[i][threadIdx.x];
  partial[(u64)blockIdx.x * o + column] = sum;
}

}  // namespace bias

#define BIAS(E, FORWARD, BACKWARD)                                                             \
  extern "C" __global__ void __launch_bounds__(256) FORWARD(const float* x, const float* b,    \
                                                            E* y, int o, int stride) {         \
    bias::forward<E>(x, b, y, o, stride);                                                      \
  }                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) BACKWARD(const E* dy, float* partial,      \
                                                             int rows, int o, int stride,      \
                                                             int most) {                       \
    bias::backward<E>(dy, partial, rows, o, stride, most);                                     \
  }

BIAS(float, add_bias_f32, bias_gradient_f32)
BIAS(bf16, add_bias_bf16, bias_gradient_bf16)
