# Two commands do everything: `make run` and `make test`. Each sets up what it needs in .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LOCKS := envs/locks
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
# Compiled once here, not by every job: importing torch and transformers takes half as long where jobs may not write it.
UV := VIRTUAL_ENV="$(CURDIR)/$(VENV)" UV_COMPILE_BYTECODE=1 $(BIN)/uv

# torch's CPU build is hashed for 64-bit x86 Linux; elsewhere its version alone is pinned.
MACHINE := $(shell uname -s)-$(shell uname -m)
TORCH := $(if $(filter Linux-x86_64,$(MACHINE)),--require-hashes -r $(LOCKS)/torch-cpu.txt,torch==2.13.0)

.PHONY: help
help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

.PHONY: run
run: setup  ## convert, prove and benchmark every model of config.yaml
	$(IN_VENV) snakemake --cores all

.PHONY: setup
setup: $(VENV)/run.done  ## create .venv with what the pipeline needs

.PHONY: setup-dev
setup-dev: $(VENV)/dev.done  ## the same, with what the tests and linters need

.PHONY: setup-optimum
setup-optimum: .venv-optimum/done  ## create .venv-optimum, the environment of the second exporter

# Most tests keep one core busy; each worker needs up to 2 GB of memory.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: test
test: setup-dev  ## the tests, without the slow ones
	$(IN_VENV) pytest $(PARALLEL) -m "not slow"

.PHONY: test-slow
test-slow: setup-dev  ## the slow proofs: the real models, a fresh clone
	$(IN_VENV) pytest $(PARALLEL) -m "slow and not long"

.PHONY: test-long
test-long: setup-dev  ## the longest proofs: injected faults, no network, the Hub from start to end
	$(IN_VENV) pytest -m long

.PHONY: setup-signing
setup-signing: .venv-model-signing/done  ## create .venv-model-signing, for `attest.py --private-key` and `verify_release.py --public-key`

.PHONY: setup-evaluation
setup-evaluation: $(VENV)/evaluation.done  ## add the metrics of labelled data beside those of scikit-learn, and Parquet

.PHONY: setup-cluster
setup-cluster: $(VENV)/cluster.done  ## add what runs on Slurm or Kubernetes, and results on S3, need

.PHONY: test-slurm
test-slurm: setup-dev setup-cluster  ## the workflow on a real Slurm cluster of one node; needs root and Debian's packages
	$(IN_VENV) pytest -s -rs tests/integration/test_slurm.py $(if $(ONLY),-k $(ONLY))

.PHONY: test-s3
test-s3: setup-dev setup-cluster  ## the workflow with its results in a local S3 server
	$(IN_VENV) S3_SERVER="$(CURDIR)/$(BIN)/uv tool run --quiet --from moto[server]==5.2.5 moto_server" \
	  pytest -rs tests/integration/test_s3.py

.PHONY: container
container:  ## build the image that `snakemake --sdm apptainer` uses; needs docker and apptainer
	docker build --tag onnxproof .
	apptainer build --force envs/onnxproof.sif docker-daemon://onnxproof:latest

.PHONY: bench-accuracy
bench-accuracy: setup  ## compare our int8 with the public tools' on the real MiniLM; rewrites docs/accuracy.md
	$(IN_VENV) snakemake --cores all -- $(addprefix results/$(MINILM)/,reference.json onnx/int8.json onnx/int8-invariant.json)
	$(IN_VENV) python tools/compare_quantizers.py --model $(MINILM) --results results/$(MINILM) \
	  --json results/$(MINILM)/compare-quantizers.json --table docs/accuracy.md
MINILM := all-MiniLM-L6-v2

# Peers have environments of their own: they would replace packages of the pipeline's. BENCH=--quick is enough to try it.
PEERS := openvino $(if $(filter Linux-x86_64,$(MACHINE)),onnxruntime-openvino)

