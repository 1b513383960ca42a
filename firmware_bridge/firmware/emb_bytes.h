/* Little-endian numbers in byte buffers, on any processor. */
#ifndef EMB_BYTES_H
#define EMB_BYTES_H

#include <stdint.h>

static inline void emb_put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void emb_put32(uint8_t *p, uint32_t v) {
    emb_put16(p, (uint16_t)v);
    emb_put16(p + 2, (uint16_t)(v >> 16));
}

static inline void emb_put64(uint8_t *p, uint64_t v) {
    emb_put32(p, (uint32_t)v);
    emb_put32(p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t emb_get16(const uint8_t *p) { return (uint16_t)(p[0] | (p[1] << 8)); }

static inline uint32_t emb_get32(const uint8_t *p) {
    return (uint32_t)emb_get16(p) | ((uint32_t)emb_get16(p + 2) << 16);
}

static inline uint64_t emb_get64(const uint8_t *p) {
    return (uint64_t)emb_get32(p) | ((uint64_t)emb_get32(p + 4) << 32);
}

/* Two's complement, without the implementation-defined cast. */
static inline int16_t emb_int16(uint16_t v) {
    return (int16_t)(v < 0x8000u ? (int32_t)v : (int32_t)v - 0x10000);
}

#endif
