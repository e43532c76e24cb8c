#!/usr/bin/env bash
# Measures pdcp beside rsync, pdiffcopy and cp, here or against HOST:PORT:/directory, and says which goals it falls short
# of. All figures, the machine's description and a report go to a directory below benches/runs. `--help` has the options.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)

command -v cargo > /dev/null || { echo "scripts/bench.sh builds what it measures, and cargo is not here: https://rustup.rs" >&2; exit 1; }
# Not by `cargo bench` itself: it would add words of its own to an exit code that is not 0.
bench=$(cd "$top" && cargo bench --bench compare --no-run --message-format=json |
    sed -n 's/.*"name":"compare".*"executable":"\([^"]*\)".*/\1/p')
[[ " $* " == *" --output"[\ =]* ]] || set -- --output "$(realpath --relative-to=. "$top")/benches/runs/$(date +%F-%H%M%S)" "$@"
exec "$bench" "$@"
