# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Sourced by tests that start real guests (after functions.sh): start, await, ends. Needs GUEST_CLOUD (tests/lab/prepare).
: "${GUEST_CLOUD:?tests/lab/prepare makes it; run this by ./vh test or with tests/lab/make-guest}"
: "${GUEST_TIMEOUT:=180}" # of one guest, in seconds; emulated machines are slow

# start NAME JOBS OPTION...: a guest of Debian's cloud kernel that does these jobs, in the background. Its console is in
# $tmp/NAME.log, its messages in $tmp/NAME.err. The kernel is $kernel (default: the ELF vmlinux, entered by PVH: half the time of a bzImage), the initramfs $initrd, $append more
# for its command line.
start() {
	local name=$1 jobs=$2
	shift 2
	rm -f "$tmp/$name.log"
	timeout -k 5 "$GUEST_TIMEOUT" "$VHOST" run --name "$name" --kernel "${kernel:-$GUEST_CLOUD/vmlinux}" \
		--initrd "${initrd:-$GUEST_CLOUD/initrd}" --cmdline "console=ttyS0 quiet panic=-1 vhost.job=$jobs ${append:-}" \
		--serial "file:$tmp/$name.log" "$@" >"$tmp/$name.out" 2>"$tmp/$name.err" </dev/null &
	guest_pid=$!
}
# The pid of the VM itself, below timeout.
vm_pid() { pgrep -P "$guest_pid" | head -n 1; }
log() { [ ! -e "$tmp/$1.log" ] || tr -d "\r" <"$tmp/$1.log"; }
# await NAME PATTERN [SECONDS]: until the guest has said it; fails when the guest ends before, or time is over.
await() {
	local i
	for ((i = 0; i < ${3:-90} * 5; i++)); do
		log "$1" | grep -qE "$2" && return 0
		kill -0 "$guest_pid" 2>/dev/null || { log "$1" | grep -qE "$2"; return; }
		sleep 0.2
	done
	return 1
}
# ends NAME: waits for the guest started last; rc, out (its console), err.
ends() {
	wait "$guest_pid"; rc=$?
	out=$(log "$1" | tail -n 40) err=$(cat "$tmp/$1.err")
}
# good NAME WHAT: it ended with status 0, having done its jobs without a complaint of theirs.
complaints=0
good() {
	ends "$1"
	if log "$1" | grep -qE 'Oops|BUG:|general protection fault|Call Trace|Kernel panic'; then
		complaints=$((complaints + 1))
		log "$1" | grep -E -m 1 -B 4 -A 12 'Oops|BUG:|general protection fault|Call Trace' | sed "s/^/# $1's kernel: /"
	fi
	if [ "$rc" = 0 ] && grep -q '^guest: powers off' <<<"$out" && ! log "$1" | grep -q '^guest: FAIL'; then
		ok "$2"
	else
		not_ok "$2 (exit $rc)"
	fi
}
# The lab's CPU is emulated, and so is AMD-V: it breaks one exit in some hundred thousand, QEMU's guests' as well as ours
# (docs/machine.md). Such a guest's kernel complains and boots again (panic=-1) to do its jobs; each is shown, and more than two in one
# script are a failure.
few_complaints() { check "no more than two guests' kernels complained ($complaints)" test "$complaints" -le 2; }
# said NAME KEY: the value of "KEY=value" in what the guest said last with it.
said() { log "$1" | sed -n "s/^guest: .*$2=\([^ ]*\).*/\1/p" | tail -n 1; }
