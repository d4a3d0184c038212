#!/bin/sh
# What stands below Python's packages: an interpreter, Java for Spark, Redis' tools, Node for its clients in the tests. Called by the Makefile.
#
#   setup.sh system       check the commands; as root on Debian install the missing ones, else say what to run
#   setup.sh venv DIR     make a virtual environment with a Python that fits
#
# Of Redis only `redis-tools` is installed: the package `redis-server` would start a service on port 6379. Debian's `redis-check-rdb`
# is the server's own binary, which acts by the name it is called by, so a link named redis-server in the virtual environment is enough.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

fail() {
    printf 'set-up: %s\n' "$1" >&2
    exit 1
}

# The first interpreter that pyproject.toml's requires-python allows and that can make virtual environments; PYTHON=... names another.
find_python() {
    for candidate in ${PYTHON:-python3 python3.11 python3.12}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# Spark's launcher asks Java for this module; some small builds of Java lack it.
java_fits() { have java && java --list-modules 2>/dev/null | grep -q '^jdk\.incubator\.vector'; }

redis_fits() { have redis-cli && { have redis-server || have redis-check-rdb; }; }

# The oldest Node that its Redis clients run on; Debian 12 has it.
node_fits() { have node && node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major * 100 + Number(minor) < 1819 ? 1 : 0)'; }

missing_packages() {
    find_python >/dev/null || printf 'python3-venv '
    java_fits || printf 'openjdk-17-jre-headless '
    redis_fits || printf 'redis-tools '
    node_fits || printf 'nodejs '
    have npm || printf 'npm '
}

system() {
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    have apt-get || fail "missing here, by the names of Debian's packages: $missing"
    # $missing is a list of words
    # shellcheck disable=SC2086
    set -- apt-get install --yes --no-install-recommends $missing
    [ "$(id -u)" = 0 ] || fail "missing here: $missing- run: sudo $*"
    printf 'set-up: %s\n' "$*"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get update --quiet=2
    "$@"
    find_python >/dev/null || fail 'no Python >=3.11,<3.13 with venv found (looked for python3, python3.11, python3.12): install one, then run make PYTHON=/path/to/python3'
    missing=$(missing_packages)
    [ -z "$missing" ] || fail "still missing after the installation: $missing"
}

make_venv() {
    python=$(find_python) || fail 'no Python >=3.11,<3.13 with venv found: run scripts/setup.sh system'
    [ -x "$1/bin/python" ] || "$python" -m venv "$1"
    have redis-server || ln -sf "$(command -v redis-check-rdb)" "$1/bin/redis-server"
}

case "${1:-}" in
    system) system ;;
    venv) make_venv "${2:?the folder of the virtual environment}" ;;
    *) fail 'usage: setup.sh system | venv DIR' ;;
esac
