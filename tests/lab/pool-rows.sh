#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# What tests/cases does with pools of every type, with type lvm, which needs device-mapper: the suite and the lock matrix. Runs in the lab.
# There is no udev, which lvm is told. pool-rows.sh suite|locks: only that one. Whole with VH_LONG, which takes minutes more; else the suite in
# its short form and one command for each pair of ways.
# Minutes that `./vh test` does not have; it runs the same over the other types, and pool-lvm.sh.
[ -n "${VH_LONG:-}${VH_NAMED:-}" ] || { echo "1..0 # SKIP takes minutes: runs with --long, or by its name"; exit 0; }
cases=$(dirname "$(realpath "$0")")/../cases
for m in loop dm_mod dm_thin_pool dm_snapshot; do modprobe $m 2>/dev/null || [ -e /sys/module/$m ] || { echo "1..0 # SKIP the kernel has no $m"; exit 0; }; done
export DM_DISABLE_UDEV=1
[ -n "${VH_LONG:-}" ] || export SUITE_SHORT=1 LOCKS_FEW=${LOCKS_FEW:-1}
status=0 n=0
for t in ${*:-suite locks}; do
	# One stream of tests out of several.
	while read -r line; do
		case $line in
		status=*) [ "$line" = status=0 ] || status=1 ;;
		"ok "* | "not ok "*) n=$((n + 1)); echo "$(sed -E "s/ok [0-9]+ -/ok $n - $t:/" <<<"$line")" ;;
		[0-9]*..*) [[ $line != *SKIP* ]] || { n=$((n + 1)); echo "ok $n - $t # SKIP ${line#*SKIP }"; } ;;
		*) echo "$line" ;;
		esac
	done < <(bash "$cases/pool-$t.sh" lvm; echo "status=$?")
done
echo "1..$n"
exit $status
