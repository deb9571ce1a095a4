# make quickstart   environment, install, then the embedded example
# make test         environment and install if missing, then the suite
# make bench        peftune beside other trainers, which get an environment of their own
# make thorough     the same with the tests that take long
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles what it imports by itself; compiling every file of every package takes a minute more.
INSTALL := install -q --no-compile -c constraints.txt
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: quickstart test thorough bench lint install clean

quickstart: install
	accelerate launch peftune/run.py recipes/summarize.yaml

# Three workers, because tests wait for disks and for processes that they start; a file's tests stay
# together, because they share what is dear to set up.
test: install lint
	pytest -n 3 --dist loadfile --no-loadscope-reorder

thorough: install lint
	pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'thorough or not thorough'

lint: install
	ruff check .
	ruff format --check .
	mypy

install: $(VENV)/installed

# torch comes first: DeepSpeed's build asks for it, as seqeval's asks for setuptools-scm. The constraints hold the exact tested versions.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "peftune needs Python 3.11 or later; set PYTHON=" && exit 1)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) pip setuptools setuptools-scm wheel ninja packaging
	$(BIN)/pip $(INSTALL) torch
	$(BIN)/pip $(INSTALL) --no-build-isolation deepspeed
	$(BIN)/pip $(INSTALL) --no-build-isolation -e '.[dev]'
	touch $@

bench: install $(VENV)-peers/installed $(VENV)-peers-llamafactory/installed
	python benchmarks/compare.py --kind decoder --peers $(VENV)-peers --out benchmarks
	python benchmarks/compare.py --kind encoder --peers $(VENV)-peers --out benchmarks
	python benchmarks/compare.py --kind encoder-decoder --peers $(VENV)-peers --out benchmarks
	python benchmarks/compare.py --kind decoder --quantization bnb-nf4 --peers $(VENV)-peers --out benchmarks
	python benchmarks/compare.py --kind decoder --quantization bnb-int8 --peers $(VENV)-peers --out benchmarks

# Other trainers on the versions of everything that they share with peftune.
$(VENV)-peers/installed: constraints.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip $(INSTALL) pip setuptools wheel
	$(VENV)-peers/bin/pip $(INSTALL) torch
	$(VENV)-peers/bin/pip $(INSTALL) trl==1.16.0 transformers peft accelerate bitsandbytes datasets
	touch $@

# LLaMA-Factory asks for older versions of what the others share, so it has an environment of its own.
$(VENV)-peers-llamafactory/installed: constraints.txt
	$(PYTHON) -m venv $(VENV)-peers-llamafactory
	$(VENV)-peers-llamafactory/bin/pip $(INSTALL) torch
	$(VENV)-peers-llamafactory/bin/pip install -q torch==2.13.0 llamafactory==0.9.5
	$(VENV)-peers-llamafactory/bin/pip uninstall -q -y torchvision torchaudio
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-peers $(VENV)-peers-llamafactory build outputs
