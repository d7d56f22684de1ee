// A kernel as the emulator finds and calls it. The build writes one table of these a source.
#pragma once
#include <utility>

#include "on_cpu.h"

struct Entry {
  const char* name;
  // One letter an argument: p an address, i 32 bits, l 64 bits, f a float.
  const char* kinds;
  // The most threads of a block, as the kernel's launch bounds say.
  u32 threads;
  void (*call)(const u64* values);
};

namespace emulated {
// How an argument is made of 64 bits. A type that is not here is none for a kernel.
template <class T>
struct Value;
template <class T>
struct Value<T*> {
  static constexpr char kind = 'p';
  static T* of(u64 bits) { return reinterpret_cast<T*>(bits); }
};
template <>
struct Value<int> {
  static constexpr char kind = 'i';
  static int of(u64 bits) { return (int)bits; }
};
template <>
struct Value<u32> {
  static constexpr char kind = 'i';
  static u32 of(u64 bits) { return (u32)bits; }
};
template <>
struct Value<u64> {
  static constexpr char kind = 'l';
  static u64 of(u64 bits) { return bits; }
};
template <>
struct Value<float> {
  static constexpr char kind = 'f';
  static float of(u64 bits) { return float_of_bits((u32)bits); }
};

template <auto kernel, class = decltype(kernel)>
struct Call;
template <auto kernel, class... A>
struct Call<kernel, void (*)(A...)> {
  static constexpr char kinds[] = {Value<A>::kind..., 0};
  // What these two read is the emulator's, and is not checked.
  template <size_t... I>
  __attribute__((no_sanitize("thread"))) static void each(const u64* values,
                                                          std::index_sequence<I...>) {
    kernel(Value<A>::of(values[I])...);
  }
  __attribute__((no_sanitize("thread"))) static void call(const u64* values) {
    each(values, std::index_sequence_for<A...>{});
  }
};
}  // namespace emulated

#define ENTRY(kernel, threads) \
  { #kernel, emulated::Call<&kernel>::kinds, threads, &emulated::Call<&kernel>::call }
