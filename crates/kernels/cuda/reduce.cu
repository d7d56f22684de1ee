// Sums. What is added up in which order is fixed by the sizes alone: the same bits on every run and
// every device.
#include "vectors.h"

namespace reduce {

// Elements whose squares one block adds up.
constexpr int PART = 65536;

}  // namespace reduce

// out[s, w] ← (out +) the sum of rows s · count to (s + 1) · count − 1 of `rows`, in order.
extern "C" __global__ void __launch_bounds__(128) sum_rows(const float* rows, float* out, int w,
                                                           int count, int adds) {
  int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= w) return;
  rows += (u64)blockIdx.x * count * w + column;
  out += (u64)blockIdx.x * w + column;
  float sum = adds ? *out : 0.0f;
#pragma unroll 8
  for (int row = 0; row < count; row++) sum += rows[(u64)row * w];
  *out = sum;
}

// sum ← sum + other, of `n` numbers.
extern "C" __global__ void __launch_bounds__(256) add_floats(float* sum, const float* other,
                                                             u64 n) {
  u64 at = own_four();
  if (at >= n) return;
  Four own = load_of(sum, at, n), more = load_of(other, at, n);
  for (int i = 0; i < 4; i++) own.at[i] += more.at[i];
  store_of(sum, at, n, own);
}

// partial[b] ← Σ x² of the b-th 2¹⁶ of `n` numbers, in f64, where the square of an f32 is exact and
// does not overflow: the sum is finite only if every x is.
extern "C" __global__ void __launch_bounds__(256) sum_of_squares(const float* x, u64 n,
                                                                 double* partial) {
  using namespace reduce;
  __shared__ double scratch[33];
  u64 first = (u64)blockIdx.x * PART;
  int count = n - first < PART ? (int)(n - first) : PART;
  x += first;
  double sums[4] = {};
#pragma unroll 4
  for (int at = 4 * (int)threadIdx.x; at < count; at += 4 * (int)blockDim.x) {
    Four own = load_of(x, at, count);
    for (int i = 0; i < 4; i++) sums[i] += (double)own.at[i] * (double)own.at[i];
  }
  double sum = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// total ← the sum of `count` partial sums, by one block.
extern "C" __global__ void __launch_bounds__(256) add_partial(const double* partial, int count,
                                                              double* total) {
  __shared__ double scratch[33];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *total = sum;
}
