// Losses of one member's batch, with their slopes by the network's outputs.
//
// Outputs lie as [outputs, padded batch]: a vector is of as many examples.
#pragma once
#include "network.h"

enum LossKind : int32_t { CLASSIFICATION, REGRESSION, PPO_DISCRETE, PPO_GAUSSIAN };
enum ValueClip : int32_t { NO_CLIP, CLIP_ALONE, CLIP_GREATER };

struct Loss {
    int32_t kind;
    int32_t choices;        // PPO: categorical distributions, or real numbers, in one action
    const int32_t* sizes;   // of each categorical distribution
    float clip_range, entropy_coefficient, value_coefficient, value_clip_range;
    int32_t value_clip, standardise;
    int64_t spread;         // where the logarithms of deviations lie in a row
};

// One batch, as the agent gives it: arrays of [batch, ...] in the order of the loss's arguments.
typedef const void* const* Batch;

static inline vec valid(int64_t j, int64_t batch) { return first(all(1.0f), batch - j); }

// log_softmax of some rows at some examples, in place; entropies of the distributions.
static inline vec log_softmax(float* rows, int64_t step, int64_t n) {
    vec top = load(rows);
    for (int64_t i = 1; i < n; ++i) top = most(top, load(rows + i * step));
    vec total = {};
    for (int64_t i = 0; i < n; ++i) total += exponential(load(rows + i * step) - top);
    const vec log = logarithm(total);
    vec entropy = {};
    for (int64_t i = 0; i < n; ++i) {
        // In this order: beside a great logit the small rest would be lost.
        const vec own = (load(rows + i * step) - top) - log;
        store(rows + i * step, own);
        entropy -= exponential(own) * own;
    }
    return entropy;
}

// Results: loss, accuracy.
static inline void classification(int64_t outputs, Pass& pass, Batch given, float* results) {
    const int64_t* labels = (const int64_t*)given[1];
    vec losses = {}, hits = {};
    const float share = 1.0f / pass.batch;
    for (int64_t j = 0; j < pass.padded; j += WIDTH) {
        float* rows = pass.outputs + j;
        const vec counts = valid(j, pass.batch);
        ints label = {};
        for (int64_t b = j; b < pass.batch && b < j + WIDTH; ++b) label[b - j] = labels[b];
        vec best = load(rows);
        ints place = {};
        for (int64_t i = 1; i < outputs; ++i) {
            const vec own = load(rows + i * pass.padded);
            place = own > best ? (ints){} + (int32_t)i : place;
            best = most(best, own);
        }
        hits += place == label ? counts : (vec){};
        log_softmax(rows, pass.padded, outputs);
        for (int64_t i = 0; i < outputs; ++i) {
            const vec own = load(rows + i * pass.padded);
            const vec chosen = label == (int32_t)i ? counts : (vec){};
            losses -= chosen > 0.0f ? own : (vec){};
            store(
                pass.slopes + i * pass.padded + j,
                counts > 0.0f ? (exponential(own) - chosen) * share : (vec){}
            );
        }
    }
    results[0] = sum(losses) * share;
    results[1] = sum(hits) * share;
}

// Results: loss.
static inline void regression(int64_t outputs, Pass& pass, Batch given, float* results) {
    const float* targets = (const float*)given[1];
    const float share = 1.0f / (pass.batch * outputs);
    float total = 0.0f;
    for (int64_t i = 0; i < outputs; ++i)
        for (int64_t b = 0; b < pass.padded; ++b) {
            const int64_t at = i * pass.padded + b;
            const float error = b < pass.batch ? pass.outputs[at] - targets[b * outputs + i] : 0.0f;
            total += error * error;
            pass.slopes[at] = 2 * share * error;
        }
    results[0] = total * share;
}

// Where an array's mean and deviation over what counts are.
struct Moments {
    float mean, deviation;
};

static inline Moments moments(const float* x, const float* weights, int64_t n) {
    vec count = {}, total = {};
    for (int64_t j = 0; j < n; j += WIDTH) {
        const vec w = load_first(weights + j, n - j);
        count += w;
        total += w * load_first(x + j, n - j);
    }
    const float number = sum(count), mean = sum(total) / (number > 1 ? number : 1);
    vec apart = {};
    for (int64_t j = 0; j < n; j += WIDTH) {
        const vec d = (load_first(x + j, n - j) - mean) * load_first(weights + j, n - j);
        apart += d * d;
    }
    return {mean, __builtin_sqrtf(sum(apart) / (number > 2 ? number - 1 : 1))};
}

static const float HALF_LOG_TWO_PI = 0.918938533f;

// Log-probabilities of what was done at some examples, and entropies. `outputs` become what
// `slopes_of` needs: log-probabilities of all choices, or distances in deviations.
static inline vec log_probability(
    const Loss& loss, const float* spread, float* rows, int64_t step, const float* taken,
    int64_t count, vec& entropy
) {
    vec log = {};
    entropy = (vec){};
    float own[WIDTH];
    for (int32_t c = 0; c < loss.choices; ++c) {
        for (int b = 0; b < WIDTH; ++b) own[b] = b < count ? taken[b * loss.choices + c] : 0.0f;
        if (loss.kind == PPO_GAUSSIAN) {
            const vec width = exponential(all(spread[c]));
            const vec distance = (load(own) - load(rows + c * step)) / width;
            store(rows + c * step, distance);
            log += -0.5f * distance * distance - spread[c] - HALF_LOG_TWO_PI;
            entropy += spread[c] + 0.5f + HALF_LOG_TWO_PI;
            continue;
        }
        entropy += log_softmax(rows, step, loss.sizes[c]);
        for (int32_t i = 0; i < loss.sizes[c]; ++i)
            log += load(own) == (float)i ? load(rows + i * step) : (vec){};
        rows += loss.sizes[c] * step;
    }
    return log;
}

