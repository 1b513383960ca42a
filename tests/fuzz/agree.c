/* What the C core makes of a line full of damaged frames, written down so that Python can compare.
 *
 * One record for each accepted frame: u32 length of the rest; header and payload; the same frame as
 * a COBS packet; for DATA a byte, 1 when the payload could be decoded, and then its samples as
 * int16, encoded again as int8 and as Rice. Every part but the byte has its u32 length before it. */
#include <stdlib.h>
#include <string.h>

#include "emb_bytes.h"
#include "emb_codec.h"
#include "emb_frame.h"

#define MAX_SAMPLES (255u * 255u)
#define MAX_RICE_BYTES (5u * MAX_SAMPLES) /* 15 + 1 + 18 bits a sample and 6 a channel: below */

typedef struct {
    uint8_t *out;
    size_t size, used;
} sink;

static uint8_t *reserve(sink *s, size_t n) {
    if (n > s->size - s->used) abort(); /* the caller gave too little */
    s->used += n;
    return s->out + s->used - n;
}

static void put(sink *s, const uint8_t *data, size_t n) {
    emb_put32(reserve(s, 4), (uint32_t)n);
    memcpy(reserve(s, n), data, n);
}

static void put_samples(sink *s, const int16_t *x, uint8_t n_samp, uint8_t n_ch) {
    static uint8_t payload[MAX_RICE_BYTES];
    for (uint8_t encoding = 0; encoding < EMB_ENCODINGS; encoding++) {
        put(s, payload, emb_encode(encoding, x, n_samp, n_ch, payload, sizeof payload));
    }
}

static void put_frame(sink *s, const emb_frame *frame) {
    static int16_t x[MAX_SAMPLES];
    static uint8_t packed[EMB_MAX_FRAME_BYTES], packet[EMB_COBS_BYTES(EMB_MAX_FRAME_BYTES)];
    uint8_t *length = reserve(s, 4);
    const size_t begin = s->used;
    const size_t n = emb_pack(frame, packed);
    put(s, packed, n - 4);
    put(s, packet, emb_cobs_encode(packed, n, packet));
    if (frame->type == EMB_DATA) {
        const bool decoded = emb_decode(frame->flags & 0x0Fu, frame->payload, frame->payload_bytes,
                                        frame->n_samp, frame->n_ch, x);
        *reserve(s, 1) = decoded;
        if (decoded) put_samples(s, x, frame->n_samp, frame->n_ch);
    }
    emb_put32(length, (uint32_t)(s->used - begin));
}

/* Returns the bytes written to out; counts: accepted and refused pieces of the line. */
size_t agree_receive(const uint8_t *line, size_t n, uint8_t *out, size_t size, uint32_t *counts) {
    static uint8_t buffer[EMB_COBS_BYTES(EMB_MAX_FRAME_BYTES)];
    sink s = {out, size, 0};
    emb_receiver receiver;
    emb_frame frame;
    emb_receiver_init(&receiver, buffer, sizeof buffer);
    for (size_t i = 0; i < n; i++) {
        if (emb_receiver_push(&receiver, line[i], &frame)) put_frame(&s, &frame);
    }
    counts[0] = receiver.frames_ok;
    counts[1] = receiver.frames_corrupt;
    return s.used;
}
