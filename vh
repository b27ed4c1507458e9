#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Everything that is done with a checkout: install what is missing, build, run, show, test. See usage() below.
set -euo pipefail
umask 022 # a plugin that its group may write is refused
PATH=$PATH:/usr/sbin:/sbin # depmod, mkfs: Debian's users do not have them
here=$(dirname "$(realpath "$0")")
build=$(realpath -m "${VH_BUILD:-$here/build}")

usage() {
	cat <<U
Usage: ./vh COMMAND [ARG]...

  demo                 a Debian guest on a volume and a bridge, from plugins; ends by itself
  test [NAME]...       every test; --quick: under five minutes; --long: soaks as well; --list; --tree plain|asan|tsan|lab
  bench                ratios against QEMU (BENCHMARKING.md)
  run ARG...           vhost run ARG... from the build tree
  vhost ARG...         vhost ARG... from the build tree
  build                install what is missing, and build
  lab SCRIPT [ARG]...  run a script in the lab VM (tests/lab/lab)
  shell                a shell in which \`vhost\` is the build tree's

VH_GDB=1 or VH_VALGRIND=1 before \`./vh run\` and \`./vh vhost\` run it under those. VH_BUILD: another build folder than build/.
VHOST_CACHE: where kernels are kept (/var/cache/vhost for root, ~/.cache/vhost for others).
U
}
fail() { echo "vh: $*" >&2; exit 1; }

if [ -z "${VHOST_CACHE:-}" ]; then
	if [ "$(id -u)" = 0 ]; then VHOST_CACHE=/var/cache/vhost; else VHOST_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/vhost; fi
fi
export VHOST_CACHE

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; return; fi
	command -v sudo >/dev/null || fail "this needs root or sudo: $*"
	sudo "$@"
}

# install GROUP...: the packages of tests/setup/packages that belong to the groups and are missing.
install() {
	local package groups g missing=() want=()
	command -v apt-get >/dev/null || return 0 # not Debian: whoever is here knows what to do, and the build says what lacks
	while read -r package groups; do
		case $package in '' | '#'*) continue ;; esac
		for g; do [[ " $groups " != *" $g "* ]] || { want+=("$package"); break; }; done
	done <"$here/tests/setup/packages"
	mapfile -t missing < <(comm -23 <(printf '%s\n' "${want[@]}" | sort -u) \
		<(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "${want[@]}" 2>/dev/null | sed -n 's/^ii //p' | sort -u))
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "vh: installing ${missing[*]}" >&2
	local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=400)
	compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || as_root "${apt[@]}" update >&2
	as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 && return 0
	echo "vh: once more, with fresh package lists" >&2
	as_root "${apt[@]}" update >&2
	as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 || fail "cannot install ${missing[*]}"
}

# Silent when all is well.
build() {
	local log
	[ -z "${VHOST_IN_LAB:-}${VH_NO_BUILD:-}" ] || return 0
	install build
	log=$(mktemp)
	if [ ! -e "$build/build.ninja" ]; then
		echo "vh: building in $build" >&2
		meson setup "$build" "$here" >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; fail "meson setup failed"; }
	fi
	ninja -C "$build" >"$log" 2>&1 || { grep -vE '^\[[0-9]+/[0-9]+\]' "$log" >&2; rm -f "$log"; fail "the build failed"; }
	rm -f "$log"
}

environment() {
	export VHOST=$build/core/vhost BUILDDIR=$build SRCDIR=$here
	VHOST_PLUGIN_PATH=$(find "$build/plugins" "$build/sdk/examples" "$build/sdk/shims" -name '*.so' -printf '%h\n' 2>/dev/null | sort -u |
		paste -sd:)${VHOST_PLUGIN_PATH:+:$VHOST_PLUGIN_PATH}
	export VHOST_PLUGIN_PATH
}

program() {
	local with=()
	build; environment
	if [ -n "${VH_GDB:-}" ]; then
		install gdb; with=(gdb -q --args)
	elif [ -n "${VH_VALGRIND:-}" ]; then
		install valgrind
		with=(valgrind -q --leak-check=full --show-leak-kinds=definite --track-origins=yes --num-callers=25)
	fi
	exec "${with[@]}" "$VHOST" "$@"
}

# Whether /dev/kvm here runs an ordinary kernel: it must be there for us, with VT-x or AMD-V behind it. (KVM without them
# emulates the kernel's instructions one by one: see docs/machine.md.)
kvm_lacks() {
	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then echo "there is neither root nor sudo"
	elif [ ! -e /dev/kvm ]; then echo "there is no /dev/kvm"
	elif ! as_root test -r /dev/kvm -a -w /dev/kvm; then echo "/dev/kvm may not be opened"
	elif ! grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then echo "this machine's KVM has no VT-x or AMD-V behind it"
	else return 1; fi
}

demo() {
	local why
	install build guest; build; environment
	if why=$(kvm_lacks); then
		echo "vh: $why, so the demo runs inside the lab VM (QEMU without KVM; slower)"
		install lab
		"$here/tests/lab/make-guest" cloud-amd64 >/dev/null
		LAB_MEM=2048 LAB_TIMEOUT=${LAB_TIMEOUT:-300} exec "$here/tests/lab/lab" "$here/tests/lab/demo" "$@"
	fi
	"$here/tests/lab/make-guest" cloud-amd64 >/dev/null
	as_root env VHOST="$VHOST" VHOST_PLUGIN_PATH="$VHOST_PLUGIN_PATH" VHOST_CACHE="$VHOST_CACHE" unshare -n "$here/tests/lab/demo" "$@"
}

command=${1:-help}
[ $# = 0 ] || shift
case $command in
build) build; environment; echo "vh: built $VHOST" ;;
run) program run "$@" ;;
vhost) program "$@" ;;
demo) demo "$@" ;;
test)
	case " $* " in
	*" --list "*) install build ;;
	*" --quick "*) install build test ;;
	*) install build guest lab test ;;
	esac
	exec python3 "$here/tests/run" --build "$build" "$@"
	;;
bench)
	install build bench; build; environment
	exec meson test -C "$build" --no-rebuild --benchmark --verbose --num-processes 1 "$@"
	;;
lab)
	[ $# -gt 0 ] || { usage >&2; fail "lab: name a SCRIPT"; }
	install build guest lab; build; environment; exec "$here/tests/lab/lab" "$@" ;;
shell)
	build; environment
	PATH=$build/core:$PATH exec "${SHELL:-/bin/bash}"
	;;
help | --help | -h) usage ;;
*) usage >&2; echo "vh: there is no command '$command'" >&2; exit 2 ;;
esac
