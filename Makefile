# Two commands do all the set-up: `make demo` and `make test`. Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test fast check bench-features bench-cache bench-search bench-quality bench-ab bench-scorer clean

demo: $(VENV)/installed
	$(PY) aesthetic_predictor_training.py @demo/arguments.txt

test: $(VENV)/installed-dev check

fast: $(VENV)/installed-dev
	$(PY) -m pytest -n 2 -m "not slow"

check:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -n 2

bench-features: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_features

bench-cache: $(VENV)/installed-dev
	$(PY) benchmarks/bench_cache.py --n_pictures=1000000

bench-search: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_search

bench-quality: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_quality

bench-ab: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_ab

bench-scorer: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_scorer

$(VENV)/installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(PY) -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
