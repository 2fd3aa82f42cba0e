# Two commands do everything on a fresh machine: `make demo` and `make test`. VENV=/some/where puts the environment there.
PYTHON ?= python3
VENV ?= .venv
export HF_HUB_OFFLINE ?= 1
# NumPy's threads gain nothing on small matrices and fight the others for the cores.
export OPENBLAS_NUM_THREADS ?= 1

BIN = $(VENV)/bin
HASH = $(shell cat requirements.txt requirements-dev.txt | sha256sum | cut -c1-12)
RUNTIME = $(VENV)/.runtime-$(HASH)
TESTING = $(VENV)/.testing-$(HASH)
PHANTOM = input/phantom
ON_PHANTOM = data.root=$(PHANTOM)

.PHONY: demo test install lint format clean help

help:
	@echo "make demo    environment, install, then phantom -> prepare -> train -> evaluate -> ensemble -> kernel -> submission"
	@echo "make test    environment, install, lint, tests"
	@echo "make clean   delete what the demo made in input/, oof/, submissions/ and kernels/ (never the RSNA data)"

install: $(RUNTIME)

$(RUNTIME): requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(TESTING): requirements-dev.txt $(RUNTIME)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: $(RUNTIME)
	$(BIN)/python src/phantom.py --out $(PHANTOM) --studies 40 --test-studies 10 --seed 0 \
		--matrix 256 --spacing 1.0 --mask-share 0.5 --box-share 0.5
	$(BIN)/python src/prepare.py $(ON_PHANTOM)
	$(BIN)/python src/train.py --config configs/demo/pipeline.yaml --fold all --resume --processes 2 $(ON_PHANTOM)
	$(BIN)/python src/evaluate.py demo-vertebra $(ON_PHANTOM)
	$(BIN)/python src/ensemble.py demo-fracture demo-fracture-wide $(ON_PHANTOM)
	$(BIN)/python src/predict.py $(ON_PHANTOM)
	$(BIN)/python kernels/build.py
	$(BIN)/python kernels/rehearse.py --expected submissions/submission.csv $(ON_PHANTOM)
	$(BIN)/python src/evaluate.py --labels $(PHANTOM)/test_answers.csv --predictions submissions/submission.csv \
		--thresholds oof/ensemble/blend.json
	@echo
	@echo "submission: submissions/submission.csv"
	@echo "report:     oof/ensemble/report.html"

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TESTING)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(PHANTOM) input/cache input/folds.csv oof/ensemble oof/demo-*
	rm -f submissions/*.csv kernels/inference/kernel.py kernels/weights/manifest.json kernels/weights/*.safetensors kernels/weights/*.whl
