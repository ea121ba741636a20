# `make demo` and `make test` install their requirements in .venv. A second run reuses the environment.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STUDY := experiments/recall_quick
# TESTERS is the number of test processes; each takes 2 to 5 GB. Several processes share the tests of a file, so each
# process repeats the module's fixtures. Each process uses one thread for linear algebra: with more threads than cores
# the threads wait for each other, and the tests take ten times as long.
TESTERS ?= 2
PYTEST = OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(TESTERS) --dist worksteal
# -qq hides pip's notes about unreadable mirrors; pip still prints errors. --no-warn-conflicts hides conflicts with the
# simulators' pins, which the rules below ignore on purpose.
PIP := "$(BIN)/python" -m pip install -qq --disable-pip-version-check --no-warn-conflicts -c constraints.txt

HEAVY := browser or paper or cluster or peers or fuzz

.PHONY: help demo test test-quick test-heavy test-fuzz test-sim lint docs results ui doctor setup sim libero renderer browser latex clean
.DEFAULT_GOAL := help
# Without .NOTPARALLEL, -j would run pip twice in the same virtual environment at once.
.NOTPARALLEL:

help:
	@echo "make demo        the main job on the embedded suite: train, evaluate, intervene, table, plots"
	@echo "make test-quick  the everyday tests: no simulator, no slow test; 3 minutes on 2 cores"
	@echo "make test        all tests but the heavy ones, the simulators' included where they can render; 15 minutes"
	@echo "make test-heavy  the tests marked browser, paper, cluster, peers or fuzz; 30 minutes at most"
	@echo "make test-fuzz   13,750 mutated inputs to all parsers; 30 minutes on 2 cores"
	@echo "make test-sim    the simulators' tests alone"
	@echo "make sim | libero  MIKASA-Robo | LIBERO, about 1 GB each"
	@echo "make docs        the documentation as a site, in build/site"
	@echo "make results     RESULTS.md from the committed results"
	@echo "make lint | ui | doctor | clean (removes the virtual environment; runs and data stay)"

# A make target cannot hold spaces. A VENV with spaces is therefore set up again on every call, which is harmless.
$(VENV)/.core: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 found. Remedy: install Python 3.11, or run make PYTHON=/path/to/python3.11"; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "error: $(PYTHON) is not Python 3.11. Remedy: install Python 3.11, or run make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "setting up $(VENV): the core, some minutes the first time (PyTorch alone is 0.2 GB for CPUs, 3 GB with CUDA)"
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || { rm -rf "$(VENV)"; "$(PYTHON)" -m venv "$(VENV)"; } || { rm -rf "$(VENV)"; \
		echo "error: no virtual environment could be made. Remedy: install Python's venv (Debian: python3.11-venv)"; exit 2; }
	@$(PIP) -e .
	@touch "$@"

$(VENV)/.dev: $(VENV)/.core
	@$(PIP) -e '.[dev]'
	@touch "$@"

# mikasa-robo-suite 1.0.0 pins torch 2.2.1, numpy 1.23.5 and a ManiSkill beta. The suite runs with this stack (the extra
# `sim` lists its dependencies), but no resolver can join the pins with this stack. Hence --no-deps.
$(VENV)/.full: $(VENV)/.dev
	@echo "adding the simulator (about 1 GB)"
	@$(PIP) -e '.[sim,dev]'
	@$(PIP) --no-deps mikasa-robo-suite==1.0.0
	@touch "$@"

# hf-libero's metadata require robomimic, and robomimic requires torchvision and another torch. The extra `libero` lists
# the packages that hf-libero imports. Installed packages keep their versions (constraints.txt).
$(VENV)/.libero: $(VENV)/.core
	@echo "adding LIBERO (about 1 GB)"
	@$(PIP) -e '.[libero]'
	@$(PIP) --no-deps hf-libero==0.1.4 robosuite==1.4.0 bddl==1.0.1
	@touch "$@"

# The launchers slurm and ray, for the tests marked `cluster`.
$(VENV)/.cluster: $(VENV)/.dev
	@echo "adding the launchers slurm and ray (about 0.2 GB)"
	@$(PIP) -e '.[dev,slurm,ray]'
	@touch "$@"

setup: $(VENV)/.core
sim: $(VENV)/.full
libero: $(VENV)/.libero

# Exit status 3 of the sweep: some cells failed. The report then shows the other cells and names the failed cells.
demo: $(VENV)/.core
	@"$(BIN)/muvla" sweep $(STUDY) --seeds 0,1 --time-limit 20; status=$$?; \
		if [ $$status -eq 0 ] || [ $$status -eq 3 ]; then "$(BIN)/muvla" report $(STUDY) --seeds 0,1 || exit $$?; fi; exit $$status

# Installs the renderers' system packages if the user is root. Otherwise the simulators' tests are skipped with a reason.
renderer: $(VENV)/.full $(VENV)/.libero
	@bash scripts/ensure-renderer.sh "$(BIN)/python"

# Installs chromium if the user is root. Otherwise the browser tests are skipped with a reason.
browser:
	@bash scripts/ensure-browser.sh

# Installs LaTeX for the heavy tests if the user is root. Otherwise these tests are skipped with a reason.
latex:
	@bash scripts/ensure-latex.sh

test: $(VENV)/.full renderer
	@$(PYTEST) -m "not ($(HEAVY))"

test-quick: $(VENV)/.dev
	@$(PYTEST) -m "not sim and not slow and not ($(HEAVY))"

# Exit status 5 of pytest: no test was collected, because no test has a heavy marker.
test-heavy: $(VENV)/.full $(VENV)/.cluster renderer browser latex
	@[ "$$(id -u)" != 0 ] || bash scripts/start-slurm.sh --install
	@PYTHON="$(BIN)/python" bash scripts/setup-peers.sh build/peers
	@MUVLA_PEERS="$(CURDIR)/build/peers" $(PYTEST) -m "$(HEAVY)" || [ $$? -eq 5 ]

test-fuzz: $(VENV)/.dev
	@MUVLA_FUZZ_CASES=250 OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -s --timeout 0 -m fuzz tests/test_fuzz.py

test-sim: $(VENV)/.full renderer
	@MUVLA_EVERY_TASK=1 $(PYTEST) -m sim

lint: $(VENV)/.dev docs
	@"$(BIN)/ruff" check . && "$(BIN)/ruff" format --check .

# mkdocs writes the site to build/site. The build needs no network, and treats every warning as an error.
docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --strict --quiet && echo "build/site/index.html"

ui: $(VENV)/.core
	@"$(BIN)/python" -m sweeps.tracking.ui

# Writes the summaries of the committed results into RESULTS.md, without any run folder.
SUMMARISED := recall_quick recall_budget recall_causality calibration mikasa_quick recall_causality/mikasa.py:results-mikasa \
	paper_table openvla_remember recall_width recall_chunks mikasa_memory recall_tune
results: $(VENV)/.core
	@"$(BIN)/python" -m analysis.report.committed $(addprefix experiments/,$(SUMMARISED))

doctor: $(VENV)/.core
	@"$(BIN)/muvla" doctor

clean:
	rm -rf "$(VENV)"
