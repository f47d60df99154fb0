# Builds Ringlet, runs it, tests it and measures it. `make help` lists the targets.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
SHELL := /bin/bash

# Everything is built below target/, wherever the environment wants it.
unexport CARGO_TARGET_DIR

# Options of `make soak`: --count N, --at-once N, --seed N.
SOAK ?=
# What `make debug` runs.
PROGRAM ?= /bin/uring-test
QEMU := qemu-system-x86_64 -M microvm,acpi=off,pit=on,pic=on,rtc=on -accel tcg -cpu max -m 512M \
    -nodefaults -no-user-config -no-reboot -display none -global virtio-mmio.force-legacy=false

PREFIX ?= /usr/local
DESTDIR ?=

OUT := target/release
TRIPLE := x86_64-unknown-linux-gnu
KERNEL_ELF := target/kernel/$(TRIPLE)/kernel/ringlet-kernel
PROGRAMS_DIR := target/programs/$(TRIPLE)/program
PROGRAMS := uring-sha256 uring-bench syscall-test uring-test thread-test signal-test stress crash four-way file-ops
BUSYBOX := /bin/busybox
# 256 MiB of real data; the demonstration and the benchmarks read it.
IMAGE := target/share.img
IMAGE_SIZE := 268435456

.PHONY: all
all: build ## build everything (the default)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: deps
deps: ## install what the build needs from the distribution, if it is missing
	@tests/deps

.PHONY: build
build: deps ringlet kernel rootfs ## build the command, the guest kernel and the root file system

.PHONY: ringlet
ringlet: deps
	cargo build --release --locked -p ringlet

# The flags of the kernel are in guestkernel/.cargo/config.toml, which RUSTFLAGS would override.
.PHONY: kernel
kernel: deps
	cd guestkernel && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
	    cargo build --locked --profile kernel -p ringlet-kernel
	cargo build --release --locked -p kernel-symbols
	cp $(KERNEL_ELF) $(OUT)/ringlet-kernel.new
	$(OUT)/kernel-symbols $(OUT)/ringlet-kernel.new
	mv $(OUT)/ringlet-kernel.new $(OUT)/ringlet-kernel

# A kernel that goes wrong on demand: only tests want it.
.PHONY: provoke
provoke: deps
	cd guestkernel && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
	    cargo build --locked --profile provoke --features provoke -p ringlet-kernel
	cargo build --release --locked -p kernel-symbols
	cp target/kernel/$(TRIPLE)/provoke/ringlet-kernel $(OUT)/ringlet-kernel-provoke.new
	$(OUT)/kernel-symbols $(OUT)/ringlet-kernel-provoke.new
	mv $(OUT)/ringlet-kernel-provoke.new $(OUT)/ringlet-kernel-provoke

.PHONY: rootfs
rootfs: deps
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --target $(TRIPLE) \
	    --target-dir target/programs --profile program -p guest-programs
	cargo build --release --locked -p rootfs
	$(OUT)/rootfs-builder --output $(OUT)/ringlet-rootfs.cpio --busybox $(BUSYBOX) \
	    $(PROGRAMS:%=--program $(PROGRAMS_DIR)/%)

# QEMU takes the place of KVM where that cannot be used.
.PHONY: accelerator
accelerator: ringlet
	@tests/kvm 2>/dev/null || tests/deps qemu-system-x86_64=qemu-system-x86

.PHONY: kvm
kvm: ringlet
	@tests/kvm

$(IMAGE):
	@mkdir -p $(@D)
	@echo "making $@ from /usr/share"
	@tar --create --sort=name --file=- --directory=/ usr/share 2>/dev/null \
	    | head --bytes=$(IMAGE_SIZE) > $@.new
	@truncate --size=$(IMAGE_SIZE) $@.new
	@mv $@.new $@

.PHONY: run
run: accelerator build $(IMAGE) ## hash a disk image in a microVM, and compare with the host's digest
	@tests/demo $(OUT)/ringlet $(IMAGE)

