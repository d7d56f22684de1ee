// What device.h gives on a GPU, on the processor: see there what each name means.
//
// A block's threads are fibers of one thread of the system, so that shared memory is a variable of
// that thread. What needs the other threads of a block is in block.cpp; the checks of what a kernel
// reads and writes are in memory.cpp.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static thread_local
#define __constant__ static const
// The build defines these two as themselves where it lists the kernels of a source.
#ifndef __global__
#define __global__ __attribute__((noinline))
#define __launch_bounds__(threads)
#endif

struct bf16 {
  u16 bits;
};

// CUDA's own vector types, of which some are accessed as a whole.
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  u32 x, y;
};
struct alignas(16) uint4 {
  u32 x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

namespace emulated {
struct Dim {
  u32 x, y, z;
};
struct Sums {
  float of[4];
};
struct Registers {
  u32 of[4];
};
// The same for a thread as long as it runs, as the compiler is told.
__attribute__((const)) u32 thread();
__attribute__((const)) u32 threads();
__attribute__((const)) u32 block(int side);
__attribute__((const)) u32 grid(int side);
__attribute__((const)) void* dynamic_memory();
// What the lane `from` gives as `bits`.
u64 exchange(u64 bits, u32 from);
// What all lanes of the warp give, combined in the order of device.h.
float sum(float value);
double sum(double value);
u32 sum(u32 value);
float largest(float value);
Sums mma(u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1);
Registers ldmatrix(const void* row, bool transposed);
void copy_wait(u32 groups);
}  // namespace emulated

#define threadIdx (emulated::Dim{emulated::thread(), 0, 0})
#define blockIdx (emulated::Dim{emulated::block(0), emulated::block(1), emulated::block(2)})
#define blockDim (emulated::Dim{emulated::threads(), 1, 1})
#define gridDim (emulated::Dim{emulated::grid(0), emulated::grid(1), emulated::grid(2)})

void __syncthreads();
void warp_sync();
void copy_async_16(void* shared, const void* global, bool valid);
void copy_commit();
[[noreturn]] void __trap();

template <class T>
inline T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, T b) {
  return a < b ? b : a;
}
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }

inline float float_of_bits(u32 bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline u32 bits_of_float(float value) {
  u32 bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline u16 nearest_bf16(float value) {
  const u32 bits = bits_of_float(value);
  return value != value ? 0x7fff : (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline u32 narrow_pair(float low, float high) {
  return nearest_bf16(low) | (u32)nearest_bf16(high) << 16;
}

template <class T>
inline T shfl(T value, int lane) {
  static_assert(sizeof(T) <= sizeof(u64), "a value of 8 bytes at most");
  u64 bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = emulated::exchange(bits, (u32)lane % 32);
  memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
inline T shfl_xor(T value, int mask) {
  return shfl(value, (int)(threadIdx.x % 32) ^ mask);
}
// One meeting of the lanes in the place of five.
template <class T>
inline T warp_sum(T value) {
  return emulated::sum(value);
}
inline float warp_max(float value) { return emulated::largest(value); }
inline void mma_16816(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const emulated::Sums sums = emulated::mma(a[0], a[1], a[2], a[3], b[0], b[1]);
  for (int i = 0; i < 4; i++) c[i] += sums.of[i];
}
inline void ldmatrix_x4(u32 (&r)[4], const bf16* row) {
  const emulated::Registers loaded = emulated::ldmatrix(row, false);
  for (int i = 0; i < 4; i++) r[i] = loaded.of[i];
}
inline void ldmatrix_x4_transposed(u32 (&r)[4], const bf16* row) {
  const emulated::Registers loaded = emulated::ldmatrix(row, true);
  for (int i = 0; i < 4; i++) r[i] = loaded.of[i];
}
template <int N>
inline void copy_wait() {
  emulated::copy_wait(N);
}
template <class T>
inline T* dynamic_shared() {
  return static_cast<T*>(emulated::dynamic_memory());
}
