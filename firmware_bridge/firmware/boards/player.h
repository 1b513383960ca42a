/* The samples of the emulated boards: a recording loaded into RAM, or else a built-in table. */
#ifndef PLAYER_H
#define PLAYER_H

#include <stdint.h>

#include "emb_message.h"

/* Looks for a recording and returns what it declares, all but the firmware and the encodings. */
emb_stream_info player_open(uint32_t seed);

#endif
