# shellcheck shell=bash
# Built tools of Rust that are no Debian packages. Sourced by tests/run and .ci/run, which define `say`.

# They come from PATH, or else as wheels from PyPI in a private environment under the target directory: there they are
# built binaries, where crates.io would mean minutes of building.
tools=${CARGO_TARGET_DIR:-target}/ci-tools

# tool COMMAND PACKAGE: where COMMAND is, after PACKAGE was installed if it had to be.
tool() {
  local command=$1 package=$2
  if command -v "$command" 2>/dev/null; then return; fi
  if [[ ! -x $tools/bin/$command ]]; then
    say "installing $package from PyPI into $tools for the command $command"
    if [[ ! -x $tools/bin/pip ]]; then python3 -m venv "$tools" >&2 || return 1; fi
    "$tools/bin/pip" install --quiet --disable-pip-version-check "$package" >&2 || return 1
  fi
  echo "$tools/bin/$command"
}
