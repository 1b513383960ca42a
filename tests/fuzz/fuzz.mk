# Fuzzing of the C core by libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer, and of
# Python against C. From the root: make -f tests/fuzz/fuzz.mk fuzz [FUZZ_RUNS=10000000]
FUZZ_RUNS ?= 10000000
FUZZ_OUT ?= build/fuzz
FUZZ_PYTHON ?= .venv/bin/python
CLANG ?= $(firstword $(foreach n,clang clang-19 clang-16 clang-15 clang-14,$(shell command -v $n)))

FUZZ_DIR := tests/fuzz
FIRMWARE_DIR := firmware_bridge/firmware
FUZZ_CORE := $(addprefix $(FIRMWARE_DIR)/,emb_frame.c emb_codec.c emb_rice.c emb_cobs.c emb_crc32.c)
FUZZ_FLAGS := -std=c11 -g -O1 -Wall -Wextra -Werror -I$(FIRMWARE_DIR) \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

.PHONY: fuzz fuzz-harnesses fuzz-receiver fuzz-codec fuzz-frames

fuzz: fuzz-receiver fuzz-codec fuzz-frames

fuzz-harnesses: $(FUZZ_OUT)/fuzz_receiver $(FUZZ_OUT)/fuzz_codec

$(FUZZ_OUT)/fuzz_%: $(FUZZ_DIR)/fuzz_%.c $(FUZZ_DIR)/fuzz.h $(FUZZ_CORE) $(wildcard $(FIRMWARE_DIR)/*.h)
	mkdir -p $(FUZZ_OUT)
	$(CLANG) $(FUZZ_FLAGS) -o $@ $< $(FUZZ_CORE)

# What is found new goes to the first folder; the kept corpus is only read.
fuzz-receiver fuzz-codec: fuzz-%: $(FUZZ_OUT)/fuzz_%
	mkdir -p $(FUZZ_OUT)/corpus-$*
	$< -runs=$(FUZZ_RUNS) -max_len=500 -timeout=10 -artifact_prefix=$(FUZZ_OUT)/$*- \
		-print_final_stats=1 $(FUZZ_OUT)/corpus-$* $(FUZZ_DIR)/corpus/$*

fuzz-frames:
	$(FUZZ_PYTHON) $(FUZZ_DIR)/fuzz_frames.py --inputs $(FUZZ_RUNS)