.PHONY: bench
bench: setup $(PEERS:%=.venv-%/done)  ## compare our files with other runtimes and this CPU's limit; rewrites docs/runtimes.md
	$(IN_VENV) snakemake --cores all -- $(addprefix results/$(MINILM)/onnx/,int8.json int8-invariant.json int8-static.json)
	$(IN_VENV) python tools/compare_runtimes.py --table docs/runtimes.md $(BENCH) \
	  $(foreach peer,$(PEERS),--$(peer) .venv-$(peer)/bin/python)

# LLAMA=llama-cpp adds llama.cpp, which is built from source: it takes cmake, a compiler, and half an hour on two cores.
WRITERS := openvino onnxruntime-genai $(LLAMA)

.PHONY: bench-blocks
bench-blocks: setup $(LLAMA:%=.venv-%/done)  ## compare our rounding of weights to 4 bits with onnxruntime's, on the trained language model; rewrites docs/blocks.md
	$(IN_VENV) snakemake --cores all --configfile examples/story-teller.yaml -- \
	  $(addprefix results/story-teller-tiny/,reference.json onnx/optimized.json)
	$(IN_VENV) python tools/compare_blocks.py --results results/story-teller-tiny \
	  --texts examples/story-calibration.jsonl --table docs/blocks.md $(if $(LLAMA),--llama-cpp .venv-llama-cpp/bin/python)

.PHONY: bench-generators
bench-generators: setup $(WRITERS:%=.venv-%/done)  ## compare how fast our variants of a language model write with public tools; rewrites docs/generators.md
	$(IN_VENV) python tools/compare_generators.py --table docs/generators.md $(BENCH) \
	  $(foreach peer,$(WRITERS),--$(peer) .venv-$(peer)/bin/python)

# Tools that quantize with fixed scales. AMD Quark has wheels for Linux and Windows.
QUANTIZERS := openvino optimum olive neural-compressor $(if $(filter Linux-x86_64,$(MACHINE)),amd-quark)

.PHONY: bench-static
bench-static: setup $(QUANTIZERS:%=.venv-%/done)  ## compare our int8 with fixed scales with the public tools'; rewrites docs/static.md
	$(IN_VENV) snakemake --cores all -- $(patsubst %,results/%/onnx/int8-static.json,$(MINILM) star-rating-tiny)
	$(IN_VENV) python tools/compare_static.py --table docs/static.md $(BENCH) \
	  $(foreach tool,$(QUANTIZERS),--$(tool) .venv-$(tool)/bin/python)

.venv-%/done: envs/peers/%.txt $(VENV)/uv.done
	"$(PYTHON)" -m venv .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --no-deps --require-hashes -r $<
	@touch $@

