# Every target sets up .venv by itself. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
SECONDS ?= 60
READY := .venv/.ready

.PHONY: demo test check lowest fuzz bench gpu docs clean

demo: $(READY)  ## draw icons on PyTorch and ONNX Runtime; write the picture, print the parity table
	$(BIN)/ditzoo demo --out demo.png

test: check  ## run the checks and all tests
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(READY)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lowest: .venv-lowest/.ready  ## run all tests on the lowest versions that pyproject.toml allows (torch brings 3 GB of CUDA)
	.venv-lowest/bin/python -m pytest --numprocesses auto --dist worksteal

fuzz: $(READY)  ## try hostile inputs on every parser, for SECONDS each (default 60); PARSERS chooses some, JOBS run at once, SEED repeats
	PYTHONPATH=. $(BIN)/python -m tests.fuzz $(SECONDS) $(PARSERS) $(if $(JOBS),--jobs $(JOBS)) $(if $(SEED),--seed $(SEED))

bench: $(READY)  ## measure DiT-XL/2 beside diffusers, as in docs/performance.md (needs 24 GB of memory and 15 GB of disk)
	$(BIN)/python recipes/bench_peers.py --model dit-xl-2

gpu: $(READY)  ## tell what of ditzoo holds on this machine's GPU; results go to acceptance/
	$(BIN)/python recipes/gpu_acceptance.py --out acceptance

docs: $(READY)  ## write the generated pages, then build the site into site/; warnings are errors
	PYTHONPATH=. $(BIN)/python -m docs.generator
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file .mkdocs.yml

clean:
	rm -rf .venv .venv-lowest demo.png site

$(READY): pyproject.toml constraints.txt
	@echo "installing ditzoo and what its tests need into .venv: some minutes, and 2.4 GB with a CPU build of PyTorch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv-lowest/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/python -m uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	touch $@
