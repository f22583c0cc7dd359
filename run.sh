#!/usr/bin/env bash
# ./run.sh            install into .venv where needed, then the tour
# ./run.sh test       every check: ruff, types, tests; with --nightly the slowest tests too
# ./run.sh ARGS       thornbed ARGS
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="${THORNBED_VENV:-$here/.venv}"

fail() { printf 'run.sh: %s\n' "$1" >&2; exit 2; }

find_python() {
  local name
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 || continue
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  fail "Python 3.11, 3.12 or 3.13 is needed and none was found; install one, or name it: PYTHON=/path/to/python ./run.sh"
}

# install EXTRA: once for every state of pyproject.toml; the stamp is written last, so a broken install is made again.
install() {
  local extra=$1 stamp="$venv/.installed-${1:-base}" state
  state=$(cksum "$here/pyproject.toml")
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ] && return
  if [ ! -x "$venv/bin/python" ]; then
    local python
    python=$(find_python)
    printf 'Making %s ...\n' "$venv" >&2
    "$python" -m venv "$venv" || fail "could not make $venv; on Debian and Ubuntu install python3-venv"
  fi
  printf 'Installing Thornbed and what it needs (once; torch is large) ...\n' >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$here${extra:+[$extra]}" >&2 ||
    fail "the installation failed; what pip said is above"
  printf '%s\n' "$state" >"$stamp"
}

case "${1:-}" in
  test)
    install dev
    shift
    cd "$here"
    export PATH="$venv/bin:$PATH"
    ruff check .
    ruff format --check .
    # mypy finds the packages by their full names through a link: the repository's root is the package `thornbed`.
    link=$(mktemp -d)
    trap 'rm -rf "$link"' EXIT
    ln -s "$here" "$link/thornbed"
    (cd "$link" && mypy --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache")
    # Two processes: Flower's engines wait more than they work. A file stays in one of them.
    python -m pytest -n 2 --dist loadfile "$@"
    ;;
  "")
    install ""
    exec "$venv/bin/thornbed" tour
    ;;
  *)
    install ""
    exec "$venv/bin/thornbed" "$@"
    ;;
esac
