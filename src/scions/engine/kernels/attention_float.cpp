// Self-attention within each text, in float32. Plain C++ that compilers vectorize for any processor.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

namespace {

constexpr int MAX_TOKENS = 512;
constexpr int ROWS = 4;    // queries at a time
constexpr int LANES = 16;  // keys at a time
constexpr float MASKED = -1e30f;

template <int HEAD>
struct Scratch {
    alignas(64) float keys[HEAD * MAX_TOKENS];  // [tokens / LANES][HEAD][LANES]
    alignas(64) float probabilities[ROWS][MAX_TOKENS];
};

// e^x for x <= 0, to float32's precision.
inline float exponential(float x) {
    x = std::max(x, -87.0f);
    const int32_t n = static_cast<int32_t>(x * 1.44269504f - 0.5f);
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int32_t bits = (n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

template <int HEAD>
void attend_head(const float *query, float *out, int64_t width, int tokens, Scratch<HEAD> &s) {
    const int64_t stride = 3 * width;
    const float *keys = query + width, *values = query + 2 * width;
    const int padded = (tokens + LANES - 1) / LANES * LANES;
    for (int n = 0; n < padded; ++n)
        for (int i = 0; i < HEAD; ++i)
            s.keys[(n / LANES * HEAD + i) * LANES + n % LANES] = n < tokens ? keys[n * stride + i] : 0.0f;
    const float scale = 1.0f / std::sqrt(static_cast<float>(HEAD));
    for (int first = 0; first < tokens; first += ROWS) {
        const float *rows[ROWS];  // the last query is repeated
        for (int row = 0; row < ROWS; ++row) rows[row] = query + std::min(first + row, tokens - 1) * stride;
        for (int n = 0; n < padded; n += LANES) {
            float sums[ROWS][LANES] = {};
            for (int i = 0; i < HEAD; ++i)
                for (int row = 0; row < ROWS; ++row)
#pragma omp simd
                    for (int lane = 0; lane < LANES; ++lane) sums[row][lane] += rows[row][i] * s.keys[n * HEAD + i * LANES + lane];
            for (int row = 0; row < ROWS; ++row)
                for (int lane = 0; lane < LANES; ++lane) s.probabilities[row][n + lane] = n + lane < tokens ? sums[row][lane] * scale : MASKED;
        }
        for (int row = 0; row < ROWS && first + row < tokens; ++row) {
            float *probabilities = s.probabilities[row];
            float largest = MASKED, sum = 0.0f;
#pragma omp simd reduction(max : largest)
            for (int n = 0; n < padded; ++n) largest = std::max(largest, probabilities[n]);
#pragma omp simd reduction(+ : sum)
            for (int n = 0; n < padded; ++n) {
                probabilities[n] = probabilities[n] == MASKED ? 0.0f : exponential(probabilities[n] - largest);
                sum += probabilities[n];
            }
            float result[HEAD] = {};
            for (int n = 0; n < tokens; ++n)
#pragma omp simd
                for (int i = 0; i < HEAD; ++i) result[i] += probabilities[n] * values[n * stride + i];
            for (int i = 0; i < HEAD; ++i) out[(first + row) * width + i] = result[i] / sum;
        }
    }
}

template <int HEAD>
void attend_texts(const float *projected, float *out, int64_t width, int64_t heads, const int64_t *starts, const int64_t *lengths,
                  int64_t texts, int threads) {
#pragma omp parallel num_threads(threads)
    {
        thread_local static std::unique_ptr<Scratch<HEAD>> mine(new Scratch<HEAD>);
#pragma omp for schedule(dynamic, 16)
        for (int64_t n = 0; n < texts * heads; ++n) {
            const int64_t text = n / heads, place = n % heads * HEAD;
            attend_head<HEAD>(projected + starts[text] * 3 * width + place, out + starts[text] * width + place, width,
                              static_cast<int>(lengths[text]), *mine);
        }
    }
}

}  // namespace

extern "C" {

// projected: [tokens][3 * width], queries, keys and values; out: [tokens][width]. starts, lengths: of each text, at most
// 512 tokens long. The width of a head is 32, 64 or 128. threads: how many to use.
void attend(const float *projected, float *out, int64_t width, int64_t heads, const int64_t *starts, const int64_t *lengths,
            int64_t texts, int threads) {
    const auto of = width / heads == 32 ? attend_texts<32> : width / heads == 64 ? attend_texts<64> : attend_texts<128>;
    of(projected, out, width, heads, starts, lengths, texts, threads);
}
}
