#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Pools of type lvm on real device-mapper: thick and thin volumes, snapshots, clones, leases, kills, a thin pool that runs full under a
# guest, a Debian whose root is a logical volume. Runs in the lab. There is no udev, which lvm is told.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
requires lvm losetup dmsetup qemu-io
for m in loop dm_mod dm_thin_pool dm_snapshot; do modprobe $m 2>/dev/null || [ -e /sys/module/$m ] || skip_all "the kernel has no $m"; done
[ -z "${GUEST_CLOUD:-}" ] || . "$(dirname "$0")/guests.bash"
export DM_DISABLE_UDEV=1 LVM_SYSTEM_DIR=$tmp/lvm LVM_SUPPRESS_FD_WARNINGS=1
vg=vhlab
mkdir "$LVM_SYSTEM_DIR"
head -c 160M /dev/zero | tr '\0' '\252' >"$tmp/one" # what an earlier owner left
truncate -s 1300M "$tmp/one"; truncate -s 128M "$tmp/two"
dev=$(losetup -f --show "$tmp/one") other=$(losetup -f --show "$tmp/two")
on_exit "dmsetup remove_all --force >/dev/null 2>&1; losetup -d $dev $other 2>/dev/null"
cat >"$LVM_SYSTEM_DIR/lvm.conf" <<E2
activation {
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}
global {
	locking_dir = "$tmp/lock"
	use_lvmpolld = 0
}
devices {
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	filter = [ "a|^$dev\$|", "a|^$other\$|", "r|.*|" ]
}
backup {
	backup = 0
	archive = 0
}
E2
step() { echo "# $((SECONDS - began)) s: $*"; }
began=$SECONDS
active() { dmsetup ls 2>/dev/null | grep -qE "^$vg-$1[[:space:]]"; }
idle() { ! active "$1"; }
# soon NAME: until the volume is active, looked at without starting a program.
soon() {
	local f n end=$((SECONDS + 60))
	while [ $SECONDS -lt $end ]; do
		for f in /sys/class/block/dm-*/dm/name; do
			{ read -r n <"$f"; } 2>/dev/null && [ "$n" = "$vg-$1" ] && return 0
		done
	done
	return 1
}
same() { cmp -n "$(stat -c %s "$3")" "$2" "$3" >/dev/null 2>&1; result $? "$1"; rm -f "$2"; } # the beginning of a volume
down() { rm -f "$tmp/down"; vhost --quiet vol download "lv/$1" "$tmp/down" >/dev/null; }
zeros() { # zeros NAME VOLUME FROM TO: MiB
	down "$2"; cmp -n $((($4 - $3) << 20)) -i "$(($3 << 20)):0" "$tmp/down" /dev/zero >/dev/null 2>&1; result $? "$1"; }
ctl=$BUILDDIR/tests/unit/store/pool-ctl plugin=$BUILDDIR/plugins/storage/lvm/lvm.so
hold() { # hold MODE VOLUME: by another process, until release
	coproc HOLD { exec "$ctl" "$plugin" vg=$vg hold "$1" "$2" 2>"$tmp/hold.err"; }
	holder=$HOLD_PID; exec {hold_in}>&"${HOLD[1]}"
	read -r -t 60 _ <&"${HOLD[0]}" || { not_ok "$2 can be held: $(<"$tmp/hold.err")"; return 1; }
}
release() { exec {hold_in}>&-; kill "$holder" 2>/dev/null; wait "$holder" 2>/dev/null; }
head -c 3M /dev/urandom >"$tmp/data"; head -c 3M /dev/urandom >"$tmp/later"

# ---- thick ----
status 0 "a group is made of two devices" vhost pool define lv --type lvm --vg $vg --devices "$dev,$other" --wipe zero --make
status 0 "a volume without zeroing" vhost vol create lv/old --size 8M --zero off
down old; is "has what was there before" "$(head -c 4 "$tmp/down" | od -An -tx1 | tr -d ' ')" aaaaaaaa
status 0 "a volume" vhost vol create lv/k --size 8M
zeros "reads as zeros" k 0 8
status 0 "upload" vhost --quiet vol upload lv/k "$tmp/data"
check "it is not active after that" idle k
status 0 "it grows" vhost --quiet vol resize lv/k 12M
down k; same "and keeps its contents" "$tmp/down" "$tmp/data"
zeros "and what it gained reads as zeros" k 8 12
step leases

