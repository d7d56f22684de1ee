// Kernels that do what they should, each one thing of the model.
#include "device.h"

// out[i] <- in[n - 1 - i] within a block, through a variable of it.
extern "C" __global__ void __launch_bounds__(1024) reverse(float* out, const float* in) {
  __shared__ float values[1024];
  const int n = blockDim.x, first = blockIdx.x * n, i = threadIdx.x;
  values[i] = in[first + i];
  __syncthreads();
  out[first + i] = values[n - 1 - i];
}

// The same through dynamic shared memory, in `rounds` rounds.
extern "C" __global__ void __launch_bounds__(1024)
    reverse_often(float* out, const float* in, int rounds) {
  float* values = dynamic_shared<float>();
  const int n = blockDim.x, first = blockIdx.x * n, i = threadIdx.x;
  float mine = in[first + i];
  for (int round = 0; round < rounds; round++) {
    values[i] = mine;
    __syncthreads();
    mine = values[n - 1 - i];
    __syncthreads();
  }
  out[first + i] = mine;
}

// The place of the thread and block, and their numbers.
extern "C" __global__ void __launch_bounds__(64) places(u32* out) {
  const u32 block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  u32* mine = out + (block * blockDim.x + threadIdx.x) * 4;
  mine[0] = blockIdx.x;
  mine[1] = blockIdx.y;
  mine[2] = blockIdx.z;
  mine[3] = threadIdx.x;
}

// Shuffles of each type, and what is made of them.
extern "C" __global__ void __launch_bounds__(256) shuffles(float* out, const float* in) {
  __shared__ float scratch[33];
  const int i = threadIdx.x;
  const float value = in[i];
  float* mine = out + i * 8;
  float butterfly = value;
  for (int mask = 16; mask > 0; mask /= 2) butterfly += shfl_xor(butterfly, mask);
  mine[0] = shfl_xor(value, 5);
  mine[1] = shfl(value, 3);
  mine[2] = (float)shfl_xor((u32)i, 1);
  mine[3] = (float)(shfl_xor((double)i + 0.5, 16));
  mine[4] = warp_sum(value) == butterfly ? butterfly : INFINITY;
  mine[5] = warp_max(value);
  mine[6] = block_sum(value, scratch);
  mine[7] = block_max(value, scratch);
}

// Whole warps may end before others meet, and before the block's barrier.
extern "C" __global__ void __launch_bounds__(128) early_end(float* out) {
  __shared__ float sums[2];
  if (threadIdx.x >= 64) return;
  const float sum = warp_sum((float)threadIdx.x);
  if (lane_id() == 0) sums[warp_id()] = sum;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = sums[0] + sums[1];
}

// Each lane's four registers of four matrices.
extern "C" __global__ void __launch_bounds__(32)
    load_matrices(u32* out, const bf16* in, int transposed) {
  __shared__ __align__(16) bf16 rows[32 * 8];
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; i++) rows[lane * 8 + i] = in[lane * 8 + i];
  warp_sync();
  u32 r[4];
  if (transposed)
    ldmatrix_x4_transposed(r, rows + lane * 8);
  else
    ldmatrix_x4(r, rows + lane * 8);
  for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

// c[rows, columns] <- a[rows, depth] · b[depth, columns] (or b[columns, depth], transposed), a warp
// a tile of 16 × 8; operands by cp.async and ldmatrix, in two stages.
extern "C" __global__ void __launch_bounds__(32)
    tensor_product(float* c, const bf16* a, const bf16* b, int columns, int depth,
                   int b_transposed) {
  __shared__ __align__(16) bf16 a_tiles[2][16 * 16];
  __shared__ __align__(16) bf16 b_tiles[2][16 * 16];
  const int lane = threadIdx.x, row = blockIdx.y * 16, column = blockIdx.x * 8;
  auto stage = [&](int k) {
    bf16* a_tile = a_tiles[k / 16 % 2];
    bf16* b_tile = b_tiles[k / 16 % 2];
    const int r = lane / 2, part = lane % 2 * 8;
    copy_async_16(a_tile + r * 16 + part, a + (row + r) * depth + k + part, k < depth);
    // [8, 16], or [16, 8] in the first half of each row.
    if (b_transposed)
      copy_async_16(b_tile + r * 16 + part, b + (column + r) * depth + k + part,
                    k < depth && r < 8);
    else
      copy_async_16(b_tile + r * 16 + part, b + (k + r) * columns + column,
                    k < depth && part == 0);
    copy_commit();
  };
  float sums[4] = {0, 0, 0, 0};
  stage(0);
  for (int k = 0; k < depth; k += 16) {
    stage(k + 16);
    copy_wait<1>();
    warp_sync();
    u32 left[4], right[4];
    const int matrix = lane / 8, r = lane % 8;
    ldmatrix_x4(left, a_tiles[k / 16 % 2] + (r + matrix % 2 * 8) * 16 + matrix / 2 * 8);
    if (b_transposed)
      ldmatrix_x4(right, b_tiles[k / 16 % 2] + r * 16 + matrix % 2 * 8);
    else
      ldmatrix_x4_transposed(right, b_tiles[k / 16 % 2] + (r + matrix % 2 * 8) * 16);
    const u32 pair[2] = {right[0], right[1]};
    mma_16816(sums, left, pair);
    warp_sync();
  }
  for (int i = 0; i < 4; i++)
    c[(row + lane / 4 + i / 2 * 8) * columns + column + lane % 4 * 2 + i % 2] = sums[i];
}

// What arguments of each kind arrive as.
extern "C" __global__ void __launch_bounds__(1)
    arguments(float* out, const float* nothing, int negative, u32 large, float number, u64 wide,
              int seventh, float eighth, u64 ninth, int tenth) {
  out[0] = nothing == nullptr;
  out[1] = negative;
  out[2] = large == 4000000000u;
  out[3] = number;
  out[4] = wide == 1ull << 40;
  out[5] = seventh;
  out[6] = eighth;
  out[7] = ninth == 9;
  out[8] = tenth;
}

// Kernels of a template, whose names a macro makes; a table of constants.
template <class E>
__device__ void round_to(E* out, const float* in, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  static const float factors[2] = {1.0f, -1.0f};
  if (i < n) out[i] = narrow<E>(in[i] * factors[i % 2]);
}
#define ROUND_TO(suffix, E)                                     \
  extern "C" __global__ void __launch_bounds__(32 * 8)          \
      round_to_##suffix(E* out, const float* in, int n) {       \
    round_to(out, in, n);                                       \
  }
ROUND_TO(f32, float)
ROUND_TO(bf16, bf16)

// Elements by 16 bytes.
extern "C" __global__ void __launch_bounds__(128) by_vectors(bf16* out, const bf16* in) {
  const int i = threadIdx.x * 8;
  *(uint4*)(out + i) = *(const uint4*)(in + i);
}
