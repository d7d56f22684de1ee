// Checks of what a kernel reads and writes.
//
// Kernels are compiled with the compiler's instrumentation for finding races, which calls one of
// the functions at the end of this file before each access of memory. They find
//
// - accesses outside of the memory that the launch was given, or on no multiple of their size;
// - shared memory that is read before the block has written it, or before a copy has brought it;
// - races: two threads of a block use the same memory, one of them writes it, and no barrier is
//   between; or two blocks do.
//
// For that each GRAIN bytes have a Mark.
#include <stdio.h>
#include <stdlib.h>
#ifdef __linux__
#include <link.h>
#endif

#include "block.h"

namespace {

enum : u16 {
  // A writer: a copy that has begun.
  IN_FLIGHT = 0xffff,
  // Readers: several of one warp, with its number; several of several warps.
  LANES_OF = 0x8000,
  SEVERAL = 0xfffe,
};

// The first two of an emulation's regions are shared memory.
enum { DYNAMIC, VARIABLES, ARGUMENTS };

#ifdef __linux__
// Finds, among the parts of the running program, the variables of this thread that lie where
// `running` does; and whether an address is that of a constant.
struct Search {
  u64 address;
  Region variables;
  bool constant;
};

int look(dl_phdr_info* part, size_t, void* search) {
  Search& s = *static_cast<Search*>(search);
  for (int i = 0; i < part->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = part->dlpi_phdr[i];
    if (segment.p_type == PT_LOAD && !(segment.p_flags & PF_W))
      s.constant |= s.address - (part->dlpi_addr + segment.p_vaddr) < segment.p_memsz;
    const u64 low = reinterpret_cast<u64>(part->dlpi_tls_data);
    if (segment.p_type == PT_TLS && low &&
        reinterpret_cast<u64>(&running) - low < segment.p_memsz)
      s.variables = {static_cast<char*>(part->dlpi_tls_data), segment.p_memsz, nullptr};
  }
  return 0;
}

Search search(u64 address) {
  Search s = {address, {}, false};
  dl_iterate_phdr(look, &s);
  return s;
}
constexpr bool KNOWS_VARIABLES = true;
#else
// `__shared__` variables cannot be told from other memory: nothing is checked that is far from the
// arguments and dynamic shared memory.
struct Search {
  Region variables;
  bool constant;
};
Search search(u64) { return {{}, false}; }
constexpr bool KNOWS_VARIABLES = false;
#endif

Mark* new_marks(u64 bytes) {
  void* marks = calloc(bytes / GRAIN + 1, sizeof(Mark));
  if (!marks) abort();
  return static_cast<Mark*>(marks);
}

// Who, in words.
struct Name {
  char text[32];
};
Name name_of(u16 who) {
  Name name;
  if (who == SEVERAL)
    snprintf(name.text, sizeof name.text, "several warps");
  else if (who & LANES_OF)
    snprintf(name.text, sizeof name.text, "warp %u", who & ~LANES_OF);
  else
    snprintf(name.text, sizeof name.text, "thread %u", who);
  return name;
}

// What the marks of an access are compared with.
struct Access {
  Emulation& e;
  const Region& region;
  u64 at, bytes;
  bool write, shared;
  u16 me, epoch;

  [[noreturn]] void fail(const char* what) {
    char place[64] = "a __shared__ variable";
    const long index = &region - e.regions.data();
    if (index == DYNAMIC)
      snprintf(place, sizeof place, "dynamic shared memory, at byte %llu", at);
    else if (index >= ARGUMENTS)
      snprintf(place, sizeof place, "the memory of argument %ld, at byte %llu",
               index - ARGUMENTS + 1, at);
    e.fail("%s %llu bytes of %s, %s", write ? "writes" : "reads", bytes, place, what);
  }

  [[noreturn]] void race(const char* what, u16 who) {
    char text[96];
    snprintf(text, sizeof text, "which %s %s since the last barrier", name_of(who).text, what);
    fail(text);
  }

  // Whether what `who` did since the block's last barrier is before this access nevertheless.
  bool ordered(u16 who, u16 since) {
    if (who == me) return true;
    const u32 warp = who & LANES_OF ? who & ~LANES_OF : who / LANES;
    return who != SEVERAL && warp == me / LANES && since != epoch;
  }

  void check_writer(const Mark& mark) {
    if (mark.write_stamp >= e.block_stamp) {
      if (mark.writer == IN_FLIGHT) fail("which a copy has not brought yet");
      if (mark.write_stamp == e.stamp && !ordered(mark.writer, mark.write_epoch))
        race("has written", mark.writer);
    } else if (shared) {
      if (!write) fail("which nothing in this block has written");
    } else if (mark.write_stamp >= e.launch_stamp) {
      fail("which another block has written");
    }
  }

