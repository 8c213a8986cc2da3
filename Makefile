# make demo   a small simulated cohort through participant and group level, in its own venv
# make demo-neck   the same for the neck
# make docs   the documentation as a site, in build/site/VERSION, with its links checked
# make completion   options of the commands complete in bash with the Tab key
# make container-test   builds the images without a daemon and runs them (root, buildah, debootstrap)
# make fuzz   the tests of hostile files, for about an hour
# make slow-test   the tutorial, the way from DICOM and the experiments of the papers, whole
# make soak   500 small scans through random kills and full disks, two hours; SOAK_MINUTES=25 for fewer
# make parity-test PEERS=FOLDER   models of other programs against the programs themselves
# make gpu-check   parity, memory, lease, speed and one participant on an NVIDIA GPU, in eight minutes
# make test   all checks: formatting, types, spelling, layers, tests
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# The CPU build of torch; for CUDA: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
RUN = $(VENV)/bin

.PHONY: demo demo-neck docs completion test lint clean slow-test container-test fuzz soak parity-test gpu-check

REGION ?= lumbar
# An index out of reach would be tried again and again, with a warning each time.
ask_index = $(PYTHON) -c 'import sys, urllib.request as ask; ask.urlopen(sys.argv[1] + "/torch/", timeout=10)' $(TORCH_INDEX)
index = $(if $(TORCH_INDEX),$$($(ask_index) 2>/dev/null && echo --extra-index-url $(TORCH_INDEX)))
VERSION = $(shell sed -n "s/^__version__ = '\(.*\)'/\1/p" bids_muscle/__init__.py)
COMPLETIONS ?= $(HOME)/.local/share/bash-completion/completions

# torch goes first and alone: pinned, and from the CPU index, so that no CUDA packages follow.
$(VENV)/.installed: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bids_muscle needs Python 3.11 or newer")'
	@echo 'Installing into $(VENV): 2 GB on the disk, 2 to 5 minutes.'
	$(PYTHON) -m venv $(VENV)
	@$(if $(TORCH_INDEX),$(ask_index) 2>/dev/null || echo '$(TORCH_INDEX) is out of reach: torch comes from the usual index and may be larger.')
	@$(PIP) --retries 1 torch==2.13.0 $(index)
	$(PIP) --editable .
	touch $@

# The networks of nnU-Net come alone, without packages that others of its authors need.
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps 'dynamic-network-architectures>=0.4,<0.5'
	touch $@

demo: $(VENV)/.installed
	@echo 'Demo in $(DEMO)/: two simulated people are made, segmented, measured and compared. It takes'
	@echo '2 minutes on two idle cores. Steps: 1. phantom, 2. participant level, 3. group level.'
	rm -rf $(DEMO)
	$(RUN)/bids_muscle-phantom $(DEMO)/bids --participants 2 --region $(REGION) --seed 1
	$(RUN)/bids_muscle $(DEMO)/bids $(DEMO)/out participant
	$(RUN)/bids_muscle $(DEMO)/bids $(DEMO)/out group
	@echo
	@echo 'Open these pages in a browser:'
	@ls $(CURDIR)/$(DEMO)/out/*.html

demo-neck:
	$(MAKE) demo REGION=cervical DEMO=demo-neck

docs: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --quiet --site-dir build/site/$(VERSION)
	$(RUN)/python docs/versions.py build/site
	@echo 'Open $(CURDIR)/build/site/$(VERSION)/index.html in a browser. Its search needs a server:'
	@echo '$(RUN)/python -m http.server -d build/site'

completion: $(VENV)/.installed
	$(PIP) --editable '.[completion]'
	mkdir -p $(COMPLETIONS)
	$(RUN)/shtab --shell bash bids_muscle.cli.parser.make_parser > $(COMPLETIONS)/bids_muscle
	for name in atlas model norms phantom report segment slurm status; do \
	    $(RUN)/shtab --shell bash bids_muscle.cli.$$name.build_parser > $(COMPLETIONS)/bids_muscle-$$name || exit 1; \
	done

lint: $(VENV)/.installed-test
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/codespell
	$(RUN)/lint-imports

test: $(VENV)/.installed-test lint
	$(RUN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

slow-test: $(VENV)/.installed-test
	$(RUN)/pytest -n 2 --dist loadfile -m slow
	.ci/inputs slow > .ci/slow-tested

fuzz: $(VENV)/.installed-test
	FUZZ_TIMES=200 $(RUN)/pytest -q tests/fuzz

soak: $(VENV)/.installed
	$(RUN)/python tests/soak/soak.py

container-test: $(VENV)/.installed
	$(PIP) 'spython>=0.3.14,<0.4'
	TORCH_INDEX=$(TORCH_INDEX) tests/container/run.sh $(RUN)

clean:
	rm -rf $(VENV) $(DEMO) demo-neck build *.egg-info

# FOLDER holds the programs; see tests/segmentation/peers.py.
parity-test: $(VENV)/.installed-test
	BIDS_MUSCLE_PEERS='$(PEERS)' $(RUN)/pytest -q -rs -s tests/segmentation/test_parity.py

# A venv of its own with the CUDA build of torch, unless VENV has one.
CUDA_VENV ?= build/venv-cuda
CUDA_INDEX ?= https://download.pytorch.org/whl/cu130
gpu-check:
	@nvidia-smi -L > /dev/null 2>&1 || { echo 'No CUDA GPU is at hand. Run make gpu-check on a machine with an NVIDIA GPU.'; exit 0; }; \
	venv=$(VENV); \
	if ! $$venv/bin/python -c 'import sys, torch; sys.exit(not torch.version.cuda)' 2> /dev/null; then \
		venv=$(CUDA_VENV); \
		$(MAKE) $$venv/.installed VENV=$$venv TORCH_INDEX=$(CUDA_INDEX) || exit 1; \
	fi; \
	$$venv/bin/python benchmarks/gpu_check.py
