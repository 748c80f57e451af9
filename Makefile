# `make demo` sets everything up and runs the demo; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Two files of tests at a time; `make test WORKERS=0` runs them one by one, as a debugger wants it.
WORKERS ?= 2
PYTEST = $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

.PHONY: demo test check format bench fuzz clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/outlay demo $(ARGS)

test: $(VENV)/.installed
	$(PYTEST)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	for target in answers requests framings targets; do \
	  $(BIN)/python tests/fuzz/guided.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-data .fuzz
