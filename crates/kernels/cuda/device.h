// All that a kernel source includes: types, barriers, lanes, tensor cores, asynchronous copies.
//
// NVRTC compiles it for a GPU, without standard headers and with `-default-device`. For tests a
// C++17 compiler compiles it with `-DCUVEE_ON_CPU`: `on_cpu.h`, of the emulator, then stands in for
// the first half of this file.
//
// A kernel is
//     extern "C" __global__ void __launch_bounds__(THREADS) name(arguments)
// where arguments are pointers, int, u32, u64 and float. Its threads are one-dimensional
// (`threadIdx.x`), its grid has three dimensions. What needs a whole warp needs all its 32 lanes:
// a warp may end early, a part of a warp may not.
#pragma once

#ifdef CUVEE_ON_CPU
#include "on_cpu.h"
#else

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INFINITY __int_as_float(0x7f800000)

// A number of 16 bits: the upper half of an f32.
struct bf16 {
  u16 bits;
};

// The nearest bf16, ties to even; NaN stays NaN. (A GPU's own NaN has all bits of its mantissa set,
// so that rounding by adding to its bits would make it a zero.)
__device__ __forceinline__ u16 nearest_bf16(float value) {
#if __CUDA_ARCH__ >= 800
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  const u32 bits = __float_as_uint(value);
  return value != value ? 0x7fff : (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

// Two numbers as bf16 in one register, the first in its lower half, as operands of mma_16816.
__device__ __forceinline__ u32 narrow_pair(float low, float high) {
#if __CUDA_ARCH__ >= 800
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return nearest_bf16(low) | (u32)nearest_bf16(high) << 16;
#endif
}

__device__ __forceinline__ float float_of_bits(u32 bits) { return __uint_as_float(bits); }
__device__ __forceinline__ u32 bits_of_float(float value) { return __float_as_uint(value); }

// Barrier of a warp's lanes: what one wrote before it, the others may read after it. A shuffle is
// no such barrier. (That of a block's threads is CUDA's own `__syncthreads()`.)
__device__ __forceinline__ void warp_sync() { __syncwarp(); }

// The value of the lane whose number differs in the bits of `mask`. T: float, double, int, u32.
template <class T>
__device__ __forceinline__ T shfl_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// The value of one lane. T: float, double, int, u32.
template <class T>
__device__ __forceinline__ T shfl(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

// The sum of a warp's 32 values, which every lane gets with the same bits: those of lanes 16 apart
// first, then 8, 4, 2 and 1 apart. T: float, double, u32.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += shfl_xor(value, mask);
  return value;
}

// The largest of a warp's 32 values; of NaN and a number, the number.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, shfl_xor(value, mask));
  return value;
}

// `mma.sync.m16n8k16`, row.col, bf16 with f32 sums: c[16, 8] += a[16, 16] · b[16, 8].
//
// Of lane l, with r = l / 4 and k = 2 (l % 4), a register holding two numbers, the lower first:
//     a[0] = a[r, k..k+2]       a[1] = a[r + 8, k..k+2]
//     a[2] = a[r, k+8..k+10]    a[3] = a[r + 8, k+8..k+10]
//     b[0] = b[k..k+2, r]       b[1] = b[k+8..k+10, r]
//     c[0], c[1] = c[r, k..k+2] c[2], c[3] = c[r + 8, k..k+2]
__device__ __forceinline__ void mma_16816(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// `ldmatrix.x4`: four 8 × 8 matrices of bf16 from shared memory. Lane l gives the address of row
// l % 8 of matrix l / 8: 8 numbers, on a multiple of 16 bytes. It gets of each matrix m, in r[m],
// its numbers 2 (l % 4) and 2 (l % 4) + 1 of row l / 4.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const bf16* row) {
  const u32 at = (u32)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

// `ldmatrix.x4.trans`: as ldmatrix_x4, of the matrices transposed. Lane l gets of each matrix m, in
// r[m], the numbers l / 4 of rows 2 (l % 4) and 2 (l % 4) + 1.
__device__ __forceinline__ void ldmatrix_x4_transposed(u32 (&r)[4], const bf16* row) {
  const u32 at = (u32)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

// `cp.async` of 16 bytes, both on multiples of 16: begins to bring them to shared memory, or zeros
// where they are not valid (`global` is then not read). They are there for this thread after
// copy_wait, and for the others after a barrier behind that.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
  const u32 at = (u32)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
#else
  *(uint4*)shared = valid ? *(const uint4*)global : make_uint4(0, 0, 0, 0);
#endif
}

// `cp.async.commit_group`: ends a group of the copies that this thread began.
__device__ __forceinline__ void copy_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// `cp.async.wait_group`: waits until all groups of this thread but the last N have come.
template <int N>
__device__ __forceinline__ void copy_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];

// The shared memory whose size the launch gives, on a multiple of 128 bytes. Other shared memory is
// `__shared__ T name[N]`, at most 48 KB a kernel. Neither is zero at the start.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  return reinterpret_cast<T*>(dynamic_shared_bytes);
}

#endif

// What follows is the same on both.

// The place of a thread in its warp, and of its warp in the block.
__device__ __forceinline__ int lane_id() { return (int)(threadIdx.x % 32); }
__device__ __forceinline__ int warp_id() { return (int)(threadIdx.x / 32); }

// The same number in f32, exactly.
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) {
  return float_of_bits((u32)value.bits << 16);
}

// The nearest number of the type E, float or bf16, ties to even: narrow<E>(value).
template <class E>
__device__ __forceinline__ E narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float value) {
  return bf16{nearest_bf16(value)};
}

// The sum of a block's values, which every thread gets with the same bits: within each warp, then
// over the warps. `scratch` is shared memory for 33 values; it may be that of an earlier sum. The
// block has whole warps. T: float, double, u32.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
  value = warp_sum(value);
  __syncthreads();  // An earlier sum has been read.
  if (lane_id() == 0) scratch[warp_id()] = value;
  __syncthreads();
  return warp_sum(lane_id() < (int)(blockDim.x / 32) ? scratch[lane_id()] : T(0));
}

// The largest of a block's values, as block_sum; of NaN and a number, the number.
__device__ __forceinline__ float block_max(float value, float* scratch) {
  value = warp_max(value);
  __syncthreads();  // An earlier result has been read.
  if (lane_id() == 0) scratch[warp_id()] = value;
  __syncthreads();
  return warp_max(lane_id() < (int)(blockDim.x / 32) ? scratch[lane_id()] : -INFINITY);
}
