# make demo            set up, then the main job on synthetic recordings
# make demo DATA=DIR   the same on real ones (emg2pose HDF5 or NinaPro .mat)
# make test            set up, then the tests (make test-all: the slow ones too)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: venv demo test test-all lint

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[host,arm,onnx,dev]'
	touch $@

demo: venv
	$(BIN)/embridge demo $(if $(DATA),--data '$(DATA)')

test: venv
	$(BIN)/pytest

test-all: venv
	$(BIN)/pytest -m ''

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
