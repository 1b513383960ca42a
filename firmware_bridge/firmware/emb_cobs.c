/* Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999). */
#include "emb_frame.h"

size_t emb_cobs_encode(const uint8_t *data, size_t n, uint8_t *out) {
    size_t code_at = 0, used = 1;
    uint8_t code = 1;
    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = data[i];
        if (byte != 0) {
            out[used++] = byte;
            code++;
        }
        /* A full block at the very end needs no empty one after it. */
        if (byte == 0 || (code == 0xFF && i + 1 < n)) {
            out[code_at] = code;
            code_at = used++;
            code = 1;
        }
    }
    out[code_at] = code;
    return used;
}

bool emb_cobs_decode(const uint8_t *data, size_t n, uint8_t *out, size_t *out_bytes) {
    size_t at = 0, used = 0;
    while (at < n) {
        const uint8_t code = data[at++];
        if (code == 0 || (size_t)(code - 1) > n - at) return false;
        for (uint8_t i = 1; i < code; i++) {
            const uint8_t byte = data[at++];
            if (byte == 0) return false;
            out[used++] = byte;
        }
        if (code != 0xFF && at < n) out[used++] = 0;
    }
    *out_bytes = used;
    return true;
}
