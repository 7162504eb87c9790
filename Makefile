# Every target sets up .venv by itself. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check bench docs clean

demo: $(READY)  ## sample the embedded models on PyTorch and ONNX Runtime; show the picture and the parity table
	$(BIN)/ditzoo demo --out demo.png

test: check  ## all tests
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## the CPU table of docs/performance.md: DiT-XL/2 beside its peers (24 GB of memory, 15 GB of disk)
	$(BIN)/python recipes/bench_peers.py --model dit-xl-2

docs: $(READY)  ## write the generated page of docs/
	$(BIN)/typer ditzoo.cli utils docs --name ditzoo --output docs/cli.md

clean:
	rm -rf .venv demo.png

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
