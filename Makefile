# Everything one does with this repository. `make help` lists it. Needs GNU make and Python 3.11 or later, nothing else.
# Make sets up .venv by itself, from locks with hashes; whatever Python packages come from is the machine's own setting.

PYTHON ?= python3
CC     ?= cc
VENV   := .venv
PY     := $(VENV)/bin/python
ARGS   ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test nightly faults fuzz mutants check docs coverage bench soak lock audit clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.runtime ## run the gateway on 127.0.0.1:8000 (settings: the environment, then .env)
	@if [ -f .env ]; then given="$$(export -p)"; set -a; . ./.env; set +a; eval "$$given"; fi; \
	exec $(VENV)/bin/gateway serve $(ARGS)

test: $(VENV)/.dev $(VENV)/.system $(VENV)/.npm ## run all tests (ARGS="-k revoked -x" passes on to pytest)
	@$(VENV)/bin/pytest -q -n 2 --dist worksteal -m "not nightly" $(ARGS)

nightly: $(VENV)/.dev $(VENV)/.system ## run the tests that are too long for every commit
	@$(VENV)/bin/pytest -q -n 2 --dist worksteal -m nightly $(ARGS)

faults: $(VENV)/.dev ## run every row of the fault matrix (FAULTS_SEEDS=10: each with ten seeds; FAULTS_SEED=n: with that one)
	@$(VENV)/bin/pytest -q -n 2 --dist worksteal tests/faults $(ARGS)

fuzz: $(VENV)/.dev ## 100 000 mutated frames, thousands of drawn requests (FUZZ_SEED=n: those of that seed; FUZZ_FRAMES, FUZZ_EXAMPLES: how many)
	@export FUZZ_SEED="$${FUZZ_SEED:-$$($(PY) -c 'import secrets; print(secrets.randbits(32))')}"; echo "FUZZ_SEED=$$FUZZ_SEED"; \
	FUZZ_FRAMES="$${FUZZ_FRAMES:-100000}" FUZZ_EXAMPLES="$${FUZZ_EXAMPLES:-500}" $(VENV)/bin/pytest -q -n 2 --dist loadfile tests/fuzz $(ARGS)

mutants: $(VENV)/.dev ## break the gateway on purpose, see the tests notice, write the table into docs/reliability.md
	@$(PY) -m tests.mutants.run $(ARGS)

check: $(VENV)/.dev ## lint, formatting, types, the floors of the house, and whether the papers make a site
	@$(VENV)/bin/ruff check --quiet . && echo "ruff check   ok"
	@$(VENV)/bin/ruff format --quiet --check . && echo "ruff format  ok" || { echo "run: $(VENV)/bin/ruff format ."; exit 1; }
	@$(VENV)/bin/mypy --no-error-summary gateway tests benchmarks && echo "mypy         ok"
	@$(VENV)/bin/pytest -q tests/test_architecture.py
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/.dev ## the papers as a site, in docs/site/html; a link or an anchor that leads nowhere fails it
	@$(VENV)/bin/sphinx-build -q -W --keep-going -c docs/site -d docs/site/html/.doctrees . docs/site/html && echo "docs         ok: docs/site/html/index.html"

coverage: $(VENV)/.dev ## run all tests, say which lines and branches none of them took
	@$(VENV)/bin/pytest -q -n 2 --dist loadfile -m "not nightly" --cov --cov-report=term-missing:skip-covered $(ARGS)

bench: $(VENV)/.dev $(VENV)/.peers benchmarks/bin/load ## measure what docs/performance.md asks (QUICK=1: a short look; GROWTH=1: with 10 million rows too)
	@[ -d benchmarks/node_modules/ws ] || ! command -v npm >/dev/null || \
	  npm install --silent --no-save --no-package-lock --prefix benchmarks ws@8 >/dev/null 2>&1 || echo "npm could not install ws"
	@$(PY) -m benchmarks.run $(if $(QUICK),--quick) $(if $(GROWTH),--growth) $(ARGS)

soak: $(VENV)/.dev ## 5000 sockets in churn for MINUTES=30: memory, descriptors flat, nothing lost; fails if not
	@mkdir -p benchmarks/bin
	@$(PY) -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

lock: $(VENV)/.dev ## resolve the newest allowed versions into the lock files
	@command -v $(VENV)/bin/uv >/dev/null || { echo "make lock needs uv, which could not be installed into $(VENV)" >&2; exit 1; }
	@$(uv_index) set -x; \
	$(VENV)/bin/uv pip compile --quiet --upgrade $(lock_options) pyproject.toml -o requirements.lock; \
	$(VENV)/bin/uv pip compile --quiet --upgrade $(lock_options) -c requirements.lock --group dev --group docs pyproject.toml -o requirements-dev.lock

audit: $(VENV)/.dev ## ask whether anything is known against what the locks pin, but for what docs/security.md explains
	@$(uv_index) $(VENV)/bin/uv tool run --from pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  $$(sed -n 's/^| `\([A-Z][A-Z]*-[0-9a-z-]*\)` .*/--ignore-vuln \1/p' docs/security.md) -r requirements-dev.lock -r requirements-uv.lock $(ARGS)

