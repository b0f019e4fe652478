# What there is to do with fastrnn. Each target sets up what it needs in .venv; the second time is quick.
#
#   make demo      train two networks on the adding problem and show who solved it (adding.png)
#   make examples  all the programs of examples/, each with its picture: ten minutes, or one with ARGS=--quick
#   make test      the test suite                    make lint, make types   ruff, mypy
#   make bench     timings, then make compare        make sanitize           the suite under ASan and UBSan
#   make compare   side by side with the peers, into docs/speed.md, .json and .png; then make short
#   make short     the same of short calls, into docs/speed.md, README.md, docs/short.json and .png
#   make systems   the tests beside other systems    make packages           how much faster than other packages
#   make pythons   build, import and test on every Python from 3.10 on that is found here
#   make wheel     dist/*.whl                        make clean              remove everything made here
#   make mutants   does the suite notice faults? tests/mutants.py puts them in, one at a time; ARGS="--only csrc/cells" for some
#   make free-threaded  the suite on a Python without the GIL, which is built for it once; ARGS=10 for ten minutes of six threads
#
# PYTHON=python3.12 chooses the Python that .venv is made of; ARGS="-k lstm" goes to pytest, to the demo, by make compare to
# bench/compare.py, by make short to bench/short.py.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One process per core; the tests of a file share what they compile.
PARALLEL := -n auto --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: free-threaded mutants demo examples test pythons bench compare short systems systems-old packages lint types sanitize wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/with-demo
	$(BIN)/python examples/adding.py $(ARGS)

# Not among them: quickstart.py, which has no options, and data_parallel.py, which needs MPI.
EXAMPLES := adding parity addition characters pixels rows series vanishing

examples: $(VENV)/with-examples
	for name in $(EXAMPLES); do echo "--- $$name"; $(BIN)/python examples/$$name.py $(ARGS) || exit 1; done

test: $(VENV)/with-test
	$(BIN)/pytest -q $(PARALLEL) -m "not alone" $(ARGS)
	$(BIN)/pytest -q -m alone $(ARGS) || [ $$? = 5 ] # 5: ARGS chose none of them

# Each interpreter has an environment of its own in build/pythons.
pythons:
	$(PYTHON) tests/pythons.py $(ARGS)

bench: $(VENV)/with-test $(VENV)/with-bench
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -q bench $(ARGS)
	$(MAKE) compare ARGS=

# Of what compare.py is told, short.py hears --quick alone: the rest chooses cases that it does not have.
compare: $(VENV)/with-peers
	$(BIN)/python bench/compare.py --json docs/speed.json --picture docs/speed.png --page docs/speed.md $(ARGS)
	$(MAKE) short ARGS="$(filter --quick,$(ARGS))"

short: $(VENV)/with-peers
	$(BIN)/python bench/short.py --json docs/short.json --picture docs/short.png --page docs/speed.md --readme README.md $(ARGS)

# Beside the other systems: each of these tests fails if its package is not there. Two of them want an old NumPy, and so an
# environment of their own.
BESIDE := $(wildcard tests/test_torch_*.py tests/test_onnx*.py tests/test_compat_*.py) \
          $(patsubst %,tests/test_%.py,formats_systems clients files jax autograd keras train_parallel neighbours)
OLD := .venv-old
OLD_PIP := $(OLD)/bin/python -m pip --disable-pip-version-check --quiet

systems: $(VENV)/with-test $(VENV)/with-systems
	$(BIN)/pytest -q $(PARALLEL) --all-installed -k "not chainer and not madmom" $(BESIDE) $(ARGS)

systems-old: $(OLD)/installed
	PYTHONPATH=. $(OLD)/bin/pytest -q --all-installed -k "chainer or madmom" \
	    $(patsubst %,tests/test_%.py,formats_systems clients compat_madmom) $(ARGS)

