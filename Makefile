# `make demo` sets everything up and runs the demo; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Three files of tests at a time, which two cores have room for, as many tests wait; `make test WORKERS=0` runs them one by
# one, as a debugger wants it.
WORKERS ?= 3
PYTEST = $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

.PHONY: demo test check format bench docs focus-validator fuzz clean

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

# The documentation as a site: open site/index.html, or, to search it, python -m http.server --directory site.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	! grep -rE '<(script|link rel="stylesheet"|img)[^>]*(src|href)="(https?:)?//' site --include='*.html'  # nothing from elsewhere

# An outside referee of FOCUS exports. It runs on Python 3.12 and needs packages that ours must not have.
FOCUS_PYTHON ?= python3.12
FOCUS = .venv-focus/bin
focus-validator: $(VENV)/.installed
	@if ! $(FOCUS_PYTHON) -c '' 2>/dev/null; then echo "skipped: there is no $(FOCUS_PYTHON); FOCUS_PYTHON=… names one"; else \
	  test -x $(FOCUS)/focus-validator || { $(FOCUS_PYTHON) -m venv .venv-focus && \
	    $(FOCUS)/pip install --quiet --disable-pip-version-check 'focus-validator==2.2.1' 'pyarrow<22'; } && \
	  OUTLAY_FOCUS_VALIDATOR=$(FOCUS)/focus-validator $(BIN)/pytest tests/test_focus_validator.py; fi

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	for target in answers requests framings targets; do \
	  $(BIN)/python tests/fuzz/guided.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean:
	rm -rf $(VENV) .venv-focus site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-data .fuzz
