/* Samples <-> payload of a DATA frame, in the three encodings of PROTOCOL.md. Integers only. */
#ifndef EMB_CODEC_H
#define EMB_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EMB_INT16 = 0, EMB_INT8 = 1, EMB_RICE = 2 };
#define EMB_ENCODINGS 3u

/* x[n_samp][n_ch], both 1..255 -> payload in out; returns its bytes, 0 when it does not fit
 * `limit` or the arguments are out of range. out may hold anything up to `limit` then. */
size_t emb_encode(uint8_t encoding, const int16_t *x, uint8_t n_samp, uint8_t n_ch, uint8_t *out,
                  size_t limit);

/* Payload of n bytes -> x[n_samp][n_ch]. False: no such payload, and x holds anything. */
bool emb_decode(uint8_t encoding, const uint8_t *payload, size_t n, uint8_t n_samp, uint8_t n_ch,
                int16_t *x);

/* Encoding 2 alone, same contract. */
size_t emb_rice_encode(const int16_t *x, uint8_t n_samp, uint8_t n_ch, uint8_t *out, size_t limit);
bool emb_rice_decode(const uint8_t *payload, size_t n, uint8_t n_samp, uint8_t n_ch, int16_t *x);

#endif