# The one unit test that mounts a file system is left out where that is not allowed.
UNLESS_ROOT := $(if $(filter 0,$(shell id -u)),,-- --skip a_full_host_file_system)

# Needs neither root nor KVM.
.PHONY: check
check: ## check formatting and lints, and run the unit tests
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --workspace --exclude ringlet-tests --exclude ringlet-kernel \
	    --exclude ringlet $(UNLESS_ROOT)
	cargo test --locked -p ringlet --lib --bins

# Advisories are not among what is checked: their database is elsewhere on the network.
.PHONY: deny
deny: ## check licences, versions and sources of all dependencies; installs cargo-deny if it is missing
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny --locked check licenses bans sources

.PHONY: test
test: ## check formatting and lints, and run all tests
	@tests/all

# liburing's own tests, from Debian's source package; nothing of it belongs to this repository.
.PHONY: conformance
conformance: accelerator build ## run liburing's tests on the host and in microVMs, and write docs/conformance.md
	tests/liburing-tests target/liburing
	tests/conformance $(OUT)/ringlet target/liburing docs/conformance.md

# Every order in which threads can reach what these models build, tried one after the other.
.PHONY: loom
loom: ## model-check the kernel's concurrency primitives
	RUSTFLAGS="--cfg loom" cargo test --locked -p kernel --lib --target-dir target/loom models

.PHONY: soak
soak: kvm build ## start and end 10,000 VMs, 50 at a time, with signals at random moments
	cargo build --release --locked -p ringlet-tests --bin soak
	$(OUT)/soak $(SOAK)

.PHONY: bench
bench: kvm build $(IMAGE) ## compare host and guest; writes target/bench.json
	cargo build --release --locked -p ringlet-tests --bin bench
	$(OUT)/bench --ringlet $(OUT)/ringlet --program $(PROGRAMS_DIR)/uring-bench \
	    --image $(IMAGE) --output target/bench.json

LINUX := target/debian-kernel

.PHONY: bench-qemu
bench-qemu: build $(IMAGE) ## compare with Debian's kernel under QEMU; writes target/bench-qemu.json
	@tests/deps qemu-system-x86_64=qemu-system-x86
	@tests/debian-kernel $(LINUX)
	cargo build --release --locked -p ringlet-tests --bin bench-qemu
	$(OUT)/bench-qemu --linux $(LINUX) --kernel $(OUT)/ringlet-kernel \
	    --program $(PROGRAMS_DIR)/uring-bench --busybox $(BUSYBOX) --image $(IMAGE) \
	    --output target/bench-qemu.json

.PHONY: debug
debug: build ## boot the kernel under QEMU, which waits for gdb, and run PROGRAM
	@tests/deps qemu-system-x86_64=qemu-system-x86 gdb=gdb
	@echo "QEMU waits for: gdb $(OUT)/ringlet-kernel -ex 'target remote localhost:1234'"
	@echo "Leave with Ctrl-A x."
	$(QEMU) -s -S -chardev stdio,mux=on,id=terminal -serial chardev:terminal \
	    -device virtio-serial-device -device virtconsole,chardev=terminal -device virtio-rng-device \
	    -kernel $(OUT)/ringlet-kernel -initrd $(OUT)/ringlet-rootfs.cpio \
	    -append "loglevel=info -- $(PROGRAM)"

.PHONY: install
install: build ## install to PREFIX (default /usr/local)
	install -D -m 755 $(OUT)/ringlet $(DESTDIR)$(PREFIX)/bin/ringlet
	install -D -m 644 $(OUT)/ringlet-kernel $(DESTDIR)$(PREFIX)/lib/ringlet/ringlet-kernel
	install -D -m 644 $(OUT)/ringlet-rootfs.cpio $(DESTDIR)$(PREFIX)/lib/ringlet/ringlet-rootfs.cpio
	install -d $(DESTDIR)$(PREFIX)/share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
	$(OUT)/ringlet completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/ringlet
	$(OUT)/ringlet completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_ringlet
	$(OUT)/ringlet completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ringlet.fish

.PHONY: clean
clean: ## remove everything that was built
	rm -rf target
