/* libFuzzer: payload -> samples -> payload, in every encoding.
 *
 * Input: encoding, n_samp, n_ch (u8 each), then a payload, which is also read as samples.
 *
 * What must hold: a payload is refused, or its samples encode to something that decodes to the same
 * (int16, Rice), or to within half a scale (int8); an encoder writes what it says, fits when it
 * says so, and refuses one byte less; and no byte outside of a buffer is touched. */
#include "emb_codec.h"
#include "fuzz.h"

#define HEAD_BYTES 3u

static void check_close(const int16_t *x, const int16_t *back, uint8_t n_samp, uint8_t n_ch) {
    for (size_t c = 0; c < n_ch; c++) {
        int32_t largest = 0;
        for (size_t t = 0; t < n_samp; t++) {
            const int32_t m = abs(x[t * n_ch + c]);
            if (m > largest) largest = m;
        }
        const int32_t scale = largest > 127 ? (largest + 126) / 127 : 1;
        for (size_t t = 0; t < n_samp; t++) {
            REQUIRE(2 * abs(x[t * n_ch + c] - back[t * n_ch + c]) <= scale);
        }
    }
}

static void check_round_trip(uint8_t encoding, const int16_t *x, uint8_t n_samp, uint8_t n_ch) {
    const size_t count = (size_t)n_samp * n_ch;
    const size_t most = 5 * count + 2u * n_ch; /* Rice: 34 bits a sample and 6 a channel */
    uint8_t *first = exactly(most);
    const size_t n = emb_encode(encoding, x, n_samp, n_ch, first, most);
    REQUIRE(n > 0 && n <= most);

    uint8_t *payload = exactly(n);
    REQUIRE(emb_encode(encoding, x, n_samp, n_ch, payload, n) == n);
    REQUIRE(memcmp(payload, first, n) == 0);
    uint8_t *small = exactly(n - 1);
    REQUIRE(emb_encode(encoding, x, n_samp, n_ch, small, n - 1) == 0);

    int16_t *back = exactly(sizeof *back * count);
    REQUIRE(emb_decode(encoding, payload, n, n_samp, n_ch, back));
    if (encoding == EMB_INT8) {
        check_close(x, back, n_samp, n_ch);
    } else {
        REQUIRE(memcmp(x, back, sizeof *x * count) == 0);
    }
    free(back);
    free(small);
    free(payload);
    free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD_BYTES) return 0;
    const uint8_t encoding = data[0], n_samp = data[1], n_ch = data[2];
    const size_t n = size - HEAD_BYTES, count = (size_t)n_samp * n_ch;
    uint8_t *payload = copy_of(data + HEAD_BYTES, n);
    int16_t *x = exactly(sizeof *x * count);
    if (emb_decode(encoding, payload, n, n_samp, n_ch, x)) {
        REQUIRE(count > 0 && encoding < EMB_ENCODINGS);
        check_round_trip(encoding, x, n_samp, n_ch);
    }
    if (count > 0 && sizeof *x * count <= n) {
        memcpy(x, payload, sizeof *x * count);
        for (uint8_t any = 0; any < EMB_ENCODINGS; any++) check_round_trip(any, x, n_samp, n_ch);
    }
    free(x);
    free(payload);
    return 0;
}
