# The two commands of the README: `make run` and `make test`. Each works on a fresh machine.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: run test check install bench clean

run: $(STAMP)  ## install, train the quickstart on built-in text, print a sample
	$(BIN)/lmplay run test_runner --plan quickstart --name quickstart
	$(BIN)/lmplay generate quickstart --prompt "The following" --max-tokens 60

test: $(STAMP)  ## install, run the test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)  ## format, lint, types, walls between the rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(STAMP)

bench: $(STAMP)  ## speed and memory against peers, paired and in ratios
	$(BIN)/python -m benchmarks

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
