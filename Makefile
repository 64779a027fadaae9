# Every target does its own set-up: a fresh clone needs nothing but python3 (>= 3.11) and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
WORKERS ?= 2
PEERS := .venv-peers
PINS := benchmarks/peers/constraints.txt
ZOO := .venv-zoo
ZOO_PINS := tests/zoo/constraints.txt
VENV_LOWEST ?= .venv-lowest
VENV_NEWEST ?= .venv-newest
TORCH_PARTS := $(addprefix tests/,compiler step optim foundation objectives loop checkpoint data)
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_PYTHON_VERSION ?= 3.12
GPU_PACKAGES := optree|pydantic|pydantic_core|annotated-types|typing-inspection|typing_extensions|PyYAML|rich|markdown-it-py|mdurl|Pygments|pytest|iniconfig|pluggy|hypothesis|sortedcontainers
LIBRARIES := transformers timm torchvision torch_geometric peft diffusers
TRAINERS := lightning accelerate transformers pytorch-ignite jax optax

.PHONY: demo test test-all test-zoo test-versions kill-table check docs format bench bench-peers gpu-check gpu-wheels clean

demo: $(READY)
	$(BIN)/functrain train configs/digits.yaml --resume never

test: $(READY)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"

test-all: $(READY) test-zoo
	$(BIN)/python -m pytest -q -n $(WORKERS) --hypothesis-profile=explore

# Models of other libraries, in an environment of their own. About half an hour, most of it compilations.
test-zoo: $(ZOO)/.ready
	$(ZOO)/bin/python -m pytest -q -n $(WORKERS) tests/zoo

# The lowest versions of pyproject.toml, and the newest torch. About an hour, and 11 GB: these builds of torch have CUDA.
test-versions: $(VENV_LOWEST)/.ready $(VENV_NEWEST)/.ready
	status=0; for venv in $(VENV_LOWEST) $(VENV_NEWEST); do \
		$$venv/bin/python -m pytest -q -n $(WORKERS) -m "not slow" $(TORCH_PARTS) > $$venv/tests.log || status=1; \
		echo "$$venv: $$(tail -n 1 $$venv/tests.log)"; \
	done; exit $$status

kill-table: $(READY)
	$(BIN)/python tests/resume/kill_table.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(MKDOCS) build --quiet

# The site of the documentation, in site/: open site/index.html. A broken link or a warning is an error (mkdocs.yml).
docs: $(READY)
	$(MKDOCS) build

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

# On a machine that has a GPU and its own torch, and may have no network; see benchmarks/gpu_check.py. At most 8 minutes.
gpu-check:
	$(GPU_PYTHON) -m benchmarks.gpu_check $(GPU_OPTIONS)

# What such a machine may lack, to be carried there.
gpu-wheels: $(READY)
	$(BIN)/python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d gpu-wheels \
		--python-version $(GPU_PYTHON_VERSION) --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
		$$(grep -E '^($(GPU_PACKAGES))==' constraints.txt)

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

$(VENV_LOWEST)/.ready: PINS_OF := tests/versions/lowest.txt
$(VENV_NEWEST)/.ready: PINS_OF := tests/versions/newest.txt
$(VENV_LOWEST)/.ready $(VENV_NEWEST)/.ready: %/.ready: pyproject.toml tests/versions/lowest.txt tests/versions/newest.txt
	test -d $* || $(PYTHON) -m venv $*
	$*/bin/python -m pip install -q --disable-pip-version-check -c $(PINS_OF) "$$(grep '^torch==' $(PINS_OF))"
	$*/bin/python -m pip install -q --disable-pip-version-check -c $(PINS_OF) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV_LOWEST) $(VENV_NEWEST) $(PEERS) $(ZOO) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
