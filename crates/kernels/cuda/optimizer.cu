// Updates of parameters, element by element, four a thread; and parameters rounded for products.
#include "device.h"

namespace optimizer {

template <class E, int N>
struct alignas(N * sizeof(E)) Pack {
  E at[N];
};

// Elements `at` to `at` + 3 of n; zeros beyond the end. `at` is a multiple of 4.
inline Pack<float, 4> load(const float* from, u64 at, u64 n) {
  if (at + 4 <= n) return *reinterpret_cast<const Pack<float, 4>*>(from + at);
  Pack<float, 4> four = {};
  for (int i = 0; i < 4; i++)
    if (at + i < n) four.at[i] = from[at + i];
  return four;
}

inline void store(float* to, u64 at, u64 n, const Pack<float, 4>& four) {
  if (at + 4 <= n) {
    *reinterpret_cast<Pack<float, 4>*>(to + at) = four;
    return;
  }
  for (int i = 0; i < 4; i++)
    if (at + i < n) to[at + i] = four.at[i];
}

// The first of a thread's elements.
inline u64 own() { return 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x); }

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
  u64 at = own();
  if (at >= n) return;
  Pack<float, 4> p = load(values, at, n), g = load(gradient, at, n);
  Pack<float, 4> m = load(first, at, n), v = load(second, at, n);
  for (int i = 0; i < 4; i++) {
    float now = g.at[i] * scale;
    m.at[i] = beta1 * m.at[i] + rest1 * now;
    v.at[i] = beta2 * v.at[i] + rest2 * now * now;
    float kept = p.at[i] * factor(p.at[i], m.at[i], decay, cautious);
    p.at[i] = kept - rate * m.at[i] / (sqrtf(v.at[i] * correction) + eps);
  }
  store(values, at, n, p);
  store(first, at, n, m);
  store(second, at, n, v);
}

//   g = scale · gradient        θ ← decay · θ − lr · g
// or with a momentum
//   b ← μ b + g        θ ← decay · θ − lr · b, or looking ahead lr · (g + μ b)
extern "C" __global__ void __launch_bounds__(256) sgd(float* values, const float* gradient,
                                                      float* momentum, u64 n, float scale,
                                                      float lr, float mu, int nesterov,
                                                      float decay, int cautious) {
  using namespace optimizer;
  u64 at = own();
  if (at >= n) return;
  Pack<float, 4> p = load(values, at, n), g = load(gradient, at, n), b = {};
  if (momentum) b = load(momentum, at, n);
  for (int i = 0; i < 4; i++) {
    float now = g.at[i] * scale, change = now;
    if (momentum) {
      b.at[i] = mu * b.at[i] + now;
      change = nesterov ? now + mu * b.at[i] : b.at[i];
    }
    p.at[i] = p.at[i] * factor(p.at[i], change, decay, cautious) - lr * change;
  }
  store(values, at, n, p);
  if (momentum) store(momentum, at, n, b);
}

// average ← average + share (values − average)
extern "C" __global__ void __launch_bounds__(256) move_average(float* average,
                                                               const float* values, u64 n,
                                                               float share) {
  using namespace optimizer;
  u64 at = own();
  if (at >= n) return;
  Pack<float, 4> a = load(average, at, n), v = load(values, at, n);
  for (int i = 0; i < 4; i++) a.at[i] += share * (v.at[i] - a.at[i]);
  store(average, at, n, a);
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
    Pack<float, 4> four = {};
    if (columns % 4 == 0 && column + half < columns) {
      four = *reinterpret_cast<const Pack<float, 4>*>(row + column + half);
    } else {
      for (int i = 0; i < 4; i++)
        if (column + half + i < columns) four.at[i] = row[column + half + i];
    }
    for (int i = 0; i < 4; i++) rounded.at[half + i] = narrow<E>(four.at[i]);
  }
  *reinterpret_cast<Pack<E, 8>*>(matrix + (u64)blockIdx.x * stride + column) = rounded;
}

}  // namespace optimizer

#define PACK(E, NAME)                                                                   \
  extern "C" __global__ void __launch_bounds__(256) NAME(const float* values, E* matrix, \
                                                         int columns, int stride) {      \
    optimizer::pack<E>(values, matrix, columns, stride);                                 \
  }

PACK(float, pack_f32)
PACK(bf16, pack_bf16)