  void read(Mark& mark) {
    check_writer(mark);
    if (mark.read_stamp != e.stamp || ordered(mark.reader, mark.read_epoch)) {
      mark.read_stamp = e.stamp;
      mark.reader = me;
      mark.read_epoch = epoch;
    } else if (mark.reader != SEVERAL) {
      const u32 warp = mark.reader & LANES_OF ? mark.reader & ~LANES_OF : mark.reader / LANES;
      mark.reader = warp == me / LANES ? (u16)(LANES_OF | warp) : (u16)SEVERAL;
    }
  }

  void written(Mark& mark, u16 writer) {
    check_writer(mark);
    if (mark.read_stamp == e.stamp) {
      if (!ordered(mark.reader, mark.read_epoch)) race("has read", mark.reader);
    } else if (!shared && mark.read_stamp >= e.launch_stamp && mark.read_stamp < e.block_stamp) {
      fail("which another block has read");
    }
    mark.write_stamp = e.stamp;
    mark.writer = writer;
    mark.write_epoch = epoch;
    // What was read is before this.
    mark.read_stamp = 0;
  }
};

// The region that an access is in, all of it, which may not be the last one. Null for what is not
// checked.
const Region* find(Emulation& e, u64 address, u64 bytes, bool write) {
  for (const Region& region : e.regions)
    if (region.holds(address, bytes)) return e.last_region = &region;
  const Region* nearest = nullptr;
  u64 distance = 1 << 20;
  for (const Region& region : e.regions) {
    const u64 at = region.offset(address);
    // Behind the region, or before it.
    const u64 apart = (long long)at < 0 ? 0 - at : at < region.bytes ? 0 : at - region.bytes;
    if (region.base && apart < distance) {
      distance = apart;
      nearest = &region;
    }
  }
  if (!write && search(address).constant) return nullptr;
  if (!KNOWS_VARIABLES && (!nearest || distance > 256)) return nullptr;
  const char* what = write ? "writes" : "reads";
  if (address < 4096) e.fail("%s at an address that is null", what);
  if (!nearest) e.fail("%s outside of all memory that the launch was given", what);
  const long index = nearest - e.regions.data();
  char place[64] = "the __shared__ variables";
  if (index == DYNAMIC)
    snprintf(place, sizeof place, "dynamic shared memory");
  else if (index >= ARGUMENTS)
    snprintf(place, sizeof place, "the memory of argument %ld", index - ARGUMENTS + 1);
  if (address < reinterpret_cast<u64>(nearest->base))
    e.fail("%s %llu bytes %llu before %s", what, bytes, distance, place);
  e.fail("%s %llu bytes at byte %llu of %s, which has %llu", what, bytes,
         nearest->offset(address), place, nearest->bytes);
}

// Compares and sets the marks of an access; `writer` is who writes.
__attribute__((noinline)) void mark(Emulation& e, const void* pointer, u64 bytes, bool write,
                                    u16 writer) {
  const u64 address = reinterpret_cast<u64>(pointer);
  const Region* region = e.last_region;
  if (!region->holds(address, bytes)) region = find(e, address, bytes, write);
  if (!region) return;
  const u64 at = region->offset(address);
  const bool shared = region < e.regions.data() + ARGUMENTS;
  Access access = {e,     *region, at, bytes, write, shared, (u16)e.current, e.my_warp().epoch};
  Mark* end = region->marks + (at + bytes - 1) / GRAIN + 1;
  for (Mark* m = region->marks + at / GRAIN; m < end; m++)
    if (write)
      access.written(*m, writer);
    else
      access.read(*m);
}

// The same for most accesses, with less to compare: gives whether it was one of these.
template <u64 BYTES, bool WRITE>
inline __attribute__((always_inline)) bool mark_simply(Emulation& e, u64 address) {
  const Region& region = *e.last_region;
  if (!region.holds(address, BYTES) || address % GRAIN != 0) return false;
  const bool shared = &region < e.regions.data() + ARGUMENTS;
  const u32 stamp = e.stamp, block = e.block_stamp, launch = shared ? block : e.launch_stamp;
  const u16 me = (u16)e.current, my_warp = LANES_OF | me / LANES, epoch = e.my_warp().epoch;
  Mark* const first = region.marks + region.offset(address) / GRAIN;
  for (Mark* m = first; m < first + (BYTES + GRAIN - 1) / GRAIN; m++) {
    // Read before in this way: whoever wrote since then would have been found.
    if (!WRITE && m->read_stamp == stamp &&
        (m->reader == SEVERAL ||
         ((m->reader == me || m->reader == my_warp) && m->read_epoch == epoch)))
      continue;
    const bool here = m->write_stamp >= block;
    // Written before the last barrier of this block, and not still on the way; or by me.
    const bool before = m->write_stamp < stamp ? m->writer != IN_FLIGHT : m->writer == me;
    if (WRITE) {
      const bool unwritten = m->write_stamp < launch || (here && before);
      const bool unread = m->read_stamp < launch ||
                          (m->read_stamp >= block && (m->read_stamp < stamp || m->reader == me));
      if (!unwritten || !unread) return false;
      m->write_stamp = stamp;
      m->writer = me;
      m->write_epoch = epoch;
    } else {
      if (!(here ? before : !shared && m->write_stamp < launch) || m->read_stamp == stamp)
        return false;
      m->read_stamp = stamp;
      m->reader = me;
      m->read_epoch = epoch;
    }
  }
  return true;
}

}  // namespace

