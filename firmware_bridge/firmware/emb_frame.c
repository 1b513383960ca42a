#include "emb_frame.h"

#include <string.h>

#include "emb_bytes.h"

size_t emb_pack(const emb_frame *frame, uint8_t *out) {
    if (frame->payload_bytes > EMB_MAX_PAYLOAD_BYTES) return 0;
    uint8_t *payload = out + EMB_HEADER_BYTES;
    if (frame->payload_bytes > 0 && frame->payload != payload) {
        memmove(payload, frame->payload, frame->payload_bytes);
    }
    out[0] = frame->type;
    out[1] = frame->flags;
    emb_put16(out + 2, frame->seq);
    emb_put32(out + 4, frame->sample_index);
    emb_put32(out + 8, frame->time_us);
    out[12] = frame->n_ch;
    out[13] = frame->n_samp;
    const size_t body = EMB_HEADER_BYTES + frame->payload_bytes;
    emb_put32(out + body, emb_crc32(0, out, body));
    return body + 4;
}

bool emb_unpack(const uint8_t *packed, size_t n, emb_frame *frame) {
    if (n < EMB_OVERHEAD_BYTES || n > EMB_MAX_FRAME_BYTES) return false;
    if (emb_crc32(0, packed, n - 4) != emb_get32(packed + n - 4)) return false;
    if (packed[0] < EMB_DATA || packed[0] > EMB_EVENT) return false;
    frame->type = packed[0];
    frame->flags = packed[1];
    frame->seq = emb_get16(packed + 2);
    frame->sample_index = emb_get32(packed + 4);
    frame->time_us = emb_get32(packed + 8);
    frame->n_ch = packed[12];
    frame->n_samp = packed[13];
    frame->payload = packed + EMB_HEADER_BYTES;
    frame->payload_bytes = n - EMB_OVERHEAD_BYTES;
    return true;
}

void emb_receiver_init(emb_receiver *receiver, uint8_t *buffer, size_t size) {
    memset(receiver, 0, sizeof *receiver);
    receiver->buffer = buffer;
    receiver->size = size;
}

/* The piece before a delimiter: a frame, nothing at all, or damage. */
static bool finish(emb_receiver *r, emb_frame *frame) {
    const bool too_long = r->skipping;
    const size_t n = r->used;
    size_t packed = 0;
    r->skipping = false;
    r->used = 0;
    if (n == 0 && !too_long) return false;
    if (too_long || !emb_cobs_decode(r->buffer, n, r->buffer, &packed) ||
        !emb_unpack(r->buffer, packed, frame)) {
        r->frames_corrupt++;
        return false;
    }
    r->frames_ok++;
    return true;
}

bool emb_receiver_push(emb_receiver *r, uint8_t byte, emb_frame *frame) {
    if (byte == 0) return finish(r, frame);
    if (r->skipping) return false;
    if (r->used == r->size) {
        r->skipping = true;
        return false;
    }
    r->buffer[r->used++] = byte;
    return false;
}
