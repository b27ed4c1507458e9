#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost-plugin-check finds what is wrong: every broken test plugin fails the check that is meant for it, and the good one fails none.
. "$(dirname "$0")/functions.sh"
requires python3
variants=$BUILDDIR/tests/unit/plug check=$BUILDDIR/sdk/check/vhost-plugin-check
[ -e "$variants/good.so" ] && [ -x "$check" ] || skip_all "the kit or the test plugins are not built"

finds() { # VARIANT ID
	status 1 "$1 is found" "$check" --only "$2" "$variants/$1.so"
	like "by $2" "$out" "*not ok 1 - $2*"
}
status 0 "a good plugin passes LOAD" "$check" --only LOAD "$variants/good.so"
finds no_note load-note
finds wrong_major load-note
finds wrong_draft load-note
finds short_table load-loads
finds id_mismatch load-loads
finds no_entry load-one-symbol
finds gmodule load-one-symbol
finds exports load-one-symbol
finds dirty_entry load-leaves-state
finds thread_entry load-leaves-state
finds ctor load-leaves-state
finds loud load-silent
finds get_any load-unknown-interface
finds cap_lie load-caps
finds bad_schema load-schemas
finds crash load-leaves-state
like "a crash is a result" "$out" "*it crashed: Illegal instruction*"
like "with the command that repeats it" "$out" "*repeat: vhost-plugin-check --only load-leaves-state --seed *"
finds host_greedy skew-host-released
finds service_greedy skew-services-exact
finds needs_service skew-services-missing
status 1 "a hang is a result" "$check" --only load-loads "$variants/hang.so"
like "after its time" "$out" "*hung for 5.0 s*"

# Network backends, in a namespace of their own.
skipped() { grep SKIP <<<"$out" | sed 's/.* - \(net-[a-z]*\):.*/\1/' | paste -sd' '; }
if [ "$(id -u)" = 0 ] && unshare -n true 2>/dev/null && [ -w /dev/net/tun ]; then
	status 0 "null-net keeps the contract" "$check" --only NET "$BUILDDIR/sdk/examples/null-net.so"
	is "of it only watch, which it has not, is skipped" "$(skipped)" "net-watch"
	if [ -e "$BUILDDIR/plugins/net/bridge/bridge.so" ]; then
		status 0 "so does bridge" "$check" --only NET --set name=brcheck --set create=on "$BUILDDIR/plugins/net/bridge/bridge.so"
		is "nothing of it is skipped" "$(grep -c SKIP <<<"$out")" 0
		status 0 "with an uplink too" "$check" --only NET --set name=brcheck --set uplink=vhcard0 "$BUILDDIR/plugins/net/bridge/bridge.so"
		is "nothing of it is skipped" "$(grep -c SKIP <<<"$out")" 0
	fi
	setup="ip link add v0 type veth peer name v1 && ip link set v0 addrgenmode none && ip link set v1 addrgenmode none &&
		ip link set v0 up && ip link set v1 up && ip addr add 10.9.0.1/24 dev v0 && ip route add default via 10.9.0.254"
	if [ -e "$BUILDDIR/plugins/net/macvtap/macvtap.so" ] && unshare -n sh -c "$setup && ip link add probe link v0 type macvtap" 2>/dev/null; then
		status 0 "so does macvtap" "$check" --only NET --net-setup "$setup" --set uplink=v0 --set host=on "$BUILDDIR/plugins/net/macvtap/macvtap.so"
		is "of it only watch, which it has not, is skipped" "$(skipped)" "net-watch"
	else
		skip "macvtap" "it is not built, or this kernel has none"
	fi
	if [ -x /usr/bin/passt ]; then
		status 0 "so does passt" "$check" --only NET --net-setup "$setup" --set address=10.9.0.2/24 "$BUILDDIR/plugins/net/passt/passt.so"
		is "of it only link, watch and start, which it has not, are skipped" "$(skipped)" "net-link net-watch net-start"
	else
		skip "passt" "passt is not installed"
	fi
	status 1 "start() that fails is found" "$check" --only net-start --set how=start-fails "$BUILDDIR/tests/unit/net/odd-net.so"
	status 1 "kinds that are no words are found" "$check" --only net-kinds "$BUILDDIR/tests/unit/net/odd-net.so"
	status 1 "a part that is too short is found" "$check" --only net-start --set how=sizes "$BUILDDIR/tests/unit/net/odd-net.so"
else
	skip "network backends" "needs root, network namespaces and /dev/net/tun"
fi

status 0 "the list of checks" "$check" --list
missing=""
while read -r doc; do
	file=${doc%#*} anchor=${doc#*#}
	# GitHub's anchors: lower case, blanks to hyphens, other signs dropped.
	sed -n 's/^##* *//p' "$SRCDIR/$file" 2>/dev/null | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9_\n-' | grep -qx -- "$anchor" ||
		missing="$missing $doc"
done < <(grep -oE '\(docs/[^)]*\)$' <<<"$out" | tr -d '()' | sort -u)
is "every rule stands where it says" "$missing" ""
status 0 "as JSON" "$check" --json --only load-note "$variants/good.so"
check "an object" python3 -c 'import json, sys; j = json.loads(sys.argv[1]); assert j["failed"] == 0 and j["checks"][0]["result"] == "pass"' "$out"
status 0 "in this process" "$check" --in-process --only load-schemas "$variants/good.so"
status 1 "in this process, failing" "$check" --in-process --only load-note "$variants/no_note.so"
status 2 "a check that there is not" "$check" --only nonsense "$variants/good.so"
status 2 "no file" "$check"
finish
