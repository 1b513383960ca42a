/* MPS2+ with FPGA image AN505: Cortex-M33; secure addresses throughout. */
#define BOARD_CPU_HZ 20000000u
#define BOARD_UART 0x50200000u
#define BOARD_WAKE_IRQ 32u /* UART 0 transmit and receive are neighbours */
#define BOARD_WATCHDOG 0x50081000u
#define BOARD_WATCHDOG_HZ 20000000u
#define BOARD_TIMER 0x50000000u
#define BOARD_TIMER_HZ 20000000u
#define BOARD_RECORDING 0x80000000u /* PSRAM, 16 MiB */
