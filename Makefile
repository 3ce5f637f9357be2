# Everything a developer or a CI machine does here. `make help` lists it.
PYTHON ?= python3
BOXES ?= 1
STAGES ?= lint types sanity unit docs browser monitoring integration molecule faults fleet e2e

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
# Without it Molecule advises at every run to move the scenarios.
export MOLECULE_GLOB := molecule/*/molecule.yml

LAB = .venv/bin/python tests/sim/lab.py
# More than one box gets a gateway before it.
FLEET = $(if $(filter-out 1,$(BOXES)),--gateway)
# Three real vLLMs are too much for two cores.
DEMO = $(if $(FLEET),@tests/sim/demo_fleet.yml,recipe_name=gemma4-tiny-cpu)
VENV = .venv/.installed
pytest = .venv/bin/pytest $(1)

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-rollout demo-down sim sim-down engine test lint types sanity unit docs browser monitoring integration molecule faults fleet test-faults e2e bench-noop bench-fleet bench-proof bench-download bench-supply build clean

help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

venv: $(VENV) ## make .venv: what a controller and a developer need (PYTHON=python3.12 picks another)

$(VENV): requirements-dev.txt tools/make_venv.py
	$(PYTHON) tools/make_venv.py
	@touch $@

demo: engine ## a simulated Spark becomes a proven endpoint that serves a tiny Gemma 4; BOXES=3: a fleet behind a gateway, and a rollout under load
	$(LAB) up --boxes $(BOXES) $(if $(FLEET),$(FLEET) --no-real-vllm)
	ansible-playbook playbooks/gemma4.yml -i inventories/sim -e $(DEMO)
	$(if $(FLEET),@$(MAKE) --no-print-directory demo-rollout)

demo-rollout: $(VENV) ## a changed flag goes to the demo's fleet, box by box, while clients ask; the last line says how their streams ended
	OPENAI_API_KEY=$$(cat inventories/sim/.gemma4.api_key) .venv/bin/python -m tests.load http://172.30.99.5:8000 --streams 9 --tok-s 52 \
	  --during ansible-playbook playbooks/gemma4.yml -i inventories/sim -e @tests/sim/demo_fleet.yml -e '{"vllm_extra_args": {"max-num-seqs": 64}}'

demo-down: ## take the demo away, with all that it made but the caches
	$(if $(wildcard $(VENV)),$(LAB) down)

sim: engine ## bring up BOXES=n simulated Sparks and what surrounds them
	$(LAB) up --boxes $(BOXES)

sim-down: demo-down ## take the simulated Sparks away

engine: $(VENV)
	$(LAB) engine

test: $(VENV) ## run all of the following up to e2e, and say what each took
	@.venv/bin/python tools/stages.py $(STAGES)

lint: $(VENV) ## ruff, yamllint, ansible-lint
	ruff check --output-format concise .
	ruff format --check .
	yamllint --strict .
	ansible-lint --nocolor -q

types: $(VENV) ## mypy
	mypy

sanity: $(VENV) ## ansible-test sanity, without an ignore file (ARGS="--test pep8" for a part)
	.venv/bin/python tools/run_ansible_test.py sanity $(ARGS)

unit: engine ## pure logic, modules against fakes, and what the collection promises of itself
	$(call pytest,tests/unit --numprocesses 2)

docs: $(VENV) ## the documentation of every plugin, role and module renders
	antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .

browser: $(VENV) ## the report's page in a headless Chromium, which it installs when there is none
	.venv/bin/python tests/browser/chromium.py
	$(call pytest,tests/browser)

monitoring: $(VENV) ## alerts and dashboard in Prometheus, which it unpacks when there is none
	.venv/bin/python tests/monitoring/promtool.py
	$(call pytest,tests/monitoring)

integration: engine ## modules against a real Docker engine, the gateway with a real HAProxy (installed when there is none)
	$(call pytest,tests/integration --numprocesses 2 --dist loadfile)

molecule: engine ## roles and the whole playbook on the simulated Sparks
	# What an interrupted run left counts as created, and is not there any more.
	molecule destroy --scenario-name default >/dev/null
	molecule test --all --workers 2 --continue-on-failure

faults: engine ## bad input and bad luck on two simulated Sparks at a time
	$(call pytest,tests/faults -m "not long" --numprocesses 2 --dist worksteal)

fleet: engine ## rollouts to four simulated Sparks behind a gateway under load, good ones and bad ones
	$(call pytest,tests/fleet -m "not long")

test-faults: engine ## every row of docs/reliability.md on the lab, the long ones too (an hour)
	$(call pytest,tests/faults --numprocesses 2 --dist worksteal)
	$(call pytest,tests/fleet)

e2e: engine ## the demo, as a user runs it: the real vLLM on a CPU
	$(call pytest,tests/e2e)

bench-noop: engine ## what a run costs that has nothing to do
	.venv/bin/python tests/benchmarks/noop.py

bench-fleet: engine ## the same for 1, 4, 16 and 100 boxes, beside a plain role, pyinfra and compose (SIZES="1 4" for a part); then a rollout's own time
	PYTHONPATH=.:.collections:tests .venv/bin/python -m benchmarks.fleet $(SIZES)
	PYTHONPATH=.:.collections:tests .venv/bin/python -m benchmarks.rollout

bench-proof: engine ## how exact the proof is, beside other clients (PARTS="ours peers real log")
	PYTHONPATH=.:.collections:tests .venv/bin/python -m benchmarks.proof $(PARTS)

bench-download: $(VENV) ## one download beside `hf download` over HTTP and Xet: unlimited, on a link, killed there at the half (25 minutes; PARTS="loopback link killed")
	.venv/bin/python tests/benchmarks/download.py

bench-supply: $(VENV) ## a fleet's download on shaped links, beside `hf download` and a star of rsync (half an hour; root, tc, rsync)
	.venv/bin/python tests/benchmarks/supply.py

build: $(VENV) ## the collection's archive, in .cache/build
	ansible-galaxy collection build --force --output-path .cache/build

clean: ## remove the lab, the caches and the environment
	$(if $(wildcard $(VENV)),$(LAB) down --all)
	rm -rf .cache .ansible .venv reports
