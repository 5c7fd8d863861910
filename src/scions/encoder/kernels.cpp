// What lies between the products of an encoder layer, in bf16, for packed tokens of many texts and adapters.
//
// grouped_site: norm(y + factor * up(gelu(down(read))) + residual), read = y, or the residual (placement "parallel").
// attend: self-attention within each text.
//
// Blocks of up to 32 tokens of one adapter go through both halves of the bottleneck, the residual and the norm without
// leaving the caches. Sums are float32 and every token's are taken in the same order whatever stands beside it, so its
// result does not depend on its neighbours.
//
// Weights come laid out in tiles of 32 inputs by 16 outputs, inputs in pairs: [out / 16][in / 32][16][16][2], which is
// what both the matrix unit (AMX) and the dot products of pairs (AVX-512 BF16) read.

#include <immintrin.h>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int BLOCK = 32;
constexpr int MOST_WIDTH = 4096;
constexpr int MOST_RANK = 1024;
constexpr int TILE = 16 * 16 * 2;

using bf16 = uint16_t;

// As the caller's table has it: eight words of eight bytes.
struct Part {
    const bf16 *down;          // [rank / 16][width / 32] tiles; null: no bottleneck here
    const float *down_bias;    // [rank]
    const bf16 *up;            // [width / 16][rank / 32] tiles
    const float *up_bias;      // [width]
    const float *gamma;        // [width]; null: the base's norm
    const float *beta;         // [width]
    int64_t rank;              // a multiple of 32
    int64_t reads_residual;
};

// Tokens from start to before end of one row of the table.
struct Span {
    int64_t part;
    int64_t start;
    int64_t end;
};

// Asks for weights some steps before they are needed: every adapter's are read once a batch, from far away.
struct Ahead {
    static constexpr int64_t LEAD = 12;  // steps; one is two tiles
    const char *at[3] = {};
    int64_t steps[3] = {};
    int stretch = 0;

    Ahead() = default;
    // The rest of `part` behind its first steps, then the first steps of what comes next.
    Ahead(const Part &part, const Part &next, int64_t width) {
        const int64_t down = part.rank * width / (2 * TILE), lead = down < LEAD ? down : LEAD;
        at[0] = reinterpret_cast<const char *>(part.down + lead * 2 * TILE);
        steps[0] = down - lead;
        at[1] = reinterpret_cast<const char *>(part.up);
        steps[1] = down;
        at[2] = reinterpret_cast<const char *>(next.down);
        steps[2] = next.down && next.down != part.down ? lead : 0;
    }

    inline void step() {
        while (stretch < 3 && steps[stretch] == 0) ++stretch;
        if (stretch == 3) return;
        for (int line = 0; line < 4 * TILE; line += 64) _mm_prefetch(at[stretch] + line, _MM_HINT_T1);
        at[stretch] += 4 * TILE;
        --steps[stretch];
    }
};

inline __m512 widen(const bf16 *from) {
    __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void narrow(bf16 *to, __m512 x) {
    __m256bh half = _mm512_cvtneps_pbh(x);
    std::memcpy(to, &half, sizeof half);
}

inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

// x * Phi(x); the error function after Abramowitz and Stegun 7.1.26, to 1.5e-7.
inline __m512 gelu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 a = _mm512_abs_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678f)));
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(0.3275911f), a, one));
    __m512 p = _mm512_set1_ps(1.061405429f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
    p = _mm512_mul_ps(p, t);
    __m512 tail = _mm512_mul_ps(p, exponential(_mm512_fnmadd_ps(a, a, _mm512_setzero_ps())));
    __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    __m512 twice = _mm512_mask_sub_ps(_mm512_sub_ps(_mm512_set1_ps(2.0f), tail), negative, tail, _mm512_setzero_ps());
    return _mm512_mul_ps(_mm512_mul_ps(x, twice), _mm512_set1_ps(0.5f));
}

#ifdef __AMX_BF16__

struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline void begin_tiles() {
    static const TileShapes shapes;
    _tile_loadconfig(&shapes);
}

inline void end_tiles() { _tile_release(); }

