# SPDX-License-Identifier: MPL-2.0
# Every target installs what it needs first (tools/setup.sh has the package names).

PREFIX ?=
DESTDIR ?=
CARGO ?= cargo
# The profile of `make install`; demo and tests always use dev, which is optimised too.
PROFILE ?= release

export PATH := $(HOME)/.cargo/bin:$(PATH)
export CARGO_TARGET_DIR ?= $(CURDIR)/target

setup = @tools/setup.sh
built = $(CARGO_TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# A folder with nothing but the plugin in it: GStreamer tries every library below a folder.
plugin_path = $(CARGO_TARGET_DIR)/debug/gstreamer-1.0
of_gstreamer = $(shell pkg-config $(if $(PREFIX),--define-variable=prefix=$(PREFIX)) --variable=$(1) gstreamer-1.0)
pluginsdir = $(call of_gstreamer,pluginsdir)
datadir = $(call of_gstreamer,datadir)

.PHONY: help demo wall test wall-load wall-pictures lint build cuda gpu-bundle compare bench install uninstall deb check-deb check-cargo-c validate valgrind soak inspect kernels gpu-check clean

help:
	@echo 'make demo      play a video through the element and ask it questions'
	@echo 'make wall      the page for people who watch cameras, on two clips'
	@echo 'make test      all tests'
	@echo 'make wall-load       sixteen cameras and fifty open pages of the wall for five minutes'
	@echo 'make wall-pictures   renew the pictures of its page in docs/images'
	@echo 'make lint      formatting, clippy, imports and documentation, warnings are errors'
	@echo 'make build     the plugin, in $(plugin_path:$(CURDIR)/%=%)'
	@echo 'make cuda      the plugin and the engine for NVIDIA GPUs, in $(cuda:$(CURDIR)/%=%)'
	@echo 'make gpu-bundle  that and its checks for a machine with a GPU, in $(CARGO_TARGET_DIR:$(CURDIR)/%=%)/gpu'
	@echo 'make compare   measure every method on the same questions; renews docs/benchmarks.md'
	@echo 'make bench     the engine beside PyTorch on this CPU, in turn; PAGE=1 renews docs/benchmarks.md'
	@echo 'make install   plugin, models and manual page where GStreamer is; PREFIX and DESTDIR are honoured'
	@echo 'make deb       the same as a Debian package, in $(CARGO_TARGET_DIR:$(CURDIR)/%=%)/debian'
	@echo 'make check-deb install that package in a clean Debian 12 and ask about a clip there'
	@echo 'make check-cargo-c  what `cargo cinstall` installs; the first time fetches and compiles cargo-c'
	@echo 'make validate  gst-validate: seek, scrub, pause, rates and states; GST_DEVTOOLS names its sources'
	@echo 'make valgrind  a short pipeline under memcheck'
	@echo 'make soak      questions, reconnects and restarts for SOAK_MINUTES (10); the process must not grow'
	@echo 'make inspect   renew docs/streamkvqa.inspect.txt, docs/streamkvqa.md and the manual page'
	@echo 'make kernels   renew the GPU kernels in src/model/kernels from tools/kernels; needs no GPU'
	@echo 'make gpu-check prove the GPU kernels on the CPU'
	@echo 'make clean     remove what was built'

# The plugin is built from the very crates and features that the workspace is (Cargo.toml sees to that), so
# that neither target compiles again what the other has compiled.
define compile_plugin
@echo '==> compiling; the first time takes some minutes on two cores'
$(CARGO) build --lib --locked
@install -d $(plugin_path) && ln -sf ../libgststreamkvqa.so $(plugin_path)/
endef

define compile
$(compile_plugin)
@echo '==> compiling tools and examples'
$(CARGO) build --workspace $(without_wall) --lib --bins --examples --locked
endef

# The wall asks features of crates that the element uses too. Compiled on its own, it leaves those as they are,
# and models need not be compiled again for it.
without_wall = --exclude streamkvqa-wall

build:
	$(setup) build rust
	$(compile_plugin)

# The wall finds the element by GStreamer's registry, as any program does.
wall_test = GST_PLUGIN_PATH=$(plugin_path) $(CARGO) test --package streamkvqa-wall --locked

# For five minutes what an ordinary test looks at for some seconds.
wall-load:
	$(setup) build run wall rust
	$(compile_plugin)
	WALL_LOAD_SECONDS=300 $(wall_test) --test load -- --nocapture

# The pictures of the page in the documentation, taken by the test that uses it.
wall-pictures:
	$(setup) build run wall browser rust
	$(compile_plugin)
	WALL_SCREENSHOTS=$(CURDIR)/docs/images $(wall_test) --test page a_person

# A compiler is fetched, GPU and driver are not needed (docs/cuda.md). In a target folder of its own: what
# build scripts find in the environment differs, and nothing of the ordinary build is to be built again.
cuda = $(CARGO_TARGET_DIR)/cuda
cuda:
	$(setup) build rust
	@echo '==> compiling for NVIDIA GPUs; the first time takes longer than make build'
	@environment=$$(tools/cuda/toolchain.sh $(cuda)/toolchain) && eval "$$environment" && \
	export CARGO_TARGET_DIR=$(cuda) && \
	$(CARGO) build --release --workspace --lib --example bench --example trace --features cuda --locked

# What tools/gpu/run.sh takes to a machine with a GPU on which nothing is built.
gpu-bundle: cuda
	tools/gpu/bundle.sh $(cuda)/release/examples/bench $(CARGO_TARGET_DIR)/gpu

demo:
	$(setup) build run rust
	$(compile_plugin)
	@pipelines/demo.sh

# Plays the clips of the two worlds until Ctrl-C. What it stores is in the target folder.
wall:
	$(setup) build run wall rust
	$(compile_plugin)
	$(CARGO) build --package streamkvqa-wall --locked
	@GST_PLUGIN_PATH=$(plugin_path) $(CARGO_TARGET_DIR)/debug/streamkvqa-wall --open \
	    --data $(CARGO_TARGET_DIR)/wall apps/wall/demo.toml

test:
	$(setup) build run python broker wall browser meson rust
	$(compile)
	@echo '==> testing'
	$(CARGO) test --workspace $(without_wall) --locked --no-fail-fast
	$(wall_test) --no-fail-fast

lint:
	$(setup) build wall rust rust-lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@echo '==> the engine without GStreamer'
	$(CARGO) clippy --no-default-features --all-targets --locked -- -D warnings
	@echo '==> the engine with CUDA, without a compiler for its kernels'
	tools/cuda/check.sh
	@echo '==> imports against the plan of the house, tools/floors/house.txt'
	$(CARGO) run --quiet --package floors --locked
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

install:
	$(setup) build rust
	$(CARGO) build --lib --profile $(PROFILE) --locked
	@dir='$(DESTDIR)$(pluginsdir)' share='$(DESTDIR)$(datadir)'; \
	test -n '$(pluginsdir)' || { echo 'error: pkg-config does not know gstreamer-1.0' >&2; exit 1; }; \
	echo "==> installing into $$dir and $$share"; \
	install -d "$$dir" 2>/dev/null && test -w "$$dir" || sudo=sudo; \
	$$sudo install -D -m 755 '$(built)/libgststreamkvqa.so' "$$dir/libgststreamkvqa.so" && \
	for file in models/*/*; do $$sudo install -D -m 644 "$$file" "$$share/streamkvqa/$$file" || exit; done && \
	$$sudo install -D -m 644 docs/streamkvqa.7 "$$share/man/man7/streamkvqa.7" && \
	$$sudo install -D -m 644 docs/streamkvqa.md "$$share/doc/streamkvqa/streamkvqa.md"

uninstall:
	rm -f '$(DESTDIR)$(pluginsdir)/libgststreamkvqa.so' '$(DESTDIR)$(datadir)/man/man7/streamkvqa.7'
	rm -rf '$(DESTDIR)$(datadir)/doc/streamkvqa'
	cd models && for model in *; do rm -rf '$(DESTDIR)$(datadir)/streamkvqa/models/'"$$model"; done

# One file for Debian 12 and its relatives. cargo-deb is fetched into the target folder.
deb:
	$(setup) build deb rust
	@tools/package/deb.sh $(PROFILE)

# Of the profile that demo and tests are built with: whether it installs and answers does not depend on it.
check-deb:
	$(setup) build deb clean-root rust
	@tools/package/deb.sh dev
	@tools/package/check.sh $(CARGO_TARGET_DIR)/debian/*.deb

check-cargo-c:
	$(setup) build cargo-c run rust
	@tools/package/cargo-c.sh

validate:
	$(setup) build run validate rust
	$(compile_plugin)
	@tools/proof/validate.sh $(SCENARIOS)

valgrind:
	$(setup) build run valgrind rust
	$(compile_plugin)
	@tools/proof/valgrind.sh

# What the C library keeps of memory that was given back to it is no growth of ours: it is let go at once.
soak:
	$(setup) build run rust
	MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072 $(CARGO) run --locked --package proof --bin soak

# What is in docs/data already is not measured again: remove the files to begin anew. The drawings of the
# everyday world are fetched (npm, Python).
evaluate = $(CARGO) run --locked --example evaluate -- --methods all,oracle --resume \
    --page docs/benchmarks.md --plots docs/images
atlas = $(CARGO_TARGET_DIR)/everyday/atlas.bin
reports = docs/data/compare.json,docs/data/compare-toyworld-plain.json,docs/data/compare-everyday.json

compare: $(atlas)
	$(setup) build rust
	$(compile)
	$(evaluate) --streams 8 --per-kind 3 --frames 32,64,128,256,512 --budgets 8,16,32 --out docs/data/compare.json
	$(evaluate) --streams 8 --per-kind 3 --frames 16,32,64,128,256 --budgets 8,16,32 --at-frames 128 \
	    --model models/toyworld-plain --out docs/data/compare-toyworld-plain.json
	$(evaluate) --streams 8 --per-kind 2 --frames 32,64,128,256,512 --budgets 16 --world everyday \
	    --model models/everyday --atlas $(atlas) --out docs/data/compare-everyday.json
	$(evaluate) --streams 12 --per-kind 2 --frames 32,64,128,256,512 --budgets 8,16 --at-budget 8 --world everyday \
	    --model models/everyday-qwen --atlas $(atlas) --out docs/data/compare-everyday-qwen.json
	$(CARGO) run --locked --example evaluate -- --page docs/benchmarks.md \
	    --goals $(reports),docs/data/compare-everyday-qwen.json@8

$(atlas):
	tools/everyday/atlas.sh $(atlas)

# Python with PyTorch and transformers, and 3 GB of made-up weights; only this target needs them. OPTIONS
# are those of tools/peers/run.py.
bench:
	$(setup) build rust
	$(compile)
	tools/peers/run.sh $(if $(PAGE),--page) $(OPTIONS)

inspect:
	$(setup) build run rust
	$(compile)
	pipelines/inspect.sh > docs/streamkvqa.inspect.txt
	$(CARGO) run --quiet --locked --example reference > docs/streamkvqa.md
	$(CARGO) run --quiet --locked --example reference -- man > docs/streamkvqa.7

# Python with the compiler of the GPU kernels; only these two targets need it.
kernels_venv = $(or $(STREAMKVQA_VENV),$(CARGO_TARGET_DIR)/venv-kernels)
kernels_python = $(kernels_venv)/bin/python
kernels_made = $(CARGO_TARGET_DIR)/kernels-again

define kernels_setup
@test -x '$(kernels_python)' || python3 -m venv '$(kernels_venv)' || \
    { echo 'error: python3 -m venv is missing (Debian: python3-venv)' >&2; exit 1; }
@'$(kernels_python)' -m pip install --quiet --disable-pip-version-check -r tools/kernels/requirements.txt
endef

kernels:
	$(kernels_setup)
	'$(kernels_python)' tools/kernels/build.py

# Tests of tests/kernels that the interpreter runs through in minutes.
emulated = each:: model::prompt_ids_logits_and_greedy_answers_agree qwen::prompt_ids_positions_and_all_logits_agree
gpu-check:
	$(kernels_setup)
	@echo '==> the committed kernels against their source'
	rm -rf '$(kernels_made)'
	'$(kernels_python)' tools/kernels/build.py --out '$(kernels_made)'
	diff -rq '$(kernels_made)/ptx' src/model/kernels/ptx
	cmp '$(kernels_made)/table.json' src/model/kernels/table.json
	@echo '==> each kernel on the CPU against plain numpy'
	'$(kernels_python)' tools/kernels/check.py
	@echo '==> the launcher, and a model from pixels to answers, by the kernels in the interpreter'
	STREAMKVQA_EMULATOR='$(kernels_python) $(CURDIR)/tools/kernels/serve.py' \
	    $(CARGO) test --workspace --locked --test kernels -- --nocapture $(emulated)

clean:
	$(CARGO) clean
