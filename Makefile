# Every target first sees to it that what it needs is there (tests/setup/setup.sh); `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup build run test lint bench lab demo image dist fuzz drill
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
SETUP := @tests/setup/setup.sh
STATE := $(or $(XDG_STATE_HOME),$(HOME)/.local/state)/wharf
# What `make run` and `make demo` hand on: make run ARGS='--dns 127.0.0.1:5353'
ARGS ?=
# With the examples, so that dependencies are built once, with what tests want of them, and not once more for them.
BUILD := $(CARGO) build --locked --bins --examples

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
	  printf '%-14s %s\n' "$$name" "$$text"; done

setup: ## install what all of the others need (Debian, as root; elsewhere: say what is missing)
	$(SETUP) test lint bench lab demo

build: ## build the program (target/debug/wharf)
	$(SETUP) build
	$(BUILD)

run: ## build it and run it on this host's Docker, with the embedded store
	$(SETUP) --engine build
	$(BUILD)
	@mkdir -p '$(STATE)'
	@# The shell gives way to the agent, so that Ctrl-C and kill reach it directly.
	@test -n "$$DOCKER_HOST" || test -S /var/run/docker.sock || ! test -S /run/podman/podman.sock \
	  || export DOCKER_HOST=unix:///run/podman/podman.sock; \
	exec target/debug/wharf agent --store embedded --state-dir '$(STATE)' $(ARGS)

test: ## every check: format, lints, unit, property, doc, server and lab tests
	$(SETUP) test lint lab
	@tests/setup/check.sh

lint: ## format check, clippy and rustdoc, warnings denied; licences of dependencies, what new commits say
	$(SETUP) lint deny
	@tests/setup/check.sh lint

bench: ## measure against the budgets, side by side with the peers (ARGS='--bench dns' for one)
	$(SETUP) bench
	@# A missed budget ends no other bench, and all figures get onto the page.
	@$(CARGO) bench --locked --no-fail-fast $(or $(ARGS),--bench '*'); kept=$$?; benches/report.sh && exit $$kept

lab: ## three hosts with etcd and wharf on this machine, to play with
	$(SETUP) lab
	$(BUILD)
	@exec target/debug/examples/lab up $(ARGS)

demo: ## the three-host cluster with memcached, redis and postgres: dig from every host
	$(SETUP) demo lab
	$(BUILD)
	@exec target/debug/examples/lab demo $(ARGS)

image: ## a FROM scratch image of the static binary, built without a registry
	$(SETUP) --engine build image
	@tests/setup/piece.sh docker/image.sh $(ARGS)

dist: ## one static binary, its tarball, bill of materials and checksums (in dist/; WHARF_SIGN_KEY=FILE signs them)
	$(SETUP) build dist
	@tests/setup/piece.sh docker/dist.sh $(ARGS)

fuzz: ## a short run of every fuzz target (ARGS=-max_total_time=600, WHARF_SEARCH=7200 for longer; SANITIZER=address)
	$(SETUP) fuzz
	@tests/setup/piece.sh fuzz && tests/setup/fuzz.sh $(ARGS)

drill: ## faults on the three-host cluster (DRILLS=200 SEED=7 EACH=1 SOAK=1h), then all that takes long
	$(SETUP) lab test dist drill
	@# First what a clone without history stops at: the older build that hosts are upgraded from.
	@test -n "$$WHARF_OLDER" || tests/setup/older.sh
	docker/dist.sh
	WHARF_DRILL=1 $(CARGO) test --locked --test drill -- --nocapture
	CARGO_PROFILE_DEV_OPT_LEVEL=1 WHARF_DRILL=1 $(CARGO) test --locked --test simulation -- --nocapture fresh
	CARGO_PROFILE_DEV_OPT_LEVEL=1 WHARF_HISTORIES=10000000 $(CARGO) test --locked --test steer -- --nocapture no_history
	CARGO_PROFILE_DEV_OPT_LEVEL=1 WHARF_HISTORIES=100000 $(CARGO) test --locked --test lock_model -- --nocapture no_history
	CARGO_PROFILE_DEV_OPT_LEVEL=1 WHARF_HISTORIES=100000 $(CARGO) test --locked --test ordinal_model -- --nocapture no_history
	WHARF_DRILL=1 $(CARGO) test --locked --test etcd_v2 -- --nocapture requests_get
	WHARF_DRILL=1 $(CARGO) test --locked --test lock -- --nocapture --test-threads=2 losses
	@# An hour of churn; WHARF_SOAK=10m takes another time.
	WHARF_DRILL=1 $(CARGO) test --locked --test ambassador -- --nocapture soak
	CARGO_PROFILE_DEV_OPT_LEVEL=1 WHARF_DRILL=1 $(CARGO) test --locked --test render -- --nocapture --test-threads=2
	@# A thousand switches in a row; WHARF_REDIS=valkey-server takes another server.
	WHARF_SWITCHES=1000 $(CARGO) test --locked --test topology a_switch_under_writers -- --nocapture
	@# Two hundred deaths of operators, agents and servers in the midst of a switch.
	WHARF_DRILL=1 $(CARGO) test --locked --test topology kills -- --nocapture
	@# Attacks on the program that people run, and what they cost.
	WHARF_DRILL=1 $(CARGO) test --locked --release --test hostile --test law_of_work -- --nocapture
	WHARF_DRILL=1 WHARF_OLDER="$${WHARF_OLDER:-$$(tests/setup/older.sh)}" \
	  $(CARGO) test --locked --no-fail-fast --test cluster --test systemd -- --nocapture --test-threads=1 $(ARGS)
	@tests/lab/sweep.sh
