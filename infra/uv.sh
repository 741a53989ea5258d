#!/usr/bin/env bash
# Run uv: the one on the PATH, else the pinned one, which is installed into .uv/ on first use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if uv --version >/dev/null 2>&1; then
    exec uv "$@"
fi

if ! cmp -s requirements/uv.txt .uv/installed.txt; then
    python=$(infra/find_python.sh "${PYTHON:-}")
    echo "Installing uv into .uv/ ..." >&2
    rm -rf .uv
    pip_options=(--quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.txt)
    if "$python" -m venv .uv >/dev/null 2>&1; then
        .uv/bin/python -m pip install "${pip_options[@]}" >&2
    elif rm -rf .uv && "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip install --target .uv "${pip_options[@]}" >&2
    else
        {
            echo "error: $python can make no virtual environment with pip and has no pip, so uv can't be installed."
            echo "On Debian and Ubuntu: apt-get install python3-venv. Or install uv itself. Then run make again."
        } >&2
        exit 1
    fi
    cp requirements/uv.txt .uv/installed.txt
fi
exec .uv/bin/uv "$@"
