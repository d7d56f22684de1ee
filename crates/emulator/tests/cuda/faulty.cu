// Kernels with one fault each, which the emulator must find.
#include "device.h"

// No barrier between writing and reading.
extern "C" __global__ void __launch_bounds__(256) race(float* out) {
  __shared__ float values[256];
  values[threadIdx.x] = (float)threadIdx.x;
  out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

// The second round writes what others may still read in the first.
extern "C" __global__ void __launch_bounds__(256) race_of_rounds(float* out) {
  __shared__ float values[256];
  float mine = (float)threadIdx.x;
  for (int round = 0; round < 2; round++) {
    values[threadIdx.x] = mine;
    __syncthreads();
    mine = values[(threadIdx.x + 1) % blockDim.x];
  }
  out[threadIdx.x] = mine;
}

// A shuffle is no barrier for memory.
extern "C" __global__ void __launch_bounds__(32) race_of_lanes(float* out) {
  __shared__ float values[32];
  values[threadIdx.x] = warp_sum(1.0f);
  const float sum = warp_sum(1.0f);
  out[threadIdx.x] = values[threadIdx.x ^ 1] + sum;
}

// A barrier of a warp is none for another.
extern "C" __global__ void __launch_bounds__(64) race_of_warps(float* out) {
  __shared__ float values[64];
  values[threadIdx.x] = 1.0f;
  warp_sync();
  out[threadIdx.x] = values[threadIdx.x ^ 32];
}

// Every thread writes the same place.
extern "C" __global__ void __launch_bounds__(64) race_of_writers(float* out) { out[0] = 1.0f; }

// Every block writes the same place.
extern "C" __global__ void __launch_bounds__(64) race_of_blocks(float* out) {
  if (threadIdx.x == 0) out[0] = (float)blockIdx.x;
}

// A block reads what another writes.
extern "C" __global__ void __launch_bounds__(64) blocks_in_a_row(float* sums) {
  if (threadIdx.x == 0) sums[blockIdx.x + 1] = sums[blockIdx.x] + 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) write_at(float* out, int at) {
  if (threadIdx.x == 40) out[at] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) read_at(float* out, const float* in, int at) {
  if (threadIdx.x == 40) out[0] = in[at];
}

// Dynamic shared memory, from its start to `at`.
extern "C" __global__ void __launch_bounds__(64) write_shared_at(int at) {
  dynamic_shared<float>()[at + threadIdx.x] = 1.0f;
}

// Reads what only the first block has written.
extern "C" __global__ void __launch_bounds__(32) unwritten(float* out) {
  __shared__ float values[32];
  if (blockIdx.x == 0) values[threadIdx.x] = 1.0f;
  out[blockIdx.x * 32 + threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(32) unwritten_dynamic(float* out) {
  out[threadIdx.x] = dynamic_shared<float>()[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(32) index_too_large(float* out, int at) {
  __shared__ float values[32];
  __shared__ float others[32];
  others[threadIdx.x] = 1.0f;
  values[threadIdx.x + at] = 2.0f;
  out[threadIdx.x] = others[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(32) misaligned(float4* out, const float* in) {
  out[threadIdx.x] = *(const float4*)(in + 4 * threadIdx.x + 1);
}

// Asks for what a copy brings without ending its group, or without waiting for it in some rounds.
extern "C" __global__ void __launch_bounds__(32)
    copy_too_early(float4* out, const float4* in, int commits, int waits) {
  __shared__ float4 values[32];
  for (int round = 0; round < 2; round++) {
    copy_async_16(values + threadIdx.x, in + threadIdx.x, true);
    if (commits) copy_commit();
    if (round < waits) copy_wait<0>();
    out[threadIdx.x] = values[threadIdx.x];
  }
}

// Half of a warp is elsewhere.
extern "C" __global__ void __launch_bounds__(64) half_a_warp(float* out) {
  float sum = 0.0f;
  if (threadIdx.x % 32 < 16) sum = warp_sum(1.0f);
  out[threadIdx.x] = sum;
}

// A warp does not come to the block's barrier.
extern "C" __global__ void __launch_bounds__(64) half_a_block(float* out) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    warp_sync();
  out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(32) int_too_small(float* out, int n) {
  out[threadIdx.x] = n * n > 0;
}

extern "C" __global__ void __launch_bounds__(32) divide(float* out, int n) {
  out[threadIdx.x] = (float)(32 / n);
}

extern "C" __global__ void __launch_bounds__(32) trap() { __trap(); }
