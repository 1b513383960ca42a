#include "emb_codec.h"

#include "emb_bytes.h"

static size_t encode_int16(const int16_t *x, size_t count, uint8_t *out, size_t limit) {
    if (2 * count > limit) return 0;
    for (size_t i = 0; i < count; i++) emb_put16(out + 2 * i, (uint16_t)x[i]);
    return 2 * count;
}

static bool decode_int16(const uint8_t *payload, size_t n, size_t count, int16_t *x) {
    if (n != 2 * count) return false;
    for (size_t i = 0; i < count; i++) x[i] = emb_int16(emb_get16(payload + 2 * i));
    return true;
}

static int32_t magnitude(int16_t v) { return v < 0 ? -(int32_t)v : (int32_t)v; }

static size_t encode_int8(const int16_t *x, uint8_t n_samp, uint8_t n_ch, uint8_t *out,
                          size_t limit) {
    const size_t bytes = (size_t)n_ch * (2u + n_samp);
    if (bytes > limit) return 0;
    for (size_t c = 0; c < n_ch; c++) {
        int32_t largest = 0;
        for (size_t t = 0; t < n_samp; t++) {
            const int32_t m = magnitude(x[t * n_ch + c]);
            if (m > largest) largest = m;
        }
        const int32_t scale = largest > 127 ? (largest + 126) / 127 : 1;
        emb_put16(out + 2 * c, (uint16_t)scale);
        for (size_t t = 0; t < n_samp; t++) {
            const int16_t v = x[t * n_ch + c];
            const int32_t code = (2 * magnitude(v) + scale) / (2 * scale);
            out[2u * n_ch + t * n_ch + c] = (uint8_t)(v < 0 ? -code : code);
        }
    }
    return bytes;
}

static int16_t clip(int32_t v) {
    if (v > INT16_MAX) return INT16_MAX;
    return v < INT16_MIN ? INT16_MIN : (int16_t)v;
}

static bool decode_int8(const uint8_t *payload, size_t n, uint8_t n_samp, uint8_t n_ch,
                        int16_t *x) {
    if (n != (size_t)n_ch * (2u + n_samp)) return false;
    for (size_t c = 0; c < n_ch; c++) {
        const int32_t scale = emb_get16(payload + 2 * c);
        if (scale == 0) return false;
        for (size_t t = 0; t < n_samp; t++) {
            const uint8_t byte = payload[2u * n_ch + t * n_ch + c];
            x[t * n_ch + c] = clip((byte < 128 ? byte : byte - 256) * scale);
        }
    }
    return true;
}

size_t emb_encode(uint8_t encoding, const int16_t *x, uint8_t n_samp, uint8_t n_ch, uint8_t *out,
                  size_t limit) {
    if (n_samp == 0 || n_ch == 0) return 0;
    switch (encoding) {
    case EMB_INT16: return encode_int16(x, (size_t)n_samp * n_ch, out, limit);
    case EMB_INT8: return encode_int8(x, n_samp, n_ch, out, limit);
    case EMB_RICE: return emb_rice_encode(x, n_samp, n_ch, out, limit);
    default: return 0;
    }
}

bool emb_decode(uint8_t encoding, const uint8_t *payload, size_t n, uint8_t n_samp, uint8_t n_ch,
                int16_t *x) {
    if (n_samp == 0 || n_ch == 0) return false;
    switch (encoding) {
    case EMB_INT16: return decode_int16(payload, n, (size_t)n_samp * n_ch, x);
    case EMB_INT8: return decode_int8(payload, n, n_samp, n_ch, x);
    case EMB_RICE: return emb_rice_decode(payload, n, n_samp, n_ch, x);
    default: return false;
    }
}
