# SPDX-License-Identifier: Apache-2.0
# The front door. Every verb first installs what it needs and what is missing; after that nothing needs the network.
.PHONY: help setup build test quick demo bench bench-serve bench-train bench-learn test-peers fuzz lint fmt golden gen fresh run clean
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
T ?= 60

help:             ## list the verbs
	@sed -n 's/^\([a-z-]*\)\(%\{0,1\}\):.*## /  \1\2\t/p' $(MAKEFILE_LIST) | sed 's/%/NAME/' | expand -t 16

setup:            ## install what is missing (safe to repeat)
	@scripts/setup test
build:            ## build/dhow
	@scripts/setup run
	@scripts/build plain
test:             ## everything that CI checks: lint, unit tests under sanitizers, corpora, end to end
	@scripts/setup test
	@scripts/test all
quick:            ## build and unit tests, under a minute
	@scripts/setup test
	@scripts/test quick
demo: build       ## the main job: will this flight be late? (examples/flights)
	@examples/flights/demo
bench: build      ## every benchmark
	@scripts/setup test bench peers peers-train
	@scripts/bench all
bench-serve: build ## the model server beside Triton, FastAPI and a floor (PEERS=all: KServe's and MLServer, too)
	@scripts/setup peers $(if $(filter all,$(PEERS)),peers-all)
	@scripts/bench serve
bench-train: build ## training beside PyTorch, XGBoost and LightGBM (PARTS="mlp.b256 trees": some alone; 2 GB of peers)
	@scripts/setup peers-train
	@scripts/bench train
bench-learn: build ## does it learn as well as it should? Fashion-MNIST, digits, flights, a GPT beside JAX: each has a bound that fails
	@scripts/setup test
	@scripts/bench learn
bench-%: build    ## one benchmark: bench/NAME
	@scripts/setup bench
	@scripts/bench $*
test-peers:       ## clients of KServe, PyTorch's models, h2spec; the client tests against a real Triton (not in CI)
	@scripts/setup test-peers
	@scripts/test peers
fuzz:             ## every parser of foreign bytes under libFuzzer, T=60 seconds each, one for each core at a time
	@scripts/setup run fuzz
	@scripts/test fuzz $(T)
lint:             ## what a machine can judge: format, the include law, clang-tidy and more (minutes)
	@scripts/setup test tidy
	@scripts/build plain
	@scripts/lint --tidy
fmt:              ## rewrite the C files as .clang-format says
	@scripts/setup test
	@scripts/lint --fmt
golden:           ## rewrite the golden stories' answers (review the diff)
	@scripts/setup test
	@scripts/test golden
gen: build        ## rewrite every file that the binary knows by heart
	@build/dhow gen --into=.
fresh:            ## prove `make test` and `make demo` from a clone on a new Debian (RELEASE=bookworm, VERBS="test demo")
	@scripts/setup fresh
	@scripts/fresh
run: build        ## start dhow here, with data in ./dhow_data
	@build/dhow serve
clean:            ## remove what was built (`make clean DEPS=1`: what was installed into .deps, too)
	@rm -rf build build-asan build-tsan build-fuzz build*.lock .pytest_cache $(if $(DEPS),.deps)
	@find tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
