// Products of up to 32 rows with weights, on the matrix unit (AMX) or by dot products of pairs (AVX-512 BF16).
//
// Weights are stored in tiles of 32 inputs by 16 outputs, inputs in pairs: [out / 16][in / 32][16][16][2], as both need
// them. The sums of a row are taken in the same order whatever the other rows are.

#pragma once

#include "numbers.h"

namespace {

constexpr int TILE = 16 * 16 * 2;

// Prefetches the next part's weights during the products of this one: each adapter's are read once per batch, from
// memory.
struct Prefetch {
    const int8_t *at[2] = {};
    int64_t left[2] = {};

    inline void step() {
        const int which = left[0] ? 0 : 1;
        if (left[which] == 0) return;
        for (int line = 0; line < 2 * TILE; line += 64) _mm_prefetch(reinterpret_cast<const char *>(at[which]) + line, _MM_HINT_T1);
        at[which] += 2 * TILE;
        left[which] -= 2 * TILE;
    }
};

// Converts int8 to bf16, which is exact. Of 64 numbers in memory, even places are the first 32 and odd places the last
// 32. count is a multiple of 64.
#ifdef __AVX512VBMI__

// The bytes of the bf16 of 0 to 127.
struct alignas(64) Bytes {
    uint8_t low[128], high[128];
    Bytes() {
        for (int i = 0; i < 128; ++i) {
            const float x = static_cast<float>(i);
            uint32_t bits;
            std::memcpy(&bits, &x, 4);
            low[i] = static_cast<uint8_t>(bits >> 16);
            high[i] = static_cast<uint8_t>(bits >> 24);
        }
    }
};

inline void expand(const int8_t *from, bf16 *to, int64_t count) {
    static const Bytes bytes;
    const __m512i low0 = _mm512_load_si512(bytes.low), low1 = _mm512_load_si512(bytes.low + 64);
    const __m512i high0 = _mm512_load_si512(bytes.high), high1 = _mm512_load_si512(bytes.high + 64);
    const __m512i sign = _mm512_set1_epi8(-128), lower = _mm512_set1_epi16(0xff), upper = _mm512_set1_epi16(-256);
    const int a_or_b_and_c = 0xf8;
    for (int64_t i = 0; i < count; i += 64) {
        const __m512i x = _mm512_load_si512(from + i), size = _mm512_abs_epi8(x);
        const __m512i low = _mm512_permutex2var_epi8(low0, size, low1);
        const __m512i high = _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, size, high1), x, sign, a_or_b_and_c);
        _mm512_store_si512(to + i, _mm512_ternarylogic_epi32(_mm512_slli_epi16(high, 8), low, lower, a_or_b_and_c));
        _mm512_store_si512(to + i + 32, _mm512_ternarylogic_epi32(_mm512_srli_epi16(low, 8), high, upper, a_or_b_and_c));
    }
}

#else

inline void expand(const int8_t *from, bf16 *to, int64_t count) {
    for (int64_t i = 0; i < count; i += 64) {
        const __m512i x = _mm512_load_si512(from + i);
        const __m512i halves[2] = {_mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), _mm512_srai_epi16(x, 8)};
        for (int half = 0; half < 2; ++half) {
            const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(halves[half])));
            const __m512 second = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(halves[half], 1)));
            const __m512bh both = _mm512_cvtne2ps_pbh(second, first);
            std::memcpy(to + i + 32 * half, &both, sizeof both);
        }
    }
}

#endif

// Tiles of bf16 weights.
struct Bf16Weights {
    const bf16 *weights;
    int64_t steps;

    inline void ready(int64_t, int) {}
    inline const bf16 *tile(int n, int64_t k) const { return weights + (n * steps + k) * TILE; }
};

// Tiles of int8 weights: those of a step are expanded some steps early, during products of the matrix unit, which leaves
// the other units idle.
struct Int8Weights {
    static constexpr int RING = 4, LEAD = 2;
    const int8_t *weights;
    int64_t steps;
    bf16 (*ring)[4][TILE];

    inline void fill(int64_t k, int tiles) {
        if (k < steps)
            for (int n = 0; n < tiles; ++n) expand(weights + (n * steps + k) * TILE, ring[k % RING][n], TILE);
    }
    inline void ready(int64_t k, int tiles) {
        if (k == 0)
            for (int64_t early = 0; early < LEAD; ++early) fill(early, tiles);
        fill(k + LEAD, tiles);
        // The tile intrinsics do not declare that they read memory: writes must be complete here.
        asm volatile("" ::: "memory");
    }
    inline const bf16 *tile(int n, int64_t k) const { return ring[k % RING][n]; }
};

// to[rows][outputs] = a[rows][32 * steps] times the weights of neighboring tiles of outputs. rows is at most 32 and was
// passed to begin_tiles; outputs is a multiple of 32.
#ifdef __AMX_BF16__