clean: ## remove .venv, caches and what was built; never ./var, where the data lives
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov dist benchmarks/bin benchmarks/node_modules tests/support/npm/node_modules docs/site/html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

benchmarks/bin/%: benchmarks/%.c benchmarks/load_frames.h
	@mkdir -p $(@D)
	$(CC) -O2 -std=c11 -Wall -Wextra -Werror -o $@ $<

# -- setting up -----------------------------------------------------------------------------------------------------

lock_options := --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

# uv does not read pip's configuration: the index that pip was told to use, if any, is passed on.
uv_index = set -e; index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PY) -m pip config get global.index-url 2>/dev/null || true)}}"; \
	[ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index";

# $(call install,LOCK): uv takes seconds where pip takes a minute, but pip can do it alone.
define install
	@echo "installing what $(1) names into $(VENV) …"
	@$(uv_index) log=$(VENV)/install.log; \
	if ! { $(PY) -m pip install --quiet --require-hashes -r requirements-uv.lock && \
	       $(VENV)/bin/uv pip install --quiet --python $(PY) --require-hashes -r $(1); } >$$log 2>&1; then \
	  echo "  uv could not (see $$log): pip does it, which takes a little longer"; \
	  $(PY) -m pip install --quiet --require-hashes -r $(1); \
	fi
endef

# What tests want of the system beside Python. Where it cannot be installed those tests are skipped, and say so; on CI a
# skip for that reason is a failure. RUNLEVEL=1: Debian starts no service that it installs.
$(VENV)/.system: | $(PY)
	@missing=; for program in strace chromium nodejs npm nginx openssl; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" -eq 0 ]; then \
	  echo "installing$$missing, which some tests use …"; \
	  { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; } \
	    >$(VENV)/system.log 2>&1 || echo "$$missing could not be installed (see $(VENV)/system.log)" >&2; \
	else echo "some tests want$$missing, and are skipped without" >&2; fi
	@touch $@

# axe-core, which looks at pages for who cannot see them, and TypeScript, of the versions and hashes in the lock, from npm.
# Where it could not be had, a few tests are skipped (on CI they fail), and the next run tries again.
$(VENV)/.npm: tests/support/npm/package-lock.json | $(PY) $(VENV)/.system
	@if ! command -v npm >/dev/null; then echo "there is no npm to install axe-core and TypeScript with: a few tests go without" >&2; \
	elif npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/support/npm >$(VENV)/npm.log 2>&1; then touch $@; \
	else echo "npm could not install axe-core and TypeScript (see $(VENV)/npm.log): a few tests go without" >&2; fi

# A peer of the benchmarks. Without it they go on, and a bar that needs it counts as missed.
$(VENV)/.peers: | $(PY)
	@if [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" -eq 0 ]; then \
	  echo "installing nginx with nchan, which the gateway is compared with …"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nginx libnginx-mod-nchan; } \
	    >$(VENV)/peers.log 2>&1 || echo "nchan could not be installed (see $(VENV)/peers.log)" >&2; fi
	@touch $@

# The gateway runs from the checkout: one line puts it on the path, one script is the command.
define link
	@$(PY) -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "gateway-checkout.pth").write_text("$(CURDIR)\n")'
	@printf '%s\n' '#!/bin/sh' "'''exec' \"\$$(dirname \"\$$0\")/python\" \"\$$0\" \"\$$@\"" "' '''" \
	  'import sys' 'from gateway.cli import main' 'sys.exit(main())' > $(VENV)/bin/gateway
	@chmod 755 $(VENV)/bin/gateway
endef

$(VENV)/.runtime: requirements.lock requirements-uv.lock | $(PY)
	$(call install,requirements.lock)
	$(link)
	@touch $@

# The development lock holds the runtime lock, so nothing is left to do for .runtime after it.
$(VENV)/.dev: requirements-dev.lock requirements.lock requirements-uv.lock | $(PY)
	$(call install,requirements-dev.lock)
	$(link)
	@touch $(VENV)/.runtime $@

$(PY):
	@fits() { command -v "$$1" >/dev/null 2>&1 && "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 none; do ! fits $$python || break; done; \
	if [ $$python = none ]; then \
	  echo "The gateway needs Python 3.11 or later; none was found. Say where it is: make PYTHON=/path/to/python3.11 …" >&2; exit 1; fi; \
	echo "making $(VENV) with $$($$python --version) …"; \
	$$python -m venv $(VENV) >/dev/null 2>&1 \
	|| { rm -rf $(VENV); $$python -m venv --without-pip $(VENV) && $$python -m pip --quiet --python $(PY) install pip; } >/dev/null 2>&1 \
	|| { rm -rf $(VENV); $$python -m virtualenv --quiet $(VENV); } >/dev/null 2>&1 \
	|| { rm -rf $(VENV); uv venv --quiet --seed --python $$python $(VENV); } >/dev/null 2>&1 \
	|| { rm -rf $(VENV); echo "$$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv (or python3-pip)" >&2; exit 1; }