# ---- leases ----
hold excl k
check "a volume in use is active" active k
status 4 "its deletion is refused" vhost vol delete lv/k
like "and the holder named" "$err" "*in use by pid 0 pool-ctl hold since *"
status 4 "as is reading it" vhost vol download lv/k "$tmp/down"
vhost pool define alias --type lvm --vg $vg >/dev/null
status 4 "also through another pool" vhost --quiet vol upload alias/k "$tmp/data"
like "with the same holder" "$err" "*pid 0 pool-ctl hold*"
status 1 "its device node is no volume of a folder" vhost run --name path --kernel /dev/null --disk "path=/dev/$vg/k,format=raw" --serial null
like "and said to be none" "$err" "*device node*"
node=$(readlink -f /dev/$vg/k); number=$(stat -c '%Hr:%Lr' "$node")
qemu-io -f raw -c 'write 0 512' "/dev/dm-${number#*:}" >/dev/null 2>&1
check "QEMU does not write it either" test $? != 0
mknod "$tmp/node" b "${number%:*}" "${number#*:}"
mkfs.ext4 -q -F "$tmp/node" >/dev/null 2>&1
check "nor mkfs, by another node of the device" test $? != 0
lvm lvremove -qq -f $vg/k >/dev/null 2>&1
check "nor does lvm remove it" active k
kill -9 "$holder"; wait "$holder" 2>/dev/null; exec {hold_in}>&-
check "a killed holder leaves nothing active" idle k
down k; same "and nothing changed" "$tmp/down" "$tmp/data"
hold ro k
down k; same "readers share" "$tmp/down" "$tmp/data"
status 4 "but keep writers out" vhost --quiet vol upload lv/k "$tmp/data"
release
lvm lvchange -qq -ay $vg/old >/dev/null 2>&1; mkfs.ext4 -q /dev/$vg/old; mkdir "$tmp/mnt"; mount /dev/$vg/old "$tmp/mnt"
status 4 "one that is mounted is refused" vhost --quiet vol upload lv/old "$tmp/data"
like "naming where" "$err" "*mounted on $tmp/mnt*"
status 4 "for reading too" vhost vol download lv/old "$tmp/down"
umount "$tmp/mnt"; lvm lvchange -qq -an $vg/old >/dev/null 2>&1
step snapshots

# ---- classic snapshots ----
status 0 "a snapshot of a thick volume" vhost vol snapshot create lv/k one
check "leaves nothing active" sh -c "! dmsetup ls | grep -q $vg-k"
status 0 "the volume goes on" vhost --quiet vol upload lv/k "$tmp/later"
status 4 "and is not deleted with it" vhost vol delete lv/k
status 0 "back" vhost --quiet vol snapshot rollback lv/k one
down k; same "is what it was" "$tmp/down" "$tmp/data"
like "and the snapshot is still there" "$(vhost vol snapshot list lv/k)" "*one*"
status 0 "until it is deleted" vhost vol snapshot delete lv/k one
check "and nothing is active" sh -c "! dmsetup ls | grep -q $vg-k"
hold excl k
"$VHOST" --quiet vol snapshot create lv/k two >/dev/null 2>&1
is "one of a volume in use is refused" "$?" 4
status 0 "--force-share takes it" vhost vol snapshot create lv/k two --force-share
check "its user still has it" test -n "$(readlink "/proc/$holder/fd/"* | grep -m 1 /dev/dm-)"
status 4 "and keeps others out" vhost --quiet vol upload lv/k "$tmp/later"
release
status 0 "when it has ended the volume goes on" vhost --quiet vol upload lv/k "$tmp/later"
check "and nothing is active after that" sh -c "! dmsetup ls | grep -q $vg-k"
status 0 "back" vhost --quiet vol snapshot rollback lv/k two
down k; same "is what it was" "$tmp/down" "$tmp/data"
status 0 "and it goes" vhost vol snapshot delete lv/k two
step kills

