# Everything a developer or CI calls; the steps themselves are in scripts/.
python := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help demo install setup lock test test-unit faults check format docs bench soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## watch a campaign under attack, on this machine alone, in under two minutes (args="--help")
	@scripts/setup.sh program
	@.venv/bin/woolwatch demo $(args)

install: ## make .venv with the woolwatch command, and nothing for tests: needs Python alone
	@scripts/setup.sh program

setup: ## make .venv with the woolwatch command and install all that the machine lacks
	@scripts/setup.sh

lock: setup ## write requirements.lock anew from pyproject.toml (needs uv)
	@scripts/lock.sh

# Two at a time, each with services of its own: most of a test's time is spent waiting for a broker or a worker.
test: setup ## run every test, on a real Kafka and a real Redis (args="-k name" for some)
	@$(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(args)

test-unit: setup ## run the tests that need no service
	@$(python) -m pytest -m "not integration and not faults" $(args)

faults: setup ## run every fault test, two at a time, half an hour, with a table at the end
	@$(python) -m pytest tests/faults -m faults --numprocesses 2 --dist loadfile --no-loadscope-reorder $(args)

check: setup ## check form, types and layers
	@scripts/check.sh

format: setup ## bring the code into form
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format .

docs: setup ## write docs/CONFIG.md, TABLES.md and METRICS.md anew from the code
	@$(python) -m scripts.write_docs

bench: setup ## measure the speed beside a bare consumer
	@$(python) -m benchmarks $(args)

soak: setup ## run at half speed for 20 minutes, a worker killed in each (args="--minutes 60")
	@$(python) -m benchmarks.soak $(args)

clean: ## remove what was built or cached, .venv included
	@scripts/clean.sh
