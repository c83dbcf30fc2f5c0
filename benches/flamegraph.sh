#!/usr/bin/env bash
# Draws docs/performance/flame-list.svg and flame-stream.svg: where a worker that drains a full queue spends its processor time.
#
# Needs perf, and inferno (cargo install inferno).

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=target/profiled

# In units of their own: linked as one whole, functions of all crates end in one another.
RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=4 \
    cargo build --quiet --release -p benches --bin throughput --target-dir "$folder"
mkdir -p docs/performance

for pattern in list stream; do
    perf record --quiet --output "$folder/perf.data" --event cpu-clock --freq 1999 --call-graph fp \
        "$folder/release/throughput" drain --pattern "$pattern" --rounds 3
    # The thread of the worker, from the task on: what is below it is the same everywhere. What the C library does has no
    # frame pointers, so whom it does that for is not known.
    perf script --input "$folder/perf.data" --comm tokio-rt-worker |
        inferno-collapse-perf |
        sed "s/^tokio-rt-worker;.*scheduler::multi_thread::worker::run;/worker;/; s/^tokio-rt-worker;/worker;allocation and the like, of callers unknown;/" |
        inferno-flamegraph --title "A worker that drains a $pattern" --subtitle "processor time of its thread" \
            --width 1200 --minwidth 0.5 --deterministic >"docs/performance/flame-$pattern.svg"
    echo "docs/performance/flame-$pattern.svg"
done
