# `make help` lists what can be made. Everything works in .venv, which is set up when it is missing.

.PHONY: help setup hub onnx ray s3 upkeep demo test slow soak coverage mutants lint audit sbom licences \
	bench bench-short requirements
.DEFAULT_GOAL := help

# Images of containers often set it; each stage and each test's process would compile TensorFlow anew.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list these targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: .venv/installed  ## install the pinned requirements into .venv, and nothing else

.venv/installed: requirements.txt tools/setup.sh
	@sh tools/setup.sh

hub: setup  ## add KerasHub's networks to .venv: 57 MB to download, 204 MB on disk
	@sh tools/setup.sh hub

onnx: setup  ## add what exports to ONNX to .venv: 36 MB to download, 120 MB on disk
	@sh tools/setup.sh onnx

s3: setup  ## add DVC's S3 remotes to .venv: 70 MB on disk
	@sh tools/setup.sh s3

ray: setup  ## add Ray to .venv, for extraction on a cluster: 135 MB to download, 420 MB on disk
	@sh tools/setup.sh ray

upkeep: setup  ## add the tools of audit, sbom, licences and mutants to .venv
	@sh tools/setup.sh upkeep

demo: setup  ## make a flower classifier from drawn flowers: no images to download, some three minutes
	@.venv/bin/python -m tools.demo

# Each file's tests stay together and in order, as they share fixtures.
IN_PARALLEL = -n logical --maxprocesses 4 --dist loadfile

test: setup  ## run the fast tests
	@.venv/bin/python -m pytest $(IN_PARALLEL)

# First, so that no core waits for them at the end. The others by name: pytest would put `tests`,
# which holds them, in the place of both.
LONGEST = tests/test_real.py tests/test_repro.py tests/test_remote.py
OTHERS = $(filter-out $(LONGEST),$(wildcard tests/test_*.py tests/*/test_*.py))

slow: setup  ## run the slow tests: real `dvc` in clones, and the mirror where there is one
	@.venv/bin/python -m pytest -m "slow and not soak" $(IN_PARALLEL) --no-loadscope-reorder \
		$(LONGEST) $(OTHERS)

coverage: setup  ## run the fast tests and list the lines of stages/ that none reaches
	@.venv/bin/coverage erase
	@.venv/bin/coverage run -m pytest $(IN_PARALLEL)
	@.venv/bin/coverage combine --quiet
	@.venv/bin/coverage report

mutants: upkeep  ## change scores, splits and the stage split in hundreds of ways: does a test see it?
	@.venv/bin/mutmut run
	@.venv/bin/mutmut results

soak: setup  ## kill the pipeline 100 times, or KILLS=n; caches, interrupts, same bytes, Ray: 20 minutes
	@FLOWERS_KILLS=$(or $(KILLS),100) .venv/bin/python -m pytest -m soak -rP $(IN_PARALLEL)

lint: setup  ## check format, lint and types
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/mypy stages tools bench tests

LOCKS = requirements.txt requirements-hub.txt requirements-onnx.txt requirements-ray.txt

audit: upkeep  ## look up known vulnerabilities of every pinned package (needs a network)
	@.venv/bin/pip-audit --strict --require-hashes --disable-pip \
		$(LOCKS:%=-r %) -r requirements-upkeep.txt

sbom: upkeep  ## write sbom.json: every pinned package and its hashes, in CycloneDX's format
	@cat $(LOCKS) | PYTHONWARNINGS=ignore .venv/bin/cyclonedx-py requirements --pyproject pyproject.toml \
		--output-reproducible --output-file sbom.json -

licences: hub onnx ray upkeep  ## write the table of packages in docs/licences.md anew
	@sed -i '/^| Name/,$$d' docs/licences.md
	@.venv/bin/pip-licenses --no-version --with-system --format markdown \
		--packages $$(sed -n 's/==.*//p' $(LOCKS)) >> docs/licences.md

bench: setup  ## measure the pipeline against plain scripts and the machine's limit: some forty minutes
	@.venv/bin/python -m bench

bench-short: setup  ## the same on few images, for every change: four minutes on two quiet cores
	@.venv/bin/python -m bench --short

requirements: setup  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements.txt
	uv pip compile --group upkeep --constraint requirements.txt --universal --python-version 3.10 \
		--upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--no-annotate --quiet --output-file requirements-upkeep.txt
	for extra in hub onnx ray s3; do \
		uv pip compile pyproject.toml --extra dev --extra $$extra --constraint requirements.txt \
			--universal --python-version 3.10 --generate-hashes --no-emit-index-url \
			--no-emit-find-links --no-header --no-annotate --quiet \
			| awk 'NR==FNR {usual[$$0]; next} /==/ {new = !($$0 in usual)} new' requirements.txt - \
			> requirements-$$extra.txt || exit; \
	done
