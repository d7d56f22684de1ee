// Blocks of threads: who runs, barriers, and what the lanes of a warp do together.
#include "block.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "context.h"

thread_local Emulation* running = nullptr;

namespace {

constexpr u64 GUARD_BYTES = 16 << 10;  // A whole number of pages.
// Stacks begin at different places of a page, so that they are not all in the same lines of the
// processor's cache.
constexpr u64 PLACES = 4096, PLACE_STEP = 320;
constexpr u64 MAPPED_BYTES = GUARD_BYTES + STACK_BYTES + PLACES;

char* new_stack(u64 number) {
  void* all =
      mmap(nullptr, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED || mprotect(all, GUARD_BYTES, PROT_NONE) != 0) abort();
  return static_cast<char*>(all) + GUARD_BYTES + number * PLACE_STEP % PLACES;
}

void free_stack(char* stack, u64 number) {
  munmap(stack - number * PLACE_STEP % PLACES - GUARD_BYTES, MAPPED_BYTES);
}

// Runs threads, one after the other, on the stack that it was begun on.
void run_threads() {
  Emulation& e = *running;
  for (;;) {
    e.entry->call(e.values);
    Thread& me = e.thread[e.current];
    Warp& warp = e.my_warp();
    if (warp.arrived > 0)
      e.fail("has ended, while lanes of its warp wait for it at %s", warp.meeting);
    me.state = State::Done;
    warp.alive--;
    e.alive--;
    if (e.alive > 0) {
      if (e.arrived == e.alive) e.release();
      const u32 next = e.pick();
      if (e.thread[next].state == State::Fresh) {
        e.thread[next].state = State::Running;
        e.thread[next].stack = me.stack;
        e.current = next;
        continue;
      }
      e.idle_stacks.push_back(me.stack);
      e.go_to(next, &me.context);
    }
    e.idle_stacks.push_back(me.stack);
    switch_context(&me.context, e.home);
  }
}

}  // namespace

// The next thread that can run.
u32 Emulation::pick() {
  if (runnable == 0) {
    // Each waits for another that does not come.
    u32 at_block = 0, at_warp = 0;
    while (at_block < threads - 1 && thread[at_block].state != State::AtBlock) at_block++;
    while (at_warp < threads - 1 && thread[at_warp].state != State::AtWarp) at_warp++;
    fail("waits for ever: thread %u is at __syncthreads and thread %u at %s", at_block, at_warp,
         warp[at_warp / LANES].meeting);
  }
  for (;;) {
    if (next == threads) {
      next = 0;
      if (shuffled)
        for (u32 i = threads - 1; i > 0; i--) {
          // SplitMix64.
          u64 bits = random += 0x9e3779b97f4a7c15;
          bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
          bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
          const u32 other = (u32)((bits ^ bits >> 31) % (i + 1)), mine = order[i];
          order[i] = order[other];
          order[other] = mine;
        }
    }
    const u32 chosen = order[next++];
    if (thread[chosen].state <= State::Ready) {
      runnable--;
      return chosen;
    }
  }
}

// A context in which a thread begins, on a stack of its own.
void* Emulation::begin(Thread& fresh) {
  if (idle_stacks.empty()) {
    stacks.push_back(new_stack(stacks.size()));
    idle_stacks.push_back(stacks.back());
  }
  fresh.stack = idle_stacks.back();
  idle_stacks.pop_back();
  return new_context(fresh.stack + STACK_BYTES, run_threads);
}

// Goes on with a thread that was picked; returns when the caller's own stack is gone on with.
void Emulation::go_to(u32 chosen, void** save) {
  Thread& other = thread[chosen];
  void* context = other.context;
  if (other.state == State::Fresh) context = begin(other);
  other.state = State::Running;
  current = chosen;
  stack_low = reinterpret_cast<u64>(other.stack);
  switch_context(save, context);
}

// Lets others run until this thread, whose state says what it waits for, can go on.
void Emulation::pause() {
  const u32 me = current, chosen = pick();
  if (chosen == me)
    thread[me].state = State::Running;
  else
    go_to(chosen, &thread[me].context);
}

// All threads of the block are at its barrier.
void Emulation::release() {
  arrived = 0;
  stamp++;
  for (u32 i = 0; i < threads; i++)
    if (thread[i].state == State::AtBlock) {
      thread[i].state = State::Ready;
      runnable++;
    }
}