// to[rows][32] = a[rows][32 * steps] times the weights of two neighbouring tiles of outputs; tall: 32 rows, else 16.
inline void multiply(const bf16 *a, int64_t stride, bool tall, const bf16 *weights, int64_t steps, float *to, int64_t to_stride,
                     Ahead &ahead) {
    const bf16 *left = weights, *right = weights + steps * TILE;
    // The intrinsics do not say that they read memory: what was written to it before must be there by now.
    asm volatile("" ::: "memory");
    _tile_zero(0);
    _tile_zero(1);
    if (tall) {
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < steps; ++k) {
            ahead.step();
            _tile_loadd(6, left + k * TILE, 64);
            _tile_loadd(7, right + k * TILE, 64);
            _tile_loadd(4, a + k * 32, stride * 2);
            _tile_loadd(5, a + 16 * stride + k * 32, stride * 2);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, to + 16 * to_stride, to_stride * 4);
        _tile_stored(3, to + 16 * to_stride + 16, to_stride * 4);
    } else {
        for (int64_t k = 0; k < steps; ++k) {
            ahead.step();
            _tile_loadd(6, left + k * TILE, 64);
            _tile_loadd(7, right + k * TILE, 64);
            _tile_loadd(4, a + k * 32, stride * 2);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    }
    _tile_stored(0, to, to_stride * 4);
    _tile_stored(1, to + 16, to_stride * 4);
}

#else

inline void begin_tiles() {}
inline void end_tiles() {}

inline __m512bh pairs_of(const void *from) {
    __m512bh x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline void multiply(const bf16 *a, int64_t stride, bool tall, const bf16 *weights, int64_t steps, float *to, int64_t to_stride,
                     Ahead &ahead) {
    for (int row = 0; row < (tall ? 32 : 16); row += 4) {
        for (int half = 0; half < 2; ++half) {
            __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
            const bf16 *tile = weights + half * steps * TILE;
            for (int64_t k = 0; k < steps * 16; ++k) {
                __m512bh weight = pairs_of(tile + k * 32);
                for (int i = 0; i < 4; ++i) {
                    int32_t pair;
                    std::memcpy(&pair, a + (row + i) * stride + k * 2, 4);
                    __m512i spread = _mm512_set1_epi32(pair);
                    sums[i] = _mm512_dpbf16_ps(sums[i], pairs_of(&spread), weight);
                }
            }
            for (int i = 0; i < 4; ++i) _mm512_storeu_ps(to + (row + i) * to_stride + half * 16, sums[i]);
        }
    }
}

#endif

struct alignas(64) Scratch {
    float sums[BLOCK * MOST_WIDTH];
    float inner[BLOCK * 32];
    bf16 read[BLOCK * MOST_WIDTH];
    bf16 hidden[BLOCK * MOST_RANK];
};

inline Scratch &scratch() {
    thread_local static std::unique_ptr<Scratch> mine(new Scratch);
    return *mine;
}

// sums[rows][width] = up(gelu(down(read))), without the last bias.
void bottleneck(const Part &part, const bf16 *read, int rows, int64_t width, Ahead ahead, Scratch &s) {
    const bool tall = rows > 16;
    if (rows != (tall ? 32 : 16)) {
        // Tiles are read whole.
        std::memset(s.read, 0, sizeof(bf16) * (tall ? 32 : 16) * width);
        std::memcpy(s.read, read, sizeof(bf16) * rows * width);
        read = s.read;
    }
    for (int64_t n = 0; n < part.rank; n += 32) {
        multiply(read, width, tall, part.down + n * width, width / 32, s.inner, 32, ahead);
        for (int row = 0; row < (tall ? 32 : 16); ++row)
            for (int half = 0; half < 32; half += 16) {
                __m512 h = _mm512_add_ps(_mm512_load_ps(s.inner + row * 32 + half), _mm512_loadu_ps(part.down_bias + n + half));
                narrow(s.hidden + row * part.rank + n + half, gelu(h));
            }
    }
    for (int64_t n = 0; n < width; n += 32)
        multiply(s.hidden, part.rank, tall, part.up + n * part.rank, part.rank / 32, s.sums + n, width, ahead);
}

void block(const Part &part, const bf16 *y, const bf16 *residual, bf16 *out, const float *factor, int rows, int64_t width,
           const float *base_gamma, const float *base_beta, float eps, const Ahead &ahead, Scratch &s) {
    if (part.down) bottleneck(part, part.reads_residual ? residual : y, rows, width, ahead, s);
    const float *gamma = part.gamma ? part.gamma : base_gamma, *beta = part.gamma ? part.beta : base_beta;
    for (int row = 0; row < rows; ++row) {
        const int64_t at = row * width;
        float *z = s.sums + at;
        const float f = factor ? factor[row] : 1.0f;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < width; i += 16) {
            __m512 x = _mm512_add_ps(widen(y + at + i), widen(residual + at + i));
            if (part.down) {
                __m512 delta = _mm512_add_ps(_mm512_load_ps(z + i), _mm512_loadu_ps(part.up_bias + i));
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
        const bool between = part.gamma && f != 1.0f;
        const __m512 strength = _mm512_set1_ps(f);
        for (int64_t i = 0; i < width; i += 16) {
            __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(z + i), mean), scale);
            __m512 g = _mm512_loadu_ps(gamma + i), b = _mm512_loadu_ps(beta + i);
            if (between) {
                __m512 base_g = _mm512_loadu_ps(base_gamma + i), base_b = _mm512_loadu_ps(base_beta + i);
                g = _mm512_fmadd_ps(strength, _mm512_sub_ps(g, base_g), base_g);
                b = _mm512_fmadd_ps(strength, _mm512_sub_ps(b, base_b), base_b);
            }
            narrow(out + at + i, _mm512_fmadd_ps(x, g, b));
        }
    }
}

