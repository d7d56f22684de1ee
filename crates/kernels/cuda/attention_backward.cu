// The gradient of causal attention in bf16 on tensor cores. The probabilities p are computed again
// from the scores and the forward's log-sums (FlashAttention-2; Dao, 2023):
//
//     p = e^(scale · q kᵀ − log_sum)      dp = d_out vᵀ      ds = p · (dp − delta)
//     dv = pᵀ d_out       dk = scale · dsᵀ q       dq = scale · ds k       delta = Σ out · d_out
//
// One kernel has a tile of keys and adds up dk and dv over the queries that see it, one query head
// after the other; one has a tile of queries and adds up dq over keys. Scores are so computed
// twice, but nothing is ever added to what another block adds to: every sum has one order.
//
// In the first kernel scores are transposed, a row a key: then p and ds stand in their lanes as the
// left operands of dv and dk, as p in forward (attention.h). What is a query's, its log-sum and
// its delta, belongs to a column there, and comes from shared memory.
#include "attention.h"
#include "vectors.h"

namespace attention {

// Of each query of a tile: log₂ of its softmax's denominator, delta, the first key that it sees.
template <int STEP>
struct Queries {
  float log_sum[STEP], delta[STEP];
  int begin[STEP];
};

// Threads 0 to STEP − 1 read one query's each. What is behind the sequence has probability 0.
template <int STEP>
struct Query {
  float log_sum, delta;
  int begin;

  __device__ __forceinline__ void read(const float* log_sums, const float* deltas,
                                       const u32* documents, int query, int context) {
    const bool valid = threadIdx.x < STEP && query < context;
    log_sum = valid ? log_sums[query] * LOG2_E : INFINITY;
    delta = valid ? deltas[query] : 0;
    begin = valid ? first_key(documents, query) : 0;
  }

  __device__ __forceinline__ void store(Queries<STEP>& queries) const {
    if (threadIdx.x >= STEP) return;
    queries.log_sum[threadIdx.x] = log_sum;
    queries.delta[threadIdx.x] = delta;
    queries.begin[threadIdx.x] = begin;
  }
};

// dk and dv of 64 M keys, going through STEP queries at a time.
template <int E, int M, int STEP, bool KEPT>
__device__ __forceinline__ void by_keys(const bf16* qkv, bf16* d_qkv, int stride, const bf16* d_out,
                                        int out_stride, const float* log_sums, const float* delta,
                                        const u32* documents, int context, int query_heads,
                                        int kv_heads, int e, float scale) {
  constexpr int KEYS = 16 * M * WARPS;
  bf16* keys = dynamic_shared<bf16>();
  bf16* values = keys + KEYS * E;
  const Pairs<STEP, E> pairs = {values + KEYS * E};  // Of queries and d_out.
  Queries<STEP>* numbers = reinterpret_cast<Queries<STEP>*>(pairs.end());  // Two, by turns.
  __shared__ u32 scratch[33];

  const Place place = place_of_block((context + KEYS - 1) / KEYS, kv_heads);
  const int repeats = query_heads / kv_heads;
  const u64 sequence = (u64)place.sequence * context;
  qkv += sequence * stride;
  d_out += sequence * out_stride;
  if (documents) documents += sequence;
  // Of the group's first query head.
  qkv += place.head * repeats * e;
  d_out += place.head * repeats * e;
  log_sums += ((u64)place.sequence * query_heads + place.head * repeats) * context;
  delta += ((u64)place.sequence * query_heads + place.head * repeats) * context;

  const int block_first = place.tile * KEYS;
  const int block_rows = smaller(KEYS, context - block_first);
  // From the first head's queries to the group's keys, and on to its values.
  const int to_keys = (query_heads + place.head - place.head * repeats) * e;
  const int to_values = to_keys + kv_heads * e;
  begin_tile<KEYS, E>(keys, qkv + (u64)block_first * stride + to_keys, stride, block_rows, e);
  begin_tile<KEYS, E>(values, qkv + (u64)block_first * stride + to_values, stride, block_rows, e);

  // Tiles of queries from the diagonal on, up to the last with a query of a document that begins
  // no later than the last of these keys: documents begin in order, so these are the first ones.
  const int first_query = block_first / STEP * STEP;
  int tiles = (context - first_query + STEP - 1) / STEP;
  if (documents) {
    u32 seen = 0;
    for (int tile = (int)threadIdx.x; tile < tiles; tile += THREADS)
      seen += first_key(documents, first_query + tile * STEP) < block_first + block_rows;
    tiles = (int)block_sum(seen, scratch);
  }

  const int row = warp_id() * 16 * M, first = block_first + row, last = first + 16 * M - 1;
  const int r = lane_id() / 4, k = lane_id() % 4 * 2;
  float d_keys[M][E / 8][4], d_values[M][E / 8][4];
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int n = 0; n < E / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) d_keys[m][n][i] = d_values[m][n][i] = 0;

