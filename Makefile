# The one door: `make demo` and `make test` do all the set-up they need; a second run is quick.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ROOTS := runtime device_agent converter fleet benchmarks cli
# Every install, and every build environment inside one, takes the versions that were tried.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
JUNIT ?= build/tests.xml
JUNIT_HEAVY ?= build/tests-heavy.xml
JUNIT_ARM ?= build/tests-arm.xml

.PHONY: help setup setup-heavy demo test test-heavy test-arm lint format bench wheel-check mosquitto servers strace systemd sshd clean

help:
	@echo "make demo        the whole way on this machine, about a minute after set-up"
	@echo "make test        all tests that need no torch, Keras or TensorFlow"
	@echo "make test-heavy  the tests that do (installs about 3 GB)"
	@echo "make test-arm    the agent on emulated 64-bit and 32-bit ARM (as root)"
	@echo "make lint        ruff, mypy strict, layer table"
	@echo "make bench       the figures, into benchmarks/results/"
	@echo "make wheel-check builds the wheel and starts the agent from it in an empty environment"

setup: .venv/setup-done
setup-heavy: .venv/setup-heavy-done

.venv/setup-done: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: python3.11 was not found"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@

.venv/setup-heavy-done: .venv/setup-done
	# torch first and alone: a plain `torch` would pull gigabytes of CUDA
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[torch,keras,tensorflow]'
	@touch $@

demo: setup
	$(BIN)/edgepack demo

# Tests talk to a real broker. Without the right to install one, those tests say that they skip.
mosquitto:
	@command -v mosquitto >/dev/null || test -x /usr/sbin/mosquitto \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq mosquitto >/dev/null; } \
	|| echo "mosquitto is not installed: its tests are skipped (apt-get install mosquitto)"

# A web server and a registry, likewise; tests start them themselves, on loopback.
servers:
	@{ command -v nginx >/dev/null || test -x /usr/sbin/nginx; } && command -v docker-registry >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq nginx-light docker-registry >/dev/null; } \
	|| echo "nginx or docker-registry is not installed: their tests are skipped (apt-get install nginx-light docker-registry)"

# The tests of power cuts record system calls.
strace:
	@command -v strace >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq strace >/dev/null; } \
	|| echo "strace is not installed: its tests are skipped (apt-get install strace)"

# systemd's own check of the unit.
systemd:
	@command -v systemd-analyze >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq systemd >/dev/null; } \
	|| echo "systemd-analyze is not installed: its test is skipped (apt-get install systemd)"

# Devices to log in to: a sshd over this machine's files, in namespaces of the tests' own.
sshd:
	@{ test -x /usr/sbin/sshd && command -v sudo >/dev/null && command -v ssh >/dev/null; } \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && .ci/install_sshd.sh; } \
	|| echo "sshd or sudo is not installed: tests of edgepack setup are skipped (apt-get install openssh-server sudo)"
	@.ci/has_namespaces.sh || echo "no right to namespaces: tests of edgepack setup are skipped (run as root)"

test: setup mosquitto servers strace systemd sshd
	@mkdir -p build
	@{ command -v nginx >/dev/null || test -x /usr/sbin/nginx; } && command -v docker-registry >/dev/null || export EDGEPACK_WITHOUT_SERVERS=1; \
	if command -v mosquitto >/dev/null || test -x /usr/sbin/mosquitto; then :; else export EDGEPACK_WITHOUT_MOSQUITTO=1; fi; \
	if command -v strace >/dev/null; then :; else export EDGEPACK_WITHOUT_STRACE=1; fi; \
	if command -v systemd-analyze >/dev/null; then :; else export EDGEPACK_WITHOUT_SYSTEMD=1; fi; \
	if test -x /usr/sbin/sshd && command -v sudo >/dev/null && .ci/has_namespaces.sh; then :; else export EDGEPACK_WITHOUT_SSHD=1; fi; \
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not heavy and not arm" --junitxml=$(JUNIT)

test-heavy: setup-heavy
	@mkdir -p build
	$(BIN)/python -m pytest -q -m heavy --junitxml=$(JUNIT_HEAVY)

# 64-bit and 32-bit ARM in Debian roots under an emulator: minutes, and not part of `.ci/run`.
test-arm: setup-heavy mosquitto
	@mkdir -p build
	@$(BIN)/python .ci/arm_roots.py
	@$(BIN)/python -m pytest -q -m arm tests/arm --junitxml=$(JUNIT_ARM)

lint: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(ROOTS)
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup mosquitto servers
	$(BIN)/python -m edgepack.bench.figures

wheel-check: setup
	$(BIN)/python .ci/check_wheel.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
