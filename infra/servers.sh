#!/usr/bin/env bash
# Get the servers that tests and benchmarks use and that no Python wheel carries:
#   PostgreSQL 15, Redis and PgBouncer as Debian packages (installed, never started), and
#   InfluxDB 2, built from its Go module (infra/influxd) into a cache folder outside the checkout.
# What is there already is left alone, so it may be run any number of times.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

PACKAGES=(postgresql-15 redis-server redis-tools pgbouncer)
SERVICES=(postgresql redis-server pgbouncer)
CACHE=${FREEAGENTICS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/freeagentics-persistence/servers}
POLICY=/usr/sbin/policy-rc.d
failures=0
policy_is_ours=no
scratch=

say() { printf 'servers: %s\n' "$*"; }
problem() {
    printf 'servers: error: %s\n' "$*" >&2
    failures=$((failures + 1))
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -- "$@"; fi
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian starts a service as soon as its package is set up, unless this policy forbids it.
forbid_service_starts() {
    [ -e "$POLICY" ] && return
    policy_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
}

allow_service_starts() {
    [ "$policy_is_ours" = yes ] || return 0
    as_root rm -f "$POLICY"
    policy_is_ours=no
}

clean_up() {
    allow_service_starts
    [ -z "$scratch" ] || rm -rf "$scratch"
}
trap clean_up EXIT

# The services that an installation would add; those already known keep their own setting.
new_services() {
    local service
    [ -d /run/systemd/system ] || return 0
    for service in "${SERVICES[@]}"; do
        systemctl cat "$service.service" >/dev/null 2>&1 || printf '%s\n' "$service"
    done
}

install_packages() {
    local package services missing=()
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        problem "no apt-get here, so these were not installed: ${PACKAGES[*]}. Install them by this system's own means," \
            "or name running servers by DATABASE_URL and REDIS_URL."
        return
    fi
    for package in "${PACKAGES[@]}"; do
        if is_installed "$package"; then say "$package is installed"; else missing+=("$package"); fi
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        problem "installing ${missing[*]} takes root: run as root, or install sudo."
        return
    fi
    services=$(new_services)

    say "installing ${missing[*]} ..."
    forbid_service_starts
    if as_root apt-get update --quiet=2 </dev/null &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" </dev/null; then
        # shellcheck disable=SC2086
        [ -z "$services" ] || as_root systemctl disable --quiet --now $services
        say "installed ${missing[*]} (not started)"
    else
        problem "apt-get could not install ${missing[*]} (its messages are above; Debian 12 has all of them)."
    fi
    allow_service_starts
}

missing_build_tools() {
    local tool
    for tool in go cargo pkg-config; do command -v "$tool" >/dev/null || printf '%s ' "$tool"; done
    command -v "${CC:-gcc}" >/dev/null || printf '%s ' "${CC:-gcc}"
}

build_influxd() {
    local version target tools
    version=$(sed -n 's|.*github.com/influxdata/influxdb/v2 \(v[0-9.]*\).*|\1|p' influxd/go.mod)
    target=$CACHE/influxd-$version
    if [ -x "$target" ]; then
        say "InfluxDB $version is at $target"
        return
    fi
    tools=$(missing_build_tools)
    if [ -n "$tools" ]; then
        problem "building InfluxDB takes Go 1.25 or newer, Rust (cargo), a C compiler and pkg-config; not found: $tools." \
            "Install them, put an influxd 2.x on the PATH, or name a running server by INFLUXDB_URL."
        return
    fi

    mkdir -p "$CACHE"
    scratch=$(mktemp -d "$CACHE/build.XXXXXX")
    say "building InfluxDB $version (some minutes) ..."
    # Flux, its query language, is partly Rust: its own pkg-config builds that part, with the toolchain that is
    # installed instead of the one it pins.
    if (
        cd influxd &&
            go build -o "$scratch/pkg-config" github.com/influxdata/pkg-config &&
            PKG_CONFIG=$scratch/pkg-config RUSTUP_TOOLCHAIN=${RUSTUP_TOOLCHAIN:-stable} \
                go build -tags sqlite_foreign_keys,sqlite_json -ldflags "-s -w -X main.version=$version" \
                -o "$scratch/influxd" github.com/influxdata/influxdb/v2/cmd/influxd
    ) && "$scratch/influxd" version >/dev/null; then
        mv "$scratch/influxd" "$target"
        say "built $target"
    else
        problem "InfluxDB could not be built (the compiler's messages are above)."
    fi
    rm -rf "$scratch"
    scratch=
}

install_packages
build_influxd
[ "$failures" -eq 0 ] || exit 1
say "all there"
