// The parts of Muon's update that are no products: the momentum, the norms' way into the iteration,
// the polynomial of a Gram matrix, and the parameters' move. Norms stay on the device: a kernel
// reads the sum of squares that an earlier one left.
//
// A matrix may begin anywhere in its parameter: `whole` says that it lies on 16 bytes.
#include "vectors.h"

// g = (1 − μ) scale · gradient        b ← μ b + g        x ← b, or looking ahead g + μ b
extern "C" __global__ void __launch_bounds__(256) muon_blend(const float* gradient,
                                                             float* momentum, float* x, u64 n,
                                                             float scale, float mu, float rest,
                                                             int nesterov, int whole) {
  u64 at = own_four();
  if (at >= n) return;
  bool at_once = whole && at + 4 <= n;
  Four g = load_four(gradient, at, n, at_once), b = load_four(momentum, at, n, at_once), d;
  for (int i = 0; i < 4; i++) {
    float now = rest * (g.at[i] * scale);
    b.at[i] = mu * b.at[i] + now;
    d.at[i] = nesterov ? now + mu * b.at[i] : b.at[i];
  }
  store_four(momentum, at, n, at_once, b);
  store_of(x, at, n, d);
}

// x ← x / ‖x‖, the root of `squares`; 0 where that is below the normal numbers of f32.
extern "C" __global__ void __launch_bounds__(256) muon_scale(float* x, u64 n,
                                                             const double* squares) {
  __shared__ float factor;
  if (threadIdx.x == 0) {
    double norm = sqrt(*squares);
    factor = norm < 1.1754943508222875e-38 ? 0.0f : (float)(1.0 / norm);
  }
  __syncthreads();
  u64 at = own_four();
  if (at >= n) return;
  Four four = load_of(x, at, n);
  for (int i = 0; i < 4; i++) four.at[i] *= factor;
  store_of(x, at, n, four);
}

// gram ← a/β · 1 + b/β³ · gram + c/β⁵ · square, [m, m], one row a block. β = ‖square‖^¼ is an upper
// bound of the largest singular value of what `gram` is of; `squares` is ‖square‖². Without
// `squares`, or where they are 0, β is 1.
extern "C" __global__ void __launch_bounds__(256) muon_combine(float* gram, const float* square,
                                                               int m, float a, float b, float c,
                                                               const double* squares) {
  __shared__ float factors[3];
  if (threadIdx.x == 0) {
    double bound = squares ? sqrt(sqrt(sqrt(*squares))) : 1.0;
    double inverse = bound == 0 ? 1.0 : 1.0 / bound;
    factors[0] = (float)(a * inverse);
    factors[1] = (float)(b * inverse * inverse * inverse);
    factors[2] = (float)(c * inverse * inverse * inverse * inverse * inverse);
  }
  __syncthreads();
  u64 row = (u64)blockIdx.x * m;
  int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= m) return;
  float value = factors[1] * gram[row + column] + factors[2] * square[row + column];
  gram[row + column] = column == (int)blockIdx.x ? value + factors[0] : value;
}

// θ ← decay · θ − lr · x; under cautious decay 1 · θ where x and θ have different signs.
extern "C" __global__ void __launch_bounds__(256) muon_apply(float* values, const float* x, u64 n,
                                                             float lr, float decay, int cautious,
                                                             int whole) {
  u64 at = own_four();
  if (at >= n) return;
  bool at_once = whole && at + 4 <= n;
  Four p = load_four(values, at, n, at_once), change = load_of(x, at, n);
  for (int i = 0; i < 4; i++) {
    bool apart = (change.at[i] > 0 && p.at[i] < 0) || (change.at[i] < 0 && p.at[i] > 0);
    float factor = cautious && apart ? 1.0f : decay;
    p.at[i] = p.at[i] * factor - lr * change.at[i];
  }
  store_four(values, at, n, at_once, p);
}