// Slopes by the policy's outputs, given those by the log-probability and by the entropy.
static inline void policy_slopes(
    const Loss& loss, const float* spread, const float* rows, float* slopes, int64_t step,
    const float* taken, int64_t count, vec by_log, vec by_entropy, vec* by_spread
) {
    float own[WIDTH];
    for (int32_t c = 0; c < loss.choices; ++c) {
        if (loss.kind == PPO_GAUSSIAN) {
            const vec distance = load(rows + c * step), width = exponential(all(spread[c]));
            store(slopes + c * step, by_log * distance / width);
            by_spread[c] += by_log * (distance * distance - 1.0f) + by_entropy;
            continue;
        }
        for (int b = 0; b < WIDTH; ++b) own[b] = b < count ? taken[b * loss.choices + c] : 0.0f;
        vec entropy = {};
        for (int32_t i = 0; i < loss.sizes[c]; ++i) {
            const vec log = load(rows + i * step);
            entropy -= exponential(log) * log;
        }
        for (int32_t i = 0; i < loss.sizes[c]; ++i) {
            const vec log = load(rows + i * step), p = exponential(log);
            const vec chosen = load(own) == (float)i ? all(1.0f) : (vec){};
            store(
                slopes + i * step, by_log * (chosen - p) - by_entropy * p * (log + entropy)
            );
        }
        rows += loss.sizes[c] * step;
        slopes += loss.sizes[c] * step;
    }
}

// Results: loss, policy loss, value loss, entropy, approximate divergence, share clipped.
static inline void ppo(
    const Loss& loss, int64_t outputs, Pass& pass, Batch given, const float* row, float* gradients,
    float* results
) {
    const float *taken = (const float*)given[1], *old_logs = (const float*)given[2],
                *old_values = (const float*)given[3], *advantages = (const float*)given[4],
                *returns = (const float*)given[5], *weights = (const float*)given[6];
    const int64_t n = pass.batch, step = pass.padded;
    const float* spread = loss.kind == PPO_GAUSSIAN ? row + loss.spread : nullptr;
    const Moments own = loss.standardise ? moments(advantages, weights, n) : Moments{0.0f, 1.0f};
    const float scale = loss.standardise ? own.deviation + 1e-8f : 1.0f;
    vec count = {};
    for (int64_t j = 0; j < n; j += WIDTH) count += load_first(weights + j, n - j);
    const float number = sum(count), share = 1.0f / (number > 1 ? number : 1);
    vec policy_loss = {}, value_loss = {}, entropies = {}, divergence = {}, clipped = {};
    vec by_spread[64] = {};
    for (int64_t j = 0; j < step; j += WIDTH) {
        const int64_t left = n - j;
        const vec w = left > 0 ? load_first(weights + j, left) : (vec){};
        const vec advantage = (load_first(advantages + j, left) - own.mean) / scale;
        vec entropy;
        const vec log = log_probability(
            loss, spread, pass.outputs + j, step, taken + j * loss.choices, left, entropy
        );
        const vec difference = log - load_first(old_logs + j, left);
        const vec ratio = exponential(difference);
        const vec near = least(most(ratio, all(1 - loss.clip_range)), all(1 + loss.clip_range));
        const vec free = advantage * ratio, bound = advantage * near;
        policy_loss -= w * (bound < free ? bound : free);
        const vec by_ratio = bound < free ? (vec){} : -advantage;

        const vec values = load(pass.outputs + (outputs - 1) * step + j);
        const vec aim = load_first(returns + j, left), old = load_first(old_values + j, left);
        const vec range = all(loss.value_clip_range), moved = values - old;
        const vec error = aim - values;
        const vec stopped = aim - (old + least(most(moved, -range), range));
        const vec inside = absolute(moved) <= range ? all(1.0f) : (vec){};
        vec square = error * error, by_value = -2.0f * error;
        if (loss.value_clip == CLIP_ALONE) {
            square = stopped * stopped;
            by_value = -2.0f * stopped * inside;
        } else if (loss.value_clip == CLIP_GREATER) {
            const vec other = stopped * stopped;
            by_value = other > square ? -2.0f * stopped * inside : by_value;
            square = most(other, square);
        }
        value_loss += w * square;
        entropies += w * entropy;
        divergence += w * (ratio - 1.0f - difference);
        clipped += absolute(ratio - 1.0f) > loss.clip_range ? w : (vec){};

        const vec part = w * share;
        store(
            pass.slopes + (outputs - 1) * step + j, part * loss.value_coefficient * by_value
        );
        policy_slopes(
            loss, spread, pass.outputs + j, pass.slopes + j, step, taken + j * loss.choices, left,
            part * by_ratio * ratio, -part * loss.entropy_coefficient, by_spread
        );
    }
    results[1] = sum(policy_loss) * share;
    results[2] = sum(value_loss) * share;
    results[3] = sum(entropies) * share;
    results[4] = sum(divergence) * share;
    results[5] = sum(clipped) * share;
    results[0] = results[1] - loss.entropy_coefficient * results[3] +
                 loss.value_coefficient * results[2];
    if (loss.kind == PPO_GAUSSIAN)
        for (int32_t c = 0; c < loss.choices; ++c) gradients[loss.spread + c] = sum(by_spread[c]);
}
