// norm(y + factor * up(gelu(down(read))) + residual) with read = y, or read = residual (placement "parallel").
//
// Blocks of up to 32 tokens of one adapter pass through bottleneck, residual and norm without leaving the caches.

#pragma once

#include <memory>

#include "products.h"

namespace {

constexpr int BLOCK = 32;
constexpr int MAX_WIDTH = 4096;
constexpr int MAX_RANK = 1024;

// One row of the caller's table: ten words of eight bytes. Weights are int8, times a scale for each output.
struct Part {
    const int8_t *down;        // [rank / 16][width / 32] tiles; null: no bottleneck
    const float *down_scale;   // [rank]
    const float *down_bias;    // [rank]
    const int8_t *up;          // [width / 16][rank / 32] tiles
    const float *up_scale;     // [width]
    const float *up_bias;      // [width]
    const float *gamma;        // [width]; null: the base's norm
    const float *beta;         // [width]
    int64_t rank;              // a multiple of 32
    int64_t reads_residual;
};

// Tokens from start to before end, and their row of the table.
struct Span {
    int64_t part;
    int64_t start;
    int64_t end;
};

struct alignas(64) BottleneckScratch {
    bf16 ring[Int8Weights::RING][4][TILE];
    bf16 down[MAX_RANK * MAX_WIDTH];  // the expanded weights of a part with several blocks
    bf16 up[MAX_RANK * MAX_WIDTH];
    float sums[BLOCK * MAX_WIDTH];
    float inner[BLOCK * MAX_RANK];
    bf16 hidden[BLOCK * MAX_RANK];
};

inline BottleneckScratch &bottleneck_scratch() {
    thread_local static std::unique_ptr<BottleneckScratch> mine(new BottleneckScratch);
    return *mine;
}

// sums[rows][width] = up(gelu(down(read))) before up's scale and bias.
template <class Weights>
void bottleneck(const Part &part, Weights down, Weights up, const bf16 *read, int rows, int64_t width, Prefetch prefetch, BottleneckScratch &s) {
    begin_tiles(rows);
    multiply(read, width, rows, down, part.rank, s.inner, part.rank, prefetch);
    for (int row = 0; row < rows; ++row)
        for (int64_t n = 0; n < part.rank; n += 16) {
            __m512 h = _mm512_load_ps(s.inner + row * part.rank + n);
            h = _mm512_fmadd_ps(h, _mm512_loadu_ps(part.down_scale + n), _mm512_loadu_ps(part.down_bias + n));
            narrow(s.hidden + row * part.rank + n, gelu(h));
        }
    multiply(s.hidden, part.rank, rows, up, width, s.sums, width, prefetch);
}

void block(const Part &part, const bf16 *y, const bf16 *residual, bf16 *out, const float *factor, int rows, int64_t width,
           const float *base_gamma, const float *base_beta, float eps, bool expanded, const Prefetch &prefetch, BottleneckScratch &s) {
    if (part.down) {
        const bf16 *read = part.reads_residual ? residual : y;
        const int64_t down_steps = width / 32, up_steps = part.rank / 32;
        if (expanded) bottleneck(part, Bf16Weights{s.down, down_steps}, Bf16Weights{s.up, up_steps}, read, rows, width, prefetch, s);
        else bottleneck(part, Int8Weights{part.down, down_steps, s.ring}, Int8Weights{part.up, up_steps, s.ring}, read, rows, width, prefetch, s);
    }
    const float *gamma = part.gamma ? part.gamma : base_gamma, *beta = part.gamma ? part.beta : base_beta;
    for (int row = 0; row < rows; ++row) {
        const int64_t at = row * width;
        float *z = s.sums + at;
        const float f = factor ? factor[row] : 1.0f;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < width; i += 16) {
            __m512 x = _mm512_add_ps(widen(y + at + i), widen(residual + at + i));
            if (part.down) {
                __m512 delta = _mm512_fmadd_ps(_mm512_load_ps(z + i), _mm512_loadu_ps(part.up_scale + i), _mm512_loadu_ps(part.up_bias + i));
                x = _mm512_fmadd_ps(_mm512_set1_ps(f), delta, x);
            }
            _mm512_store_ps(z + i, x);
            sum = _mm512_add_ps(sum, x);
        }
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
        __m512 squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < width; i += 16) {
            __m512 x = _mm512_sub_ps(_mm512_load_ps(z + i), mean);
            squares = _mm512_fmadd_ps(x, x, squares);
        }
        const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps));
        const bool interpolate = part.gamma && f != 1.0f;
        const __m512 strength = _mm512_set1_ps(f);
        for (int64_t i = 0; i < width; i += 16) {
            __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(z + i), mean), scale);
            __m512 g = _mm512_loadu_ps(gamma + i), b = _mm512_loadu_ps(beta + i);
            if (interpolate) {
                __m512 base_g = _mm512_loadu_ps(base_gamma + i), base_b = _mm512_loadu_ps(base_beta + i);
                g = _mm512_fmadd_ps(strength, _mm512_sub_ps(g, base_g), base_g);
                b = _mm512_fmadd_ps(strength, _mm512_sub_ps(b, base_b), base_b);
            }
            narrow(out + at + i, _mm512_fmadd_ps(x, g, b));
        }
    }
}

}  // namespace