constexpr int MOST_TOKENS = 512;
constexpr int MOST_HEAD = 128;

struct alignas(64) Head {
    bf16 keys[MOST_TOKENS * MOST_HEAD];    // [tokens / 16][head / 32] tiles
    bf16 values[MOST_TOKENS * MOST_HEAD];  // [head / 16][tokens / 32] tiles
    float scores[16 * MOST_TOKENS];
    bf16 shares[16 * MOST_TOKENS];
    bf16 queries[16 * MOST_HEAD];
    float result[16 * MOST_HEAD];
};

inline Head &head_scratch() {
    thread_local static std::unique_ptr<Head> mine(new Head);
    return *mine;
}

void lay_out_keys(const bf16 *keys, int64_t stride, int tokens, int filled, int64_t width, Head &s) {
    const __m512i offsets = _mm512_mullo_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(static_cast<int>(stride * 2)));
    for (int n = 0; n < filled; n += 16) {
        const int left = tokens - n;
        const __mmask16 real = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
        for (int64_t pair = 0; pair < width / 2; ++pair) {
            const void *from = keys + n * stride + pair * 2;
            __m512i row = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), real, offsets, from, 1);
            _mm512_store_si512(s.keys + (n / 16) * 16 * width + pair * 32, row);
        }
    }
}

void lay_out_values(const bf16 *values, int64_t stride, int tokens, int filled, int64_t width, Head &s) {
    for (int64_t n = 0; n < width; n += 16)
        for (int k = 0; k < filled; k += 2) {
            __m512i both = _mm512_setzero_si512();
            for (int odd = 0; odd < 2; ++odd) {
                if (k + odd >= tokens) continue;
                __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values + (k + odd) * stride + n));
                __m512i wide = _mm512_cvtepu16_epi32(half);
                both = _mm512_or_si512(both, odd ? _mm512_slli_epi32(wide, 16) : wide);
            }
            _mm512_store_si512(s.values + n * filled + k * 16, both);
        }
}

