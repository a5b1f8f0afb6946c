# The documented commands. `just` lists them; each is one line that works without `just`, too.

[private]
default:
    @just --list --unsorted

# Run the whole path against simulated servers.
demo *arguments:
    cargo run --release -- demo {{arguments}}

# Run all tests.
test:
    cargo test --workspace

# Check the formatting and lint the host, then run all tests: what a change must pass.
check:
    .ci/run

# Format the host, the plugins, the SDK, the test components and the fuzz targets.
format:
    cargo fmt --all
    for workspace in plugins sdk/rust tests/components fuzz; do cargo fmt --manifest-path $workspace/Cargo.toml --all; done

# Lint the host.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Rewrite the snapshots (messages, help texts, configurations). Read every line of the diff.
update-snapshots:
    UPDATE_EXPECT=1 cargo test --workspace

# Rewrite the generated gRPC code.
regenerate-grpc:
    UPDATE_EXPECT=1 cargo test -p lockgate-teleport --test generated

# Rewrite the bindings of the SDK after a change of `wit/`.
regenerate-bindings:
    UPDATE_EXPECT=1 cargo test --manifest-path sdk/rust/Cargo.toml --test bindings

# Rewrite the golden documents and the dashboard of `builtin:ecs`.
update-ecs:
    UPDATE_EXPECT=1 cargo test --manifest-path plugins/Cargo.toml -p lockgate-plugin-ecs

# Kill a running host at random points.
crash kills="50":
    LOCKGATE_KILLS={{kills}} cargo test --workspace --test e2e crash
    LOCKGATE_KILLS={{kills}} cargo test --workspace --test e2e redrive
    LOCKGATE_KILLS={{kills}} cargo test --workspace --test e2e state
    LOCKGATE_KILLS={{kills}} cargo test --workspace --test e2e audit

# Run the engine through random schedules of answers, crashes and restarts.
simulate schedules="1000000":
    LOCKGATE_SCHEDULES={{schedules}} cargo test --release -p lockgate-engine --test simulation -- --nocapture

# Poll simulated logs whose clocks are wrong, some hours for each seed.
simulate-polling seeds="0..1000":
    LOCKGATE_SEEDS={{seeds}} cargo test --release -p lockgate-teleport --test source simulation

# Deliver two million events, and show the memory used.
demo-memory:
    cargo run --release -- demo --events 2000000 --json

# Fuzz one of the targets in `fuzz/`. Needs nightly Rust and cargo-fuzz.
fuzz target:
    mkdir -p fuzz/corpus/{{target}}
    cargo +nightly fuzz run {{target}} fuzz/corpus/{{target}} fuzz/seeds/{{target}}

# Reload a host under load, every second time with a broken file.
reload reloads="100":
    LOCKGATE_RELOADS={{reloads}} cargo test --workspace --test e2e reload_load

# Run the benchmarks.
bench:
    cargo bench --workspace

# Measure a healthy pipeline next to bad neighbours.
bench-neighbours:
    cargo bench --workspace --bench neighbours

# Show the memory of 30 pipelines whose receivers never answer, over a million events.
bench-memory:
    cargo bench --workspace --bench hung_receivers

# Map a million random events with `builtin:ecs`.
property cases="1000000":
    PROPTEST_CASES={{cases}} cargo test --release --manifest-path plugins/Cargo.toml -p lockgate-plugin-ecs --test property
