# From a bare Python >= 3.11: `make demo` captions the sample images, `make test` runs every check.
#   PYTHON=python3.12 make test     chooses the Python (after `make clean` if .venv exists)
#   ARGS='-k prompt -x' make test   goes to pytest; '-n 0' runs in one process, as a debugger needs

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The processes that tests start would each compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

# Names a directory's Python as the constraints do, e.g. py311. Other Pythons install unconstrained.
TAG = import sys; print("py%d%d" % sys.version_info[:2])
# $(call install,DIRECTORY,WHAT); modules that nobody imports need not be compiled, which is half of an installation.
install = c=constraints/$$($(1)/bin/python -c '$(TAG)').txt; \
	if [ -f $$c ]; then c="--constraint $$c"; else c=; fi; \
	echo "Installing into $(1): $(2) $$c"; \
	$(1)/bin/python -m pip install --quiet --no-compile $$c --editable '$(2)'
# Without what it depends on: its part that speaks HTTP needs none of that.
client = $(1)/bin/python -m pip install --quiet --no-deps moondream==2.6.1
# Each worker takes one stretch of the tests, so that few files have their fixtures made in two.
SHARED := -n auto --maxprocesses 4 --dist worksteal
# The files with such tests: a worker imports, and rewrites the assertions of, all that it is given.
SMOKE = $$(grep -rlw smoke tests --include='test_*.py')
PINS := pyproject.toml $(wildcard constraints/*.txt)

.PHONY: demo test lint unit second smoke cuda-check format clean

demo: .venv/base.stamp
	HF_HUB_OFFLINE=1 $(BIN)/jaxphoton caption examples/shapes --out demo-captions.jsonl --restart
	@echo "The same as JSON lines: demo-captions.jsonl"

# Two at once where each alone would leave a processor idle.
test:
	@$(MAKE) --no-print-directory -j2 --output-sync=target .venv/dev.stamp second
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint smoke
	@$(MAKE) --no-print-directory unit

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

unit: .venv/dev.stamp
	$(BIN)/python -m pytest $(SHARED) $(ARGS)

# The other Python: 3.12 (with the newest jax), or 3.11 when .venv itself is not 3.11.
# $(call other,TARGET,WHAT) makes a target for it; where there is none, WHAT is left out.
other = version=3.12; [ "$$($(BIN)/python -c '$(TAG)')" = py311 ] || version=3.11; found=; \
	for p in $$(ls -d $(HOME)/.pyenv/versions/$$version*/bin/python 2>/dev/null) python$$version; do \
		if $$p -c '' 2>/dev/null; then found=$$p; break; fi; done; \
	if [ -z "$$found" ]; then echo "No Python $$version here: $(2) left out."; exit 0; fi; \
	$(MAKE) --no-print-directory $(1) VERSION=$$version OTHER=$$found

second: .venv/bin/python
	@+$(call other,.venv-$$version/dev.stamp,its packages are)

smoke: .venv/dev.stamp
	@+$(call other,smoke-on,the smoke run on a second Python is)

.PHONY: smoke-on
smoke-on: .venv-$(VERSION)/dev.stamp
	.venv-$(VERSION)/bin/python -m pytest $(SHARED) -m smoke $(SMOKE)

# Every program and kernel for every chip, compiled without a GPU; `unit` does the quick part (tests/cuda). Both fetch
# jax's CUDA plugin once, into .cuda, which no other process sees. ARGS='--chip h200 --only step' for a part.
cuda-check: .venv/dev.stamp
	$(BIN)/python scripts/cuda_check.py $(ARGS)

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-3.* .cuda build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
		echo "jaxphoton needs Python 3.11 to 3.14; '$(PYTHON)' is not one. Name one: make PYTHON=/path/to/python3.11 ..."; \
		exit 1; }
	$(PYTHON) -m venv .venv

.venv/base.stamp: $(PINS) | .venv/bin/python
	@$(call install,.venv,.)
	@touch $@

# The test tools come on top of the base package, so the base stamp holds as well.
.venv/dev.stamp: $(PINS) | .venv/bin/python
	@$(call install,.venv,.[dev])
	@$(call client,.venv)
	@touch .venv/base.stamp $@

.venv-$(VERSION)/dev.stamp: $(PINS)
	$(OTHER) -m venv .venv-$(VERSION)
	@$(call install,.venv-$(VERSION),.[dev])
	@$(call client,.venv-$(VERSION))
	@touch $@
