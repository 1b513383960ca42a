/* What the emulated boards share: registers, memory kept over resets, drivers. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include BOARD_HEADER
#include "emb_message.h"

#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* The emulator, which has no random numbers, is given one here. */
#define BOARD_SEED (BOARD_RECORDING + 0x00FFFFFCu)

/* Outlives every reset but power-on. */
typedef struct {
    uint32_t magic;
    uint32_t boots; /* since power-on */
    uint32_t cause; /* of the next boot */
} board_kept_memory;

extern volatile board_kept_memory _kept;
#define board_kept _kept

void board_uart_start(void);
void board_timer_start(void);
void board_watchdog_start(void);

/* Waits for a byte on the UART or, at most, a millisecond. */
void board_sleep(void);

#endif
