/* Payloads of STREAM_INFO, CONTROL and EVENT frames (PROTOCOL.md). */
#ifndef EMB_MESSAGE_H
#define EMB_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMB_PROTOCOL_VERSION 2u
#define EMB_STREAM_INFO_BYTES 96u
#define EMB_MAX_CONTROL_BYTES 64u
#define EMB_EVENT_BYTES 34u /* the longest */

enum { EMB_OP_HELLO = 1, EMB_OP_START = 2, EMB_OP_STOP = 3, EMB_OP_PING = 4, EMB_OP_STATUS = 5 };
enum { EMB_EVENT_END = 1, EMB_EVENT_STATUS = 2, EMB_EVENT_PONG = 3, EMB_EVENT_LINK = 4 };
enum { EMB_RESET_UNKNOWN = 0, EMB_RESET_POWER = 1, EMB_RESET_WATCHDOG = 2, EMB_RESET_SOFTWARE = 3 };

/* What the wrist declares; texts are UTF-8, padded with zeros, and need no zero at the end. */
typedef struct {
    uint8_t n_ch;
    uint8_t bits;
    uint8_t samples_per_frame;
    uint8_t envelope;
    uint8_t encodings; /* bit e: encoding e is offered; bit 0 always */
    uint8_t encoding;
    uint32_t boot_id;
    float rate_hz;
    double scale; /* `unit` per count */
    char unit[8];
    char firmware[16];
    char device[16];
    uint8_t model_sha256[32];
} emb_stream_info;

typedef struct {
    uint64_t time_us;
    uint32_t frames_sent;
    uint32_t frames_dropped;
    uint32_t overruns;
    uint32_t samples_missed;
    uint32_t frames_refused;
    uint8_t reset_cause;
    uint8_t battery_percent; /* 255: unknown */
} emb_status;

typedef struct {
    uint32_t interval_us;
    uint16_t mtu;
    uint16_t octets;
    uint8_t phy;
} emb_link;

typedef struct {
    uint8_t op;
    uint8_t length;
    const uint8_t *value;
} emb_control;

/* Each writes a payload and returns its bytes. */
size_t emb_put_stream_info(const emb_stream_info *info, uint8_t *out);
size_t emb_put_status(uint8_t code, const emb_status *status, uint8_t *out);
size_t emb_put_pong(uint64_t time_us, const uint8_t nonce[4], uint8_t *out);
size_t emb_put_link(const emb_link *link, uint8_t *out);

/* False: too long, or its length field is wrong, or the op has another length. */
bool emb_get_control(const uint8_t *payload, size_t n, emb_control *control);

#endif
