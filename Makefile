# Two commands for a stranger: `make demo` and `make test`. CI calls `make check`, which runs all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Sections of constraints.txt.
CONVERT := device onnx convert build
DEV := $(CONVERT) signing mqtt serve distributed dev ethos-u release
DEMO := demo-out
# Test processes: a conversion takes 2.5 GB, so two are enough for a small machine.
JOBS ?= 2

# The tests start kedge many times: compiled modules are kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check types tests proofs arm64 fuzz mutants format cli api screenshots wheel sbom pins clean
.DELETE_ON_ERROR:

# Install the packages of some sections, each held to its hash, and kedge as it lies here. An
# editable install has no hash, so it comes alone and fetches nothing.
define install
@awk -v wanted=" $(1) " '/^\#/ {on = index(wanted, " " $$2 " ")} on' constraints.txt > $@.txt
@$(PIP) --require-hashes -r $@.txt
@$(PIP) --no-deps --no-build-isolation -e .
@touch $@
endef

demo: $(VENV)/.convert
	$(BIN)/kedge convert demo --out $(DEMO)
	$(BIN)/kedge verify $(DEMO)/demo.int8.tflite
	$(BIN)/kedge classify $(DEMO)/demo.int8.tflite models/kedge_models/demo/samples --top 1
	@echo
	@echo "The artefacts lie in $(DEMO)/. Next: $(BIN)/kedge --help, and README.md."

# What tells that nothing broke, in four minutes. It leaves out slow tests (tests/slow.txt and the
# marks `slow` and `arm64`), which `check` runs.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not arm64"
	@echo "Left out: conversions of whole models, slow tests (tests/slow.txt) and arm64: make check"

# The types are checked while the tests start, which is a minute less.
check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	@$(MAKE) --no-print-directory -j 2 types tests
	@echo "Left out: the longest proofs (tests/proofs.txt): make proofs"

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	KEDGE_CI=1 $(BIN)/python -m pytest -n $(JOBS) -m "not proof"

# The longest tests, before a release.
proofs: $(VENV)/.dev
	KEDGE_CI=1 $(BIN)/python -m pytest -n $(JOBS) -m proof

# The wheel on an emulated arm64 machine alone; check has it too.
arm64: $(VENV)/.dev
	$(BIN)/python -m pytest -m arm64

# Hostile inputs at every door, on all cores: MINUTES, or INPUTS in all; SEED, DOOR, and INPUT, a
# file for that door alone.
MINUTES ?= 10
FUZZ := $(if $(INPUTS),--inputs $(INPUTS),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
  $(if $(DOOR),--door "$(DOOR)") $(if $(INPUT),--input "$(INPUT)") $(if $(RECORD),--record)
fuzz: $(VENV)/.dev
	PYTHONPATH=tests:tests/helpers:benchmarks $(BIN)/python -m fuzz $(FUZZ)

# What no test notices: mutants of the modules in tools/mutants.toml, or of MODULE alone;
# AGAIN=1 tries those that survived.
mutants: $(VENV)-mutants/.mutants
	$(VENV)-mutants/bin/python tools/mutants.py $(if $(AGAIN),--again) $(MODULE)

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The reference of the command line, docs/cli.md, from the commands' own help.
cli: $(VENV)/.dev
	$(BIN)/python tools/cli_reference.py

# The reference of the Python API, docs/api-reference.md, from the docstrings.
api: $(VENV)/.dev
	$(BIN)/python tools/api_reference.py

# The README's two images, from the demo's own drawings; needs Chromium.
screenshots: $(VENV)/.dev
	$(BIN)/python tools/screenshots.py

# The wheel and the source archive, both checked.
wheel: $(VENV)/.dev
	$(BIN)/python tools/wheel.py dist

# The wheel, and beside it a CycloneDX bill of materials: what its extras convert, onnx and signing
# bring.
sbom: $(VENV)/.dev
	$(BIN)/python tools/sbom.py dist

# Newer versions: make pins UPGRADE=--upgrade
pins: $(VENV)/.dev
	$(BIN)/python tools/pin.py $(UPGRADE)

clean:
	rm -rf $(VENV) $(VENV)-mutants build $(DEMO) dist .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "kedge needs Python 3.10 to 3.13; say which with make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "no venv module: on Debian, apt install python3-venv" >&2; exit 2; }

$(VENV)/.convert: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing kedge and TensorFlow into $(VENV): about 2.5 GB, one to five minutes ..."
	$(call install,$(CONVERT))

$(VENV)/.dev: $(VENV)/.convert
	@echo "Installing what the tests need ..."
	$(call install,$(DEV))

# Without TensorFlow, whose imports would be most of the time.
$(VENV)-mutants/.mutants: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-mutants
	@$(VENV)-mutants/bin/python -m pip install --quiet --disable-pip-version-check -e '.[mutants]'
	@touch $@
