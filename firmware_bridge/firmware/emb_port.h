/* All that a board provides: five functions, called from emb_wrist_poll (the clock also from
 * emb_wrist_set_link), one at a time. None may wait. */
#ifndef EMB_PORT_H
#define EMB_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Microseconds since boot, from a timer that runs on by itself: no count of interrupts, which
 * are lost. Never goes back. */
uint64_t emb_port_now_us(void);

typedef enum {
    EMB_SAMPLE_NONE, /* no sample is due: nothing was written */
    EMB_SAMPLE_TAKEN,
    EMB_SAMPLE_END /* a recording is over, now and in every later call: nothing was written */
} emb_sample_result;

typedef struct {
    uint64_t time_us; /* when it was taken, on the clock of emb_port_now_us */
    uint32_t missed;  /* samples that were due before this one, since the last, and are lost */
} emb_sample_stamp;

/* The oldest sample not yet handed over, n_ch values into x. The first call, at the first START,
 * starts the converter (or the recording): the sample taken then has index 0 in the stream.
 * From then on it is called until it returns EMB_SAMPLE_NONE, in every poll, streaming or not. */
emb_sample_result emb_port_sample(int16_t *x, emb_sample_stamp *stamp);

/* Hands bytes to the line without waiting; returns how many it took, 0 while it is busy.
 * Datagrams (BLE): one whole frame a call, all or nothing; data[0] is its type: DATA (1) belongs
 * into characteristic 0002, the others into 0005. */
size_t emb_port_write(const uint8_t *data, size_t n);

/* Bytes from the host, at most n, without waiting; returns how many, 0 for none.
 * Datagrams: one whole frame a call; of a longer one, any n bytes. */
size_t emb_port_read(uint8_t *data, size_t n);

/* Called once in every poll. Choose the period of the watchdog well above the longest poll. */
void emb_port_feed_watchdog(void);

#endif
