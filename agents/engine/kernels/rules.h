// Update rules: sweeps over a member's row of parameters.
#pragma once
#include "noise.h"

enum RuleKind : int32_t { NO_RULE, SGD, ADAM, UPGD };
enum Gate : int32_t { NO_GATE, GATE_NOISE, GATE_UPDATE };

struct Rule {
    int32_t kind, decoupled;
    float rate, tiny, decay;                 // epsilon, weight decay
    double first, second;                    // beta 1, beta 2
    int64_t steps;                           // that were taken before
    float *means, *squares;                  // Adam's averages [members, padded]
    const uint8_t* by_element;               // members whose elements began at different steps
    const float* parts[2];                   // of these, for each beta; see `adam_by_element`
    float rests[2], powers[2];
    // UPGD's: `first` is the utility's decay, `means` are the utilities.
    int32_t gate, raw;        // whether the largest utility is not corrected for its age
    float deviation, factor;  // of the noise; of the rate
    const uint64_t* seeds;    // of each update's noise, [members, updates]
};

// A step of some numbers of a row: n of them from `at` on, with their gradients.
static inline void sgd(
    const Rule& rule, float* row, int64_t at, int64_t n, const float* gradients, float scale
) {
    for (int64_t i = 0; i < n; i += WIDTH) {
        const vec w = load_first(row + at + i, n - i);
        const vec g = load_first(gradients + i, n - i) * scale + w * rule.decay;
        store_first(row + at + i, w - rule.rate * g, n - i);
    }
}

// 1 - beta^steps, in double precision.
static inline double correction(double beta, int64_t steps) { return 1 - __builtin_pow(beta, steps); }

// What Adam's step of a whole row has in common.
struct AdamStep {
    float size, root_share;
    AdamStep(const Rule& rule, int64_t steps) :
        size(rule.rate / correction(rule.first, steps)),
        root_share(1 / __builtin_sqrt(correction(rule.second, steps))) {}
};

// Adam's averages of some numbers, and the weights by them: `move` says how far, given both
// averages and where they lie.
template <class Move>
static inline void adam_sweep(
    const Rule& rule, float* row, float* means, float* squares, int64_t at, int64_t n,
    const float* gradients, float scale, Move move
) {
    const float first = 1 - rule.first, second = 1 - rule.second;
    const float kept = rule.decoupled ? 1 - rule.rate * rule.decay : 1.0f;
    const float coupled = rule.decoupled ? 0.0f : rule.decay;
    for (int64_t i = 0; i < n; i += WIDTH) {
        const int64_t left = n - i, j = at + i;
        const vec w = load_first(row + j, left) * kept;
        const vec g = load_first(gradients + i, left) * scale + w * coupled;
        const vec before = load_first(means + j, left);
        const vec m = before + (g - before) * first;
        const vec v = load_first(squares + j, left) * (float)rule.second + g * g * second;
        store_first(means + j, m, left);
        store_first(squares + j, v, left);
        store_first(row + j, w - move(m, v, j, left), left);
    }
}

static inline void adam(
    const Rule& rule, const AdamStep& step, float* row, float* means, float* squares, int64_t at,
    int64_t n, const float* gradients, float scale
) {
    adam_sweep(
        rule, row, means, squares, at, n, gradients, scale,
        [&](vec m, vec v, int64_t, int64_t) {
            return step.size * quotient(m, root(v) * step.root_share + rule.tiny);
        }
    );
}

// The same of elements that began at different steps: their corrections 1 - beta^age are
// rest + power * part, with a part for each.
static inline void adam_by_element(
    const Rule& rule, float* row, float* means, float* squares, const float* first_part,
    const float* second_part, int64_t at, int64_t n, const float* gradients, float scale
) {
    adam_sweep(
        rule, row, means, squares, at, n, gradients, scale,
        [&](vec m, vec v, int64_t j, int64_t left) {
            const vec first = rule.rests[0] + rule.powers[0] * load_first(first_part + j, left);
            const vec second = rule.rests[1] + rule.powers[1] * load_first(second_part + j, left);
            // Lanes behind the last have no correction: 0 / 0, which is not stored.
            const vec size = (root(quotient(v, second)) + rule.tiny) * first;
            return rule.rate * quotient(m, size);
        }
    );
}

// Take gradients into the utilities of n numbers from `at` on; the largest.
static inline vec track(
    const Rule& rule, const float* row, float* utilities, int64_t at, int64_t n,
    const float* gradients, float scale, vec top
) {
    const float kept = rule.first, taken = rule.first - 1;
    for (int64_t i = 0; i < n; i += WIDTH) {
        const int64_t left = n - i, j = at + i;
        const vec g = load_first(gradients + i, left) * scale;
        const vec u = load_first(utilities + j, left) * kept + g * load_first(row + j, left) * taken;
        store_first(utilities + j, u, left);
        top = most(top, left >= WIDTH ? u : first(u, left, top));
    }
    return top;
}

// UPGD's step of a whole row, its utilities being up to date.
static inline void upgd(
    const Rule& rule, float* row, const float* utilities, int64_t n, const float* gradients,
    float scale, float top, int64_t steps, uint64_t seed
) {
    const float divisor = rule.raw ? correction(rule.first, steps) * top : top;
    const float sharpness = divisor == 0 ? 0.0f : 1 / divisor;
    const float kept = 1 - rule.rate * rule.decay, rate = -rule.rate * rule.factor;
    Generators source(seed);
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        vec noise[2 * PARTS];
        normal(source, noise);
        for (int v = 0; v < 2 * PARTS && i + v * WIDTH < n; ++v) {
            const int64_t j = i + v * WIDTH, left = n - j;
            const vec w = load_first(row + j, left) * kept;
            const vec g = load_first(gradients + j, left) * scale;
            const vec xi = noise[v] * rule.deviation;
            vec x = load_first(utilities + j, left) * sharpness;
            x = x > 80.0f ? all(80.0f) : x;
            const vec open = quotient(all(1.0f), 1.0f + exponential(x));  // 1 - sigmoid(x)
            const vec move = rule.gate == GATE_UPDATE  ? (g + xi) * open
                             : rule.gate == GATE_NOISE ? g + xi * open
                                                       : g + xi;
            store_first(row + j, w + rate * move, left);
        }
    }
}