# ---- killed while it writes zeros ----
"$VHOST" --quiet vol create lv/big --size 600M >/dev/null 2>&1 & p=$!
soon big; kill -9 $p; wait $p 2>/dev/null
status 3 "what a killed create left is no volume" vhost vol info lv/big
status 0 "and the same again makes it" vhost --quiet vol create lv/big --size 600M
is "once" "$(lvm lvs --noheadings -o lv_name $vg 2>/dev/null | grep -c big)" 1
vhost --quiet vol upload lv/big "$tmp/data" >/dev/null # fresh ones need no wiping
"$VHOST" --quiet vol delete lv/big >/dev/null 2>&1 & p=$!
soon big; for ((i = 0; i < 100; i++)); do lvm lvs --noheadings -o lv_tags $vg/big 2>/dev/null | grep -q removing && break; done
kill -9 $p; wait $p 2>/dev/null
run vhost vol info lv/big
like "what a killed delete left says so" "$out" "*deletion was cut short*"
status 4 "and is used by nobody" vhost vol download lv/big "$tmp/down"
status 0 "another delete finishes it" vhost --quiet vol delete lv/big
is "and it is gone" "$(lvm lvs --noheadings -o lv_name $vg 2>/dev/null | grep -c big)" 0
status 0 "and so are the others" vhost --quiet vol delete lv/old
step "system calls"

# ---- what a request costs: no call of the plugin, and the system calls that a bare device costs ----
vhost vol create lv/calls --size 8M --zero off >/dev/null
run "$ctl" "$plugin" vg=$vg entries calls
is "the plugin has no part in a request: the host has the device" "$out" "fd=yes"
# calls POOL N ENGINE: the I/O calls of our own threads, as "name count" lines; lvm's own are left out
calls() {
	rm -f "$tmp"/trace.*
	strace -ff -qq --seccomp-bpf -o "$tmp/trace" -e trace=execve,$io_calls "$VHOST" --plugin "$BUILDDIR/tests/unit/store/bare.so" \
		vol bench "$1/calls" --format raw --count "$2" --depth 1 --write --flush-interval 10 --engine "$3" >"$tmp/bench.out" 2>&1 || sed 's/^/# /' "$tmp/bench.out" >&2
	grep -LE 'execve\("[^"]*/lvm"' "$tmp"/trace.* | xargs cat | grep -oE '^[a-z_0-9]+\(' | tr -d '(' | sort | uniq -c
}
# each POOL ENGINE: what 200 writes and 20 flushes more cost; read() is left out, which is how lvm's reports come
each() {
	calls "$1" 300 "$2" >"$tmp/more"; calls "$1" 100 "$2" >"$tmp/fewer"
	join -a 1 -1 2 -2 2 -e 0 -o 0,1.1,2.1 "$tmp/more" "$tmp/fewer" | awk '$2 != $3 {printf "%s=%d ", $1, $2 - $3}'
}
io_calls=io_submit,io_getevents,io_uring_enter,pread64,preadv,preadv2,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,fallocate,ioctl
if command -v strace >/dev/null; then
	lvm lvchange -qq -ay $vg/calls >/dev/null 2>&1
	mkdir "$tmp/nodes"; mknod "$tmp/nodes/calls" b $((0x$(stat -L -c %t /dev/$vg/calls))) $((0x$(stat -L -c %T /dev/$vg/calls)))
	vhost --plugin "$BUILDDIR/tests/unit/store/bare.so" pool define bare --type bare --path "$tmp/nodes" >/dev/null
	for engine in aio uring; do
		volume=$(each lv $engine) device=$(each bare $engine)
		is "$engine: a write to a volume costs what it costs to the bare device" "$volume" "$device"
		like "$engine: which is one call for each, flushes included" " $volume" "* io_*=2[02]0 *"
	done
	lvm lvchange -qq -an $vg/calls >/dev/null 2>&1
else
	skip "the system calls of a request" "strace is not installed"
fi
vhost --quiet vol delete lv/calls >/dev/null
step thin

