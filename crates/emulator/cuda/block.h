// A block of threads as the emulator runs it.
//
// One of a block's threads runs at a time, until it waits at a barrier or ends; then the next does.
// A thread that has not begun needs no stack of its own yet: it begins on that of a thread that has
// ended. So a kernel without barriers runs on one stack, thread after thread.
#pragma once
#include <vector>

#include "entry.h"

constexpr u32 MAX_THREADS = 1024;
constexpr u32 LANES = 32;
constexpr u64 MAX_SHARED = 227 << 10;
// Bytes that one mark of memory.cpp stands for: the smallest element's.
constexpr u64 GRAIN = 2;

// Who wrote and who read a grain of memory last: `stamp` says since which barrier of which block,
// `epoch` since which warp_sync of the warp.
struct Mark {
  u32 write_stamp;
  u16 writer, write_epoch;
  u32 read_stamp;
  u16 reader, read_epoch;
};

// Memory that a kernel may use, with the marks of its grains.
struct Region {
  char* base;
  u64 bytes;
  Mark* marks;

  u64 offset(u64 address) const { return address - reinterpret_cast<u64>(base); }
  bool holds(u64 address, u64 count) const {
    return offset(address) < bytes && offset(address) + count <= bytes;
  }
};

struct Copy {
  char* to;
  const char* from;  // Or null, for zeros.
  u32 group;
};

enum class State : unsigned char { Fresh, Ready, Running, AtBlock, AtWarp, Done };

struct Thread {
  State state;
  char* stack;    // The lower end, once it has begun.
  void* context;  // What is saved there while others run.
  u32 group;      // Groups of copies it has ended.
  std::vector<Copy> copies;
};

// What the lanes of a warp show each other, in two sets: a lane may be at the next meeting before
// another has read what was shown at this one, but not at the one after.
struct Warp {
  u32 alive, arrived, set;
  u16 epoch;
  const char* meeting;
  union Shown {
    u64 bits;
    u32 registers[6];
    u16 row[8];
  } shown[2][LANES];
  float sums[2][16][8];
};

struct Emulation {
  // The launch.
  const Entry* entry;
  const u64* values;
  u32 grid[3], block[3];
  u32 threads;
  bool shuffled;
  u64 random;
  // Threads and who is next.
  Thread thread[MAX_THREADS];
  Warp warp[MAX_THREADS / LANES];
  u32 order[MAX_THREADS];
  u32 next, current, alive, runnable, arrived;
  // Stacks that no thread uses, and all.
  std::vector<char*> idle_stacks, stacks;
  void* home;
  // Memory: dynamic shared memory, `__shared__` variables, the arguments'.
  std::vector<Region> regions;
  u64 stack_low;  // Of the thread that runs.
  char* dynamic;
  Region variables;
  const Region* last_region;
  u32 stamp, block_stamp, launch_stamp;
  // What went wrong.
  bool failed;
  char message[512];
  void (*note_place)();

  void run_block();
  inline __attribute__((always_inline)) void pause();
  u32 pick();
  void* begin(Thread& fresh);
  inline __attribute__((always_inline)) void go_to(u32 next, void** save);
  void release();
  inline __attribute__((always_inline)) u32 meet(const char* what, const Warp::Shown& mine);
  Warp& my_warp() { return warp[current / LANES]; }
  [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
  // memory.cpp
  void set_regions(const Region* arguments, u32 count, u64 dynamic_bytes);
  void access(const void* address, u64 bytes, bool write);
  void begin_copy(Copy copy);
  void end_copy(const Copy& copy);
};

constexpr u64 STACK_BYTES = 128 << 10;

// The emulation whose kernel this thread of the system runs, or null.
extern thread_local Emulation* running;
