# Two commands do all the set-up: `make demo` and `make test`. Python 3.10 or later; CI uses 3.11.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
OLDEST := .venv-oldest
OLDEST_PY := $(OLDEST)/bin/python

# The torch of the virtual environments made here, the one the tests run with. Any other that requirements.txt allows
# will do: `make demo TORCH=torch` installs the newest.
TORCH ?= torch==2.13.*

.PHONY: demo test test-oldest oldest-constraints fast check bench-features bench-cache bench-search bench-quality bench-raters bench-circle bench-ab bench-scorer bench-scores bench-service bench-tables bench-cluster clean

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

# The same code with the lowest versions that requirements.txt allows, of everything but torch: the fast tests, the
# transformers towers, and one real training. A test may be skipped here, even in CI: Pillow reads AVIF from 11.3.
test-oldest: $(OLDEST)/installed
	env -u AESTHETIC_TESTS_MUST_RUN $(OLDEST_PY) -m pytest -n 2 -m "not slow"
	env -u AESTHETIC_TESTS_MUST_RUN $(OLDEST_PY) -m pytest -n 2 tests/extractors/test_towers.py \
		tests/scripts/test_training.py::test_the_packaged_extractor_learns_the_demo

# Writes constraints-oldest.txt anew, after a change of requirements*.txt; needs uv.
oldest-constraints:
	echo "# The lowest versions that requirements-dev.txt allows: written by make oldest-constraints." > constraints-oldest.txt
	uv pip compile --resolution lowest-direct --python-version 3.11 --no-header --no-annotate --quiet \
		requirements-dev.txt --constraint constraints-oldest.in | \
		grep -vE '^(torch|triton|nvidia-[a-z0-9-]+)==' >> constraints-oldest.txt

bench-features: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_features

bench-cache: $(VENV)/installed-dev
	$(PY) benchmarks/bench_cache.py --n_pictures=1000000

bench-search: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_search
	$(PY) -m benchmarks.search_profile

bench-quality: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_quality

bench-raters: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_raters

bench-circle: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_circle

bench-ab: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_ab
	$(PY) -m benchmarks.bench_ab_page

bench-scorer: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_scorer

bench-scores: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_scores

bench-service: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_service

bench-tables: $(VENV)/installed-dev
	$(PY) benchmarks/bench_tables.py

bench-cluster: $(VENV)/installed-dev
	$(PY) -m benchmarks.bench_cluster

$(VENV)/installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(PY) -m pip install --quiet -r requirements-dev.txt
	touch $@

$(OLDEST)/installed: requirements.txt requirements-dev.txt constraints-oldest.txt
	test -x $(OLDEST_PY) || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST_PY) -m pip install --quiet --upgrade pip
	$(OLDEST_PY) -m pip install --quiet "$(TORCH)"
	$(OLDEST_PY) -m pip install --quiet -r requirements-dev.txt -c constraints-oldest.txt
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis
