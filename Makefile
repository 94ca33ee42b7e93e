# Each target sets up what it needs in .venv; nothing has to be installed by hand but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE := $(VENV)/site
SOURCES := $(shell find cli serve tune compress export benchmarks -name '*.py' -o -name '*.jinja')

.PHONY: demo test test-servers test-long test-faults soak lint bench performance performance-gpu training serving language-models docs clean

# What the package and its extras need, a line each: installed without building the package, which comes next.
define REQUIREMENTS
import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = [project["optional-dependencies"][name] for name in ("build", "llm", "review", "sweep", "serve", "sign", "demo", "dev")]; \
print(*project["dependencies"], *(line for extra in extras for line in extra), sep="\n")
endef

# torch first and by its exact version: left to itself pip may fetch gigabytes of CUDA libraries.
# Compiled behind pip, by all cores where pip takes one; some packages hold templates that are no Python.
$(VENV)/dependencies: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c '$(REQUIREMENTS)' > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --requirement $(VENV)/requirements.txt
	$(BIN)/python -m compileall -qq -j 0 -x /tests/ $(VENV)/lib || true
	touch $@

# The tests run on the installed package, as a user has it, and not on the folders of the checkout.
$(VENV)/installed: $(VENV)/dependencies $(SOURCES)
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall .
	rm -rf build
	touch $@

demo: $(VENV)/installed
	$(BIN)/edgetune build examples/demo.yaml
	$(BIN)/edgetune predict bundles/demo "where is my parcel" "you charged me twice!!"

test: lint
	$(BIN)/pytest -n 2 --dist worksteal -m 'not gpu and not servers and not soak and not long and not faults'

# Other people's servers, really started on what `edgetune pack` writes: minutes, and downloads by pip and npm.
test-servers: $(VENV)/installed
	$(BIN)/pytest -m servers

# What takes minutes together: every model family with every profile, every method stopped, other tools' builders.
test-long: $(VENV)/installed
	$(BIN)/pytest -n 2 -m 'long and not gpu and not servers'

# Damage of every file, kills, full disks, fuzzed input: an hour at most. `make test` has one example of each.
test-faults: $(VENV)/installed
	$(BIN)/pytest -n 2 --dist worksteal -m 'faults and not gpu' --junitxml=$(VENV)/faults.xml

# An hour of twice the load that the server can answer.
soak: $(VENV)/installed
	$(BIN)/pytest -m soak

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd $(VENV) && MYPY_NUM_WORKERS=2 bin/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache  # beside the checkout mypy sees half
	$(BIN)/mypy -p benchmarks.lab --cache-dir .mypy_cache  # the cache of the line above: else all is read again

# DATA is a folder with the public data sets; none is shipped.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.lab.real_data --data $(DATA) --markdown docs/measurements/real-data.md

# What must be reached: DATA as above; ENVS where benchmarks/peers/setup.py made the other tools' things.
performance: $(VENV)/installed
	$(BIN)/python -m benchmarks.lab.performance $(if $(DATA),--data $(DATA)) $(if $(ENVS),--envs $(ENVS)) \
	  --markdown docs/measurements/performance.md

# The same on an NVIDIA GPU, for the work folder WORK of a finished build; without one it says what it would measure.
performance-gpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.lab.performance_gpu --work $(WORK) --markdown docs/measurements/performance-gpu.md

# Seconds, memory and accuracy of each tuning method beside a naive script.
training: $(VENV)/installed
	$(BIN)/python -m benchmarks.lab.training $(if $(DATA),--data $(DATA)) --markdown docs/measurements/performance.md

# Servers under load, for the bundle BUNDLE and the column `text` of TEXTS; ENVS and BASE as benchmarks/peers/README.md says.
serving: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[plots]'
	$(BIN)/python -m benchmarks.lab.serve_load --bundle $(BUNDLE) --texts $(TEXTS) \
	  $(if $(ENVS),--envs $(ENVS) --base $(BASE)) --soak 600 --markdown docs/measurements/serving.md

# How fast random models in the shapes of seven families decode, beside PyTorch and onnxruntime-genai.
language-models: $(VENV)/installed
	$(BIN)/python -m benchmarks.lab.language.language_models --markdown docs/measurements/language-models.md

# The documentation as a site, in site/. Its packages stay out of the tests' environment, and it needs no torch.
$(SITE)/installed: pyproject.toml constraints.txt $(SOURCES)
	test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	rm -rf build
	$(SITE)/bin/python -m pip install --quiet --constraint constraints.txt --force-reinstall --no-deps .
	$(SITE)/bin/python -m pip install --quiet --constraint constraints.txt 'edgetune[docs]'
	rm -rf build
	touch $@

docs: $(SITE)/installed
	$(SITE)/bin/mkdocs build --strict --quiet

clean:
	rm -rf build dist site *.egg-info
