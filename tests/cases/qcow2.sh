#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Images of qcow2 by the commands, and what QEMU's tools say of them.
. "$(dirname "$0")/functions.sh"
requires qemu-img qemu-io
[ -n "$(find "$BUILDDIR/plugins" -name qcow2.so)" ] || skip_all "the qcow2 plugin is not built"
cd "$tmp" || exit 1
i() { vhost img "$@" --format qcow2; }
clean() { check "$1: qemu-img finds it clean" qemu-img check -q -f qcow2 "$2"; check "$1: so does check" i check "$2"; }
sum() { qemu-img convert -f qcow2 -O raw "$1" /dev/stdout 2>/dev/null | sha256sum; }

check "makes an image" i create a.qcow2 64M --format.cluster-size 4K
check "qemu-io writes to it" qemu-io -f qcow2 -c 'write -P 1 0 3M' -c 'write -P 2 40M 100k' a.qcow2
before=$(sum a.qcow2)
check "makes a snapshot" i snapshot create a.qcow2 one
check "qemu-io writes again" qemu-io -f qcow2 -c 'write -P 3 1M 3M' -c 'discard 40M 64k' a.qcow2
clean "with a snapshot" a.qcow2
status 4 "the same name twice" i snapshot create a.qcow2 one
status 3 "a snapshot that is not there" i snapshot apply a.qcow2 two
check "goes back" i snapshot apply a.qcow2 one
is "and has what was there" "$(sum a.qcow2)" "$before"
clean "gone back" a.qcow2
check "removes the snapshot" i snapshot delete a.qcow2 one
is "the disk stays" "$(sum a.qcow2)" "$before"
clean "without a snapshot" a.qcow2

check "other counts" i amend a.qcow2 -o refcount-bits=64
like "qemu-img sees them" "$(qemu-img info a.qcow2)" "*refcount bits: 64*"
check "back to version 2" i amend a.qcow2 -o compat=v2,refcount-bits=16
like "qemu-img sees it" "$(qemu-img info a.qcow2)" "*compat: 0.10*"
is "the disk stays through that" "$(sum a.qcow2)" "$before"
clean "amended" a.qcow2

# A leak, and damage.
qemu-img create -q -f qcow2 b.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 3M' b.qcow2 >/dev/null
before=$(sum b.qcow2)
cp b.qcow2 leak.qcow2
end=$(($(stat -c %s leak.qcow2) / 65536 + 1))
truncate -s $(((end + 1) * 65536)) leak.qcow2
be64() { echo $((0x$(od -An -tx1 -j "$1" -N 8 "$2" | tr -d ' '))); }
rt=$(be64 48 leak.qcow2)
rb=$(be64 "$rt" leak.qcow2)
printf '\0\1' | dd of=leak.qcow2 bs=1 seek=$((rb + end * 2)) conv=notrunc status=none
run qemu-img check -q -f qcow2 leak.qcow2
is "qemu-img calls it a leak" "$rc" 3
status 13 "so does check" i check leak.qcow2
check "gives it back" i check leak.qcow2 --repair leaks
clean "given back" leak.qcow2
cp b.qcow2 bad.qcow2
printf '\0\0' | dd of=bad.qcow2 bs=1 seek=$((rb + 2)) conv=notrunc status=none
run qemu-img check -q -f qcow2 bad.qcow2
is "qemu-img calls it damage" "$rc" 2
status 12 "so does check" i check bad.qcow2
check "mends it" i check bad.qcow2 --repair all
clean "mended" bad.qcow2
is "the disk stays through repair" "$(sum bad.qcow2)" "$before"

# Bitmaps that are not kept up to date.
qemu-img create -q -f qcow2 bm.qcow2 16M
qemu-img bitmap --add bm.qcow2 daily
check "looking leaves a bitmap alone" i info bm.qcow2
out=$(qemu-img info bm.qcow2)
if [[ $out == *in-use* ]]; then not_ok "it is not in use"; else ok "it is not in use"; fi
check "a change is made" i resize bm.qcow2 32M
like "the bitmap says that it misses something" "$(qemu-img info bm.qcow2)" "*in-use*"
clean "with a bitmap" bm.qcow2
finish
