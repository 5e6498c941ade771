# How a fresh clone becomes something that runs. `make` alone lists the targets.

VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
# The first Python that is new enough; override with `make venv PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
INSTALLED := $(VENV)/.splatir-installed
COMPILED := $(VENV)/.splatir-compiled
DEMO_MAPS := royal_esplanade venice_sunset

.DEFAULT_GOAL := help
.PHONY: help venv test test-slow lint demo clean

help:
	@echo 'make demo       set up, train on assets/demo, score, relight and export it'
	@echo 'make test       set up, run the tests'
	@echo 'make test-slow  the tests that take longer than 20 s'
	@echo 'make lint       formatting, lint and types'
	@echo 'make venv       set up only: $(VENV) with the package and its native library'
	@echo 'make clean      remove what was built; keeps $(VENV) and runs/'

venv: $(INSTALLED) $(COMPILED)

$(INSTALLED): pyproject.toml setup.py
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or newer found; set PYTHON=/path/to/python'; exit 1; }
	@$(PYTHON_IN_VENV) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
		{ echo 'error: $(PYTHON) cannot make a virtual environment (Debian: apt-get install python3-venv)'; exit 1; }
	$(PYTHON_IN_VENV) -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@

# Compiles again, without pip, when only the kernels have changed.
$(COMPILED): $(INSTALLED) splatir/native/build.py $(wildcard splatir/native/src/*)
	@if $(PYTHON_IN_VENV) -c 'import sys; from splatir.native.library import available; sys.exit(not available())' || \
		$(PYTHON_IN_VENV) -m splatir.native.build; then touch $@; else \
		echo 'warning: without the native library only the reference rasteriser works on CPU, hundreds of times slower'; fi

test: venv
	$(PYTHON_IN_VENV) -m pytest -q

test-slow: venv
	$(PYTHON_IN_VENV) -m pytest -q -m slow

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON_IN_VENV) -m pyright

demo: venv
	$(PYTHON_IN_VENV) train.py --data assets/demo --config demo
	@for map in $(DEMO_MAPS); do \
		$(VENV)/bin/splatir relight runs/demo/latest --envmap assets/demo/$$map.hdr --path turntable \
			--output runs/demo/latest/relight/$$map.mp4 || exit 1; done
	@echo
	@echo 'What the demo left:'
	@echo '  runs/demo/latest/eval/contact_sheet.png   photos, renders, materials, normals, light'
	@for map in $(DEMO_MAPS); do echo "  runs/demo/latest/relight/$$map.mp4   under another light"; done
	@echo '  runs/demo/latest/export/splats.ply   opens in any splat viewer; materials inside'

clean:
	rm -rf build dist splatir.egg-info .pytest_cache .ruff_cache .hypothesis $(INSTALLED) $(COMPILED)
	rm -f splatir/native/*.so
	find splatir tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
