/* UART, timer and watchdog of Arm's Cortex-M System Design Kit (DDI 0479), and how to sleep. */
#include "board.h"
#include "emb_port.h"

#define UART_DATA REG32(BOARD_UART + 0x00)
#define UART_STATE REG32(BOARD_UART + 0x04)
#define UART_CONTROL REG32(BOARD_UART + 0x08)
#define UART_INTERRUPTS REG32(BOARD_UART + 0x0C)
#define UART_DIVIDER REG32(BOARD_UART + 0x10)
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u
#define UART_ENABLE_ALL 0xFu /* both directions and their interrupts */
#define UART_BAUD 1000000u

#define WATCHDOG_LOAD REG32(BOARD_WATCHDOG + 0x00)
#define WATCHDOG_CONTROL REG32(BOARD_WATCHDOG + 0x08)
#define WATCHDOG_CLEAR REG32(BOARD_WATCHDOG + 0x0C)
#define WATCHDOG_NMI_AND_RESET 3u

#define SYSTICK_CONTROL REG32(0xE000E010u)
#define SYSTICK_RELOAD REG32(0xE000E014u)
#define ICSR REG32(0xE000ED04u)
#define ICSR_CLEAR_SYSTICK (1u << 25)
#define NVIC_ENABLE(irq) REG32(0xE000E100u + 4u * ((irq) / 32u))
#define NVIC_CLEAR(irq) REG32(0xE000E280u + 4u * ((irq) / 32u))
#define IRQ_BIT(irq) (1u << ((irq) % 32u))

void board_uart_start(void) {
    UART_DIVIDER = BOARD_CPU_HZ / UART_BAUD; /* at least 16 */
    UART_CONTROL = UART_ENABLE_ALL;
    NVIC_ENABLE(BOARD_WAKE_IRQ) = IRQ_BIT(BOARD_WAKE_IRQ);
    NVIC_ENABLE(BOARD_WAKE_IRQ + 1) = IRQ_BIT(BOARD_WAKE_IRQ + 1);
    SYSTICK_RELOAD = BOARD_CPU_HZ / 1000u - 1u;
    SYSTICK_CONTROL = 7;
}

size_t emb_port_write(const uint8_t *data, size_t n) {
    size_t taken = 0;
    while (taken < n && !(UART_STATE & UART_TX_FULL)) UART_DATA = data[taken++];
    return taken;
}

size_t emb_port_read(uint8_t *data, size_t n) {
    size_t got = 0;
    while (got < n && (UART_STATE & UART_RX_FULL)) data[got++] = (uint8_t)UART_DATA;
    return got;
}

/* Interrupts are masked: a pending one ends the wait and is cleared, not taken. */
void board_sleep(void) {
    __asm volatile("wfi" ::: "memory");
    UART_INTERRUPTS = 3;
    NVIC_CLEAR(BOARD_WAKE_IRQ) = IRQ_BIT(BOARD_WAKE_IRQ);
    NVIC_CLEAR(BOARD_WAKE_IRQ + 1) = IRQ_BIT(BOARD_WAKE_IRQ + 1);
    ICSR = ICSR_CLEAR_SYSTICK;
}

#ifdef BOARD_SYSTEM_COUNTER

#define COUNTER_CONTROL REG32(BOARD_SYSTEM_COUNTER + 0x0)
#define COUNTER_LOW REG32(BOARD_SYSTEM_COUNTER + 0x8)
#define COUNTER_HIGH REG32(BOARD_SYSTEM_COUNTER + 0xC)

void board_timer_start(void) { COUNTER_CONTROL = 1; }

static uint64_t ticks(void) {
    uint32_t high, low;
    do { /* again when the low half wrapped in between */
        high = COUNTER_HIGH;
        low = COUNTER_LOW;
    } while (high != COUNTER_HIGH);
    return ((uint64_t)high << 32) | low;
}

#else

#define TIMER_CONTROL REG32(BOARD_TIMER + 0x0)
#define TIMER_VALUE REG32(BOARD_TIMER + 0x4)
#define TIMER_RELOAD REG32(BOARD_TIMER + 0x8)

void board_timer_start(void) {
    TIMER_RELOAD = UINT32_MAX;
    TIMER_VALUE = UINT32_MAX;
    TIMER_CONTROL = 1;
}

/* The timer counts 32 bits down and wraps after minutes; every poll asks for the time. */
static uint64_t ticks(void) {
    static uint64_t total;
    static uint32_t before;
    const uint32_t now = UINT32_MAX - TIMER_VALUE;
    total += (uint32_t)(now - before);
    before = now;
    return total;
}

#endif

uint64_t emb_port_now_us(void) { return ticks() / (BOARD_TIMER_HZ / 1000000u); }

/* A second of silence is an NMI, another one a reset. */
void board_watchdog_start(void) {
    WATCHDOG_LOAD = BOARD_WATCHDOG_HZ;
    WATCHDOG_CONTROL = WATCHDOG_NMI_AND_RESET;
}

void emb_port_feed_watchdog(void) { WATCHDOG_CLEAR = 1; }
