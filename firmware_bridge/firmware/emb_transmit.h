/* The transmit buffer: whole frames or none, each in one piece, in a ring of bytes. */
#ifndef EMB_TRANSMIT_H
#define EMB_TRANSMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMB_TRANSMIT_RESERVE 256u /* bytes that DATA leaves free for the other frames */

typedef struct {
    uint8_t *ring;
    size_t size;
    size_t head;   /* where the next frame goes */
    size_t tail;   /* the oldest frame */
    size_t sent;   /* bytes of the oldest that the line has taken */
    size_t frames; /* in the ring */
    bool full;     /* the latest DATA frame was refused */
    uint32_t data_sent; /* DATA frames of which the line took the last byte */
    uint32_t overruns;  /* times the ring ran full */
} emb_transmit;

void emb_transmit_init(emb_transmit *transmit, uint8_t *ring, size_t size);

/* Takes a frame of n bytes, 1..32766, or refuses it (false). */
bool emb_transmit_put(emb_transmit *transmit, const uint8_t *frame, size_t n, bool is_data);

/* Hands the oldest frames to emb_port_write; true when that took any byte. */
bool emb_transmit_write(emb_transmit *transmit);

/* Forgets everything; returns how many DATA frames that were. */
uint32_t emb_transmit_clear(emb_transmit *transmit);

#endif
