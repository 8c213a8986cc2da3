# make demo   a small simulated cohort through participant and group level, in its own venv
# make container-test   builds the images without a daemon and runs them (root, buildah, debootstrap)
# make fuzz   the tests of hostile files, for about an hour
# make test   all checks: formatting, types, spelling, layers, tests
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# The CPU build of torch; for CUDA: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
RUN = $(VENV)/bin

.PHONY: demo test lint clean container-test fuzz

# torch goes first and alone: pinned, and from the CPU index, so that no CUDA packages follow.
$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bids_muscle needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --retries 1 torch==2.13.0 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	touch $@

demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(RUN)/bids_muscle-phantom $(DEMO)/bids --participants 2 --region lumbar --seed 1
	$(RUN)/bids_muscle $(DEMO)/bids $(DEMO)/out participant
	$(RUN)/bids_muscle $(DEMO)/bids $(DEMO)/out group
	@echo
	@echo 'Open these pages in a browser:'
	@ls $(CURDIR)/$(DEMO)/out/*.html

lint: $(VENV)/.installed-test
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/codespell
	$(RUN)/lint-imports

test: $(VENV)/.installed-test lint
	$(RUN)/pytest -n 2 --dist loadfile

fuzz: $(VENV)/.installed-test
	FUZZ_TIMES=100 $(RUN)/pytest -q tests/faults/test_fuzz.py

container-test: $(VENV)/.installed
	$(PIP) 'spython>=0.3.14,<0.4'
	TORCH_INDEX=$(TORCH_INDEX) tests/container/run.sh $(RUN)

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