# Without the part for images, which the comparisons do not need.
.venv-llama-cpp/done: envs/peers/llama-cpp.txt $(VENV)/uv.done
	"$(PYTHON)" -m venv $(@D)
	CMAKE_ARGS="-DLLAVA_BUILD=OFF $(CMAKE_ARGS)" \
	  $(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps --require-hashes -r $< \
	  || { echo "error: llama.cpp was not built: it takes cmake and a compiler of C++, see above; leave LLAMA=llama-cpp out" >&2; exit 1; }
	@touch $@

# An environment with a lock and torch. torch comes first, as in torch.done.
define WITH_TORCH
"$(PYTHON)" -m venv $(@D)
$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(TORCH) 2>/dev/null \
  || $(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps --torch-backend cpu $(TORCH)
UV_COMPILE_BYTECODE=1 $(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps --require-hashes -r $<
@$(BIN)/uv pip check --quiet --python $(@D)/bin/python
@touch $@
endef

# An environment of its own, because optimum-onnx needs an older transformers.
.venv-optimum/done: envs/exporters/optimum.txt $(LOCKS)/torch-cpu.txt $(VENV)/uv.done
	$(WITH_TORCH)

.venv-olive/done .venv-amd-quark/done: .venv-%/done: envs/peers/%.txt $(LOCKS)/torch-cpu.txt $(VENV)/uv.done
	$(WITH_TORCH)

.PHONY: bench-pipeline
bench-pipeline: setup  ## compare what the pipeline costs with the public commands; rewrites docs/pipeline-cost.md
	$(IN_VENV) snakemake --cores all -- results/$(MINILM)/source.json
	$(IN_VENV) python tools/compare_pipelines.py --snapshot results/$(MINILM)/source $(BENCH) \
	  --json results/compare-pipelines.json --table docs/pipeline-cost.md

.PHONY: bench-scale
bench-scale: setup-dev  ## plan 1,000 models and convert 200 tiny ones in one run; rewrites docs/many-models.md
	$(BIN)/python tools/measure_scale.py --table docs/many-models.md $(BENCH)

.PHONY: bench-memory
bench-memory: setup-dev  ## print the memory that each rule takes for models of several sizes, for onnxproof/engine/resources.py
	$(BIN)/python tools/measure_memory.py

.PHONY: coverage
# ALSO="fp16 int8-static" makes these variants of each case too.
coverage: setup-dev  ## run every supported architecture and task through the chain, into docs/coverage.md
	$(BIN)/python tools/coverage_matrix.py $(if $(ALSO),--also $(ALSO)) --output docs/coverage.md

.PHONY: audit-page
audit-page: setup-dev setup-optimum .venv-olive/done  ## audit what public tools make of three models; rewrites docs/audit.md
	$(BIN)/python tools/audit_public_tools.py --work results/audits/public-tools --olive .venv-olive/bin/python --benchmark

.PHONY: clients
clients: setup-dev setup-optimum $(VENV)/clients.done  ## compare what each client answers from a release; rewrites docs/clients.md; needs Node
	$(BIN)/python tools/compare_clients.py --output docs/clients.md \
	  --optimum .venv-optimum/bin/python --node-modules $(VENV)/clients/node_modules --fastembed $(VENV)/clients/fastembed/bin/python
	$(IN_VENV) python tools/final_clients.py --output docs/clients.md \
	  --optimum .venv-optimum/bin/python --node-modules $(VENV)/clients/node_modules

.PHONY: setup-browser
setup-browser: setup $(VENV)/clients/browser.done  ## install transformers.js, for parity.browser; needs npm

.PHONY: browser
browser: setup-dev setup-browser  ## run every dtype in Node and Chromium; rewrites the table of docs/browser.md
	$(IN_VENV) python tools/browser_table.py --output docs/browser.md

$(VENV)/clients/browser.done: $(VENV)/uv.done
	npm install --prefix $(VENV)/clients --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.1
	@touch $@

# Without npm's scripts: onnxruntime-node would fetch GPU libraries; the one for CPUs is in the package.
$(VENV)/clients.done: $(VENV)/uv.done
	npm install --prefix $(VENV)/clients --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.1
	"$(PYTHON)" -m venv $(VENV)/clients/fastembed
	$(BIN)/uv pip install --quiet --python $(VENV)/clients/fastembed/bin/python fastembed==0.9.1
	@touch $@

.PHONY: lint
lint: setup-dev  ## style, types, imports, spelling, workflow lint
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy
	cd workflow/scripts && PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports --no-cache ../../pyproject.toml
	$(IN_VENV) codespell
	$(IN_VENV) snakefmt --check Snakefile workflow/rules
	$(IN_VENV) snakemake --lint

.PHONY: test-faults
test-faults: setup-dev  ## kill two hundred jobs at random moments and compare what the next run makes
	$(IN_VENV) FAULTS=$${FAULTS:-200} pytest -m slow -s tests/integration/test_interruptions.py

.PHONY: fuzz
fuzz: setup-dev  ## feed a hundred times more malformed configurations, snapshots and manifests than `make test` does
	$(IN_VENV) FUZZ=$${FUZZ:-100} pytest -k "mutated or any or passes_the_check" tests/unit/config/test_any_configuration.py tests/unit/checkpoint/test_untrusted.py

.PHONY: reproduce
reproduce: setup-dev  ## run two clones in different surroundings and compare every file they make
	$(IN_VENV) python tools/reproduction.py reproduce

.PHONY: golden
golden: setup-dev  ## record the bytes of the default models anew, after a change that is meant to alter them
	$(IN_VENV) python tools/reproduction.py golden

.PHONY: messages
messages: setup-dev  ## write the golden texts of error messages anew, tests/messages/, for reading what changed
	rm -rf tests/messages
	$(IN_VENV) ONNXPROOF_WRITE_MESSAGES=1 pytest -q $$(grep -rlE "^from messages import" tests)

.PHONY: schemas
schemas: setup-dev  ## write the JSON Schemas of the pipeline's files, docs/schemas/, and docs/records.md
	$(IN_VENV) python tools/write_schemas.py

.PHONY: licenses
licenses: setup-dev  ## list the dependencies' licences in docs/licenses.md
	$(IN_VENV) python tools/licenses.py

.PHONY: audit
audit: setup-dev  ## look the locked versions up in the public advisories; fails where they cannot be asked
	$(UV) tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes -r $(LOCKS)/run.txt
	-$(UV) tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes -r envs/exporters/optimum.txt

.PHONY: lock
lock: $(VENV)/uv.done  ## resolve the dependencies of pyproject.toml again and rewrite the hashed locks
	$(UV) pip compile pyproject.toml $(COMPILE) -o $(LOCKS)/run.txt
	$(UV) pip compile pyproject.toml --group evaluation $(COMPILE) -o $(LOCKS)/evaluation.txt
	$(UV) pip compile pyproject.toml --group dev $(COMPILE) -o $(LOCKS)/dev.txt
	for peer in peers/openvino peers/onnxruntime-openvino peers/onnxruntime-genai peers/llama-cpp peers/model-signing \
	  peers/neural-compressor peers/olive exporters/optimum; do \
	  $(UV) pip compile envs/$$peer.in $(COMPILE) -o envs/$$peer.txt; done
	$(UV) pip compile envs/peers/amd-quark.in --override envs/peers/no-torch.override $(COMPILE) -o envs/peers/amd-quark.txt
	$(UV) pip compile pyproject.toml --group cluster $(COMPILE) -o $(LOCKS)/cluster.txt
COMPILE := --universal --python-version 3.11 --generate-hashes --no-emit-package torch --no-header --no-annotate --quiet

$(VENV)/uv.done: $(LOCKS)/uv.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; v == (3, 11) or sys.exit("error: Python 3.11 is needed, $(PYTHON) is %d.%d; name another one: make PYTHON=/path/to/python3.11" % v)'
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCKS)/uv.txt
	@touch $@

# Whatever pip is configured to look at (an index, a folder of wheels) is asked for torch first.
$(VENV)/torch.done: $(LOCKS)/torch-cpu.txt $(VENV)/uv.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(TORCH) 2>/dev/null \
	  || $(UV) pip install --quiet --no-deps --torch-backend cpu $(TORCH)
	@touch $@

$(VENV)/run.done: $(LOCKS)/run.txt $(VENV)/torch.done
	$(UV) pip install --quiet --no-deps --require-hashes -r $(LOCKS)/run.txt
	@$(UV) pip check --quiet
	@touch $@

$(VENV)/dev.done: $(LOCKS)/dev.txt $(VENV)/torch.done
	$(UV) pip install --quiet --no-deps --require-hashes -r $(LOCKS)/dev.txt
	@$(UV) pip check --quiet
	@touch $@

$(VENV)/evaluation.done: $(LOCKS)/evaluation.txt $(VENV)/run.done
	$(UV) pip install --quiet --no-deps --require-hashes -r $(LOCKS)/evaluation.txt
	@$(UV) pip check --quiet
	@touch $@

# Not part of the others: boto3 asks for an older python-dateutil than they have.
$(VENV)/cluster.done: $(LOCKS)/cluster.txt $(VENV)/run.done
	$(UV) pip install --quiet --no-deps --require-hashes -r $(LOCKS)/cluster.txt
	@$(UV) pip check --quiet
	@touch $@
