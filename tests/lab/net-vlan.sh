#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# VLANs on a kernel that has them: the plugin's unit tests and the isolation proof (VLAN_TESTS), whose results are counted here one by one.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
for m in 8021q veth bridge tun; do modprobe $m 2>/dev/null || [ -e /sys/module/$m ] || skip_all "the kernel has no $m"; done

# tap NAME PROGRAM: its TAP lines as our own. One that ends early, or skips here, has failed.
tap() {
	local line plan=0 seen=0
	[ -x "$2" ] || { not_ok "$1: $2 is not built"; return; }
	while IFS= read -r line; do
		case $line in
		1..*) plan=${line#1..} ;;
		"ok "*kernel-without*" # SKIP "*) line=${line%% # SKIP *} seen=$((seen + 1)); skip "$1: ${line#ok * }" "this kernel has VLANs" ;;
		"ok "*" # SKIP "*) seen=$((seen + 1)); not_ok "$1: ${line#ok * }: skipped where it can run" ;;
		"ok "*) seen=$((seen + 1)); ok "$1: ${line#ok * }" ;;
		"not ok "*) seen=$((seen + 1)); not_ok "$1: ${line#not ok * }" ;;
		"#"*) echo "$line" ;;
		*) echo "# $line" ;;
		esac
	done < <("$2" 2>&1)
	is "$1: all of its $plan tests have run" "$seen" "$plan"
}
began=$SECONDS
for t in ${VLAN_TESTS:-vlan vlan-faults isolation}; do tap "$t" "$BUILDDIR/tests/unit/net/test-net-$t"; done
echo "# $((SECONDS - began)) s"
finish
