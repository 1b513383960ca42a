# make demo            set up, then the main job on synthetic recordings
# make demo DATA=DIR   the same on real ones (emg2pose HDF5 or NinaPro .mat)
# make test            set up, then the tests (make test-all: the slow ones too)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

OLD_TFLITE := .venv-tflite

.PHONY: venv venv-tflite demo test test-all fuzz lint

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[host,arm,onnx,virtual-ble,brainflow,lsl,dev]'
	touch $@

# The last tflite-runtime, which boards still have; it needs an older numpy than all else.
venv-tflite: $(OLD_TFLITE)/.ready

$(OLD_TFLITE)/.ready: Makefile
	$(PYTHON) -m venv $(OLD_TFLITE)
	$(OLD_TFLITE)/bin/pip install --quiet --disable-pip-version-check \
		tflite-runtime==2.14.0 numpy==1.26.4
	touch $@

demo: venv
	$(BIN)/embridge demo $(if $(DATA),--data '$(DATA)')

test: venv
	$(BIN)/pytest

test-all: venv
	$(BIN)/pytest -m ''

# 10^7 inputs each: Python against C, and C alone under sanitizers (needs clang-14); an hour.
fuzz: venv
	$(MAKE) -f tests/fuzz/fuzz.mk fuzz

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
