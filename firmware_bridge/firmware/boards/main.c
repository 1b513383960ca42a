/* The wrist on an emulated board: plays a recording over UART 0. */
#include "board.h"
#include "emb_frame.h"
#include "emb_port.h"
#include "emb_wrist.h"
#include "player.h"

#include <string.h>

#define FIRMWARE "emb-c 0.1.0"
#define KEPT_MAGIC 0x454D4231u
#define TRANSMIT_BYTES 32768u /* half a second of 16 channels at 2 kHz */
#define SAMPLES_BYTES EMB_MAX_PAYLOAD_BYTES
#define FRAME_BYTES (EMB_COBS_BYTES(EMB_MAX_FRAME_BYTES) + 1u)

static emb_wrist wrist;
static int16_t samples[SAMPLES_BYTES / 2];
static uint32_t sample_times[255];
static uint8_t frame[FRAME_BYTES];
static uint8_t transmit[TRANSMIT_BYTES];
static uint8_t receive[EMB_WRIST_RECEIVE_BYTES];

/* Why the board booted; counts the boots since power-on. */
static uint8_t reset_cause(void) {
    uint8_t cause = EMB_RESET_POWER;
    if (board_kept.magic == KEPT_MAGIC) {
        board_kept.boots++;
        cause = (uint8_t)board_kept.cause;
    } else {
        board_kept.magic = KEPT_MAGIC;
        board_kept.boots = 0;
    }
    board_kept.cause = EMB_RESET_POWER; /* the reset pin leaves no other trace */
    return cause;
}

static emb_wrist_config configure(void) {
    emb_wrist_config config;
    memset(&config, 0, sizeof config);
    config.reset_cause = reset_cause();
    config.battery_percent = 255;
    config.info = player_open(REG32(BOARD_SEED));
    config.info.boot_id += board_kept.boots * 0x9E3779B9u; /* another number in every boot */
    config.info.encodings = (1u << EMB_ENCODINGS) - 1u;
    memcpy(config.info.firmware, FIRMWARE, sizeof FIRMWARE - 1);
    const uint32_t capacity = SAMPLES_BYTES / 2u / config.info.n_ch;
    config.samples_capacity = (uint8_t)(capacity < 255u ? capacity : 255u);
    config.samples = samples;
    config.sample_times = sample_times;
    config.frame = frame;
    config.frame_size = sizeof frame;
    config.transmit = transmit;
    config.transmit_size = sizeof transmit;
    config.receive = receive;
    return config;
}

int main(void) {
    board_timer_start();
    board_uart_start();
    const emb_wrist_config config = configure();
    if (!emb_wrist_init(&wrist, &config)) return 1; /* ends in a reset */
    board_watchdog_start();
    for (;;) {
        if (!emb_wrist_poll(&wrist)) board_sleep();
    }
}