# ---- thin ----
status 0 "a thin pool in the group" vhost pool define thin --type lvm --vg $vg --thin-pool tp --thin-size 12M --make
status 0 "a thin volume, larger than it" vhost vol create thin/t --size 32M
status 0 "upload" vhost --quiet vol upload thin/t "$tmp/data"
is "takes what is in it" "$(vhost pool info thin --json | grep -o '"allocated":[0-9]*')" '"allocated":3145728'
status 0 "a snapshot" vhost vol snapshot create thin/t one
status 0 "the volume goes on" vhost --quiet vol upload thin/t "$tmp/later"
status 0 "a clone of the snapshot" vhost vol clone thin/t c --snapshot one --cow
down c; same "has what was then" "$tmp/down" "$tmp/data"
is "and the format" "$(vhost vol info thin/c --json | grep -o '"format":"[a-z]*"')" '"format":"raw"'
status 0 "back" vhost --quiet vol snapshot rollback thin/t one
down t; same "is what it was" "$tmp/down" "$tmp/data"
status 0 "the snapshot goes" vhost vol snapshot delete thin/t one
status 0 "the clone too" vhost --quiet vol delete thin/c
if [ -n "${GUEST_CLOUD:-}" ] && [ -c /dev/kvm ]; then
	step "a thin pool runs full under a guest"
	start seal seal --cpus 1 --memory 256M --disk thin/t
	await seal "guest: sealed=8 " 120
	run vhost pool info thin
	for ((i = 0; i < 600; i++)); do
		state=$(vhost vm info seal --json 2>/dev/null | grep -o '"state":"[a-z-]*"'); [ "$state" != '"state":"running"' ] && break; sleep 0.2
	done
	is "the guest is stopped when it is full" "$state" '"state":"io-error"'
	status 0 "info" vhost pool info thin
	like "tells of it" "$out" "*degraded*thin pool tp is full*"
	status 4 "a second VM on the volume is refused" vhost run --name two --kernel "$GUEST_CLOUD/vmlinux" --disk thin/t --serial null
	like "and the first one named" "$err" "*in use by pid $(vm_pid) *seal*"
	full=$(said seal sealed)
	lvm lvextend -qq -L +64M $vg/tp >/dev/null 2>&1
	status 0 "it is extended and the guest goes on" vhost vm resume seal
	await seal "guest: sealed=$((${full:-0} + 12)) " 60; result $? "writing (from ${full:-none})"
	kill -KILL "$(vm_pid)"; wait "$guest_pid" 2>/dev/null
	last=$(said seal sealed) blocks=$(said seal blocks) lost=""
	check "the guest saw no error" sh -c "! grep -q 'guest: FAIL' '$tmp/seal.log'"
	check "its volume is not active any more" idle t
	down t
	for ((i = 0; i <= ${last:--1}; i++)); do
		yes "seal $i" | head -c 65536 | cmp -s - <(dd if="$tmp/down" bs=64k skip=$((i * 7919 % blocks)) count=1 status=none) || lost+=" $i"
	done
	is "and nothing that was sealed is lost (${last:-none})" "$lost" ""
else
	skip "a thin pool runs full under a guest" "no guest, or no /dev/kvm"
fi
status 0 "the thin volume goes" vhost --quiet vol delete thin/t
if [ -n "${GUEST_ROOTFS:-}" ] && [ -c /dev/kvm ]; then
	step "a Debian with its root on a logical volume"
	lvm lvextend -qq -L 400M $vg/tp >/dev/null 2>&1
	status 0 "a volume for the root" vhost vol create thin/root --size 1G
	status 0 "gets it" vhost --quiet vol upload thin/root "$GUEST_ROOTFS"
	status 0 "a thick one for fio" vhost vol create lv/fio --size 32M
	append="vhost.root=/dev/vda" start debian fio --cpus 2 --memory 512M --disk thin/root --disk lv/fio
	good debian "a Debian boots from a logical volume, and fio writes and verifies on another"
	like "it did" "$(log debian)" "*guest: fio verified*"
	few_complaints
else
	skip "a Debian with its root on a logical volume" "tests/lab/prepare made no root file system"
fi
step "missing devices"

# ---- a missing device ----
status 0 "a volume on the second device" vhost vol create lv/gone --size 8M --zero off
lvm lvcreate -qq -an -Zn -Wn -n far -L 16M $vg "$other" >/dev/null 2>&1
sed -i 's/ "a|^[^|]*|", "r|/ "r|/' "$LVM_SYSTEM_DIR/lvm.conf" # lvm sees the second device no more
rm -f "$tmp/down"
status 1 "a volume on a device that is missing is refused" timeout 60 "$VHOST" vol download lv/far "$tmp/down"
like "saying so" "$err" "*a device that it lies on is missing*"
rm -f "$tmp/down"
check "the others work" vhost --quiet vol download lv/k "$tmp/down"
status 0 "info" vhost pool info lv
like "tells" "$out" "*degraded (1 of the group's devices is missing)*"
status 1 "and nothing new is made" vhost vol create lv/new --size 4M
step end
finish
