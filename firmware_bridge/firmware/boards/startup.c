/* From reset to main, and what ends in a reset: faults and the watchdog. */
#include <stdint.h>

#include "board.h"

#define CPACR REG32(0xE000ED88u)
#define AIRCR REG32(0xE000ED0Cu)
#define AIRCR_RESET 0x05FA0004u

extern uint32_t _stack_top, _data_image, _data_begin, _data_end, _bss_begin, _bss_end;

int main(void);
void reset_handler(void);
void nmi_handler(void);
void fault_handler(void);

/* The watchdog expired: its second expiry resets the board. */
void nmi_handler(void) {
    board_kept.cause = EMB_RESET_WATCHDOG;
    for (;;) {
    }
}

void fault_handler(void) {
    board_kept.cause = EMB_RESET_SOFTWARE;
    __asm volatile("dsb" ::: "memory");
    AIRCR = AIRCR_RESET;
    for (;;) {
    }
}

typedef void (*handler)(void);

/* Interrupts only wake the core, they are never taken: the table ends after the system's own. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    handler handlers[15];
} VECTORS = {&_stack_top,
             {reset_handler, nmi_handler, fault_handler, fault_handler, fault_handler,
              fault_handler, fault_handler, 0, 0, 0, fault_handler, fault_handler, 0,
              fault_handler, fault_handler}};

void reset_handler(void) {
    CPACR |= 0xFu << 20; /* floating point and vector registers */
    __asm volatile("cpsid i\n dsb\n isb" ::: "memory");
    const uint32_t *from = &_data_image;
    for (uint32_t *to = &_data_begin; to < &_data_end;) *to++ = *from++;
    for (uint32_t *to = &_bss_begin; to < &_bss_end;) *to++ = 0;
    main();
    fault_handler();
}
