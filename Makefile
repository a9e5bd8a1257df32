# The book, its tests and its tools. `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help book test check lab execute bench set-repository wheel clean browser

PYTHON ?= python3
BIN := .venv/bin
CHAPTER ?= features/rahimi2007_fourier
CHROMIUM := chromium chromium-browser google-chrome
NOTEBOOKS = $$(find book -name '*.ipynb' -not -path '*/.*')
WING = $(firstword $(subst /, ,$(CHAPTER)))
# Tests, doctests and the cells of the notebooks, each module or notebook in one process.
PYTEST := $(BIN)/pytest -q -n 2 --dist loadscope --doctest-modules \
    --nbval --nbval-current-env --nbval-cell-timeout=120

# One thread: timings compare, and long training runs repeat to the last digit.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

.venv/.stamp: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or later is needed, $$($(PYTHON) --version) was found;" \
	    "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing the tested environment into .venv (minutes, about 7 GB)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt
	$(BIN)/pip install -q -e . --no-deps --no-build-isolation
	touch $@

book: .venv/.stamp  ## render the book to _build/html/index.html
	$(BIN)/jupyter-book build -W -n --keep-going .

test: book browser  ## everything: lint, tests, doctests, every chapter, the rendered book
	$(BIN)/ruff check .
	$(BIN)/numpydoc lint $$(find lib -name '*.py')
	$(PYTEST) tests lib $(NOTEBOOKS)

check: .venv/.stamp  ## the quick loop: lint, fast tests of a wing, one chapter (CHAPTER=...)
	$(BIN)/ruff check .
	$(BIN)/numpydoc lint $$(find lib -name '*.py')
	$(PYTEST) tests/*.py tests/$(WING) lib/$(WING) book/$(CHAPTER).ipynb -m "not slow"

lab: .venv/.stamp  ## open the chapters in JupyterLab, paired with their text
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/book \
	    $$([ "$$(id -u)" = 0 ] && echo --allow-root)

execute: .venv/.stamp  ## run one chapter and store its notebook (CHAPTER=...)
	$(BIN)/python book/execute.py $(CHAPTER)

bench: .venv/.stamp  ## time lib against its strongest peers
	$(BIN)/pip install -q -r requirements-bench.txt
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

set-repository:  ## write the book's address: REPO=owner/name
	$(PYTHON) book/set_repository.py "$(REPO)"

wheel: .venv/.stamp  ## build the wheel of lib into dist/
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation
	rm -rf build

clean:  ## remove what was built, but not .venv
	rm -rf _build build dist *.egg-info

# The site test needs a browser; without one it is skipped, in CI it fails.
browser:
	@for name in $(CHROMIUM); do command -v $$name >/dev/null && exit; done; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	apt-get update -q && apt-get install -qy --no-install-recommends chromium || \
	echo "no Chromium was found: the tests of the rendered book are skipped"
