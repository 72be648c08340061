.PHONY: check test test-all docs

check:  ## lint, format, spelling, types
	ruff check .
	ruff format --check .
	codespell
	pyright

test:  ## the fast tier
	pytest -m "not slow and not browser and not weights and not gpu" --durations=10

test-all:  ## every test that this machine can run
	pytest

docs:  ## the documentation site, in build/docs
	mkdocs build --strict