// Waits until all lanes of the warp are here with what they show; gives the set they show it in.
u32 Emulation::meet(const char* what, const Warp::Shown& mine) {
  Warp& w = my_warp();
  if (w.alive < LANES) fail("is at %s, for which its warp has %u lanes, not 32", what, w.alive);
  if (w.arrived > 0 && w.meeting != what)
    fail("is at %s, while lanes of its warp are at %s", what, w.meeting);
  const u32 set = w.set;
  w.meeting = what;
  w.shown[set][current % LANES] = mine;
  thread[current].state = State::AtWarp;
  if (++w.arrived == LANES) {
    w.arrived = 0;
    w.set ^= 1;
    for (u32 i = current / LANES * LANES; i < (current / LANES + 1) * LANES; i++)
      thread[i].state = State::Ready;
    runnable += LANES;
    if (!shuffled) {
      // The last one goes on at once.
      thread[current].state = State::Running;
      runnable--;
      return set;
    }
  }
  pause();
  return set;
}

void Emulation::run_block() {
  alive = runnable = threads;
  arrived = next = 0;
  if (shuffled) next = threads;
  stamp++;
  block_stamp = stamp;
  for (u32 i = 0; i < threads; i++) {
    thread[i].state = State::Fresh;
    thread[i].group = 0;
    thread[i].copies.clear();
  }
  for (u32 i = 0; i * LANES < threads; i++) {
    warp[i].alive = threads - i * LANES < LANES ? threads - i * LANES : LANES;
    warp[i].arrived = warp[i].set = warp[i].epoch = 0;
  }
  idle_stacks = stacks;
  go_to(pick(), &home);
}

void Emulation::fail(const char* format, ...) {
  int length = snprintf(message, sizeof message, "thread %u of block (%u, %u, %u) ", current,
                        block[0], block[1], block[2]);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message + length, sizeof message - (size_t)length, format, arguments);
  va_end(arguments);
  note_place();
  failed = true;
  void* never;
  switch_context(&never, home);
  abort();
}

namespace emulated {
u32 thread() { return running->current; }
u32 threads() { return running->threads; }
u32 block(int side) { return running->block[side]; }
u32 grid(int side) { return running->grid[side]; }
void* dynamic_memory() { return running->dynamic; }

u64 exchange(u64 bits, u32 from) {
  Emulation& e = *running;
  Warp& warp = e.my_warp();
  Warp::Shown mine;
  mine.bits = bits;
  const u32 set = e.meet("a shuffle", mine);
  return warp.shown[set][from].bits;
}

template <class T, class F>
static T combined(const char* what, T value, F combine) {
  Emulation& e = *running;
  Warp& warp = e.my_warp();
  Warp::Shown mine;
  memcpy(&mine.bits, &value, sizeof value);
  const u32 set = e.meet(what, mine);
  T of[LANES];
  for (u32 i = 0; i < LANES; i++) memcpy(&of[i], &warp.shown[set][i].bits, sizeof value);
  for (u32 apart = LANES / 2; apart > 0; apart /= 2)
    for (u32 i = 0; i < apart; i++) of[i] = combine(of[i], of[i + apart]);
  return of[0];
}

template <class T>
static T sum_of(T value) {
  return combined("warp_sum", value, [](T a, T b) { return a + b; });
}
float sum(float value) { return sum_of(value); }
double sum(double value) { return sum_of(value); }
u32 sum(u32 value) { return sum_of(value); }
float largest(float value) { return combined("warp_max", value, fmaxf); }

Sums mma(u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  Emulation& e = *running;
  Warp& warp = e.my_warp();
  const u32 lane = e.current % LANES;
  Warp::Shown mine;
  const u32 registers[6] = {a0, a1, a2, a3, b0, b1};
  memcpy(mine.registers, registers, sizeof registers);
  const u32 last = warp.arrived == LANES - 1;
  if (last) {
    // The one that comes last multiplies for all.
    const u32 set = warp.set;
    warp.shown[set][lane] = mine;
    float a[16][16], b[16][8];
    for (u32 l = 0; l < LANES; l++) {
      const u32* shown = warp.shown[set][l].registers;
      const u32 r = l / 4, k = l % 4 * 2;
      for (u32 half = 0; half < 2; half++) {
        auto number = [&](u32 i) {
          return float_of_bits(half ? shown[i] & 0xffff0000 : shown[i] << 16);
        };
        a[r][k + half] = number(0);
        a[r + 8][k + half] = number(1);
        a[r][k + 8 + half] = number(2);
        a[r + 8][k + 8 + half] = number(3);
        b[k + half][r] = number(4);
        b[k + 8 + half][r] = number(5);
      }
    }
    for (u32 r = 0; r < 16; r++) {
      float sums[8] = {};
      for (u32 k = 0; k < 16; k++)
        for (u32 n = 0; n < 8; n++) sums[n] += a[r][k] * b[k][n];
      memcpy(warp.sums[set][r], sums, sizeof sums);
    }
  }
  const u32 set = e.meet("mma", mine), r = lane / 4, n = lane % 4 * 2;
  const auto& sums = warp.sums[set];
  return {{sums[r][n], sums[r][n + 1], sums[r + 8][n], sums[r + 8][n + 1]}};
}

Registers ldmatrix(const void* row, bool transposed) {
  Emulation& e = *running;
  Warp& warp = e.my_warp();
  const u32 lane = e.current % LANES;
  if (reinterpret_cast<u64>(row) % 16 != 0)
    e.fail("gives ldmatrix a row that is not on a multiple of 16 bytes");
  e.access(row, 16, false);
  Warp::Shown mine;
  memcpy(mine.row, row, 16);
  const u32 set = e.meet(transposed ? "ldmatrix, transposed" : "ldmatrix", mine);
  Registers loaded;
  for (u32 m = 0; m < 4; m++) {
    const Warp::Shown* rows = &warp.shown[set][m * 8];
    const u32 r = lane / 4, c = lane % 4 * 2;
    const u16 low = transposed ? rows[c].row[r] : rows[r].row[c];
    const u16 high = transposed ? rows[c + 1].row[r] : rows[r].row[c + 1];
    loaded.of[m] = low | (u32)high << 16;
  }
  return loaded;
}

// Brings what this thread's groups but the last so many are to bring.
void copy_wait(u32 groups) {
  Emulation& e = *running;
  Thread& me = e.thread[e.current];
  size_t kept = 0;
  for (const Copy& copy : me.copies) {
    if (copy.group + groups < me.group)
      e.end_copy(copy);
    else
      me.copies[kept++] = copy;
  }
  me.copies.resize(kept);
}
}  // namespace emulated

