#include "player.h"

#include <string.h>

#include "board.h"
#include "builtin_table.h"
#include "emb_bytes.h"
#include "emb_frame.h"
#include "emb_port.h"

/* Header of a recording, as recording_blob.py writes it; then n_samples rows of n_ch int16. */
#define HEADER_BYTES 128u
#define HEADER_CRC_AT 124u
#define VERSION 1u
#define RING_SAMPLES 4096u /* of a converter's ring: what was not taken out in time is missed */
static const uint8_t MAGIC[8] = {'E', 'M', 'B', 'W', 'R', 'E', 'C', 0};

static struct {
    const uint8_t *samples;
    uint32_t n_samples;
    uint32_t next;
    uint32_t row_bytes;
    bool loop;
    bool began;
    uint64_t period_q20; /* between two samples, in 2^-20 us */
    uint64_t due_q20;    /* when the next one is taken */
} player;

static bool is_recording(const uint8_t *blob) {
    if (memcmp(blob, MAGIC, sizeof MAGIC) != 0 || emb_get32(blob + 8) != VERSION) return false;
    if (emb_crc32(0, blob, HEADER_CRC_AT) != emb_get32(blob + HEADER_CRC_AT)) return false;
    const uint32_t bytes = emb_get32(blob + 36) * 2u * blob[12];
    return emb_crc32(0, blob + HEADER_BYTES, bytes) == emb_get32(blob + 44);
}

static emb_stream_info open_recording(const uint8_t *blob) {
    emb_stream_info info;
    const uint32_t rate_bits = emb_get32(blob + 32);
    const uint64_t scale_bits = emb_get64(blob + 16);
    memset(&info, 0, sizeof info);
    info.n_ch = blob[12];
    info.bits = blob[13];
    info.envelope = blob[14];
    info.samples_per_frame = blob[56];
    info.boot_id = emb_get32(blob + 40);
    memcpy(&info.rate_hz, &rate_bits, sizeof rate_bits);
    memcpy(&info.scale, &scale_bits, sizeof scale_bits);
    memcpy(info.unit, blob + 48, sizeof info.unit);
    memcpy(info.device, blob + 64, sizeof info.device);
    memcpy(info.model_sha256, blob + 80, sizeof info.model_sha256);
    player.loop = blob[15] != 0;
    player.period_q20 = emb_get64(blob + 24);
    player.n_samples = emb_get32(blob + 36);
    player.samples = blob + HEADER_BYTES;
    return info;
}

static emb_stream_info open_table(uint32_t seed) {
    emb_stream_info info;
    memset(&info, 0, sizeof info);
    info.n_ch = BUILTIN_CHANNELS;
    info.bits = 16;
    info.samples_per_frame = 20;
    info.boot_id = seed;
    info.rate_hz = BUILTIN_RATE_HZ;
    info.scale = 1.0;
    memcpy(info.unit, "a.u.", 4);
    memcpy(info.device, "built-in table", 14);
    player.loop = true;
    player.period_q20 = BUILTIN_PERIOD_Q20;
    player.n_samples = BUILTIN_SAMPLES;
    player.samples = (const uint8_t *)BUILTIN_TABLE;
    return info;
}

emb_stream_info player_open(uint32_t seed) {
    const uint8_t *blob = (const uint8_t *)(uintptr_t)BOARD_RECORDING;
    const emb_stream_info info = is_recording(blob) ? open_recording(blob) : open_table(seed);
    player.row_bytes = 2u * info.n_ch;
    return info;
}

/* Samples that the ring had no room for: passes over them and says how many. */
static uint32_t miss(uint64_t now_us) {
    const uint64_t waiting = ((now_us << 20) - player.due_q20) / player.period_q20;
    if (waiting <= RING_SAMPLES) return 0;
    uint64_t missed = waiting - RING_SAMPLES;
    const uint32_t before_last = player.n_samples - 1u - player.next; /* the end is never missed */
    if (!player.loop && missed > before_last) missed = before_last;
    player.due_q20 += missed * player.period_q20;
    player.next = (uint32_t)((player.next + missed) % player.n_samples);
    return (uint32_t)missed;
}

emb_sample_result emb_port_sample(int16_t *x, emb_sample_stamp *stamp) {
    const uint64_t now_us = emb_port_now_us();
    if (!player.began) {
        player.began = true;
        player.due_q20 = now_us << 20;
    }
    if (now_us < (player.due_q20 >> 20)) return EMB_SAMPLE_NONE;
    if (player.next == player.n_samples) {
        if (!player.loop) return EMB_SAMPLE_END;
        player.next = 0;
    }
    stamp->missed = miss(now_us);
    const uint8_t *row = player.samples + (size_t)player.next * player.row_bytes;
    memcpy(x, row, player.row_bytes); /* Cortex-M is little-endian here, as the recording is */
    stamp->time_us = player.due_q20 >> 20;
    player.due_q20 += player.period_q20;
    player.next++;
    return EMB_SAMPLE_TAKEN;
}
