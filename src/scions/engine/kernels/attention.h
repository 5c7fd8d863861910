// Self-attention within each text, in bf16.

#pragma once

#include <memory>

#include "products.h"

namespace {

constexpr int MAX_TOKENS = 512;
constexpr int MAX_HEAD = 128;

struct alignas(64) AttentionScratch {
    bf16 keys[MAX_TOKENS * MAX_HEAD];    // [tokens / 16][head / 32] tiles
    bf16 values[MAX_TOKENS * MAX_HEAD];  // [head / 16][tokens / 32] tiles
    float scores[16 * MAX_TOKENS];
    bf16 probabilities[16 * MAX_TOKENS];
    bf16 queries[16 * MAX_HEAD];
    float result[16 * MAX_HEAD];
};

inline AttentionScratch &attention_scratch() {
    thread_local static std::unique_ptr<AttentionScratch> mine(new AttentionScratch);
    return *mine;
}

void pack_keys(const bf16 *keys, int64_t stride, int tokens, int padded, int64_t width, AttentionScratch &s) {
    const __m512i offsets = _mm512_mullo_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(static_cast<int>(stride * 2)));
    for (int n = 0; n < padded; n += 16) {
        const int left = tokens - n;
        const __mmask16 real = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
        for (int64_t pair = 0; pair < width / 2; ++pair) {
            const void *from = keys + n * stride + pair * 2;
            __m512i row = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), real, offsets, from, 1);
            _mm512_store_si512(s.keys + (n / 16) * 16 * width + pair * 32, row);
        }
    }
}

void pack_values(const bf16 *values, int64_t stride, int tokens, int padded, int64_t width, AttentionScratch &s) {
    for (int64_t n = 0; n < width; n += 16)
        for (int k = 0; k < padded; k += 2) {
            __m512i both = _mm512_setzero_si512();
            for (int odd = 0; odd < 2; ++odd) {
                if (k + odd >= tokens) continue;
                __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values + (k + odd) * stride + n));
                __m512i wide = _mm512_cvtepu16_epi32(half);
                both = _mm512_or_si512(both, odd ? _mm512_slli_epi32(wide, 16) : wide);
            }
            _mm512_store_si512(s.values + n * padded + k * 16, both);
        }
}

// One head of one text. Probabilities are divided by their sum at the end.
void attend_head(const bf16 *query, bf16 *out, int64_t width, int64_t head, int tokens, AttentionScratch &s) {
    const int64_t stride = 3 * width;
    const int padded = (tokens + 31) / 32 * 32;
    pack_keys(query + width, stride, tokens, padded, head, s);
    pack_values(query + 2 * width, stride, tokens, padded, head, s);
    const float scale = 1.0f / std::sqrt(static_cast<float>(head));
    Prefetch none;
    for (int first = 0; first < tokens; first += 16) {
        const int rows = tokens - first < 16 ? tokens - first : 16;
        const bf16 *from = query + first * stride;
        int64_t step = stride;
        if (rows < 16) {
            std::memset(s.queries, 0, sizeof(bf16) * 16 * head);
            for (int row = 0; row < rows; ++row) std::memcpy(s.queries + row * head, from + row * stride, sizeof(bf16) * head);
            from = s.queries;
            step = head;
        }
        multiply(from, step, 16, Bf16Weights{s.keys, head / 32}, padded, s.scores, padded, none);
        float sums[16];
        for (int row = 0; row < rows; ++row) {
            const float *scores = s.scores + row * padded;
            __m512 largest = _mm512_set1_ps(-INFINITY);
            for (int i = 0; i < tokens; i += 16) {
                const __mmask16 real = tokens - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (tokens - i)) - 1);
                largest = _mm512_mask_max_ps(largest, real, largest, _mm512_load_ps(scores + i));
            }
            const __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(largest) * scale);
            __m512 sum = _mm512_setzero_ps();
            for (int i = 0; i < padded; i += 16) {
                const int left = tokens - i;
                const __mmask16 real = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
                __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(scale), highest);
                x = _mm512_maskz_mov_ps(real, exponential(x));
                sum = _mm512_add_ps(sum, x);
                narrow(s.probabilities + row * padded + i, x);
            }
            sums[row] = 1.0f / _mm512_reduce_add_ps(sum);
        }
        // Rows after the last token hold old values; their results are not read.
        multiply(s.probabilities, padded, 16, Bf16Weights{s.values, padded / 32}, head, s.result, head, none);
        for (int row = 0; row < rows; ++row)
            for (int64_t i = 0; i < head; i += 16) {
                __m512 x = _mm512_mul_ps(_mm512_load_ps(s.result + row * head + i), _mm512_set1_ps(sums[row]));
                narrow(out + (first + row) * width + i, x);
            }
    }
}

}  // namespace
