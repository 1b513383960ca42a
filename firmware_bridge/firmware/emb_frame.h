/* Frames of the wire (PROTOCOL.md): CRC-32, COBS, header, and a receiver. No heap, no globals. */
#ifndef EMB_FRAME_H
#define EMB_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMB_HEADER_BYTES 14u
#define EMB_OVERHEAD_BYTES 18u /* header and CRC-32 */
#define EMB_MAX_PAYLOAD_BYTES 8192u
#define EMB_MAX_FRAME_BYTES 8210u
#define EMB_COBS_BYTES(n) ((n) + ((n) + 253u) / 254u) /* most that n >= 1 bytes become */

enum { EMB_DATA = 1, EMB_STREAM_INFO = 2, EMB_CONTROL = 3, EMB_EVENT = 4 };
enum { EMB_FLAG_OVERRUN = 0x10, EMB_FLAG_STREAMING = 0x20 };

typedef struct {
    uint8_t type;
    uint8_t flags;
    uint16_t seq;
    uint32_t sample_index;
    uint32_t time_us;
    uint8_t n_ch;
    uint8_t n_samp;
    size_t payload_bytes;
    const uint8_t *payload;
} emb_frame;

/* CRC-32 of zlib; begin with crc 0 and pass the result on to continue. */
uint32_t emb_crc32(uint32_t crc, const uint8_t *data, size_t n);

/* COBS without its delimiter; out holds EMB_COBS_BYTES(n). out may be the same buffer when data
 * lies EMB_COBS_BYTES(n) - n bytes or more behind it. Returns the bytes written. */
size_t emb_cobs_encode(const uint8_t *data, size_t n, uint8_t *out);

/* The inverse; out holds n bytes and may be data itself. False: not COBS. */
bool emb_cobs_decode(const uint8_t *data, size_t n, uint8_t *out, size_t *out_bytes);

/* Frame -> header, payload, CRC-32 in out, of EMB_OVERHEAD_BYTES + payload_bytes. The payload may
 * stand in its place, out + EMB_HEADER_BYTES, already. Returns the bytes written; 0: too large. */
size_t emb_pack(const emb_frame *frame, uint8_t *out);

/* The inverse; frame->payload points into packed. False: damaged, or of a type unknown. */
bool emb_unpack(const uint8_t *packed, size_t n, emb_frame *frame);

/* Frames out of the bytes of a serial line; after damage it goes on at the next zero.
 * A piece longer than `size` is dropped: EMB_COBS_BYTES of the longest frame to be understood. */
typedef struct {
    uint8_t *buffer;
    size_t size;
    size_t used;
    bool skipping; /* inside a piece that is too long */
    uint32_t frames_ok;
    uint32_t frames_corrupt; /* pieces that were no frame */
} emb_receiver;

void emb_receiver_init(emb_receiver *receiver, uint8_t *buffer, size_t size);

/* True when this byte completed an intact frame, which is valid until the next call. */
bool emb_receiver_push(emb_receiver *receiver, uint8_t byte, emb_frame *frame);

#endif
