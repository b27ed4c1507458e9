#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Unmodified Debian guests on volumes and a bridge, all of it from plugins. Runs where /dev/kvm runs an ordinary kernel: in the lab.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
. "$(dirname "$0")/guests.bash"
store=/mnt/scratch/$$
mkdir -p "$store" 2>/dev/null && [ -d /mnt/scratch/lost+found ] || store=$tmp
fresh() { vhost vol delete "lab/$1" >/dev/null 2>&1; vhost vol create "lab/$1" --size "$2" --format raw >/dev/null; }

# ---- a pool and its volumes ----
check "a dir pool is made" vhost pool define lab --type dir --path "$store/pool" --make
check "a raw volume is made" vhost vol create lab/disk --size 64M --format raw

# ---- the disk; 1 vCPU, 128 MiB, bzImage ----
kernel=$GUEST_CLOUD/vmlinuz start one disk,rng --cpus 1 --memory 128M --disk lab/disk
good one "a bzImage boots with 1 vCPU and 128 MiB, writes its disk and reads it back"
is "with one vCPU" "$(said one cpus)" 1
is "its disk is as large as the volume" "$(said one bytes)" 67108864
is "the volume holds what the guest wrote" \
	"$(dd if="$store/pool/disk" bs=1M skip=8 count=4 status=none | sha256sum | cut -c1-64)" "$(said one sha256)"
like "the entropy device works" "$(log one)" "*guest: rng virtio_rng*"

# ---- discard; 2 vCPUs, ELF by PVH ----
before=$(stat -c %b "$store/pool/disk")
sum=$(dd if="$store/pool/disk" bs=64k count=16 status=none | sha256sum | cut -c1-64)
start two read,discard,fs --cpus 2 --memory 512M --disk lab/disk --protocol pvh
await two 'guest: discard done'
after=$(stat -c %b "$store/pool/disk")
good two "a vmlinux boots by PVH with 2 vCPUs, discards, makes a file system and reads a file back"
is "with two vCPUs" "$(said two cpus)" 2
is "it reads what the host sees" "$(log two | sed -n 's/^guest: read sha256=//p')" "$sum"
check "the discarded blocks are given back ($before, then $after)" test "$after" -lt $((before / 2))
check "the host finds a sound file system" e2fsck -fn "$store/pool/disk"

# ---- 8 vCPUs, 6 GiB: more than the lab has of either ----
start eight disk --cpus 8 --memory 6G --disk lab/disk
good eight "8 vCPUs and 6 GiB boot, memory given out as it is touched"
is "with eight vCPUs" "$(said eight cpus)" 8
check "and most of 6 GiB ($(said eight memory_kib) KiB)" test "$(said eight memory_kib)" -gt 5800000

# ---- Debian's full kernel, the 64-bit entry ----
if [ -n "${GUEST_FULL:-}" ]; then
	kernel=$GUEST_FULL/vmlinuz initrd=$GUEST_FULL/initrd start full disk --cpus 2 --memory 1G --disk lab/disk
	good full "Debian's full kernel boots from its bzImage"
else
	skip "Debian's full kernel boots from its bzImage" "the full kernel was not fetched"
fi

# ---- again and again ----
rounds=3; [ -z "${VH_LONG:-}" ] || rounds=20
for ((i = 1; i <= rounds; i++)); do
	start "round$i" disk --cpus $((i % 2 + 1)) --memory 256M --disk lab/disk
	good "round$i" "boot $i of $rounds in a row"
done
is "nothing is left of them" "$(vhost vm list --json | tr -d ' \n' | grep -c round)" 0
few_complaints
finish
