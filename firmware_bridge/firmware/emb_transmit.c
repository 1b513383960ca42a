#include "emb_transmit.h"

#include <string.h>

#include "emb_bytes.h"
#include "emb_port.h"

/* Before each frame: its length and, in the top bit, whether it is DATA. */
#define MARK_BYTES 2u
#define MARK_DATA 0x8000u
#define MARK_WRAP 0x7FFFu /* no frame: the next one is at the beginning */

void emb_transmit_init(emb_transmit *t, uint8_t *ring, size_t size) {
    memset(t, 0, sizeof *t);
    t->ring = ring;
    t->size = size;
}

/* Where `need` bytes in one piece are free; false when nowhere. */
static bool find_room(const emb_transmit *t, size_t need, size_t *at) {
    const bool wrapped = t->frames > 0 && t->head <= t->tail;
    *at = t->head;
    if (need <= (wrapped ? t->tail : t->size) - t->head) return true;
    *at = 0;
    return !wrapped && need <= t->tail;
}

bool emb_transmit_put(emb_transmit *t, const uint8_t *frame, size_t n, bool is_data) {
    size_t at = 0;
    if (t->frames == 0) t->head = t->tail = 0;
    const size_t need = MARK_BYTES + n;
    const bool taken = find_room(t, need + (is_data ? EMB_TRANSMIT_RESERVE : 0), &at);
    if (is_data) {
        if (!taken && !t->full) t->overruns++;
        t->full = !taken;
    }
    if (!taken) return false;
    if (at != t->head && t->size - t->head >= MARK_BYTES) {
        emb_put16(t->ring + t->head, MARK_WRAP);
    }
    emb_put16(t->ring + at, (uint16_t)(n | (is_data ? MARK_DATA : 0)));
    memcpy(t->ring + at + MARK_BYTES, frame, n);
    t->head = at + need;
    t->frames++;
    return true;
}

/* The mark of the oldest frame; there is one. */
static uint16_t oldest(emb_transmit *t) {
    if (t->size - t->tail < MARK_BYTES || emb_get16(t->ring + t->tail) == MARK_WRAP) t->tail = 0;
    return emb_get16(t->ring + t->tail);
}

static void remove_oldest(emb_transmit *t, size_t n) {
    t->tail += MARK_BYTES + n;
    t->sent = 0;
    t->frames--;
}

bool emb_transmit_write(emb_transmit *t) {
    bool any = false;
    while (t->frames > 0) {
        const uint16_t mark = oldest(t);
        const size_t n = mark & (MARK_DATA - 1u);
        const uint8_t *frame = t->ring + t->tail + MARK_BYTES;
        const size_t took = emb_port_write(frame + t->sent, n - t->sent);
        any = any || took > 0;
        t->sent += took;
        if (t->sent < n) break;
        if (mark & MARK_DATA) t->data_sent++;
        remove_oldest(t, n);
    }
    return any;
}

uint32_t emb_transmit_clear(emb_transmit *t) {
    uint32_t lost = 0;
    while (t->frames > 0) {
        const uint16_t mark = oldest(t);
        if (mark & MARK_DATA) lost++;
        remove_oldest(t, mark & (MARK_DATA - 1u));
    }
    t->full = false;
    return lost;
}