  pairs.begin(0, qkv, stride, d_out, out_stride, first_query, context, e);
  Query<STEP> query;
  query.read(log_sums, delta, documents, first_query + (int)threadIdx.x, context);
  query.store(numbers[0]);
  pairs.wait();
  Rows<E, M, KEPT> own_keys, own_values;
  own_keys.tile = keys, own_values.tile = values;
  own_keys.row = own_values.row = row;
  own_keys.keep();
  own_values.keep();

  const float scale2 = scale * LOG2_E;
  const int steps = tiles * repeats;
  for (int step = 0; step < steps; step++) {
    const int turn = step & 1;
    pairs.wait();
    const bool more = step + 1 < steps;
    if (more) {
      const int head = (step + 1) / tiles, at = first_query + (step + 1) % tiles * STEP;
      pairs.begin(turn ^ 1, qkv + head * e, stride, d_out + head * e, out_stride, at, context, e);
      query.read(log_sums + (u64)head * context, delta + (u64)head * context, documents,
                 at + (int)threadIdx.x, context);
    }

    const int at = first_query + step % tiles * STEP;
    const Queries<STEP>& of = numbers[turn];
    // Some query of the tile sees some key of the warp.
    if (at + STEP > first && of.begin[0] <= last) {
      const bool masked =
          at < last || of.begin[smaller(STEP, context - at) - 1] > first;
      float p[M][STEP / 8][4], ds[M][STEP / 8][4];
      multiply_rows(p, own_keys, pairs.first(turn));
#pragma unroll
      for (int n = 0; n < STEP / 8; n++) {
        const Pack<float, 2> log_sum = load<2>(of.log_sum + 8 * n + k);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            p[m][n][i] = quick_exp2(p[m][n][i] * scale2 - log_sum.at[i % 2]);
      }
      if (masked) {
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int column = 8 * n + k + i % 2, begin = of.begin[column];
#pragma unroll
            for (int m = 0; m < M; m++) {
              const int key = first + 16 * m + 8 * (i / 2) + r;
              if (key > at + column || key < begin) p[m][n][i] = 0;
            }
          }
      }
      add_product<E>(d_values, p, pairs.second(turn));
      multiply_rows(ds, own_values, pairs.second(turn));
#pragma unroll
      for (int n = 0; n < STEP / 8; n++) {
        const Pack<float, 2> delta = load<2>(of.delta + 8 * n + k);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - delta.at[i % 2]);
      }
      add_product<E>(d_keys, ds, pairs.first(turn));
    }
    // The other turn's were read in the step before, and are read in the next.
    if (more) query.store(numbers[turn ^ 1]);
  }

  float scales[M][2], ones[M][2];
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) scales[m][half] = scale, ones[m][half] = 1;
  d_qkv += (sequence + first) * stride + place.head * repeats * e;
  store_rows<E, M>(d_keys, scales, keys, row, d_qkv + to_keys, stride, context - first, e);
  store_rows<E, M>(d_values, ones, values, row, d_qkv + to_values, stride, context - first, e);
}

