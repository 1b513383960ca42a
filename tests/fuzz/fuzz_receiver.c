/* libFuzzer: the bytes of a serial line -> frames.
 *
 * Input: sizes of a piece, of a list of edits and of the receiver's buffer (u8 each); the piece; the
 * edits (u16 where, u8 what to exclusive-or). The piece becomes a frame with a right CRC, which no
 * fuzzer would find, and the edits damage its COBS packet. The rest of the input follows as it is.
 *
 * What must hold: an undamaged frame arrives as it was sent; an accepted frame, sent again, is
 * accepted as the same; a small receiver understands no more than its buffer holds; and no byte
 * outside of a buffer is touched. */
#include "emb_bytes.h"
#include "emb_frame.h"
#include "fuzz.h"

#define PLAN_BYTES 3u
#define EDIT_BYTES 3u

static bool same(const emb_frame *a, const emb_frame *b) {
    return a->type == b->type && a->flags == b->flags && a->seq == b->seq &&
           a->sample_index == b->sample_index && a->time_us == b->time_us && a->n_ch == b->n_ch &&
           a->n_samp == b->n_samp && a->payload_bytes == b->payload_bytes &&
           (a->payload_bytes == 0 || memcmp(a->payload, b->payload, a->payload_bytes) == 0);
}

/* Frame -> packet with its delimiter, of *n bytes, on the heap. */
static uint8_t *packet_of(const emb_frame *frame, size_t *n) {
    const size_t bytes = EMB_OVERHEAD_BYTES + frame->payload_bytes;
    uint8_t *packed = exactly(bytes), *packet = exactly(EMB_COBS_BYTES(bytes) + 1);
    REQUIRE(emb_pack(frame, packed) == bytes);
    *n = emb_cobs_encode(packed, bytes, packet);
    REQUIRE(*n <= EMB_COBS_BYTES(bytes));
    REQUIRE(memchr(packet, 0, *n) == NULL);
    packet[(*n)++] = 0;
    free(packed);
    return packet;
}

static void check_accepted(const emb_frame *frame) {
    size_t n = 0;
    emb_frame again;
    uint8_t *packet = packet_of(frame, &n), *buffer = exactly(n - 1);
    emb_receiver receiver;
    emb_receiver_init(&receiver, buffer, n - 1);
    for (size_t i = 0; i + 1 < n; i++) REQUIRE(!emb_receiver_push(&receiver, packet[i], &again));
    REQUIRE(emb_receiver_push(&receiver, 0, &again) && same(frame, &again));
    free(buffer);
    free(packet);
}

/* Returns the frames accepted; the last one is compared with `expected` where there is one. */
static uint32_t push_all(emb_receiver *receiver, const uint8_t *data, size_t n,
                         const emb_frame *expected) {
    uint32_t accepted = 0;
    emb_frame frame;
    for (size_t i = 0; i < n; i++) {
        if (!emb_receiver_push(receiver, data[i], &frame)) continue;
        accepted++;
        REQUIRE(frame.payload >= receiver->buffer);
        REQUIRE(frame.payload + frame.payload_bytes <= receiver->buffer + receiver->size);
        check_accepted(&frame);
        if (expected != NULL) REQUIRE(same(expected, &frame));
    }
    return accepted;
}

static emb_frame frame_from(const uint8_t *piece, size_t n) {
    uint8_t header[EMB_HEADER_BYTES] = {0};
    memcpy(header, piece, n < sizeof header ? n : sizeof header);
    const emb_frame frame = {
        .type = (uint8_t)(1 + header[0] % 4),
        .flags = header[1],
        .seq = emb_get16(header + 2),
        .sample_index = emb_get32(header + 4),
        .time_us = emb_get32(header + 8),
        .n_ch = header[12],
        .n_samp = header[13],
        .payload = n > sizeof header ? piece + sizeof header : NULL,
        .payload_bytes = n > sizeof header ? n - sizeof header : 0,
    };
    return frame;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < PLAN_BYTES) return 0;
    const size_t piece = data[0], edits = data[1] % 4u, room = data[2];
    if (size < PLAN_BYTES + piece + EDIT_BYTES * edits) return 0;
    const uint8_t *edit = data + PLAN_BYTES + piece, *rest = edit + EDIT_BYTES * edits;

    size_t n = 0;
    const emb_frame sent = frame_from(data + PLAN_BYTES, piece);
    uint8_t *packet = packet_of(&sent, &n);
    for (size_t i = 0; i < edits; i++, edit += EDIT_BYTES) {
        packet[((size_t)edit[0] | (size_t)edit[1] << 8) % n] ^= edit[2];
    }
    emb_receiver receiver;
    const size_t buffer_size = room == 0 ? EMB_COBS_BYTES(EMB_MAX_FRAME_BYTES) : room;
    uint8_t *buffer = exactly(buffer_size);
    emb_receiver_init(&receiver, buffer, buffer_size);
    const uint32_t accepted = push_all(&receiver, packet, n, edits == 0 ? &sent : NULL);
    if (edits == 0) REQUIRE(accepted == (n - 1 <= buffer_size));
    const uint32_t more = push_all(&receiver, rest, size - (size_t)(rest - data), NULL);
    REQUIRE(receiver.frames_ok == accepted + more);
    free(buffer);
    free(packet);
    return 0;
}
