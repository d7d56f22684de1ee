// SwiGLU: h = silu(gate) · up with silu(g) = g · σ(g), and its gradient.
#include "vectors.h"

namespace swiglu {

inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// h ← silu(gate) · up, N elements a thread at a time; N divides f.
template <class E, int N>
inline void forward(const E* gate, E* h, int f) {
  for (int column = N * (int)(blockIdx.y * blockDim.x + threadIdx.x); column < f;
       column += N * (int)(gridDim.y * blockDim.x)) {
    Pack<E, N> g = load<N>(gate + column), u = load<N>(gate + f + column);
    for (int i = 0; i < N; i++) {
      float x = widen(g.at[i]);
      g.at[i] = narrow<E>(x * sigmoid(x) * widen(u.at[i]));
    }
    store(h + column, g);
  }
}

// gate and up ← their gradients, given that of h:
//
//   d gate = dh · up · (σ(gate) + silu(gate) (1 − σ(gate)))        d up = dh · silu(gate)
template <class E, int N>
inline void backward(const E* dh, E* gate, int f) {
  for (int column = N * (int)(blockIdx.y * blockDim.x + threadIdx.x); column < f;
       column += N * (int)(gridDim.y * blockDim.x)) {
    Pack<E, N> g = load<N>(gate + column), u = load<N>(gate + f + column);
    Pack<E, N> d = load<N>(dh + column);
    for (int i = 0; i < N; i++) {
      float x = widen(g.at[i]), above = widen(d.at[i]), s = sigmoid(x), silu = x * s;
      g.at[i] = narrow<E>(above * widen(u.at[i]) * (silu * (1.0f - s) + s));
      u.at[i] = narrow<E>(above * silu);
    }
    store(gate + column, g);
    store(gate + f + column, u);
  }
}

}  // namespace swiglu

// One row of `gate_up`, [n, 2f] gates first, a block. Where f is a multiple of 8, gates and ups lie
// on 16 bytes.
#define SWIGLU(E, FORWARD, BACKWARD)                                                            \
  extern "C" __global__ void __launch_bounds__(256) FORWARD(const E* gate_up, E* h, int f,      \
                                                            int stride, int h_stride) {         \
    const E* gate = gate_up + (u64)blockIdx.x * stride;                                         \
    h += (u64)blockIdx.x * h_stride;                                                            \
    if (f % 8 == 0)                                                                             \
      swiglu::forward<E, 8>(gate, h, f);                                                        \
    else                                                                                        \
      swiglu::forward<E, 1>(gate, h, f);                                                        \
  }                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) BACKWARD(const E* dh, E* gate_up, int f,    \
                                                             int stride, int dh_stride) {       \
    E* gate = gate_up + (u64)blockIdx.x * stride;                                               \
    dh += (u64)blockIdx.x * dh_stride;                                                          \
    if (f % 8 == 0)                                                                             \
      swiglu::backward<E, 8>(dh, gate, f);                                                      \
    else                                                                                        \
      swiglu::backward<E, 1>(dh, gate, f);                                                      \
  }

SWIGLU(float, swiglu_f32, swiglu_backward_f32)
SWIGLU(bf16, swiglu_bf16, swiglu_backward_bf16)
