/* MPS3 with FPGA image AN547: Cortex-M55; secure addresses throughout. */
#define BOARD_CPU_HZ 32000000u
#define BOARD_UART 0x59303000u
#define BOARD_WAKE_IRQ 33u /* UART 0 transmit and receive are neighbours */
#define BOARD_WATCHDOG 0x5802E000u
#define BOARD_WATCHDOG_HZ 32000u
#define BOARD_SYSTEM_COUNTER 0x58100000u /* 64 bits, in place of a CMSDK timer */
#define BOARD_TIMER_HZ 32000000u
#define BOARD_RECORDING 0x60000000u /* DDR */