// One head of one text. Shares are exponentials, divided by their sum at the end.
void attend_head(const bf16 *query, bf16 *out, int64_t width, int64_t head, int tokens, Head &s) {
    const int64_t stride = 3 * width;
    const int filled = (tokens + 31) / 32 * 32;
    lay_out_keys(query + width, stride, tokens, filled, head, s);
    lay_out_values(query + 2 * width, stride, tokens, filled, head, s);
    const float scale = 1.0f / std::sqrt(static_cast<float>(head));
    Ahead none;
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
        for (int n = 0; n < filled; n += 32) multiply(from, step, false, s.keys + n * head, head / 32, s.scores + n, filled, none);
        float sums[16];
        for (int row = 0; row < rows; ++row) {
            const float *scores = s.scores + row * filled;
            __m512 most = _mm512_set1_ps(-INFINITY);
            for (int i = 0; i < tokens; i += 16) {
                const __mmask16 real = tokens - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (tokens - i)) - 1);
                most = _mm512_mask_max_ps(most, real, most, _mm512_load_ps(scores + i));
            }
            const __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(most) * scale);
            __m512 sum = _mm512_setzero_ps();
            for (int i = 0; i < filled; i += 16) {
                const int left = tokens - i;
                const __mmask16 real = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
                __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(scale), highest);
                x = _mm512_maskz_mov_ps(real, exponential(x));
                sum = _mm512_add_ps(sum, x);
                narrow(s.shares + row * filled + i, x);
            }
            sums[row] = 1.0f / _mm512_reduce_add_ps(sum);
        }
        // Rows behind the last token keep what was there before; their results are not read.
        for (int64_t n = 0; n < head; n += 32) multiply(s.shares, filled, false, s.values + n * filled, filled / 32, s.result + n, head, none);
        for (int row = 0; row < rows; ++row)
            for (int64_t i = 0; i < head; i += 16) {
                __m512 x = _mm512_mul_ps(_mm512_load_ps(s.result + row * head + i), _mm512_set1_ps(sums[row]));
                narrow(out + (first + row) * width + i, x);
            }
    }
}

}  // namespace

extern "C" {

// projected: [tokens][3 * width], queries, keys and values; out: [tokens][width]. starts, lengths: of each text, at most
// 512 tokens long. The width of a head is a multiple of 32 and at most 128. threads: to work in.
void attend(const bf16 *projected, bf16 *out, int64_t width, int64_t heads, const int64_t *starts, const int64_t *lengths,
            int64_t texts, int threads) {
    const int64_t head = width / heads;
#pragma omp parallel num_threads(threads)
    {
        Head &mine = head_scratch();
        begin_tiles();
#pragma omp for schedule(dynamic, 16)
        for (int64_t n = 0; n < texts * heads; ++n) {
            const int64_t text = n / heads, place = n % heads * head;
            attend_head(projected + starts[text] * 3 * width + place, out + starts[text] * width + place, width, head,
                        static_cast<int>(lengths[text]), mine);
        }
        end_tiles();
    }
}


// 0 where this process may use what the file was compiled for.
int prepare() {
#ifdef __AMX_BF16__
    const int may_use_tiles = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, may_use_tiles, tile_data) == 0 ? 0 : 1;
#else
    return 0;
#endif
}

// y, residual, out: [tokens][width]; out may be y. parts: rows of the table lie `stride` bytes apart. factor: [tokens] or
// null. spans have at most 32 tokens each. width is a multiple of 32 and at most 4096, ranks are at most 1024.
void grouped_site(const bf16 *y, const bf16 *residual, bf16 *out, int64_t width, const float *gamma, const float *beta,
                  float eps, const char *parts, int64_t stride, const Span *spans, int64_t count, const float *factor,
                  int threads) {
#pragma omp parallel num_threads(threads) if (count > 1)
    {
        Scratch &mine = scratch();
        begin_tiles();
#pragma omp for schedule(static)
        for (int64_t n = 0; n < count; ++n) {
            const Span &span = spans[n];
            Part part, next;
            std::memcpy(&part, parts + span.part * stride, sizeof part);
            std::memcpy(&next, parts + spans[n + 1 < count ? n + 1 : n].part * stride, sizeof next);
            const bool first = part.down && (n == 0 || spans[n - 1].part != span.part);
            const int64_t at = span.start * width;
            block(part, y + at, residual + at, out + at, factor ? factor + span.start : nullptr,
                  static_cast<int>(span.end - span.start), width, gamma, beta, eps, first ? Ahead(part, next, width) : Ahead(), mine);
        }
        end_tiles();
    }
}
}
