# `make book` and `make test` need Python >= 3.11, git and nothing else; `make clean` removes what they made.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: book pdf quick test bench growth draws live device clean

book: .venv/ready
	$(BIN)/jupyter-book build book/ -n -W --keep-going
	@echo "The book: $(CURDIR)/book/_build/html/index.html"

# The whole book on paper, by way of Chromium.
pdf: book
	$(BIN)/python book/printed.py

# One thread a process: two processes with two threads each on two cores run ten times slower.
quick test: export OMP_NUM_THREADS = 1
# Style, types and the library's tests, but for those of whole programs.
quick: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest tests -m "not slow" -n auto --maxprocesses 4 --dist loadscope

# Everything: with each notebook against its stored outputs, and the book in a browser.
test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest --nbval -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

bench: .venv/ready
	$(BIN)/python benchmarks/training.py

# What the book's page on cost shows.
growth: .venv/ready
	$(BIN)/python benchmarks/training.py --record
	$(BIN)/python benchmarks/growth.py

# How many verdicts hang on the draws: the pages with the paper's claims, with another seed. A quarter of an hour.
draws: export OMP_NUM_THREADS = 1
draws: .venv/ready
	$(BIN)/python benchmarks/draws.py

# The same, of the live page of the built book.
live: book
	$(BIN)/python benchmarks/live.py

# For a machine with CUDA: its tests, and the training of every ensemble of the paper's conditions.
device: .venv/ready
	$(BIN)/python benchmarks/device.py

# The file is touched last: an installation that was interrupted is taken up again.
.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python >= 3.11, got " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

clean:
	rm -rf .venv build book/_build