constexpr bool TILES = true;

struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
};

// Time grows with the height of tiles. Tiles 0 to 3 are sums, 4 (and 5 above 16 rows) rows of a, the others weights.
inline void begin_tiles(int rows) {
    TileShapes shapes;
    const bool tall = rows > 16;
    const uint8_t upper = static_cast<uint8_t>(tall ? 16 : rows), lower = static_cast<uint8_t>(tall ? rows - 16 : rows);
    shapes.rows[0] = shapes.rows[1] = shapes.rows[4] = upper;
    shapes.rows[2] = shapes.rows[3] = lower;
    shapes.rows[5] = tall ? lower : 16;
    shapes.rows[6] = shapes.rows[7] = 16;
    _tile_loadconfig(&shapes);
}

inline void end_tiles() { _tile_release(); }

inline void begin_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

template <class Weights>
inline void multiply_tall(const bf16 *a, int64_t stride, Weights w, float *to, int64_t to_stride, Prefetch &prefetch) {
    begin_sums();
    for (int64_t k = 0; k < w.steps; ++k) {
        prefetch.step();
        w.ready(k, 2);
        _tile_loadd(6, w.tile(0, k), 64);
        _tile_loadd(7, w.tile(1, k), 64);
        _tile_loadd(4, a + k * 32, stride * 2);
        _tile_loadd(5, a + 16 * stride + k * 32, stride * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, to_stride * 4);
    _tile_stored(1, to + 16, to_stride * 4);
    _tile_stored(2, to + 16 * to_stride, to_stride * 4);
    _tile_stored(3, to + 16 * to_stride + 16, to_stride * 4);
}

// Up to 16 rows: four tiles of outputs at a time, because a sum must wait for the one before it.
template <class Weights>
inline void multiply_short(const bf16 *a, int64_t stride, Weights w, bool four, float *to, int64_t to_stride, Prefetch &prefetch) {
    begin_sums();
    for (int64_t k = 0; k < w.steps; ++k) {
        prefetch.step();
        w.ready(k, four ? 4 : 2);
        _tile_loadd(4, a + k * 32, stride * 2);
        _tile_loadd(6, w.tile(0, k), 64);
        _tile_loadd(7, w.tile(1, k), 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (!four) continue;
        prefetch.step();
        _tile_loadd(5, w.tile(2, k), 64);
        _tile_loadd(6, w.tile(3, k), 64);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 6);
    }
    _tile_stored(0, to, to_stride * 4);
    _tile_stored(1, to + 16, to_stride * 4);
    if (!four) return;
    _tile_stored(2, to + 32, to_stride * 4);
    _tile_stored(3, to + 48, to_stride * 4);
}

template <class Weights>
inline void multiply(const bf16 *a, int64_t stride, int rows, Weights w, int64_t outputs, float *to, int64_t to_stride, Prefetch &prefetch) {
    asm volatile("" ::: "memory");  // as above
    while (outputs > 0) {
        const bool four = rows <= 16 && outputs >= 64;
        if (rows > 16) multiply_tall(a, stride, w, to, to_stride, prefetch);
        else multiply_short(a, stride, w, four, to, to_stride, prefetch);
        const int done = four ? 64 : 32;
        w.weights += done * w.steps * 32;
        to += done;
        outputs -= done;
    }
}

#else

constexpr bool TILES = false;

inline void begin_tiles(int) {}
inline void end_tiles() {}

inline __m512bh pairs_of(const void *from) {
    __m512bh x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

template <class Weights>
inline void multiply(const bf16 *a, int64_t stride, int rows, Weights w, int64_t outputs, float *to, int64_t to_stride, Prefetch &prefetch) {
    for (; outputs > 0; outputs -= 16, to += 16, w.weights += w.steps * TILE)
        for (int row = 0; row < rows; row += 4) {
            int at[4];  // the last row is repeated
            for (int i = 0; i < 4; ++i) at[i] = row + i < rows ? row + i : rows - 1;
            __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
            for (int64_t k = 0; k < w.steps; ++k) {
                prefetch.step();
                w.ready(k, 1);
                for (int pair = 0; pair < 16; ++pair) {
                    __m512bh weight = pairs_of(w.tile(0, k) + pair * 32);
                    for (int i = 0; i < 4; ++i) {
                        int32_t both;
                        std::memcpy(&both, a + at[i] * stride + k * 32 + pair * 2, 4);
                        __m512i everywhere = _mm512_set1_epi32(both);
                        sums[i] = _mm512_dpbf16_ps(sums[i], pairs_of(&everywhere), weight);
                    }
                }
            }
            for (int i = 0; i < 4; ++i) _mm512_storeu_ps(to + at[i] * to_stride, sums[i]);
        }
}

#endif

}  // namespace
