// What Python calls: updates of some members, one member after another, and decisions.
//
// A member's numbers depend on nothing but the member: not on which others there are, nor on
// where its memory lies.
#include "losses.h"
#include "rules.h"
#if defined(__SSE__)
#include <immintrin.h>
#endif

enum { MOST_HIDDEN = 64 };

struct Work {
    Network network;
    Loss loss;
    Rule rule;
    int64_t members, width;          // numbers in a row, a multiple of 64
    int64_t used;                    // of which are parameters
    float *rows, *gradients;         // [members, width]
    const uint8_t* still;            // members that do not move
    int64_t updates, batch;
    int64_t arrays;                  // of a batch
    const void* given[16];           // each [members, updates, batch, ...]
    int64_t bytes[16];               // that one example takes in each
    int64_t terms;                   // results of an update
    float* results;                  // [members, updates, terms]
    float* features[MOST_HIDDEN];    // where hidden activations are wanted, [members, batch, units]
    float most;                      // a gradient's norm is brought down to this; 0 for no bound
    float* norms;                    // before that, [members, updates]
    float* scales;                   // what was done to the last gradients, [members]
    int64_t limited;                 // a result that stops a member's updates, or -1
    float limit;
    float* memory;                   // as many numbers as `clrl_room` says
};

// Flushes denormal numbers to 0 while it lives.
struct Flushed {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    Flushed() { _mm_setcsr(before | 0x8040); }
    ~Flushed() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;
    Flushed() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        asm volatile("msr fpcr, %0" ::"r"(before | (1u << 24)));
    }
    ~Flushed() { asm volatile("msr fpcr, %0" ::"r"(before)); }
#endif
};

static void losses(const Work& work, Pass& pass, Batch given, const float* row, float* gradients,
                   float* results) {
    switch (work.loss.kind) {
        case CLASSIFICATION:
            classification(work.network.outputs, pass, given, results);
            break;
        case REGRESSION:
            regression(work.network.outputs, pass, given, results);
            break;
        default:
            ppo(work.loss, work.network.outputs, pass, given, row, gradients, results);
    }
}

// The update rule, at work on one member's row.
struct Step {
    const Rule& rule;
    float *row, *means, *squares;
    const float *first_part, *second_part;  // where the member's elements have steps of their own
    AdamStep adam_step;

    Step(const Work& work, int64_t member, int64_t update) :
        rule(work.rule), row(work.rows + member * work.width),
        means(rule.means ? rule.means + member * work.width : nullptr),
        squares(rule.squares ? rule.squares + member * work.width : nullptr),
        first_part(nullptr), second_part(nullptr),
        adam_step(work.rule, work.rule.steps + update + 1) {
        if (!rule.by_element || !rule.by_element[member]) return;
        first_part = rule.parts[0] + member * work.width;
        second_part = rule.parts[1] + member * work.width;
    }

    void operator()(int64_t at, int64_t n, const float* gradients, float scale) const {
        if (rule.kind == SGD) sgd(rule, row, at, n, gradients, scale);
        else if (first_part)
            adam_by_element(
                rule, row, means, squares, first_part, second_part, at, n, gradients, scale
            );
        else adam(rule, adam_step, row, means, squares, at, n, gradients, scale);
    }
};

static void bring_down(float* gradients, int64_t n, float scale) {
    for (int64_t i = 0; i < n; i += WIDTH) store(gradients + i, load(gradients + i) * scale);
}

static void keep_features(const Work& work, const Pass& pass, int64_t member) {
    const Layer* layer = work.network.layers;
    for (int32_t c = 0, h = 0; c < work.network.chains; layer += work.network.depths[c++])
        for (int32_t d = 0; d + 1 < work.network.depths[c]; ++d, ++h) {
            const int64_t units = layer[d].units;
            if (!work.features[h]) return;
            float* to = work.features[h] + member * work.batch * units;
            for (int64_t b = 0; b < work.batch; ++b)
                memcpy(to + b * units, pass.features[h] + b * up(units), 4 * units);
        }
}

