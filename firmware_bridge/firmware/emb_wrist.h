/* The wrist as a state machine: samples -> frames -> transmit ring -> line, and commands back.
 * The same on every board; a board gives memory, what it is, and the functions of emb_port.h.
 *
 *     emb_wrist_init(&wrist, &config);
 *     for (;;) if (!emb_wrist_poll(&wrist)) sleep_until_something_happens();
 *
 * Samples that were not taken in time are frames that were not sent: seq, frames_dropped and
 * sample_index advance over them, in steps of samples_per_frame, the last one shorter. */
#ifndef EMB_WRIST_H
#define EMB_WRIST_H

#include "emb_codec.h"
#include "emb_frame.h"
#include "emb_message.h"
#include "emb_transmit.h"

/* Memory that the wrist keeps; every buffer belongs to it from init on. */
typedef struct {
    emb_stream_info info; /* as it is declared until START asks for something else */
    uint8_t reset_cause;
    uint8_t battery_percent;
    bool datagram;            /* BLE: a frame is a write; else serial, COBS */
    uint8_t samples_capacity; /* most samples in a frame that START may ask for */
    int16_t *samples;         /* samples_capacity * n_ch */
    uint32_t *sample_times;   /* samples_capacity */
    uint8_t *frame;           /* serial: EMB_COBS_BYTES of the longest frame, and one */
    size_t frame_size;        /* datagram: its bytes */
    uint8_t *transmit;        /* as much as the line may be late */
    size_t transmit_size;
    uint8_t *receive; /* EMB_WRIST_RECEIVE_BYTES */
} emb_wrist_config;

#define EMB_WRIST_RECEIVE_BYTES 84u /* COBS of the longest CONTROL frame, and one */

typedef struct {
    emb_wrist_config config;
    emb_transmit transmit;
    emb_receiver receiver;
    size_t packed_at;  /* where in config.frame a frame is packed, so that COBS fits before it */
    size_t packed_max; /* longest packed frame that buffer and link take */
    size_t packed_own; /* the same, of the buffer alone */
    uint8_t filled;    /* samples that wait for their frame */
    uint16_t seq;      /* of the DATA frame that comes next, with its first sample */
    uint32_t sample_index;
    bool streaming; /* a host wants frames */
    bool began;     /* first START */
    bool ended;     /* the port has no more samples */
    bool overrun;   /* frames were dropped since the last one that was queued */
    bool has_link;
    emb_link link;
    uint64_t report_at_us;
    uint32_t frames_dropped;
    uint32_t samples_missed;
    uint32_t frames_refused;
} emb_wrist;

/* False: a buffer is too small, or info cannot be. */
bool emb_wrist_init(emb_wrist *wrist, const emb_wrist_config *config);

/* Does what is due now; true when there was anything to do. */
bool emb_wrist_poll(emb_wrist *wrist);

/* BLE: the connection has these parameters now; a frame gets mtu - 3 bytes. */
void emb_wrist_set_link(emb_wrist *wrist, const emb_link *link);

/* The host hung up: what waits to be sent is dropped, nothing is sent until the next START. */
void emb_wrist_hang_up(emb_wrist *wrist);

#endif
