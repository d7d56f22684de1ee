// Token embedding: rows of a table by token, and the gradient of the table.
//
// Nothing is added atomically: the host sorts the rows by token, keeping their order, and cuts what
// belongs to one token into pieces. A block adds up one piece. A token of one piece is done then; a
// token of several has their sums added in a second pass, in order.
#include "vectors.h"

namespace embedding {

inline void add(Four& sum, const Four& four) {
  for (int i = 0; i < 4; i++) sum.at[i] += four.at[i];
}

// The column that a thread begins at.
inline int own_column() { return 4 * (int)(blockIdx.y * blockDim.x + threadIdx.x); }

// Where a piece's place has this bit, the rest of it is a row of the partial sums.
constexpr u32 PARTIAL = 0x80000000u;

}  // namespace embedding

// x ← the rows `ids` of the table, one a block.
extern "C" __global__ void __launch_bounds__(256) embed(const float* table, const u32* ids,
                                                        float* x, int d) {
  using namespace embedding;
  int column = own_column();
  if (column >= d) return;
  Four four = load_row(table + (u64)ids[blockIdx.x] * d, column, d);
  store_row(x + (u64)blockIdx.x * d, column, d, four);
}

// Adds up the rows order[starts[p]] to order[starts[p + 1] - 1] of dx for each piece p, one a
// block, in order: into a row of the gradient, to which it is added where `adds`, or into one of
// the partial sums.
extern "C" __global__ void __launch_bounds__(256) embed_backward(
    const float* dx, const u32* order, const u32* starts, const u32* places, float* gradient,
    float* partial, int d, int adds) {
  using namespace embedding;
  int column = own_column();
  if (column >= d) return;
  u32 place = places[blockIdx.x];
  Four sum = {};
  u32 end = starts[blockIdx.x + 1];
#pragma unroll 4
  for (u32 at = starts[blockIdx.x]; at < end; at++)
    add(sum, load_row(dx + (u64)order[at] * d, column, d));
  if (place & PARTIAL) {
    store_row(partial + (u64)(place & ~PARTIAL) * d, column, d, sum);
    return;
  }
  float* row = gradient + (u64)place * d;
  if (adds) add(sum, load_row(row, column, d));
  store_row(row, column, d, sum);
}

// Adds up rows firsts[t] to firsts[t + 1] - 1 of the partial sums for each token ids[t], one a
// block, in order.
extern "C" __global__ void __launch_bounds__(256) embed_join(
    const float* partial, const u32* firsts, const u32* ids, float* gradient, int d, int adds) {
  using namespace embedding;
  int column = own_column();
  if (column >= d) return;
  Four sum = {};
  u32 end = firsts[blockIdx.x + 1];
#pragma unroll 4
  for (u32 at = firsts[blockIdx.x]; at < end; at++)
    add(sum, load_row(partial + (u64)at * d, column, d));
  float* row = gradient + (u64)ids[blockIdx.x] * d;
  if (adds) add(sum, load_row(row, column, d));
  store_row(row, column, d, sum);
}
