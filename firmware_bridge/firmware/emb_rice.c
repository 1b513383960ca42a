/* Delta-Rice code of one frame: all headers, then all quotients, then all remainders. */
#include "emb_codec.h"

#define ESCAPE 15u       /* this quotient says that the remainder holds the whole value */
#define ESCAPE_BITS 18u  /* a second-order residual of int16 needs no more */
#define MAX_ORDER 2u
#define MAX_K 15u

typedef struct {
    uint8_t order;
    uint8_t k;
} choice;

typedef struct {
    uint8_t *out;
    size_t limit; /* bytes */
    size_t bytes;
    uint32_t window; /* bits that do not fill a byte yet, in its low end */
    unsigned bits;   /* how many, below 8 between calls */
    bool full;
} bit_writer;

typedef struct {
    const uint8_t *data;
    size_t n_bits;
    size_t at;
} bit_reader;

/* x points at a channel's first sample, `stride` int16 apart. Residual number t as u >= 0. */
static uint32_t residual(const int16_t *x, size_t stride, size_t t, uint8_t order) {
    if (order > t) order = (uint8_t)t;
    int32_t r = x[t * stride];
    if (order == 1) r -= x[(t - 1) * stride];
    if (order == 2) r += x[(t - 2) * stride] - 2 * x[(t - 1) * stride];
    return r >= 0 ? 2u * (uint32_t)r : 2u * (uint32_t)(-(r + 1)) + 1u;
}

static uint32_t quotient(uint32_t u, uint8_t k) {
    const uint32_t q = u >> k;
    return q < ESCAPE ? q : ESCAPE;
}

static uint8_t best_order(const int16_t *x, size_t stride, uint8_t n_samp) {
    uint32_t least = UINT32_MAX; /* a sum is below 255 * 2^18 */
    uint8_t best = 0;
    for (uint8_t order = 0; order <= MAX_ORDER; order++) {
        uint32_t sum = 0;
        for (size_t t = 0; t < n_samp; t++) sum += residual(x, stride, t, order);
        if (sum < least) {
            least = sum;
            best = order;
        }
    }
    return best;
}

/* From the k on at which u >> k is 0, a value costs k bits: those are counted, not visited. */
static uint8_t best_k(const int16_t *x, size_t stride, uint8_t n_samp, uint8_t order) {
    uint32_t bits[MAX_K + 1] = {0};
    uint32_t zero_from[MAX_K + 2] = {0};
    for (size_t t = 0; t < n_samp; t++) {
        const uint32_t u = residual(x, stride, t, order);
        uint8_t k = 0;
        for (; k <= MAX_K && (u >> k) != 0; k++) {
            const uint32_t q = quotient(u, k);
            bits[k] += q + (q == ESCAPE ? ESCAPE_BITS : k);
        }
        zero_from[k]++;
    }
    uint8_t best = 0;
    uint32_t zeros = 0;
    for (uint8_t k = 0; k <= MAX_K; k++) {
        zeros += zero_from[k];
        bits[k] += zeros * k;
        if (bits[k] < bits[best]) best = k;
    }
    return best;
}

static void put_bits(bit_writer *w, uint32_t value, unsigned bits) {
    w->window = (w->window << bits) | (value & ((1u << bits) - 1u)); /* bits <= 18 */
    w->bits += bits;
    while (w->bits >= 8) {
        w->bits -= 8;
        if (w->bytes == w->limit) {
            w->full = true;
            return;
        }
        w->out[w->bytes++] = (uint8_t)(w->window >> w->bits);
    }
}

