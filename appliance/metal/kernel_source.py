"""What the kernels of kernels.py are compiled from: one body for CUDA and Metal, and a prelude for each.

A body sees the inputs by their names, the template's constants in capitals (T, HEADS, GROUP, SIZE, BLOCK, WINDOW,
LANES, EACH, QUERIES, WARPS, PART, PARTS, SINKS, WRITES), and of the prelude `lane`, `warp`, `part`, `head` and `row`.
"""

from __future__ import annotations

LOG2E = 1.4426950408889634
"""Scores are powers of two, which is what GPUs compute."""
MERGERS = 64
"""Threads that merge the parts of one query head."""

CUDA_HEADER = """
#define SHARED __shared__
#define DEVICE
#define BARRIER __syncthreads()
#define XOR(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#define EXP2(value) exp2f(value)
#define MAX(a, b) fmaxf(a, b)

template <typename T, int N>
struct alignas(sizeof(T) * (N % 8 == 0 ? 8 : N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1)) Pack {
  T at[N];
};
"""
CUDA = """
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int part = blockIdx.x;
  const int parts = gridDim.x;
  const int head = blockIdx.y;
  const int row = blockIdx.z;
  const int rows_heads = gridDim.y;
"""
METAL_HEADER = """
#define SHARED threadgroup
#define DEVICE device
#define BARRIER threadgroup_barrier(metal::mem_flags::mem_threadgroup)
#define XOR(value, mask) metal::simd_shuffle_xor(value, ushort(mask))
#define EXP2(value) metal::exp2(value)
#define MAX(a, b) metal::max(a, b)

template <typename T, int N>
struct Pack {
  T at[N];
};
"""
METAL = """
  const int lane = thread_index_in_simdgroup;
  const int warp = simdgroup_index_in_threadgroup;
  const int part = threadgroup_position_in_grid.x;
  const int parts = threadgroups_per_grid.x;
  const int head = threadgroup_position_in_grid.y;
  const int row = threadgroup_position_in_grid.z;
  const int rows_heads = threadgroups_per_grid.y;
"""

