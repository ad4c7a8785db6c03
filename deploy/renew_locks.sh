#!/usr/bin/env bash
# Renews deploy/*.lock: what the images install, each package with its version and the SHA-256 of its files. Needs uv.
#
#   deploy/renew_locks.sh             the newest versions that pyproject.toml allows
#   deploy/renew_locks.sh --keep      only what pyproject.toml asks for anew; the rest stays as it is
#
# Then run the tests, build both images (deploy/prove_image.sh) and read what has changed: `git diff deploy`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

upgrade=(--upgrade)
[[ ${1:-} == --keep ]] && upgrade=()

# For every platform and Python, so that one file serves x86 and Arm. It names no index: pip takes its own.
compile() {
    uv pip compile "$@" "${upgrade[@]}" --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --no-header
}

compile pyproject.toml --extra cpu --output-file deploy/cpu.lock >/dev/null
compile pyproject.toml --extra gpu --output-file deploy/gpu.lock >/dev/null
compile deploy/build.in --output-file deploy/build.lock >/dev/null
