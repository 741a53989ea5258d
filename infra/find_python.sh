#!/usr/bin/env bash
# Print the absolute path of a Python 3.11 or newer: the one named by $1, else the first suitable one on the PATH.
set -euo pipefail

recent_enough='import sys; print(sys.executable) if sys.version_info >= (3, 11) else sys.exit(1)'

for candidate in ${1:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if path=$("$candidate" -c "$recent_enough" 2>/dev/null) && [ -n "$path" ]; then
        printf '%s\n' "$path"
        exit 0
    fi
done
{
    echo "error: ${1:-python3} is missing or older than Python 3.11 ($("${1:-python3}" --version 2>&1 || true))."
    echo "Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 ..."
} >&2
exit 1