// dq of 64 M queries, going through STEP keys at a time.
template <int E, int M, int STEP, bool KEPT>
__device__ __forceinline__ void by_queries(const bf16* qkv, bf16* d_qkv, int stride,
                                           const bf16* d_out, int out_stride,
                                           const float* log_sums, const float* deltas,
                                           const u32* documents, int context, int query_heads,
                                           int kv_heads, int e, float scale) {
  constexpr int QUERIES = 16 * M * WARPS;
  bf16* queries = dynamic_shared<bf16>();
  bf16* gradients = queries + QUERIES * E;
  const Pairs<STEP, E> pairs = {gradients + QUERIES * E};  // Of keys and values.
  const QueryBlock<bf16> block =
      query_block<QUERIES>(qkv, stride, documents, context, query_heads, kv_heads, e);
  begin_tile<QUERIES, E>(queries, block.queries, stride, block.end - block.first, e);
  d_out += (block.sequence + block.first) * out_stride + block.column;
  begin_tile<QUERIES, E>(gradients, d_out, out_stride, block.end - block.first, e);
  copy_commit();
  int key = first_key(block.documents, block.first) / STEP * STEP;
  pairs.begin(0, block.keys, stride, block.values, stride, key, context, e);

  const int row = warp_id() * 16 * M;
  const Sight<M> sight(block.documents, block.first + row, context);
  float log_sum[M][2], delta[M][2];
  float result[M][E / 8][4];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = sight.first + 16 * m + 8 * half + lane_id() / 4;
      const bool valid = query < context;
      log_sum[m][half] = valid ? log_sums[block.numbers + query] * LOG2_E : INFINITY;
      delta[m][half] = valid ? deltas[block.numbers + query] : 0;
    }
#pragma unroll
    for (int n = 0; n < E / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) result[m][n][i] = 0;
  }

  copy_wait<1>();
  __syncthreads();
  Rows<E, M, KEPT> own_queries, own_gradients;
  own_queries.tile = queries, own_gradients.tile = gradients;
  own_queries.row = own_gradients.row = row;
  own_queries.keep();
  own_gradients.keep();

  const float scale2 = scale * LOG2_E;
  for (int turn = 0; key < block.end; key += STEP, turn ^= 1) {
    pairs.wait();
    const int next = key + STEP;
    if (next < block.end)
      pairs.begin(turn ^ 1, block.keys, stride, block.values, stride, next, context, e);
    if (!sight.some(key, next)) continue;

    float p[M][STEP / 8][4], ds[M][STEP / 8][4];
    multiply_rows(p, own_queries, pairs.first(turn));
    multiply_rows(ds, own_gradients, pairs.second(turn));
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          ds[m][n][i] = quick_exp2(p[m][n][i] * scale2 - log_sum[m][i / 2]) *
                        (ds[m][n][i] - delta[m][i / 2]);
    if (!sight.all(key, next)) sight.hide(ds, key, 0);
    add_product<E>(result, ds, pairs.first(turn));
  }

  float scales[M][2];
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) scales[m][half] = scale;
  d_qkv += (block.sequence + sight.first) * stride + block.column;
  store_rows<E, M>(result, scales, queries, row, d_qkv, stride, sight.end - sight.first, e);
}

}  // namespace attention

#define ATTENTION_BACKWARD(BY, NAME, E, M, STEP, KEPT)                                          \
  extern "C" __global__ void __launch_bounds__(128)                                             \
  NAME(const bf16* qkv, bf16* d_qkv, int stride, const bf16* d_out, int out_stride,             \
       const float* log_sums, const float* delta, const u32* documents, int context,            \
       int query_heads, int kv_heads, int e, float scale) {                                     \
    attention::BY<E, M, STEP, KEPT>(qkv, d_qkv, stride, d_out, out_stride, log_sums, delta,     \
                                    documents, context, query_heads, kv_heads, e, scale);       \
  }

// As many rows at a time as leave a thread enough registers.
ATTENTION_BACKWARD(by_keys, attention_by_keys_64_bf16, 64, 1, 64, true)
ATTENTION_BACKWARD(by_queries, attention_by_queries_64_bf16, 64, 1, 64, true)
ATTENTION_BACKWARD(by_keys, attention_by_keys_128_bf16, 128, 1, 32, false)
ATTENTION_BACKWARD(by_queries, attention_by_queries_128_bf16, 128, 1, 64, false)