size_t emb_rice_encode(const int16_t *x, uint8_t n_samp, uint8_t n_ch, uint8_t *out,
                       size_t limit) {
    bit_writer w = {out, limit, 0, 0, 0, false};
    choice chosen[255];
    for (size_t c = 0; c < n_ch && !w.full; c++) {
        chosen[c].order = best_order(x + c, n_ch, n_samp);
        chosen[c].k = best_k(x + c, n_ch, n_samp, chosen[c].order);
        put_bits(&w, (uint32_t)chosen[c].order * 16u + chosen[c].k, 6);
    }
    for (size_t c = 0; c < n_ch && !w.full; c++) {
        for (size_t t = 0; t < n_samp && !w.full; t++) {
            const uint32_t q = quotient(residual(x + c, n_ch, t, chosen[c].order), chosen[c].k);
            put_bits(&w, (1u << (q + 1u)) - 2u, q + 1u); /* q ones and a zero */
        }
    }
    for (size_t c = 0; c < n_ch && !w.full; c++) {
        for (size_t t = 0; t < n_samp && !w.full; t++) {
            const uint32_t u = residual(x + c, n_ch, t, chosen[c].order);
            const bool escaped = quotient(u, chosen[c].k) == ESCAPE;
            put_bits(&w, u, escaped ? ESCAPE_BITS : chosen[c].k);
        }
    }
    if (w.bits > 0 && !w.full) put_bits(&w, 0, 8 - w.bits);
    return w.full ? 0 : w.bytes;
}

/* False: the string ends before. */
static bool get_bits(bit_reader *r, unsigned bits, uint32_t *value) {
    if (bits > r->n_bits - r->at) return false;
    uint32_t v = 0;
    for (; bits > 0; bits--, r->at++) {
        v = (v << 1) | ((uint32_t)(r->data[r->at / 8] >> (7 - r->at % 8)) & 1u);
    }
    *value = v;
    return true;
}

static bool get_quotient(bit_reader *r, int16_t *q) {
    uint32_t bit = 1;
    for (*q = 0; *q <= (int16_t)ESCAPE; (*q)++) {
        if (!get_bits(r, 1, &bit)) return false;
        if (bit == 0) return true;
    }
    return false;
}

/* Replaces the quotients of a channel in x by its samples. */
static bool get_channel(bit_reader *r, choice chosen, int16_t *x, size_t stride, uint8_t n_samp) {
    for (size_t t = 0; t < n_samp; t++) {
        const uint32_t q = (uint32_t)x[t * stride];
        uint32_t u = 0;
        if (!get_bits(r, q == ESCAPE ? ESCAPE_BITS : chosen.k, &u)) return false;
        if (q != ESCAPE) u += q << chosen.k;
        int32_t v = (u & 1u) ? -(int32_t)(u >> 1) - 1 : (int32_t)(u >> 1);
        const size_t order = chosen.order < t ? chosen.order : t;
        if (order == 1) v += x[(t - 1) * stride];
        if (order == 2) v += 2 * x[(t - 1) * stride] - x[(t - 2) * stride];
        if (v < INT16_MIN || v > INT16_MAX) return false;
        x[t * stride] = (int16_t)v;
    }
    return true;
}

bool emb_rice_decode(const uint8_t *payload, size_t n, uint8_t n_samp, uint8_t n_ch, int16_t *x) {
    bit_reader r = {payload, 8 * n, 0};
    choice chosen[255];
    uint32_t v = 0;
    for (size_t c = 0; c < n_ch; c++) {
        if (!get_bits(&r, 6, &v) || v / 16 > MAX_ORDER) return false;
        chosen[c].order = (uint8_t)(v / 16);
        chosen[c].k = (uint8_t)(v % 16);
    }
    for (size_t c = 0; c < n_ch; c++) {
        for (size_t t = 0; t < n_samp; t++) {
            if (!get_quotient(&r, &x[t * n_ch + c])) return false;
        }
    }
    for (size_t c = 0; c < n_ch; c++) {
        if (!get_channel(&r, chosen[c], x + c, n_ch, n_samp)) return false;
    }
    const size_t padding = r.n_bits - r.at;
    return padding < 8 && get_bits(&r, (unsigned)padding, &v) && v == 0;
}
