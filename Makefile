# Foldmark: every target sets itself up first, in .venv; nothing is installed elsewhere. `make help` lists them.

# What you may set, as in: make train CONFIG=resnet18 FOLDS="0 1" SET="train.epochs=3"
CONFIG ?=## config in configs/ to use (resnet18; without real faces: synthetic)
DATA_ROOT ?= data## folder that holds the iBUG and IMM archives
NAME ?=## name of the experiment (the config's)
FOLDS ?=## folds to train, such as "0 1" (all)
SET ?=## override any config key, such as "train.epochs=3 train.lr=5e-4"
DEVICE ?= auto## auto, cpu, cuda, cuda:1 or mps
WANDB ?= offline## offline, online (after `wandb login`) or disabled
NOTES ?=## notes that W&B shows beside the run
IBUG ?=## where `make data` takes iBUG 300-W from: a URL, an archive or a folder (dlib.net)
TEST_LIST ?=## the same for the competition's test list
IMM ?=## the same for the IMM Face Database
COMPETITION ?=## Kaggle competition that `make submit` uploads to
FILE ?=## competition file for checkcsv, verify and score, such as submissions/resnet18.csv
PHOTOS ?=## folder with photos of your own, or one photo, for `make photos`
BOX ?=## the face's box x,y,w,h in that one photo, where none is found
LB ?=## leaderboard's answer for score, such as 7.54
PYTHON ?= python3## a Python 3.11 to 3.13 to make .venv with

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup data check train compare csv submit checkcsv verify score ledger part1 part2 extra photos report dashboard sync workspace bench test soak lint lock

BIN := .venv/bin
COMMON = --data-root "$(DATA_ROOT)" $(if $(SET),--set "$(SET)") --device "$(DEVICE)"
SETTINGS = $(COMMON) $(if $(CONFIG),--config "$(CONFIG)")
VIEW = --wandb "$(WANDB)" $(if $(NOTES),--notes "$(NOTES)")
PART = $(COMMON) $(VIEW)
EXPERIMENT = $(SETTINGS) $(if $(NAME),--name "$(NAME)") $(VIEW)

help: ## this list
	@echo 'make TARGET [VARIABLE=value ...]'; echo
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16
	@echo; echo 'Variables (and what holds without them):'
	@sed -nE 's/^([A-Z_]+) \?= *([^#]*)## (.*)/  \1\t\3\t\2/p' Makefile | awk -F'\t' '{printf "%-16s%s%s\n", $$1, $$2, $$3 == "" ? "" : " [" $$3 "]"}'

data: setup ## fetch, check and unpack the real data sets; goes on where it broke off
	@$(BIN)/foldmark data --data-root "$(DATA_ROOT)" $(if $(IBUG),--ibug "$(IBUG)") \
		$(if $(TEST_LIST),--test-list "$(TEST_LIST)") $(if $(IMM),--imm "$(IMM)")

train: setup ## train the folds; goes on where it was interrupted
	@$(BIN)/foldmark train $(EXPERIMENT) $(if $(FOLDS),--folds "$(FOLDS)")

compare: setup ## one table of all trained experiments, with intervals, and their best blend
	@$(BIN)/foldmark compare --data-root "$(DATA_ROOT)" --device "$(DEVICE)"

csv: setup ## ensemble the finished folds; write and check submissions/<experiment>.csv
	@$(BIN)/foldmark csv $(EXPERIMENT)

submit: setup ## check the CSV and upload it when Kaggle is configured
	@$(BIN)/foldmark submit $(EXPERIMENT) $(if $(COMPETITION),--competition "$(COMPETITION)")

checkcsv: setup ## list all that is wrong with FILE, ours or foreign, against the test list
	@$(BIN)/foldmark check-submission "$(FILE)" --data-root "$(DATA_ROOT)" $(if $(SET),--set "$(SET)") $(if $(CONFIG),--config "$(CONFIG)")