mutants: $(VENV)/with-test $(VENV)/with-systems
	$(BIN)/python tests/mutants.py --jobs 2 $(ARGS)

packages: $(VENV)/with-systems
	$(BIN)/python bench/packages.py $(ARGS)
	if [ -e $(OLD)/installed ]; then PYTHONPATH=. $(OLD)/bin/python bench/packages.py madmom; fi

$(OLD)/installed: $(VENV)/installed
	$(PYTHON) -m venv $(OLD)
	$(OLD_PIP) install 'numpy<2' 'scipy<1.12' 'setuptools<70' 'Cython<3' wheel mido chainer pytest
	$(OLD_PIP) install --no-build-isolation madmom==0.16.1
	@touch $@

lint: $(VENV)/with-lint
	$(BIN)/ruff check .

types: $(VENV)/with-lint
	$(BIN)/mypy

wheel: | $(BIN)/python
	rm -rf build/lib.* # else modules that were removed or renamed would be shipped
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) $(OLD) .venv-free-threaded build dist *.egg-info fastrnn/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment: a change of the C or Cython sources compiles the editable install anew --------------------
COMPILED := setup.py pyproject.toml $(wildcard fastrnn/*.pyx fastrnn/*.pxi fastrnn/*.pxd fastrnn/_xla/*.[ch] csrc/*.h csrc/*/*.[ch])

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(COMPILED) | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

# fastrnn is there already, so this only adds what the extra names.
$(VENV)/with-%: $(VENV)/installed
	$(PIP) install 'fastrnn[$*]'
	@touch $@

free-threaded:
	tests/free_threading.sh $(ARGS)

# --- sanitizers: a copy of the tree with an instrumented module in it, beside the normal one ------------------------
SAN := build/sanitized
SAN_CC := gcc
# Left out: other systems, which have findings of their own; what is NumPy around the kernels; and the stacks' gradients by
# differences, thousands of the same calls. Of tests with many cases one case in SHARE is run, drawn once and for all: the kernels'
# paths are few beside the thousands of sizes and wrong arguments. SHARE=1 runs all of them.
SHARE := 2
UNSANITIZED := $(addprefix --ignore ,$(BESIDE) tests/test_formats.py tests/test_formats_trees.py tests/test_diagnostics.py \
                 tests/test_example_programs.py \
                 tests/test_import.py $(filter-out %_optim.py,$(wildcard tests/test_train_*.py))) \
               --deselect tests/test_stacks.py::test_gradients

# The allocator is malloc, so that every object has its own red zone; Python's own leaks are not ours to find; a
# request too large gets NULL, as without ASan, for the tests of failed allocation. libstdc++ is there for the sake of
# C++ exceptions in other modules.
sanitize: $(SAN)/built
	rm -rf $(SAN)/tests $(SAN)/examples $(SAN)/docs
	cp -R tests examples docs $(SAN)
	cp fastrnn/*.py $(SAN)/fastrnn
	cp -R $(patsubst %/__init__.py,%,$(wildcard fastrnn/*/__init__.py)) $(SAN)/fastrnn
	cd $(SAN) && env FASTRNN_SANITIZED=1 PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/$(SAN) \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD="$$($(SAN_CC) -print-file-name=libasan.so) $$($(SAN_CC) -print-file-name=libstdc++.so)" \
	    $(CURDIR)/$(BIN)/python -m pytest -q --capture=sys $(PARALLEL) -m "not alone" --share $(SHARE) $(UNSANITIZED) $(ARGS)

$(SAN)/built: $(COMPILED) tests/c/planted.c | $(VENV)/with-test
	rm -rf $(SAN)
	mkdir -p $(SAN)
	cp -R setup.py pyproject.toml README.md LICENSE fastrnn csrc tests $(SAN)
	rm -f $(SAN)/fastrnn/*.so
	cd $(SAN) && CC=$(SAN_CC) FASTRNN_SANITIZE=address,undefined \
	    $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
