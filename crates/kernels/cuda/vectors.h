// Neighbouring numbers, which are read and written at once.
#pragma once

#include "device.h"

// N numbers, on a multiple of their size.
template <class E, int N>
struct alignas(N * sizeof(E)) Pack {
  E at[N];
};

typedef Pack<float, 4> Four;

// The N numbers from `from` on: load<N>(from).
template <int N, class E>
inline Pack<E, N> load(const E* from) {
  return *reinterpret_cast<const Pack<E, N>*>(from);
}

template <class E, int N>
inline void store(E* to, const Pack<E, N>& pack) {
  *reinterpret_cast<Pack<E, N>*>(to) = pack;
}

// The nearest numbers of the type E: narrow<E>(pack).
template <class E, int N>
inline Pack<E, N> narrow(const Pack<float, N>& pack) {
  Pack<E, N> rounded;
  for (int i = 0; i < N; i++) rounded.at[i] = narrow<E>(pack.at[i]);
  return rounded;
}

// Numbers `at` to `at` + 3 of n, zeros beyond the end: at once if `whole`, which says that all are
// there and lie on 16 bytes. I: int, u64.
template <class I>
inline Four load_four(const float* from, I at, I n, bool whole) {
  if (whole) return load<4>(from + at);
  Four four = {};
  for (int i = 0; i < 4; i++)
    if (at + i < n) four.at[i] = from[at + i];
  return four;
}

template <class I>
inline void store_four(float* to, I at, I n, bool whole, const Four& four) {
  if (whole) return store(to + at, four);
  for (int i = 0; i < 4; i++)
    if (at + i < n) to[at + i] = four.at[i];
}

// The same of a vector, which begins on 16 bytes; `at` is a multiple of 4.
template <class I>
inline Four load_of(const float* from, I at, I n) {
  return load_four(from, at, n, at + 4 <= n);
}

template <class I>
inline void store_of(float* to, I at, I n, const Four& four) {
  store_four(to, at, n, at + 4 <= n, four);
}

// The same of a matrix's row of d numbers, which lies on 16 bytes where d is a multiple of 4.
inline Four load_row(const float* row, int column, int d) {
  return load_four(row, column, d, d % 4 == 0);
}

inline void store_row(float* row, int column, int d, const Four& four) {
  store_four(row, column, d, d % 4 == 0, four);
}

// The first of the four numbers that a thread has, where blocks share them in one dimension.
inline u64 own_four() { return 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x); }
