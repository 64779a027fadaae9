# Every target does its own set-up: a fresh clone needs nothing but python3 (>= 3.11) and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
PEERS := .venv-peers
PINS := benchmarks/peers/constraints.txt
ZOO := .venv-zoo
ZOO_PINS := tests/zoo/constraints.txt
LIBRARIES := transformers timm torchvision torch_geometric peft diffusers
TRAINERS := lightning accelerate transformers pytorch-ignite jax optax

.PHONY: demo test test-all test-zoo kill-table check format bench bench-peers clean

demo: $(READY)
	$(BIN)/functrain train configs/digits.yaml --resume never

test: $(READY)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"

test-all: $(READY) test-zoo
	$(BIN)/python -m pytest -q -n $(WORKERS) --hypothesis-profile=explore

# Models of other libraries, in an environment of their own. About half an hour, most of it compilations.
test-zoo: $(ZOO)/.ready
	$(ZOO)/bin/python -m pytest -q -n $(WORKERS) tests/zoo

kill-table: $(READY)
	$(BIN)/python tests/resume/kill_table.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.memory

# Other trainers, in an environment of its own. About half an hour, on a machine that does nothing else.
bench-peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m benchmarks.peers --out benchmarks/results

# torch first and by its exact version: a looser requirement would pull several gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

$(PEERS)/.ready: pyproject.toml benchmarks/peers/constraints.txt
	test -d $(PEERS) || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check -c $(PINS) "$$(grep '^torch==' $(PINS))"
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check -c $(PINS) -e '.[plots]' $(TRAINERS)
	touch $@

$(ZOO)/.ready: pyproject.toml $(ZOO_PINS)
	test -d $(ZOO) || $(PYTHON) -m venv $(ZOO)
	$(ZOO)/bin/python -m pip install -q --disable-pip-version-check -c $(ZOO_PINS) "$$(grep '^torch==' $(ZOO_PINS))"
	$(ZOO)/bin/python -m pip install -q --disable-pip-version-check -c $(ZOO_PINS) -e . pytest pytest-xdist hypothesis \
		$(LIBRARIES)
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(ZOO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
