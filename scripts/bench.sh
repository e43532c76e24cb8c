#!/usr/bin/env bash
# Measures pdcp beside rsync, pdiffcopy and cp, here or against HOST:PORT:/directory, and says which goals it falls short
# of. All figures, the machine's description and a report go to a directory below benches/runs. `--help` has the options.
set -euo pipefail
cd "$(dirname "$0")/.."

exec cargo bench --quiet --bench compare -- --output "benches/runs/$(date +%F-%H%M)" "$@"