void __syncthreads() {
  Emulation& e = *running;
  e.thread[e.current].state = State::AtBlock;
  if (++e.arrived == e.alive) {
    e.release();
    if (!e.shuffled) {
      e.thread[e.current].state = State::Running;
      e.runnable--;
      return;
    }
  }
  e.pause();
}

void warp_sync() {
  Emulation& e = *running;
  Warp& warp = e.my_warp();
  if (warp.arrived == LANES - 1) warp.epoch++;
  e.meet("warp_sync", Warp::Shown{});
}

void copy_async_16(void* shared, const void* global, bool valid) {
  Emulation& e = *running;
  if (reinterpret_cast<u64>(shared) % 16 != 0 || (valid && reinterpret_cast<u64>(global) % 16 != 0))
    e.fail("copies 16 bytes that are not on a multiple of 16");
  e.begin_copy({static_cast<char*>(shared), valid ? static_cast<const char*>(global) : nullptr,
                e.thread[e.current].group});
}

void copy_commit() { running->thread[running->current].group++; }

void __trap() { running->fail("stops itself"); }

extern "C" {
// `note_place` is called by the code of a kernel that fails.
Emulation* cuvee_emulator_new(bool shuffled, u64 seed, void (*note_place)()) {
  Emulation* e = new Emulation();
  e->shuffled = shuffled;
  e->random = seed;
  e->note_place = note_place;
  return e;
}

void cuvee_emulator_free(Emulation* e) {
  for (u64 i = 0; i < e->stacks.size(); i++) free_stack(e->stacks[i], i);
  free(e->dynamic);
  free(e->regions.empty() ? nullptr : e->regions[0].marks);
  free(e->variables.marks);
  delete e;
}

// Runs a kernel; says in words what went wrong, or gives null.
const char* cuvee_emulator_launch(Emulation* e, const Entry* entry, const u32* grid, u32 threads,
                                  u64 dynamic_bytes, const u64* values, const Region* arguments,
                                  u32 count) {
  e->entry = entry;
  e->values = values;
  memcpy(e->grid, grid, sizeof e->grid);
  e->threads = threads;
  e->failed = false;
  e->launch_stamp = e->stamp + 1;
  e->set_regions(arguments, count, dynamic_bytes);
  for (u32 i = 0; i < threads; i++) e->order[i] = i;
  running = e;
  u32* at = e->block;
  for (at[2] = 0; at[2] < grid[2] && !e->failed; at[2]++)
    for (at[1] = 0; at[1] < grid[1] && !e->failed; at[1]++)
      for (at[0] = 0; at[0] < grid[0] && !e->failed; at[0]++) e->run_block();
  running = nullptr;
  return e->failed ? e->message : nullptr;
}
}