verify: setup ## rebuild FILE from the checkpoints that its .json names; identical, or how far off
	@$(BIN)/foldmark verify "$(FILE)" --data-root "$(DATA_ROOT)" --device "$(DEVICE)"

score: setup ## note the leaderboard's answer LB to FILE in submissions/ledger.csv
	@$(BIN)/foldmark score "$(FILE)" "$(LB)"

ledger: setup ## every competition file with its out-of-fold figures and score; submissions/ledger.png
	@$(BIN)/foldmark ledger

part1: setup ## the course's part 1: the nose tip on IMM; figures and page in runs/part1
	@$(BIN)/foldmark part part1 $(PART)

part2: setup ## the course's part 2: all 58 points on IMM; figures and page in runs/part2
	@$(BIN)/foldmark part part2 $(PART)

extra: setup ## part 2 with ResNet18, plain and anti-aliased: 12 trainings, best on a GPU
	@$(BIN)/foldmark part part2-extra $(PART)

photos: .venv/photos-installed ## find the faces in your own PHOTOS, predict and draw them; photos/<experiment>
	@$(BIN)/foldmark photos "$(PHOTOS)" --data-root "$(DATA_ROOT)" --device "$(DEVICE)" \
		$(if $(CONFIG),--config "$(CONFIG)") $(if $(NAME),--name "$(NAME)") $(if $(BOX),--box "$(BOX)")

report: setup ## one page with all there is to show, to read and hand in: runs/<experiment>/report.html
	@$(BIN)/foldmark report --data-root "$(DATA_ROOT)" $(if $(SET),--set "$(SET)") $(if $(CONFIG),--config "$(CONFIG)") \
		$(if $(NAME),--name "$(NAME)")

check: setup ## the data doctor: damaged pictures, wrong points, duplicates, leakage; exit code 2 if training is not safe
	@$(BIN)/foldmark check --data-root "$(DATA_ROOT)" $(if $(SET),--set "$(SET)") $(if $(CONFIG),--config "$(CONFIG)")

dashboard: setup ## W&B's terminal dashboard over the runs made here
	@$(BIN)/foldmark dashboard

sync: setup ## upload the W&B runs made offline, each once (after `.venv/bin/wandb login`)
	@$(BIN)/foldmark sync

workspace: .venv/workspace-installed ## save a page of curves, worst faces and variants in W&B, over the uploaded runs
	@$(BIN)/foldmark workspace

bench: setup ## measure loading, training and prediction rates; writes benchmarks/results/
	@$(BIN)/python benchmarks/bench.py $(SETTINGS)

test: setup ## run the tests (FOLDMARK_TEST_DATA=folder: also those on real faces)
	@$(BIN)/python -m pytest

soak: setup ## the tests that take chances: 21,000 generated bad inputs, and a run killed at 100 moments
	@FOLDMARK_SOAK=3000 FOLDMARK_KILLS=100 $(BIN)/python -m pytest tests/commands/test_hostile.py tests/train/test_crash.py

lint: setup ## check the code's style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

lock: ## renew requirements.lock and those of the extras from pyproject.toml (needs uv)
	@$(LOCK) --extra dev pyproject.toml -o requirements.lock
	@for extra in photos workspace; do \
		"$(PYTHON)" -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]])' $$extra \
		| $(LOCK) --no-deps - -o requirements-$$extra.lock; done

setup: .venv/installed ## make .venv and install into it, if that is not done

# The stamp is written last, so that an interrupted installation is taken up again.
.venv/installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo 'foldmark: Python 3.11 to 3.13 is needed; name one with PYTHON=..., such as PYTHON=python3.12' >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv \
		|| { echo 'foldmark: .venv could not be made; is the venv module installed (Debian: python3-venv)?' >&2; exit 2; }
	@echo 'Setting up .venv (once; some minutes and 6 GB with PyTorch for Linux) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# An extra, for the one target that needs it; all that it builds on is in requirements.lock.
.venv/%-installed: requirements-%.lock .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
