// Updates of parameters, element by element, four a thread; and parameters rounded for products.
#include "vectors.h"

namespace optimizer {

// What a parameter that moves by −change is multiplied by: under cautious decay 1 where their signs
// differ.
inline float factor(float p, float change, float decay, int cautious) {
  bool apart = (change > 0 && p < 0) || (change < 0 && p > 0);
  return cautious && apart ? 1.0f : decay;
}

}  // namespace optimizer

//   g = scale · gradient        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
//   θ ← decay · θ − rate · m / (√(v · correction) + ε)
extern "C" __global__ void __launch_bounds__(256) adamw(
    float* values, const float* gradient, float* first, float* second, u64 n, float scale,
    float rate, float beta1, float rest1, float beta2, float rest2, float eps, float correction,
    float decay, int cautious) {
  using namespace optimizer;
  u64 at = own_four();
  if (at >= n) return;
  Four p = load_of(values, at, n), g = load_of(gradient, at, n);
  Four m = load_of(first, at, n), v = load_of(second, at, n);
  for (int i = 0; i < 4; i++) {
    float now = g.at[i] * scale;
    m.at[i] = beta1 * m.at[i] + rest1 * now;
    v.at[i] = beta2 * v.at[i] + rest2 * now * now;
    float kept = p.at[i] * factor(p.at[i], m.at[i], decay, cautious);
    p.at[i] = kept - rate * m.at[i] / (sqrtf(v.at[i] * correction) + eps);
  }
  store_of(values, at, n, p);
  store_of(first, at, n, m);
  store_of(second, at, n, v);
}

//   g = scale · gradient        θ ← decay · θ − lr · g
// or with a momentum
//   b ← μ b + g        θ ← decay · θ − lr · b, or looking ahead lr · (g + μ b)
extern "C" __global__ void __launch_bounds__(256) sgd(float* values, const float* gradient,
                                                      float* momentum, u64 n, float scale,
                                                      float lr, float mu, int nesterov,
                                                      float decay, int cautious) {
  using namespace optimizer;
  u64 at = own_four();
  if (at >= n) return;
  Four p = load_of(values, at, n), g = load_of(gradient, at, n), b = {};
  if (momentum) b = load_of(momentum, at, n);
  for (int i = 0; i < 4; i++) {
    float now = g.at[i] * scale, change = now;
    if (momentum) {
      b.at[i] = mu * b.at[i] + now;
      change = nesterov ? now + mu * b.at[i] : b.at[i];
    }
    p.at[i] = p.at[i] * factor(p.at[i], change, decay, cautious) - lr * change;
  }
  store_of(values, at, n, p);
  if (momentum) store_of(momentum, at, n, b);
}

// average ← average + share (values − average)
extern "C" __global__ void __launch_bounds__(256) move_average(float* average,
                                                               const float* values, u64 n,
                                                               float share) {
  using namespace optimizer;
  u64 at = own_four();
  if (at >= n) return;
  Four a = load_of(average, at, n), v = load_of(values, at, n);
  for (int i = 0; i < 4; i++) a.at[i] += share * (v.at[i] - a.at[i]);
  store_of(average, at, n, a);
}

namespace optimizer {

// One row of a matrix, `columns` wide, a block; eight columns a thread. Where `columns` is a
// multiple of four, so is what is before the row, and it lies on 16 bytes. Rows of the result have
// room for whole eights.
template <class E>
inline void pack(const float* values, E* matrix, int columns, int stride) {
  int column = 8 * (int)(blockIdx.y * blockDim.x + threadIdx.x);
  if (column >= columns) return;
  const float* row = values + (u64)blockIdx.x * columns;
  Pack<E, 8> rounded;
  for (int half = 0; half < 8; half += 4) {
    bool whole = columns % 4 == 0 && column + half < columns;
    Four four = load_four(row, column + half, columns, whole);
    for (int i = 0; i < 4; i++) rounded.at[half + i] = narrow<E>(four.at[i]);
  }
  store(matrix + (u64)blockIdx.x * stride + column, rounded);
}

}  // namespace optimizer

#define PACK(E, NAME)                                                                   \
  extern "C" __global__ void __launch_bounds__(256) NAME(const float* values, E* matrix, \
                                                         int columns, int stride) {      \
    optimizer::pack<E>(values, matrix, columns, stride);                                 \
  }

PACK(float, pack_f32)
PACK(bf16, pack_bf16)
