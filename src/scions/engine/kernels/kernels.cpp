// Attention, bottlenecks and norms of encoder layers in bf16, for packed tokens of many texts and adapters.
// Sums are float32. scions/engine/kernels/build.py compiles this.

#include <sys/syscall.h>
#include <unistd.h>

#include "attention.h"
#include "bottleneck.h"

extern "C" {

// Returns 0 if this process may use the instructions that the file was compiled for.
int prepare() {
#ifdef __AMX_BF16__
    const int may_use_tiles = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, may_use_tiles, tile_data) == 0 ? 0 : 1;
#else
    return 0;
#endif
}

// weight: [outputs][inputs], padded with zeros to padded_outputs, a multiple of 16, by padded_inputs, a multiple of 32.
// tiles: int8, in the order that `expand` and the products read; scales: [padded_outputs].
void round_weight(const bf16 *weight, int64_t outputs, int64_t inputs, int64_t padded_outputs, int64_t padded_inputs,
                  int8_t *tiles, float *scales) {
    alignas(64) bf16 row[MAX_WIDTH] = {};
    alignas(64) int8_t whole[MAX_WIDTH];
    for (int64_t out = 0; out < padded_outputs; ++out) {
        if (out < outputs) std::memcpy(row, weight + out * inputs, sizeof(bf16) * inputs);
        else std::memset(row, 0, sizeof(bf16) * inputs);
        __m512 largest = _mm512_setzero_ps();
        for (int64_t in = 0; in < padded_inputs; in += 16) largest = _mm512_max_ps(largest, _mm512_abs_ps(widen(row + in)));
        const float maximum = _mm512_reduce_max_ps(largest);
        scales[out] = maximum / 127.0f;
        const __m512 by = _mm512_set1_ps(maximum > 0.0f ? 127.0f / maximum : 0.0f);
        for (int64_t in = 0; in < padded_inputs; in += 16) {
            const __m128i numbers = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(widen(row + in), by)));
            _mm_store_si128(reinterpret_cast<__m128i *>(whole + in), numbers);
        }
        for (int64_t in = 0; in < padded_inputs; in += 2) {
            const int64_t tile = out / 16 * (padded_inputs / 32) + in / 32, at = in % 32 / 2 * 32 + out % 16 * 2;
            int8_t *to = tiles + tile * TILE + at / 64 * 64 + (at % 64 < 32 ? at % 64 * 2 : (at % 64 - 32) * 2 + 1);
            to[0] = whole[in];
            to[2] = whole[in + 1];
        }
    }
}

// projected: [tokens][3 * width], queries, keys and values; out: [tokens][width]. starts, lengths: of each text, at most
// 512 tokens long. The width of a head is a multiple of 32 and at most 128. threads: how many to use.
void attend(const bf16 *projected, bf16 *out, int64_t width, int64_t heads, const int64_t *starts, const int64_t *lengths,
            int64_t texts, int threads) {
    const int64_t head = width / heads;
#pragma omp parallel num_threads(threads)
    {
        AttentionScratch &mine = attention_scratch();
        begin_tiles(16);
#pragma omp for schedule(dynamic, 16)
        for (int64_t n = 0; n < texts * heads; ++n) {
            const int64_t text = n / heads, place = n % heads * head;
            attend_head(projected + starts[text] * 3 * width + place, out + starts[text] * width + place, width, head,
                        static_cast<int>(lengths[text]), mine);
        }
        end_tiles();
    }
}

// y, residual, out: [tokens][width]; out may be y. parts: the table, with `stride` bytes per row. factor: [tokens] or
// null. A span has at most 32 tokens. width is a multiple of 32 and at most 4096, a rank at most 1024.
void grouped_bottleneck(const bf16 *y, const bf16 *residual, bf16 *out, int64_t width, const float *gamma, const float *beta,
                  float eps, const char *parts, int64_t stride, const Span *spans, int64_t count, const float *factor,
                  int threads) {
#pragma omp parallel num_threads(threads) if (count > 1)
    {
        BottleneckScratch &mine = bottleneck_scratch();
        int64_t expanded_part = -1;  // the part whose weights the scratch holds as bf16
#pragma omp for schedule(static)
        for (int64_t n = 0; n < count; ++n) {
            const Span &span = spans[n];
            Part part, next;
            std::memcpy(&part, parts + span.part * stride, sizeof part);
            std::memcpy(&next, parts + spans[n + 1 < count ? n + 1 : n].part * stride, sizeof next);
            const bool more = n + 1 < count && spans[n + 1].part == span.part;
            if (part.down && (more || !TILES) && span.part != expanded_part) {
                expand(part.down, mine.down, part.rank * width);
                expand(part.up, mine.up, part.rank * width);
                expanded_part = span.part;
            }
            const int64_t size = next.rank * width;
            const Prefetch prefetch = more ? Prefetch{} : Prefetch{{next.down, next.up}, {size, size}};
            const int64_t at = span.start * width;
            block(part, y + at, residual + at, out + at, factor ? factor + span.start : nullptr,
                  static_cast<int>(span.end - span.start), width, gamma, beta, eps, span.part == expanded_part, prefetch, mine);
        }
        end_tiles();
    }
}
}
