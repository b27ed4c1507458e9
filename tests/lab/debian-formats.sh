#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Disks in the formats that allocate, under real guests: a Debian whose root is an overlay of qcow2, snapshots while it runs, fio's
# own verification, and machines that are killed under load. Runs in the lab.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
requires qemu-img
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
[ -n "${GUEST_ROOTFS:-}" ] || skip_all "tests/lab/prepare made no root file system"
. "$(dirname "$0")/guests.bash"
store=/mnt/scratch/$$
mkdir -p "$store" 2>/dev/null && [ -d /mnt/scratch/lost+found ] || store=$tmp
formats="${FORMATS:-qcow2 vmdk vdi}"
whole() { # whole FORMAT FILE WHAT: clean for us and for qemu-img, leaks apart (3)
	run vhost img check --format "$1" "$2"
	if [ "$rc" = 0 ] || [ "$rc" = "${CHECK_LEAKS:-13}" ]; then ok "$3: our check"; else not_ok "$3: our check (exit $rc)"; fi
	run qemu-img check -f "$1" "$2"
	if [ "$rc" = 0 ] || [ "$rc" = 3 ]; then ok "$3: qemu-img check"; else not_ok "$3: qemu-img check (exit $rc)"; fi
}

check "a dir pool is made" vhost pool define lab --type dir --path "$store/pool" --make
cp --sparse=always "$GUEST_ROOTFS" "$store/pool/base"
check "the base is known to be raw" vhost vol set lab/base --format raw

# ---- a Debian on an overlay, snapshotted while it runs ----
check "an overlay of qcow2 over the base" vhost vol create lab/root --format qcow2 --backing base
check "a disk for the flag" vhost vol create lab/flag --size 1M --format raw
append="vhost.root=/dev/vda" start debian snap --cpus 2 --memory 512M --disk lab/root --disk lab/flag
if await debian 'guest: snap before'; then
	check "a snapshot of the running guest's disk" vhost vm snapshot debian 0 create one
	printf snapshot-taken | dd of="$store/pool/flag" conv=notrunc,fsync status=none
fi
good debian "a Debian boots from a qcow2 with a backing file, is snapshotted, and goes on"
like "it is Debian" "$(log debian)" '*guest: PRETTY_NAME="Debian GNU/Linux 12*'
like "the snapshot is listed" "$(vhost vol snapshot list lab/root)" "*one*"
whole qcow2 "$store/pool/root" "after the snapshot"
append="vhost.root=/dev/vda" start again state --cpus 1 --memory 256M --disk lab/root
good again "it boots again"
is "with what it wrote after the snapshot" "$(log again | sed -n 's/^guest: state //p')" after
check "the snapshot is applied" vhost vol snapshot apply lab/root one
append="vhost.root=/dev/vda" start back state --cpus 1 --memory 256M --disk lab/root
good back "it boots from the snapshot's state"
is "with what it was then" "$(log back | sed -n 's/^guest: state //p')" before
whole qcow2 "$store/pool/root" "after going back"

# ---- fio ----
for f in $formats; do
	check "a $f volume" vhost vol create "lab/fio-$f" --size 32M --format "$f"
	append="vhost.root=/dev/vda" start "fio-$f" fio --cpus 2 --memory 512M --disk lab/root --disk "lab/fio-$f"
	good "fio-$f" "fio writes and verifies on $f"
	like "it did ($f)" "$(log "fio-$f")" "*guest: fio verified*"
	whole "$f" "$store/pool/fio-$f" "$f after fio"
done

# ---- killed in the middle of it ----
rounds=1; [ -z "${VH_LONG:-}" ] || rounds=34
# So many guests in one emulated machine are more than it always survives: the next one goes on where it ended.
seen=${LAB_OUT:-$tmp}/killed-rounds
for ((r = 1; r <= rounds; r++)); do
	for f in $formats; do
		if grep -qsx "$f $r" "$seen"; then ok "round $r: $f: whole, in the lab before, which hung later"; continue; fi
		before=$failed
		vhost vol delete "lab/seal-$f" >/dev/null 2>&1
		check "round $r: a $f volume" vhost vol create "lab/seal-$f" --size 64M --format "$f"
		start "seal-$f" seal --cpus 2 --memory 256M --disk "lab/seal-$f"
		await "seal-$f" "guest: sealed=$((10 + RANDOM % 30)) "
		kill -KILL "$(vm_pid)"
		wait "$guest_pid" 2>/dev/null
		last=$(said "seal-$f" sealed) blocks=$(said "seal-$f" blocks)
		check "round $r: $f had sealed blocks when it was killed (${last:-none})" test "${last:-0}" -gt 5
		whole "$f" "$store/pool/seal-$f" "round $r: $f killed under load"
		qemu-img convert -U -f "$f" -O raw "$store/pool/seal-$f" "$tmp/raw" || not_ok "round $r: qemu-img reads the $f"
		lost=""
		for ((i = 0; i <= ${last:--1}; i++)); do
			yes "seal $i" | head -c 65536 | cmp -s - <(dd if="$tmp/raw" bs=64k skip=$((i * 7919 % blocks)) count=1 status=none) || lost+=" $i"
		done
		is "round $r: $f: nothing that was sealed is lost" "$lost" ""
		[ "$failed" != "$before" ] || echo "$f $r" >>"$seen"
	done
done
few_complaints
finish