// Returns: how many updates it has taken part in, one that stopped it included.
static int64_t learn_member(const Work& work, Pass& pass, float* block, int64_t member) {
    float* row = work.rows + member * work.width;
    float* gradients = work.gradients + member * work.width;
    const bool moves = work.rule.kind != NO_RULE && !work.still[member];
    for (int64_t u = 0; u < work.updates; ++u) {
        const int64_t nth = member * work.updates + u;
        const bool last = u + 1 == work.updates;
        const void* given[16];
        for (int64_t i = 0; i < work.arrays; ++i)
            given[i] = (const char*)work.given[i] + nth * work.batch * work.bytes[i];
        float* results = work.results + nth * work.terms;
        begin(work.network, pass, (const float*)given[0]);
        forward(work.network, pass, row, true);
        losses(work, pass, given, row, gradients, results);
        const bool over = work.limited >= 0 && results[work.limited] > work.limit;
        const Step step(work, member, u);
        const bool gated = work.rule.kind == UPGD;
        const bool at_once = moves && !over && !(work.most > 0);
        vec top = all(-__builtin_inff());
        float squares = backward(
            work.network, pass, row,
            [&](int64_t at, int64_t n) {
                return at_once && !gated && !last && n <= BLOCK ? block : gradients + at;
            },
            [&](int64_t at, int64_t n, const float* own) {
                if (!at_once) return;
                if (gated) top = track(work.rule, row, step.means, at, n, own, 1.0f, top);
                else step(at, n, own, 1.0f);
            }
        );
        if (work.loss.kind == PPO_GAUSSIAN) {
            const float* own = gradients + work.loss.spread;
            for (int32_t c = 0; c < work.loss.choices; ++c) squares += own[c] * own[c];
            if (at_once && gated)
                top = track(
                    work.rule, row, step.means, work.loss.spread, work.loss.choices, own, 1.0f, top
                );
            else if (at_once) step(work.loss.spread, work.loss.choices, own, 1.0f);
        }
        if (work.features[0]) keep_features(work, pass, member);
        float scale = 1.0f;
        if (work.most > 0) {
            const float norm = __builtin_sqrtf(squares);
            const float wanted = work.most / (norm + 1e-6f);
            scale = wanted > 1.0f ? 1.0f : wanted;  // NaN stays
            work.norms[nth] = norm;
            work.scales[member] = scale;
            if (moves && !over && gated)
                top = track(work.rule, row, step.means, 0, work.used, gradients, scale, top);
            else if (moves && !over) step(0, work.width, gradients, scale);
        }
        if (moves && !over && gated)
            upgd(
                work.rule, row, step.means, work.used, gradients, scale, largest(top),
                work.rule.steps + u + 1, work.rule.seeds[nth]
            );
        if (work.most > 0 && (last || over)) bring_down(gradients, work.width, scale);
        if (over) return u + 1;
    }
    return work.updates;
}

extern "C" {

// How large a `Work` is, by which Python sees that it describes the same thing.
int64_t clrl_size() { return sizeof(Work); }

int64_t clrl_room(const Work* work) {
    float* places[2 * MOST_HIDDEN];
    Room room = {nullptr, 0};
    make_pass(work->network, work->batch, room, places);
    room.take(BLOCK);
    return room.used;
}

// Take updates. Returns the last member's number of them; see `learn_member`.
int64_t clrl_learn(const Work* work) {
    Flushed flushed;
    float* places[2 * MOST_HIDDEN];
    Room room = {work->memory, 0};
    Pass pass = make_pass(work->network, work->batch, room, places);
    float* block = room.take(BLOCK);
    int64_t taken = 0;
    for (int64_t member = 0; member < work->members; ++member)
        taken = learn_member(*work, pass, block, member);
    return taken;
}

// Decide for `batch` observations of every member: given are observations and noise, results
// actions [members, batch, choices], log-probabilities and values [members, batch].
void clrl_decide(const Work* work, float* actions, float* logs, float* values) {
    Flushed flushed;
    float* places[2 * MOST_HIDDEN];
    Room room = {work->memory, 0};
    Pass pass = make_pass(work->network, work->batch, room, places);
    const Loss& loss = work->loss;
    const int64_t n = work->batch, choices = loss.choices, last = work->network.outputs - 1;
    const int64_t noisy = work->bytes[1] / 4;
    for (int64_t member = 0; member < work->members; ++member) {
        const float* row = work->rows + member * work->width;
        const float* spread = loss.kind == PPO_GAUSSIAN ? row + loss.spread : nullptr;
        const float* noise = (const float*)work->given[1] + member * n * noisy;
        float* taken = actions + member * n * choices;
        begin(work->network, pass, (const float*)work->given[0] + member * n * work->network.inputs);
        forward(work->network, pass, row, false);
        for (int64_t b = 0; b < n; ++b) {
            const float* own = pass.outputs + b;
            const float* drawn = noise + b * noisy;
            for (int64_t c = 0; c < choices; ++c) {
                if (loss.kind == PPO_GAUSSIAN) {
                    const vec width = exponential(all(spread[c]));
                    taken[b * choices + c] = own[c * pass.padded] + width[0] * drawn[c];
                    continue;
                }
                int32_t best = 0;
                for (int32_t i = 1; i < loss.sizes[c]; ++i)
                    if (own[i * pass.padded] + drawn[i] > own[best * pass.padded] + drawn[best])
                        best = i;
                taken[b * choices + c] = best;
                own += loss.sizes[c] * pass.padded;
                drawn += loss.sizes[c];
            }
        }
        memcpy(values + member * n, pass.outputs + last * pass.padded, 4 * n);
        for (int64_t j = 0; j < n; j += WIDTH) {
            vec entropy;
            const vec log = log_probability(
                loss, spread, pass.outputs + j, pass.padded, taken + j * choices, n - j, entropy
            );
            store_first(logs + member * n + j, log, n - j);
        }
    }
}

}
