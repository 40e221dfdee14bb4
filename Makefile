# make demo   environment, installation, main job
# make test   environment, installation, tests
#
# Settings: PYTHON=python3.12 (any Python >= 3.11), WORKERS=4 (test processes), and PIP_FLAGS for pip, for example
# PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' for the CPU build of torch on Linux.

PYTHON ?= python3
PIP_FLAGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DELETE_ON_ERROR:
.PHONY: demo test install lint format types gate docs notebooks clean

demo: install
	$(BIN)/ocl-bench eval --model dias --task clevrtex

# One thread per test process: torch's own threads would only compete with the other processes. Each process begins with a
# part of the files of its own, so that what a file's tests share is made once, and takes over from others at the end.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=5

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ocl-bench needs Python 3.11 or newer, this is %d.%d; name another one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "installing into $(VENV): a few minutes the first time"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[all,test,docs]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

gate: install
	$(BIN)/ocl-bench regress --baseline leaderboards/golden

# Warnings are errors: a broken link, an unknown anchor, a formula or a docstring that cannot be read.
docs: install
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "open build/docs/index.html"

notebooks: install
	$(BIN)/jupytext --to ipynb --update-metadata '{"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}' docs/tutorials/*.py

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
