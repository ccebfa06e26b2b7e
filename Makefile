# make demo    a real dump to a published release, in .venv
# make test    lint, types, import rules, tests
# make docs    the documentation as a site/, every link and anchor checked
# make proof   everything, the slow proofs included
# make lock    after a stage's revision was raised: record the new code of its kernel

PYTHON ?= python3
BIN := .venv/bin
# Whole files to two processes: a file's fixtures are made once. In their order, for else files of few tests come
# last, of which some are the longest, and one process waits for the other.
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
RECIPE := examples/movietweetings.toml
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: demo install lint docs readmes test proof lock wheel clean

demo: .venv/.installed
	@$(BIN)/sidmill run $(RECIPE)

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sidmill needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# What formats write as READMEs, which the documentation quotes: after a format changed its own.
readmes: .venv/.installed
	SIDMILL_WRITE_READMES=1 $(BIN)/python -m pytest -q tests/test_trainers.py -k readme_explains

test: lint
	$(BIN)/python -m pytest -m "not proof" $(SPREAD)

proof: lint
	$(BIN)/python -m pytest $(SPREAD)

lock: .venv/.installed
	$(BIN)/python tests/revisions.py

wheel: .venv/.installed
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf .venv dist site warehouse/data
