#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Encrypted qcow2 images, LUKS and the old method: QEMU reads ours, we read QEMU's; snapshots, key slots, check without a key.
. "$(dirname "$0")/functions.sh"
requires qemu-img qemu-io
[ -n "$(find "$BUILDDIR/plugins" -name qcow2.so)" ] || skip_all "the qcow2 plugin is not built"
[ -n "$(find "$BUILDDIR/plugins/formats/luks" -name luks.so 2>/dev/null)" ] || skip_all "LUKS is not built"
cd "$tmp" || exit 1
umask 077
printf 'pass123' >one.key
printf 'other' >two.key
{ head -c 1500000 /dev/urandom; head -c 1645728 /dev/zero; head -c 1048576 /dev/urandom; } >plain
truncate -s 6M plain
obj=(--object "secret,id=s,file=one.key")
opts() { echo "driver=qcow2,encrypt.key-secret=s,file.filename=$1"; }
qemu_reads() { # NAME FILE
	rm -f got
	run qemu-img convert "${obj[@]}" --image-opts "$(opts "$2")" -O raw got
	if [ "$rc" = 0 ] && cmp -s plain got; then ok "$1"; else not_ok "$1 (exit $rc)"; fi
}
we_read() { # NAME FILE [OPTION...]
	local name=$1 file=$2; shift 2
	rm -f got
	run vhost img convert "$file" got -f qcow2 "$@"
	if [ "$rc" = 0 ] && cmp -s plain got; then ok "$name"; else not_ok "$name (exit $rc)"; fi
}
key=(--source.key-secret=file:one.key)
fast=iter-time=1ms
# QEMU measures its own speed by the kernel's clock ticks, and now and then fails.
qemu_makes() { local k; for k in 1 2 3 4 5 6; do rm -f "${@: -1}"; "$@" 2>/dev/null && return 0; done; return 1; }

status 1 "the weak method is refused" vhost img create weak.qcow2 1M -f qcow2 -o encrypt=aes,key-secret=file:one.key
like "and says how it goes" "$err" "*weak*--allow-insecure*"
check "and nothing is left" test ! -e weak.qcow2
check "made when it is asked for by name" vhost img create weak.qcow2 1M -f qcow2 -o encrypt=aes,key-secret=file:one.key --allow-insecure
status 2 "which means nothing to other formats" vhost img create weak.vdi 1M -f vdi --allow-insecure
for m in luks aes; do
	more=; [ $m = luks ] && more=,$fast
	[ $m = aes ] && more=,allow-insecure=on
	check "$m: made from a disk" vhost img convert plain "$m.qcow2" -f raw -O qcow2 -o "encrypt=$m,key-secret=file:one.key$more"
	we_read "$m: read again" "$m.qcow2" "${key[@]}"
	qemu_reads "$m: QEMU reads it" "$m.qcow2"
	check "$m: QEMU finds it clean" qemu-img check -q "${obj[@]}" --image-opts "$(opts "$m.qcow2")"
	check "$m: checked without a passphrase" vhost img check "$m.qcow2" -f qcow2
	status 1 "$m: not read without one" vhost img convert "$m.qcow2" no -f qcow2
	like "$m: the error names the option" "$err" "*key-secret*"
	if cmp -s -n 4096 plain <(tail -c 1048576 "$m.qcow2"); then not_ok "$m: the data is encrypted"; else ok "$m: the data is encrypted"; fi
	q=$m-qemu.qcow2 it=; [ $m = luks ] && it=,encrypt.iter-time=10
	if qemu_makes qemu-img convert -q "${obj[@]}" -O qcow2 -o "encrypt.format=$m,encrypt.key-secret=s$it" plain "$q"; then
		we_read "$m: QEMU's is read" "$q" "${key[@]}"
		check "$m: a snapshot of QEMU's" vhost img snapshot create "$q" s1 -f qcow2 --format.key-secret=file:one.key
		check "$m: QEMU writes on" qemu-io "${obj[@]}" --image-opts "$(opts "$q")" -c 'write -P 3 1M 1M'
		check "$m: back to it" vhost img snapshot apply "$q" s1 -f qcow2 --format.key-secret=file:one.key
		qemu_reads "$m: QEMU reads what was then" "$q"
		check "$m: clean" vhost img check "$q" -f qcow2
	else
		skip "$m: QEMU's is read" "qemu-img could not make it in six tries"
	fi
done
status 1 "a wrong passphrase" vhost img convert luks.qcow2 no -f qcow2 --source.key-secret=file:two.key
# The old method has no means to know a wrong one.

for v in "cipher-alg=aes-128" "cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha512" "cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha1" \
	"cluster-size=512" "cluster-size=2M,extended-l2=on"; do
	rm -f v.qcow2
	check "$v: made" vhost img convert plain v.qcow2 -f raw -O qcow2 -o "encrypt=luks,key-secret=file:one.key,$fast,$v"
	qemu_reads "$v: QEMU reads it" v.qcow2
	we_read "$v: and here" v.qcow2 "${key[@]}"
done

check "a second passphrase" vhost img amend luks.qcow2 -f qcow2 --format.key-secret=file:one.key -o "new-secret=file:two.key,$fast"
we_read "opens as well" luks.qcow2 --source.key-secret=file:two.key
check "the first is removed" vhost img amend luks.qcow2 -f qcow2 --format.key-secret=file:two.key -o old-secret=file:one.key
status 1 "and does not open any more" vhost img convert luks.qcow2 no -f qcow2 "${key[@]}"
we_read "the second does" luks.qcow2 --source.key-secret=file:two.key
status 1 "the last one stays" vhost img amend luks.qcow2 -f qcow2 --format.key-secret=file:two.key -o old-secret=file:two.key
check "clean with other slots" vhost img check luks.qcow2 -f qcow2
finish
