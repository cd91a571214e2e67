// Fully connected networks: what one member's gives for a batch, and the gradients.
//
// Activations are kept twice: units by examples [units, padded batch], as the next layer and the
// gradient of activations read them, and examples by units, as the gradient of weights does.
#pragma once
#include "product.h"

enum Activation : int32_t { IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID };

struct Layer {
    int64_t weight, bias;  // where they lie in a row of parameters: [units, inputs], [units]
    int32_t inputs, units, activation;
    float slope;  // of leaky ReLU below 0
};

// One or several chains of layers, each of which reads the inputs; their outputs side by side.
struct Network {
    const Layer* layers;   // of all chains, one after another
    const int32_t* depths; // layers of each chain
    int32_t chains, inputs, outputs, hidden;  // hidden layers of all chains
};

enum { FEW = 4 };  // examples, for which there are ways of their own

// Memory for one batch through a network.
struct Pass {
    int64_t batch, padded;  // examples, and those up to a whole vector
    bool few;               // then hidden layers are examples by units alone
    float* inputs;          // [inputs, padded]
    float* examples;        // [padded, up(inputs)]
    float** units;          // of each hidden layer, [up(units), padded]
    float** features;       // the same, turned: [padded, up(units)]
    float* outputs;         // [outputs, padded]
    float* slopes;          // of the loss by the outputs, [outputs, padded]
    float* back[2];         // of the loss by a layer's sums, [up(units), padded]
};

// Takes pieces of memory, one after another; with no memory it counts what they take.
struct Room {
    float* memory;
    int64_t used;
    float* take(int64_t n) {
        float* piece = memory ? memory + used : nullptr;
        used += (n + 15) / 16 * 16;
        return piece;
    }
};

static inline Pass make_pass(const Network& net, int64_t batch, Room& room, float** places) {
    Pass pass;
    pass.batch = batch;
    pass.padded = up(batch);
    pass.few = batch <= FEW;
    pass.inputs = room.take(up(net.inputs) * pass.padded);
    pass.examples = room.take(pass.padded * up(net.inputs));
    pass.units = places;
    pass.features = places + net.hidden;
    int64_t widest = 1;
    const Layer* layer = net.layers;
    for (int32_t c = 0, h = 0; c < net.chains; ++c)
        for (int32_t d = 0; d < net.depths[c]; ++d, ++layer) {
            widest = layer->units > widest ? layer->units : widest;
            if (d + 1 == net.depths[c]) continue;
            pass.units[h] = room.take(up(layer->units) * pass.padded);
            pass.features[h] = room.take(pass.padded * up(layer->units));
            ++h;
        }
    pass.outputs = room.take(net.outputs * pass.padded);
    pass.slopes = room.take(net.outputs * pass.padded);
    for (float*& back : pass.back) back = room.take(up(widest) * pass.padded);
    return pass;
}

// Put a batch [batch, inputs] in its places.
static inline void begin(const Network& net, Pass& pass, const float* batch) {
    const int64_t n = net.inputs, wide = up(n);
    for (int64_t i = 0; i < pass.batch; ++i) {
        memcpy(pass.examples + i * wide, batch + i * n, 4 * n);
        memset(pass.examples + i * wide + n, 0, 4 * (wide - n));
    }
    if (pass.few) return;
    memset(pass.examples + pass.batch * wide, 0, 4 * (pass.padded - pass.batch) * wide);
    turn_all(pass.examples, wide, pass.inputs, pass.padded, pass.padded, wide);
}

static inline void activate(float* x, int64_t n, int32_t activation, float slope) {
    switch (activation) {
        case RELU:
            for (int64_t i = 0; i < n; i += WIDTH) {
                const vec v = load(x + i);
                store(x + i, v <= 0.0f ? (vec){} : v);
            }
            break;
        case LEAKY_RELU:
            for (int64_t i = 0; i < n; i += WIDTH) {
                const vec v = load(x + i);
                store(x + i, v > 0.0f ? v : v * slope);
            }
            break;
        case TANH:
#pragma GCC unroll 4
            for (int64_t i = 0; i < n; i += WIDTH) store(x + i, hyperbolic_tangent(load(x + i)));
            break;
        case SIGMOID:
            for (int64_t i = 0; i < n; i += WIDTH)
                store(x + i, 1.0f / (1.0f + exponential(-load(x + i))));
            break;
    }
}

