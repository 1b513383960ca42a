/* What the libFuzzer harnesses share. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                           \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                 \
        }                                                                            \
    } while (0)

/* A block of exactly n bytes, so that AddressSanitizer sees the first one beyond. */
static inline void *exactly(size_t n) {
    void *block = malloc(n);
    REQUIRE(block != NULL || n == 0);
    return block;
}

static inline void *copy_of(const void *data, size_t n) {
    void *block = exactly(n);
    if (n > 0) memcpy(block, data, n);
    return block;
}

#endif
