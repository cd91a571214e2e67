// Normal random numbers, the same whatever the width of a register.
#pragma once
#include "vector.h"

enum { LANES = 16, PARTS = LANES / WIDTH };

static inline words turned(words x, int by) { return (x << by) | (x >> (32 - by)); }

// Sixteen generators side by side: xoshiro128++ (Blackman & Vigna 2021), each begun by numbers of
// splitmix64, as its authors have it.
struct Generators {
    words state[4][PARTS];

    explicit Generators(uint64_t seed) {
        for (int lane = 0; lane < LANES; ++lane)
            for (int pair = 0; pair < 2; ++pair) {
                seed += 0x9e3779b97f4a7c15u;
                uint64_t z = seed;
                z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
                z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
                z ^= z >> 31;
                state[2 * pair][lane / WIDTH][lane % WIDTH] = (uint32_t)z;
                state[2 * pair + 1][lane / WIDTH][lane % WIDTH] = (uint32_t)(z >> 32);
            }
    }

    words next(int part) {
        words &a = state[0][part], &b = state[1][part], &c = state[2][part], &d = state[3][part];
        const words result = turned(a + d, 7) + a, kept = b << 9;
        c ^= a;
        d ^= b;
        b ^= c;
        a ^= d;
        c ^= kept;
        d = turned(d, 11);
        return result;
    }
};

// 2 * LANES numbers of N(0, 1): pairs of a radius and an angle (Box & Muller 1958). The radius is
// of 24 bits, so that no number is beyond 5.9.
static inline void normal(Generators& source, vec out[2 * PARTS]) {
    for (int part = 0; part < PARTS; ++part) {
        const words first = source.next(part), second = source.next(part);
        const vec share = __builtin_convertvector((ints)(first >> 8), vec);
        const vec radius = root(-2.0f * logarithm((share + 0.5f) * (1.0f / (1 << 24))));
        // An angle in [-pi/4, pi/4), and in which quarter it is: two of the bits below.
        const vec angle = __builtin_convertvector((ints)second >> 8, vec) * (0.78539816f / (1 << 23));
        const vec z = angle * angle;
        const vec sine =
            angle * (1.0f + z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z / 362880))));
        const vec cosine =
            1.0f + z * (-0.5f + z * (1.0f / 24 + z * (-1.0f / 720 + z * (1.0f / 40320))));
        const words exchange = second & 1;
        const vec signed_radius = (second & 2) != 0 ? -radius : radius;
        out[part] = (exchange != 0 ? sine : cosine) * signed_radius;
        out[PARTS + part] = (exchange != 0 ? cosine : sine) * signed_radius;
    }
}