READ = """
  constexpr int SLOTS = 32 / LANES;
  constexpr int SPLITS = GROUP / QUERIES;
  constexpr float NEVER = -1e30f;
  const int shared_head = head / SPLITS;
  const int first_query = shared_head * GROUP + head % SPLITS * QUERIES;
  const int slot = lane / LANES;
  const int place = lane % LANES * EACH;
  const int context = contexts[row];
  const long table = long(owners[row]) * tables_shape[1];
  const int old = cached[row];
  const int seen = WINDOW > 0 && context > WINDOW ? context - WINDOW : 0;
  const int begin = part * PART > seen ? part * PART : seen;
  const int end = part * PART + PART < context ? part * PART + PART : context;

  float query[QUERIES][EACH];
  float sum[QUERIES][EACH];
  float top[QUERIES];
  float total[QUERIES];
  #pragma unroll
  for (int each = 0; each < QUERIES; ++each) {
    const long from = (long(row) * HEADS * GROUP + first_query + each) * SIZE + place;
    top[each] = NEVER;
    total[each] = 0;
    #pragma unroll
    for (int i = 0; i < EACH; ++i) {
      query[each][i] = float(queries[from + i]) * factor[0];
      sum[each][i] = 0;
    }
  }

  for (int start = begin + warp * SLOTS; start < end; start += WARPS * SLOTS) {
    const bool there = start + slot < end;
    const int token = there ? start + slot : end - 1;
    const long page = long(tables[table + token / BLOCK]) * HEADS + shared_head;
    const long from = (page * BLOCK + token % BLOCK) * SIZE + place;
    // Nothing reads from the pools what this step writes to them: the rows of its other tokens may not have run yet.
    const bool fresh = WRITES && token >= old;
    const long recent = (long(row - (context - 1 - token)) * HEADS + shared_head) * SIZE + place;
    const Pack<T, EACH> key = *(const DEVICE Pack<T, EACH>*)(fresh ? new_keys + recent : keys + from);
    const Pack<T, EACH> value = *(const DEVICE Pack<T, EACH>*)(fresh ? new_values + recent : values + from);
    #pragma unroll
    for (int each = 0; each < QUERIES; ++each) {
      float score = 0;
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        score += query[each][i] * float(key.at[i]);
      }
      for (int step = LANES / 2; step > 0; step /= 2) {
        score += XOR(score, step);
      }
      const float higher = there ? MAX(top[each], score) : top[each];
      const float keep = EXP2(top[each] - higher);
      const float weight = there ? EXP2(score - higher) : 0.0f;
      top[each] = higher;
      total[each] = total[each] * keep + weight;
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        sum[each][i] = sum[each][i] * keep + weight * float(value.at[i]);
      }
    }
  }

  #pragma unroll
  for (int each = 0; each < QUERIES; ++each) {
    for (int step = LANES; step < 32; step *= 2) {
      const float other = XOR(top[each], step);
      const float higher = MAX(top[each], other);
      const float keep = EXP2(top[each] - higher);
      const float add = EXP2(other - higher);
      top[each] = higher;
      total[each] = total[each] * keep + XOR(total[each], step) * add;
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        sum[each][i] = sum[each][i] * keep + XOR(sum[each][i], step) * add;
      }
    }
  }

  if (WRITES && head % SPLITS == 0 && warp == 0 && slot == 0 && context - 1 >= part * PART && context == end) {
    const long page = long(tables[table + (context - 1) / BLOCK]) * HEADS + shared_head;
    const long to = (page * BLOCK + (context - 1) % BLOCK) * SIZE + place;
    const long recent = (long(row) * HEADS + shared_head) * SIZE + place;
    *(DEVICE Pack<T, EACH>*)(keys + to) = *(const DEVICE Pack<T, EACH>*)(new_keys + recent);
    *(DEVICE Pack<T, EACH>*)(values + to) = *(const DEVICE Pack<T, EACH>*)(new_values + recent);
  }

  SHARED float all_tops[WARPS][QUERIES];
  SHARED float all_totals[WARPS][QUERIES];
  SHARED float all_sums[WARPS][QUERIES][SIZE];
  if (slot == 0) {
    #pragma unroll
    for (int each = 0; each < QUERIES; ++each) {
      all_tops[warp][each] = top[each];
      all_totals[warp][each] = total[each];
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        all_sums[warp][each][place + i] = sum[each][i];
      }
    }
  }
  BARRIER;

  for (int index = warp * 32 + lane; index < QUERIES * SIZE; index += WARPS * 32) {
    const int each = index / SIZE;
    float highest = NEVER;
    for (int other = 0; other < WARPS; ++other) {
      highest = MAX(highest, all_tops[other][each]);
    }
    float weights = 0;
    float weighted = 0;
    for (int other = 0; other < WARPS; ++other) {
      const float keep = EXP2(all_tops[other][each] - highest);
      weights += all_totals[other][each] * keep;
      weighted += all_sums[other][each][index % SIZE] * keep;
    }
    const long target = long(row) * HEADS * GROUP + first_query + each;
"""
WRITE = f"""
    if (SINKS) {{
      const float sink = float(sinks[first_query + each]) * {LOG2E}f;
      const float higher = MAX(highest, sink);
      weighted *= EXP2(highest - higher);
      weights = weights * EXP2(highest - higher) + EXP2(sink - higher);
    }}
    out[target * SIZE + index % SIZE] = T(weighted / weights);
  }}
"""
WRITE_PART = """
    sums[(target * parts + part) * SIZE + index % SIZE] = weighted;
    if (index % SIZE == 0) {
      tops[target * parts + part] = highest;
      totals[target * parts + part] = weights;
    }
  }
"""
MERGE = f"""
  const long target = long(row) * rows_heads + head;
  float highest = SINKS ? float(sinks[head]) * {LOG2E}f : -1e30f;
  for (int other = 0; other < PARTS; ++other) {{
    highest = MAX(highest, tops[target * PARTS + other]);
  }}
  float weights = SINKS ? EXP2(float(sinks[head]) * {LOG2E}f - highest) : 0.0f;
  for (int other = 0; other < PARTS; ++other) {{
    weights += totals[target * PARTS + other] * EXP2(tops[target * PARTS + other] - highest);
  }}
  for (int index = warp * 32 + lane; index < SIZE; index += {MERGERS}) {{
    float weighted = 0;
    for (int other = 0; other < PARTS; ++other) {{
      const float keep = EXP2(tops[target * PARTS + other] - highest);
      weighted += sums[(target * PARTS + other) * SIZE + index] * keep;
    }}
    out[target * SIZE + index] = T(weighted / weights);
  }}
"""
