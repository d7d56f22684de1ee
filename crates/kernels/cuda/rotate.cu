// Rotary positions: elements (x, y) = (i, i + e/2) of each query and key become
// (x cos − y sin, y cos + x sin) with the angle of the row's position.
#include "vectors.h"

namespace rotary {

// One row a block, N pairs a thread at a time; N divides e/2.
template <class E, int N>
inline void turn(E* row, const float* cos, const float* sin, int heads, int half, float sign) {
  int count = half / N;
  for (int item = blockIdx.y * blockDim.x + threadIdx.x; item < heads * count;
       item += gridDim.y * blockDim.x) {
    int at = item % count * N;
    E* head = row + item / count * 2 * half + at;
    Pack<E, N> x = load<N>(head), y = load<N>(head + half);
    Pack<float, N> c = load<N>(cos + at), s = load<N>(sin + at);
    for (int i = 0; i < N; i++) {
      float a = widen(x.at[i]), b = widen(y.at[i]), sine = sign * s.at[i];
      x.at[i] = narrow<E>(a * c.at[i] - b * sine);
      y.at[i] = narrow<E>(b * c.at[i] + a * sine);
    }
    store(head, x);
    store(head + half, y);
  }
}

// The first `heads` heads of rows in sequences of `context`; `sign` is −1 for their gradient.
template <class E>
inline void rows(E* qkv, const float* cos, const float* sin, int stride, int context, int heads,
                 int half, float sign) {
  E* own = qkv + (u64)blockIdx.x * stride;
  u64 position = blockIdx.x % context;
  cos += position * half;
  sin += position * half;
  if (half % 8 == 0)
    turn<E, 8>(own, cos, sin, heads, half, sign);
  else
    turn<E, 1>(own, cos, sin, heads, half, sign);
}

}  // namespace rotary

#define ROTATE(E, NAME)                                                                        \
  extern "C" __global__ void __launch_bounds__(256) NAME(E* qkv, const float* cos,             \
                                                         const float* sin, int stride,         \
                                                         int context, int heads, int half,     \
                                                         float sign) {                         \
    rotary::rows<E>(qkv, cos, sin, stride, context, heads, half, sign);                        \
  }

ROTATE(float, rotate_f32)
ROTATE(bf16, rotate_bf16)
