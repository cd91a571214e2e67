# Two commands to know: `make quickstart` and `make test`. Nothing is needed but
# Python 3.11 or newer; another interpreter is chosen with `make PYTHON=/path/to/python ...`.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WHEEL := $(VENV)/wheel
PACKAGES := agents clrl configs envs
PIP := $(BIN)/python -m pip

.PHONY: help quickstart test check lint types proofs bits torture soak launchers gallery docs clean
.NOTPARALLEL:
.DELETE_ON_ERROR:
unexport PYTHONPATH PYTHONHOME

# Tests that need MNIST run where the data is at hand: $CLRL_DATA, or this folder.
ifndef CLRL_DATA
ifneq ($(wildcard ../shared/data/.),)
test proofs: export CLRL_DATA := $(CURDIR)/../shared/data
endif
endif

help:
	@echo 'make quickstart   set up .venv, compare learners on small digits and a pole (minutes)'
	@echo 'make test         set up .venv, run the test suite'
	@echo 'make check        all that must pass: ruff, mypy, the pages, tests'
	@echo 'make docs         build the site of docs/ and docstrings in build/site/html'
	@echo 'make proofs       the longer tests, marked slow'
	@echo 'make bits         a seed alone, among others, divided otherwise, resumed: the same bits?'
	@echo 'make torture      kill training 50 times a case; KILLS=N CASES="NAME ..." for less'
	@echo 'make soak         a suite under random kills for ten minutes; MINUTES=N for less'
	@echo 'make launchers    install Ray and submitit, run the tests of launching with them'
	@echo 'make gallery      rewrite docs/gallery, with curves of the suites in runs/'
	@echo 'make clean        remove .venv, builds and caches; runs/ stays'

quickstart: $(READY)
	@$(BIN)/clrl suite quickstart --out runs/quickstart

# One process a core, which take tests from each other when they have none left.
TOGETHER := -n auto --maxprocesses 8 --dist worksteal

test: $(READY)
	@$(BIN)/python -m pytest $(TOGETHER)

# Types and pages, each of one core, are looked at side by side.
check: lint
	@$(MAKE) --no-print-directory types & types=$$!; \
	$(MAKE) --no-print-directory docs; docs=$$?; \
	wait $$types && exit $$docs
	@$(MAKE) --no-print-directory test

proofs: $(READY)
	@$(BIN)/python -m pytest -m slow $(TOGETHER)

bits: $(READY)
	@$(BIN)/python tests/bits/bits.py

KILLS := 50
torture: $(READY)
	@$(BIN)/python tests/torture/torture.py --kills $(KILLS) $(CASES)

MINUTES := 10
soak: $(READY)
	@$(BIN)/python tests/torture/soak.py --minutes $(MINUTES)

launchers: $(READY)
	@$(PIP) install -q -c constraints.txt -e '.[ray,slurm]'
	@$(BIN)/python -m pytest -m 'slow or not slow' tests/clrl/launch/test_launchers.py

gallery: $(READY)
	@$(BIN)/python docs/gallery.py runs

# Warnings and dead links are errors.
docs: $(READY)
	@$(BIN)/python docs/site/build.py

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

# Type-checked as users get it: the built wheel, unpacked away from the sources. Among the
# sources mypy cannot follow the mapping of folders to packages, sees a few files and is
# content; hence the count.
types: $(READY)
	@rm -rf build/lib build/bdist.* $(WHEEL)
	@$(PIP) wheel -qq --no-index --no-deps --no-build-isolation --wheel-dir $(WHEEL) .
	@$(PIP) install -qq --no-index --no-deps --target $(WHEEL)/site $(WHEEL)/*.whl
	@rm -rf build/lib build/bdist.*
	@root=$$PWD; cd $(WHEEL)/site; \
	report=$$("$$root"/$(BIN)/python -m mypy --config-file "$$root"/pyproject.toml \
	    --cache-dir "$$root"/.mypy_cache --no-color-output -p clrl) \
	    || { echo "$$report"; exit 1; }; \
	echo "mypy: $$report"; \
	seen=$$(expr "$$report" : '.* in \([0-9]*\) source file'); \
	cd "$$root"; sources=$$(find $(PACKAGES) -name '*.py' | wc -l); \
	test "$${seen:-0}" -ge "$$sources" || \
	    { echo "mypy saw $${seen:-0} files, the sources are $$sources" >&2; exit 1; }

# Installs again only when what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    found=$$($(PYTHON) --version 2>&1) || found='not there'; \
	    echo "clrl needs Python 3.11 or newer and '$(PYTHON)' is $$found:" \
	        'choose one with make PYTHON=/path/to/python' >&2; exit 1; }
	@echo 'Setting up $(VENV): once, about a minute and 2 GB ...'
	@$(PYTHON) -m venv $$(test -e $@ || echo --clear) $(VENV)
	@$(PIP) install -qq --disable-pip-version-check -c constraints.txt setuptools
	@$(PIP) install -qq --disable-pip-version-check -c constraints.txt \
	    --no-build-isolation --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +
