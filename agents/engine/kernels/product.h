// Products of matrices, in tiles whose sums stay in registers.
#pragma once
#include "vector.h"

// A matrix that is read a number at a time: element (i, k) is at data[i * row + k * column].
struct Scattered {
    const float* data;
    int64_t row, column;
};

// What becomes of a tile's sums; see `multiply`.
struct Target {
    float* data;         // [rows, columns]
    int64_t step;        // from one row to the next
    const float* start;  // a number a row that sums start from, or null
    vec* squares;        // the results' squares are added here, or null
};

// R rows of V vectors: sums over k of a[i, k] b[k, :], b [depth, b_step]. Unless they are whole
// vectors, b is not read beyond its columns.
template <int R, int V, bool whole>
static inline void tile(
    Scattered a, const float* b, int64_t b_step, int64_t depth, Target out, int64_t columns
) {
    vec sums[R][V];
    for (int i = 0; i < R; ++i)
        for (int v = 0; v < V; ++v) sums[i][v] = out.start ? all(out.start[i]) : (vec){};
    for (int64_t k = 0; k < depth; ++k) {
        vec right[V];
        for (int v = 0; v < V; ++v) {
            const float* from = b + k * b_step + v * WIDTH;
            right[v] = whole ? load(from) : load_first(from, columns - v * WIDTH);
        }
        for (int i = 0; i < R; ++i) {
            const vec left = all(a.data[i * a.row + k * a.column]);
            for (int v = 0; v < V; ++v) sums[i][v] += left * right[v];
        }
    }
    for (int i = 0; i < R; ++i)
        for (int v = 0; v < V; ++v)
            store_first(out.data + i * out.step + v * WIDTH, sums[i][v], columns - v * WIDTH);
    if (out.squares)
        for (int i = 0; i < R; ++i)
            for (int v = 0; v < V; ++v) *out.squares += sums[i][v] * sums[i][v];
}

static inline Scattered below(Scattered a, int64_t i) {
    return {a.data + i * a.row, a.row, a.column};
}

static inline Target below(Target out, int64_t i) {
    return {out.data + i * out.step, out.step, out.start ? out.start + i : out.start, out.squares};
}

// All rows, in tiles of R and what is left in smaller ones.
template <int R, int V, bool whole>
static inline void strip(
    Scattered a, const float* b, int64_t b_step, int64_t depth, Target out, int64_t rows,
    int64_t columns
) {
    int64_t i = 0;
    for (; i + R <= rows; i += R)
        tile<R, V, whole>(below(a, i), b, b_step, depth, below(out, i), columns);
    for (; i + 4 <= rows; i += 4)
        tile<4, V, whole>(below(a, i), b, b_step, depth, below(out, i), columns);
    for (; i < rows; ++i)
        tile<1, V, whole>(below(a, i), b, b_step, depth, below(out, i), columns);
}

#if WIDTH == 16
enum { TALL = 14, MIDDLE = 12, WIDE = 6 };
#else
enum { TALL = 10, MIDDLE = 5, WIDE = 3 };
#endif

// out[i, j] = start[i] + sum over k of a[i, k] b[k, j], for `columns` numbers j.
//
// Where b has room for whole vectors, there are zeros behind its columns.
template <bool room>
static inline void multiply(
    Scattered a, const float* b, int64_t b_step, int64_t depth, Target out, int64_t rows,
    int64_t columns
) {
    for (int64_t j = 0; j < columns;) {
        const int64_t left = columns - j;
        Target own = out;
        own.data += j;
        if (left >= 4 * WIDTH || (room && left > 3 * WIDTH)) {
            strip<WIDE, 4, true>(a, b + j, b_step, depth, own, rows, left);
            j += 4 * WIDTH;
        } else if (left >= 2 * WIDTH || (room && left > WIDTH)) {
            strip<MIDDLE, 2, true>(a, b + j, b_step, depth, own, rows, left);
            j += 2 * WIDTH;
        } else {
            if (room || left >= WIDTH) strip<TALL, 1, true>(a, b + j, b_step, depth, own, rows, left);
            else strip<4, 1, false>(a, b + j, b_step, depth, own, rows, left);
            j += WIDTH;
        }
    }
}

// R rows of a times B rows of b: out[j * out_step + i] = start[i] + sum over k of a[i, k] b[j, k].
template <int R, int B>
static inline void dot_tile(
    const float* a, int64_t a_step, const float* b, int64_t b_step, int64_t depth,
    const float* start, float* out, int64_t out_step
) {
    vec sums[R][B] = {};
    for (int64_t k = 0; k < depth; k += WIDTH) {
        vec right[B];
        for (int j = 0; j < B; ++j) right[j] = load(b + j * b_step + k);
        for (int i = 0; i < R; ++i) {
            const vec left = load_first(a + i * a_step + k, depth - k);
            for (int j = 0; j < B; ++j) sums[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < B; ++j) out[j * out_step + i] = start[i] + sum(sums[i][j]);
}

// All rows of a, [rows, depth], times B rows of b, which have room for whole vectors.
template <int B>
static inline void dots(
    const float* a, int64_t rows, int64_t depth, const float* b, int64_t b_step,
    const float* start, float* out, int64_t out_step
) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4)
        dot_tile<4, B>(a + i * depth, depth, b, b_step, depth, start + i, out + i, out_step);
    for (; i < rows; ++i)
        dot_tile<1, B>(a + i * depth, depth, b, b_step, depth, start + i, out + i, out_step);
}

// to [columns, rows], up to whole vectors, from [rows, columns]; both have room for whole blocks.
static inline void turn_all(
    const float* from, int64_t from_step, float* to, int64_t to_step, int64_t rows, int64_t columns
) {
    for (int64_t i = 0; i < rows; i += WIDTH)
        for (int64_t j = 0; j < columns; j += WIDTH)
            turn(from + i * from_step + j, from_step, to + j * to_step + i, to_step);
}