void Emulation::set_regions(const Region* arguments, u32 count, u64 dynamic_bytes) {
  if (!dynamic) {
    // A multiple of the alignment.
    dynamic = static_cast<char*>(aligned_alloc(128, MAX_SHARED));
    if (!dynamic) abort();
    regions.push_back({dynamic, 0, new_marks(MAX_SHARED)});
  }
  const Region now = search(0).variables;
  if (now.base != variables.base) {
    free(variables.marks);
    variables = {now.base, now.bytes, new_marks(now.bytes)};
  }
  regions.resize(1);
  regions[DYNAMIC].bytes = dynamic_bytes;
  regions.push_back(variables);
  regions.insert(regions.end(), arguments, arguments + count);
  last_region = &regions[DYNAMIC];
}

void Emulation::access(const void* address, u64 bytes, bool write) {
  // A thread's own variables.
  if (reinterpret_cast<u64>(address) - stack_low < STACK_BYTES) return;
  mark(*this, address, bytes, write, (u16)current);
}

void Emulation::begin_copy(Copy copy) {
  if (copy.from) access(copy.from, 16, false);
  mark(*this, copy.to, 16, true, IN_FLIGHT);
  thread[current].copies.push_back(copy);
}

void Emulation::end_copy(const Copy& copy) {
  if (const Region* region = find(*this, reinterpret_cast<u64>(copy.to), 16, true)) {
    Mark* first = region->marks + (copy.to - region->base) / (long)GRAIN;
    for (Mark* m = first; m < first + 16 / GRAIN; m++) {
      m->write_stamp = stamp;
      m->writer = (u16)current;
      m->write_epoch = my_warp().epoch;
    }
  }
  if (copy.from)
    memcpy(copy.to, copy.from, 16);
  else
    memset(copy.to, 0, 16);
}

// What the compiler's instrumentation calls.
namespace {
inline void accessed(const void* address, u64 bytes, bool write) {
  if (Emulation* e = running) e->access(address, bytes, write);
}

template <u64 BYTES, bool WRITE>
inline void accessed(const void* pointer) {
  Emulation* e = running;
  const u64 address = reinterpret_cast<u64>(pointer);
  if (!e || address - e->stack_low < STACK_BYTES || mark_simply<BYTES, WRITE>(*e, address)) return;
  mark(*e, pointer, BYTES, WRITE, (u16)e->current);
}
}  // namespace

#define ACCESS(bytes)                                                                   \
  void __tsan_read##bytes(void* at) { accessed<bytes, false>(at); }                     \
  void __tsan_write##bytes(void* at) { accessed<bytes, true>(at); }                     \
  void __tsan_unaligned_read##bytes(void* at) { accessed(at, bytes, false); }           \
  void __tsan_unaligned_write##bytes(void* at) { accessed(at, bytes, true); }           \
  void __tsan_volatile_read##bytes(void* at) { accessed(at, bytes, false); }            \
  void __tsan_volatile_write##bytes(void* at) { accessed(at, bytes, true); }            \
  void __tsan_unaligned_volatile_read##bytes(void* at) { accessed(at, bytes, false); }  \
  void __tsan_unaligned_volatile_write##bytes(void* at) { accessed(at, bytes, true); }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* at, unsigned long bytes) { accessed(at, bytes, false); }
void __tsan_write_range(void* at, unsigned long bytes) { accessed(at, bytes, true); }
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  accessed(from, bytes, false);
  accessed(to, bytes, true);
  return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  accessed(from, bytes, false);
  accessed(to, bytes, true);
  return memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int byte, unsigned long bytes) {
  accessed(to, bytes, true);
  return memset(to, byte, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// And that for what C++ leaves undefined.
void __ubsan_handle_type_mismatch_v1(void*, void* address) {
  running->fail("accesses %p, which is no multiple of the alignment of the type", address);
}
void __ubsan_handle_out_of_bounds(void*, void* index) {
  running->fail("uses index %lld of an array that is shorter", (long long)index);
}
void __ubsan_handle_add_overflow(void*, void*, void*) {
  running->fail("has a sum that is too large for its type");
}
void __ubsan_handle_sub_overflow(void*, void*, void*) {
  running->fail("has a difference that is too large for its type");
}
void __ubsan_handle_mul_overflow(void*, void*, void*) {
  running->fail("has a product that is too large for its type");
}
void __ubsan_handle_divrem_overflow(void*, void*, void*) {
  running->fail("divides an integer by zero, or the smallest one by -1");
}
void __ubsan_handle_negate_overflow(void*, void*) {
  running->fail("negates a number that is too large for its type");
}
}
