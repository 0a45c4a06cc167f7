# `make demo` runs the main job on real data; `make test` checks everything. Both set up .venv first.
PYTHON ?= python3.11
BIN := .venv/bin
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

.PHONY: demo loopback test quick slow lint wheel images requirements sbom audit-deps clean

demo: .venv/demo.stamp
	$(BIN)/fondaco-simulate run complete-journey --out runs/demo

loopback: .venv/demo.stamp
	rm -rf runs/loopback
	$(BIN)/fondaco-simulate loopback three-stores --out runs/loopback

# The slow tests mostly wait for processes, so the quick ones run beside them.
test: .venv/dev.stamp .venv/debian.stamp lint
	$(MAKE) --no-print-directory --jobs=2 quick slow

quick: .venv/dev.stamp .venv/debian.stamp
	$(BIN)/pytest -m "not slow"

slow: .venv/dev.stamp .venv/debian.stamp
	$(BIN)/pytest -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.namespace $(BIN)/lint-imports

# The wheel: the same bytes from the same commit, on any machine.
wheel: .venv/dev.stamp
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/hatchling build -t wheel -d dist

# What to install, every file by its hash, and the context of deploy/Dockerfile.*: see deploy/README.md.
images: wheel
	rm -rf build/images
	mkdir -p build/images
	$(BIN)/python deploy/requirements.py dist/*.whl --out build/images --name requirements-coordinator.txt
	$(BIN)/python deploy/requirements.py dist/*.whl --out build/images --name requirements-silo.txt --extras sql,duckdb

requirements: images

sbom: images .venv-supply/stamp
	.venv-supply/bin/python deploy/sbom.py .venv/bin/python build/images/requirements-silo.txt --out sbom.json

# Fails, with a reason, if the advisory service cannot be asked.
audit-deps: images .venv-supply/stamp
	.venv-supply/bin/python deploy/audit_deps.py build/images/requirements-coordinator.txt build/images/requirements-silo.txt

.venv-supply/stamp: deploy/supply-tools.txt
	$(PYTHON) -m venv .venv-supply
	.venv-supply/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ .venv/demo.stamp

# Servers that tests start: PostgreSQL, MariaDB, nginx. Nothing of them is left running.
.venv/debian.stamp: tests/debian-packages.txt .venv/bin/python
	tests/install-debian-packages
	touch $@

clean:
	rm -rf .venv .venv-supply build dist runs sbom.json
