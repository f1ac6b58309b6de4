# Thin names over cargo. KEEP=1, SCALE=n and ARGS="…" are passed on.
CARGO ?= cargo
BINARIES = -p tidewater -p tidewater-connector-postgres -p tidewater-connector-file

.PHONY: demo test bench bench-broker bench-way lint requirements

demo: requirements
	$(CARGO) build --release $(BINARIES) -p tidewater-tests
	KEEP=$(KEEP) SCALE=$(SCALE) $(CARGO) run --release --quiet -p tidewater-tests --bin demo

bench: requirements
	$(CARGO) build --release $(BINARIES) -p tidewater-tests
	$(CARGO) run --release --quiet -p tidewater-tests --bin bench -- $(ARGS)

# The log alone, beside raw write and fdatasync. ARGS=--quick for a minute of it, ARGS=--help for the rest.
bench-broker:
	$(CARGO) bench --quiet -p tidewater-broker --bench broker -- --dir "$(CURDIR)/target" $(ARGS)

# The whole way from a source that does nothing to a sink that does nothing, stage by stage, and what idle connectors cost.
bench-way:
	$(CARGO) build --release --quiet -p tidewater-runtime --example noop
	$(CARGO) bench --quiet -p tidewater-runtime --bench way -- $(ARGS)

# The daemon and its plugins are built before the tests, which start them as a user does.
test: requirements
	$(CARGO) build --workspace
	$(CARGO) test --workspace $(ARGS)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	sh tests/deny.sh

requirements:
	@sh tests/requirements.sh
