// Vectors of as many floats as a register of the processor holds, and functions of them.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#else
#define WIDTH 8
#endif

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef float loose __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static inline int64_t up(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }
static inline vec load(const float* from) { return *(const loose*)from; }
static inline void store(float* to, vec x) { *(loose*)to = x; }
static inline vec all(float x) { return x - (vec){}; }
static inline vec least(vec a, vec b) { return a < b ? a : b; }
static inline vec most(vec a, vec b) { return a < b ? b : a; }
static inline vec absolute(vec x) { return (vec)((ints)x & 0x7fffffff); }

// Of numbers >= 0, and x / y: the processor's first guesses, made good by one step of Newton's.
// Its exact operations take three times as long.
#if defined(__AVX512F__) || defined(__AVX2__)
static inline vec root(vec x) {
    const vec safe = most(x, all(1.2e-38f));  // NaN stays
#if WIDTH == 16
    const vec guess = (vec)_mm512_rsqrt14_ps((__m512)safe);
#else
    const vec guess = (vec)_mm256_rsqrt_ps((__m256)safe);
#endif
    const vec near = safe * guess;
    const vec better = near + 0.5f * guess * (safe - near * near);
    return x < 1.2e-38f ? (vec){} : better;
}

static inline vec quotient(vec x, vec y) {
#if WIDTH == 16
    const vec guess = (vec)_mm512_rcp14_ps((__m512)y);
#else
    const vec guess = (vec)_mm256_rcp_ps((__m256)y);
#endif
    const vec inverse = guess + guess * (1.0f - y * guess);
    const vec near = x * inverse;
    return near + inverse * (x - near * y);
}
#else
static inline vec root(vec x) {
    for (int i = 0; i < WIDTH; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
}

static inline vec quotient(vec x, vec y) { return x / y; }
#endif

template <int... lane> struct Lanes {};
#if WIDTH == 16
typedef Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15> AllLanes;
#else
typedef Lanes<0, 1, 2, 3, 4, 5, 6, 7> AllLanes;
#endif

template <int half, int... lane> static inline vec folded(vec x, Lanes<lane...>) {
    return x + __builtin_shufflevector(x, x, (lane ^ half)...);
}

static inline float sum(vec x) {
#if WIDTH == 16
    x = folded<8>(x, AllLanes());
#endif
    x = folded<4>(x, AllLanes());
    x = folded<2>(x, AllLanes());
    return folded<1>(x, AllLanes())[0];
}

static inline float largest(vec x) {
    float top = x[0];
    for (int i = 1; i < WIDTH; ++i) top = x[i] > top || x[i] != x[i] ? x[i] : top;
    return top;
}

// The first n lanes, and other numbers, 0 unless given, in the rest.
static inline vec first(vec x, int64_t n, vec other = (vec){}) {
    ints lane;
    for (int i = 0; i < WIDTH; ++i) lane[i] = i;
    return lane < (int32_t)n ? x : other;
}

static inline void store_first(float* to, vec x, int64_t n) {
    if (n >= WIDTH) store(to, x);
    else if (n > 0) memcpy(to, &x, 4 * n);
}

static inline vec load_first(const float* from, int64_t n) {
    if (n >= WIDTH) return load(from);
    vec x = {};
    if (n > 0) memcpy(&x, from, 4 * n);
    return x;
}

// e^x = 2^n e^r with |r| <= log(2) / 2, the latter by its series; NaN stays NaN.
static inline vec exponential(vec x) {
    const vec high = all(88.72283f), low = all(-87.33654f);
    const vec given = x;
    x = x > high ? high : x;
    x = x < low ? low : x;
    const vec shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const vec n = (x * 1.44269504f + shift) - shift;
    const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = (p * r + 1.0f) * r + 1.0f;
    // In two steps, since 2^128 is no float.
    const ints whole = __builtin_convertvector(n, ints), part = whole >> 1;
    p = p * (vec)((part + 127) << 23) * (vec)((whole - part + 127) << 23);
    p = given > high ? all(__builtin_inff()) : p;
    return given < low ? (vec){} : p;
}

// log(2^n m) with m in [sqrt(1/2), sqrt(2)), by the series of 2 artanh((m - 1) / (m + 1)).
static inline vec logarithm(vec x) {
    ints bits = (ints)x - 0x3f3504f3;
    const vec n = __builtin_convertvector(bits >> 23, vec);
    const vec m = (vec)((bits & 0x007fffff) + 0x3f3504f3);
    const vec s = (m - 1.0f) / (m + 1.0f), z = s * s;
    vec p = all(2.0f / 9);
    p = p * z + 2.0f / 7;
    p = p * z + 2.0f / 5;
    p = p * z + 2.0f / 3;
    const vec y = n * 0.693359375f + ((p * z + 2.0f) * s - n * 2.12194440e-4f);
    const vec result = x > 0.0f ? y : (x < 0.0f ? all(__builtin_nanf("")) : -all(__builtin_inff()));
    return (x == x) & (x < __builtin_inff()) ? result : x;
}

// By its series near 0, and as 1 - 2 / (e^2|x| + 1) elsewhere.
static inline vec hyperbolic_tangent(vec x) {
    vec size = absolute(x);
    size = size > 9.0f ? all(9.0f) : size;  // where it is 1
    const vec z = x * x;
    vec p = all(62.0f / 2835);
    p = p * z - 17.0f / 315;
    p = p * z + 2.0f / 15;
    p = p * z - 1.0f / 3;
    const vec near = x + x * z * p;
    vec far = 1.0f - quotient(all(2.0f), exponential(size * 2.0f) + 1.0f);
    far = x < 0.0f ? -far : far;
    return size < 0.3f ? near : far;
}

// Swap what is off the diagonal of [a; b], in pieces of `half` lanes.
template <int half, int... lane> static inline void swap_pieces(vec& a, vec& b, Lanes<lane...>) {
    const vec low = __builtin_shufflevector(a, b, (lane & half ? WIDTH + lane - half : lane)...);
    b = __builtin_shufflevector(a, b, (lane & half ? WIDTH + lane : lane + half)...);
    a = low;
}

template <int half> static inline void swap_rows(vec* rows) {
    for (int i = 0; i < WIDTH; ++i)
        if (!(i & half)) swap_pieces<half>(rows[i], rows[i + half], AllLanes());
}

// A block of WIDTH by WIDTH numbers, turned: to[j][i] = from[i][j].
static inline void turn(const float* from, int64_t from_step, float* to, int64_t to_step) {
    vec rows[WIDTH];
    for (int i = 0; i < WIDTH; ++i) rows[i] = load(from + i * from_step);
#if WIDTH == 16
    swap_rows<8>(rows);
#endif
    swap_rows<4>(rows);
    swap_rows<2>(rows);
    swap_rows<1>(rows);
    for (int i = 0; i < WIDTH; ++i) store(to + i * to_step, rows[i]);
}
