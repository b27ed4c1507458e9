# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Sourced by the behaviour tests: TAP output, a private folder that goes with the test, skips with reasons.
#
#   . "$(dirname "$0")/functions.sh"
#   check "lists nothing at first" test -z "$(vhost vol list)"
#   status 3 "names what is missing" vhost vol info default/nothing      # $out, $err: what it printed
#   finish
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${SRCDIR:=$(realpath "$here/../..")}" "${BUILDDIR:=$SRCDIR/build}"
: "${VHOST:=$BUILDDIR/core/vhost}"
if [ -z "${VHOST_PLUGIN_PATH:-}" ]; then
	VHOST_PLUGIN_PATH=$(find "$BUILDDIR/plugins" "$BUILDDIR/sdk/examples" -name '*.so' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
fi
tmp=$(mktemp -d "${TMPDIR:-/tmp}/vhost-case-XXXXXX")
export SRCDIR BUILDDIR VHOST VHOST_PLUGIN_PATH VHOST_ROOT="$tmp/root"
unset VHOST_LOG
mkdir -p "$VHOST_ROOT"
n=0 failed=0 out="" err=""
cleanups=()

vhost() { "$VHOST" "$@"; }
# on_exit COMMAND: run at the end, last one first; the test's own processes, mounts, namespaces.
on_exit() { cleanups=("$1" "${cleanups[@]}"); }
_end() {
	local c
	for c in "${cleanups[@]}"; do eval "$c"; done
	rm -rf "$tmp"
}
trap _end EXIT
trap 'exit 130' INT TERM

ok() { n=$((n + 1)); echo "ok $n - $*"; }
not_ok() {
	n=$((n + 1)); failed=$((failed + 1))
	echo "not ok $n - $*"
	[ -z "$out" ] || sed 's/^/# out: /' <<<"$out" | head -20
	[ -z "$err" ] || sed 's/^/# err: /' <<<"$err" | head -20
}
# result STATUS NAME
result() { if [ "$1" = 0 ]; then ok "$2"; else not_ok "$2"; fi; }
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; }
skip_all() { echo "1..0 # SKIP $*"; exit 0; }
# requires COMMAND...: else the whole file is skipped, saying why.
requires() { local c; for c; do command -v "$c" >/dev/null || skip_all "$c is not installed"; done; }
requires_root() { [ "$(id -u)" = 0 ] || skip_all "needs root"; }
# check NAME COMMAND...: the command succeeds.
check() { local name=$1; shift; run "$@"; if [ "$rc" = 0 ]; then ok "$name"; else not_ok "$name (exit $rc)"; fi; }
# run COMMAND...: sets rc, out, err.
run() { "$@" >"$tmp/.out" 2>"$tmp/.err" </dev/null; rc=$?; out=$(<"$tmp/.out") err=$(<"$tmp/.err"); }
# status WANT NAME COMMAND...
status() {
	local want=$1 name=$2; shift 2
	run "$@"
	if [ "$rc" = "$want" ]; then ok "$name"; else not_ok "$name (exit $rc, not $want)"; fi
}
# like NAME TEXT PATTERN (a glob)
like() {
	# shellcheck disable=SC2053
	if [[ $2 == $3 ]]; then ok "$1"; else not_ok "$1"; printf '# %s\n' "got:  $2" "want: $3"; fi
}
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1"; printf '# %s\n' "got:  $2" "want: $3"; fi; }
finish() { echo "1..$n"; [ "$failed" = 0 ]; exit $?; }
