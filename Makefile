# Two commands do everything: `make demo` and `make test`. VENV=... uses another environment than .venv.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
BENCHMARKS := objects medium large shards shard_memory samples labels length indexes blocks latency workers first strategies \
	listing names manifest manifest_formats order embedded tar_reader killed

.PHONY: demo test check bench soak install

demo: install  ## train on handwritten digits, read from AIS_ENDPOINT or the embedded cluster
	$(PY) -m examples.digits

test: install  ## everything, against the embedded cluster and a real one; half of the tests wait for something
	$(PY) -m pytest -n 2 --dist worksteal

check: install  ## style, types, layers, docstring examples
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	$(PY) -m pytest -q -p no:randomly --doctest-modules aisdatapipes

bench: install  ## all benchmarks; BENCH=--quick for a look
	for name in $(BENCHMARKS); do $(PY) -m benchmarks.$$name $(BENCH) || exit 1; done

soak: install  ## 20 minutes of a job on a cluster that is hurt all the time; SOAK="--minutes 2 --seed 7"
	$(PY) -m benchmarks.soak $(SOAK)

install: $(INSTALLED)

$(INSTALLED): Makefile setup.cfg pyproject.toml constraints/dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	touch $@.begun  # what changes while this runs is newer than the stamp
	$(PY) -m pip install -q -e '.[all,dev]' -c constraints/dev.txt
	# Other versions that the tests run beside the main ones, each in a folder of its own.
	$(PY) -m pip install -q --no-deps --target $(VENV)/beside/aistore-1.24.0 --upgrade aistore==1.24.0
	$(PY) -m pip install -q --no-deps --target $(VENV)/beside/xxhash-3.6.0 --upgrade xxhash==3.6.0
	$(PY) -m pip install -q --no-deps --target $(VENV)/beside/torchdata-0.11.0 --upgrade torchdata==0.11.0
	mv $@.begun $@