// Multiply gradients by the activation's derivative, which what it gave tells.
static inline void derive(float* g, const float* h, int64_t n, int32_t activation, float slope) {
    switch (activation) {
        case RELU:
            for (int64_t i = 0; i < n; i += WIDTH)
                store(g + i, load(h + i) <= 0.0f ? (vec){} : load(g + i));
            break;
        case LEAKY_RELU:
            for (int64_t i = 0; i < n; i += WIDTH) {
                const vec v = load(g + i);
                store(g + i, load(h + i) > 0.0f ? v : v * slope);
            }
            break;
        case TANH:
            for (int64_t i = 0; i < n; i += WIDTH) {
                const vec v = load(h + i);
                store(g + i, load(g + i) * (1.0f - v * v));
            }
            break;
        case SIGMOID:
            for (int64_t i = 0; i < n; i += WIDTH) {
                const vec v = load(h + i);
                store(g + i, load(g + i) * ((1.0f - v) * v));
            }
            break;
    }
}

// Few examples: each is multiplied with all weights, which are read but once.

static inline void few_dots(
    const Layer& layer, const float* row, const float* below, int64_t step, int64_t batch,
    float* out
) {
    const float *weights = row + layer.weight, *biases = row + layer.bias;
    const int64_t units = layer.units, inputs = layer.inputs, wide = up(layer.units);
    switch (batch) {
        case 1: return dots<1>(weights, units, inputs, below, step, biases, out, wide);
        case 2: return dots<2>(weights, units, inputs, below, step, biases, out, wide);
        case 3: return dots<3>(weights, units, inputs, below, step, biases, out, wide);
        default: return dots<4>(weights, units, inputs, below, step, biases, out, wide);
    }
}

// What a layer gives, [up(units), padded] or of few examples [batch, up(units)], from the same of
// the one below.
static inline void forward_layer(
    const Layer& layer, const Pass& pass, const float* row, const float* below, float* out
) {
    const int64_t wide = up(layer.units);
    if (pass.few) {
        few_dots(layer, row, below, up(layer.inputs), pass.batch, out);
        activate(out, pass.batch * wide, layer.activation, layer.slope);
        for (int64_t b = 0; b < pass.batch; ++b)
            memset(out + b * wide + layer.units, 0, 4 * (wide - layer.units));
        return;
    }
    multiply<true>(
        {row + layer.weight, layer.inputs, 1}, below, pass.padded, layer.inputs,
        {out, pass.padded, row + layer.bias, nullptr}, layer.units, pass.padded
    );
    activate(out, layer.units * pass.padded, layer.activation, layer.slope);
}

// Of few examples, outputs as losses take them; and slopes as the layers do.
static inline void turn_few(
    const float* from, int64_t from_step, int64_t rows, float* to, int64_t to_step, int64_t columns
) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to[j * to_step + i] = from[i * from_step + j];
}

// Fills the outputs, and what `backward` needs of hidden layers if it is to follow.
static inline void forward(const Network& net, Pass& pass, const float* row, bool keep) {
    const Layer* layer = net.layers;
    float* outputs = pass.outputs;
    for (int32_t c = 0, h = 0; c < net.chains; ++c) {
        const float* below = pass.few ? pass.examples : pass.inputs;
        for (int32_t d = 0; d + 1 < net.depths[c]; ++d, ++h, ++layer) {
            const int64_t wide = up(layer->units), n = layer->units * pass.padded;
            float* out = pass.few ? pass.features[h] : pass.units[h];
            forward_layer(*layer, pass, row, below, out);
            if (keep && !pass.few) {
                memset(out + n, 0, 4 * (wide * pass.padded - n));
                turn_all(out, pass.padded, pass.features[h], wide, wide, pass.padded);
            }
            below = out;
        }
        forward_layer(*layer, pass, row, below, pass.few ? pass.back[0] : outputs);
        if (pass.few) {
            memset(outputs, 0, 4 * layer->units * pass.padded);
            turn_few(
                pass.back[0], up(layer->units), pass.batch, outputs, pass.padded, layer->units
            );
        }
        outputs += layer->units * pass.padded;
        ++layer;
    }
}

// Numbers whose gradients are computed before they are made use of; they stay in the cache.
enum { BLOCK = 16384 };

// Gradients by all weights and biases, given `pass.slopes`.
//
// Args:
//     use: called with a place in a row, a number of gradients and these, in pieces; what is
//         changed at that place of the row is not read any more.
//     place: gives the memory for some gradients of a place in a row.
//
// Returns: the sum of their squares.
template <class Use, class Place>
static inline float backward(
    const Network& net, Pass& pass, const float* row, Place place, Use use
) {
    vec squares = {};
    float more = 0.0f;
    const Layer* chain = net.layers;
    const float* slopes = pass.slopes;
    for (int32_t c = 0, first = 0; c < net.chains; ++c) {
        const int32_t depth = net.depths[c];
        const float* above = slopes;
        if (pass.few) {
            const Layer& last = chain[depth - 1];
            turn_few(slopes, pass.padded, last.units, pass.back[depth & 1], up(last.units),
                     pass.batch);
            above = pass.back[depth & 1];
        }
        for (int32_t d = depth - 1; d >= 0; --d) {
            const Layer& layer = chain[d];
            const int32_t h = first + d - 1;  // the hidden layer below
            const int64_t inputs = layer.inputs, wide = up(layer.units);
            float* back = pass.back[d & 1];
            if (d && pass.few)
                multiply<false>(
                    {above, wide, 1}, row + layer.weight, inputs, layer.units,
                    {back, up(inputs), nullptr, nullptr}, pass.batch, inputs
                );
            else if (d)
                multiply<true>(
                    {row + layer.weight, 1, inputs}, above, pass.padded, layer.units,
                    {back, pass.padded, nullptr, nullptr}, inputs, pass.padded
                );
            if (d) {
                const Layer& under = chain[d - 1];
                const float* h_out = pass.few ? pass.features[h] : pass.units[h];
                const int64_t n = pass.few ? pass.batch * up(inputs) : inputs * pass.padded;
                derive(back, h_out, n, under.activation, under.slope);
            }
            const float* below = d ? pass.features[h] : pass.examples;
            const Scattered left =
                pass.few ? Scattered{above, 1, wide} : Scattered{above, pass.padded, 1};
            const int64_t rows = BLOCK / inputs > 12 ? BLOCK / inputs / 12 * 12 : 12;
            for (int64_t i = 0; i < layer.units; i += rows) {
                const int64_t some = i + rows < layer.units ? rows : layer.units - i;
                const int64_t at = layer.weight + i * inputs;
                float* to = place(at, some * inputs);
                multiply<true>(
                    {left.data + i * left.row, left.row, left.column}, below, up(inputs),
                    pass.batch, {to, inputs, nullptr, &squares}, some, inputs
                );
                use(at, some * inputs, to);
            }
            float* to = place(layer.bias, layer.units);
            for (int64_t i = 0; i < layer.units; ++i) {
                float bias = 0.0f;
                if (pass.few)
                    for (int64_t b = 0; b < pass.batch; ++b) bias += above[b * wide + i];
                else {
                    vec whole = {};
                    for (int64_t j = 0; j < pass.padded; j += WIDTH)
                        whole += load(above + i * pass.padded + j);
                    bias = sum(whole);
                }
                to[i] = bias;
                more += bias * bias;
            }
            use(layer.bias, layer.units, to);
            above = back;
        }
        slopes += chain[depth - 1].units * pass.padded;
        first += depth - 1;
        chain += depth;
    }
    return sum(squares) + more;
}
