#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Encrypted images below others, each with a passphrase of its own: read, written, compared, rebased, committed, run; QEMU agrees.
. "$(dirname "$0")/functions.sh"
requires qemu-img
[ -n "$(find "$BUILDDIR/plugins" -name qcow2.so)" ] || skip_all "the qcow2 plugin is not built"
[ -n "$(find "$BUILDDIR/plugins/formats/luks" -name luks.so 2>/dev/null)" ] || skip_all "LUKS is not built"
cd "$tmp" || exit 1
umask 077
printf 'the base' >a.key
printf 'the middle' >b.key
printf 'another' >c.key
{ head -c 3000000 /dev/urandom; head -c 1194304 /dev/zero; } >plain
fast=iter-time=1ms
a=key-secret=file:$tmp/a.key b=key-secret=file:$tmp/b.key
check "the base" vhost img convert -q plain base.qcow2 -f raw -O qcow2 -o "encrypt=luks,$a,$fast"
status 1 "over it, without its passphrase" vhost img create -q mid.qcow2 -f qcow2 -b base.qcow2 -F qcow2 -o "encrypt=luks,$b,$fast"
like "the error names the image and the option" "$err" "*base.qcow2*key-secret*"
check "with it" vhost img create -q mid.qcow2 -f qcow2 -b base.qcow2 -F qcow2 -o "encrypt=luks,$b,$fast,backing.$a"
check "a third one over both" vhost img create -q top.qcow2 -f qcow2 -b mid.qcow2 -F qcow2 -o "backing.$b,backing.backing.$a"
both=("--source.backing.$b" "--source.backing.backing.$a")
check "all three are read" vhost img convert -q top.qcow2 got -f qcow2 -O raw "${both[@]}"
check "and are what they were" cmp plain got
status 1 "with one passphrase for both" vhost img convert -q top.qcow2 no -f qcow2 -O raw "--source.backing.$b" "--source.backing.backing.$b"
like "the error names the image" "$err" "*base.qcow2*"
status 1 "with one too many" vhost img convert -q top.qcow2 no -f qcow2 -O raw "${both[@]}" "--source.backing.backing.backing.$b"
like "the error says that there is no such image" "$err" "*backing.key-secret is for the backing image, and there is none*"
check "compared" vhost img compare top.qcow2 plain -f qcow2 -F raw "--format.backing.$b" "--format.backing.backing.$a"
status 2 "an option that is for neither" vhost img compare top.qcow2 plain -f qcow2 -F raw "--source.$b"
qemu() {
	qemu-img convert --object secret,id=a,file=a.key --object secret,id=b,file=b.key -O raw --image-opts "driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2,backing.file.filename=mid.qcow2,backing.encrypt.key-secret=b,backing.backing.driver=qcow2,backing.backing.file.filename=base.qcow2,backing.backing.encrypt.key-secret=a" "$1"
}
check "QEMU reads them" qemu qemu.raw
check "the same" cmp plain qemu.raw
guest=$BUILDDIR/tests/guest/guest-blkbench
if [ -w /dev/kvm ]; then
	run vhost run --name chain --kernel "$guest" --cmdline "rw=randwrite bs=4K depth=4 secs=1 size=2M" --memory 64M --serial none \
		--disk "path=$tmp/top.qcow2,format=qcow2,format.backing.$b,format.backing.backing.$a"
	is "a VM writes to it" "$rc" 0
	check "QEMU reads what it wrote" qemu qemu.raw
	check "as we do" vhost img compare top.qcow2 qemu.raw -f qcow2 -F raw "--format.backing.$b" "--format.backing.backing.$a"
	if cmp -s plain qemu.raw; then not_ok "it did write"; else ok "it did write"; fi
else
	skip "a VM writes to it" "there is no /dev/kvm"
	cp plain qemu.raw
fi
check "committed one down" vhost img commit -q top.qcow2 -f qcow2 "--format.backing.$b" "--format.backing.backing.$a"
check "the middle shows it" vhost img compare mid.qcow2 qemu.raw -f qcow2 -F raw "--format.$b" "--format.backing.$a"
check "another base, with another passphrase" vhost img convert -q plain other.qcow2 -f raw -O qcow2 -o "encrypt=luks,key-secret=file:c.key,$fast"
check "rebased to it" vhost img rebase -q mid.qcow2 -f qcow2 -b other.qcow2 -F qcow2 "--format.$b" "--format.backing.$a" --format.new-backing.key-secret=file:c.key
check "with what it had" vhost img compare mid.qcow2 qemu.raw -f qcow2 -F raw "--format.$b" --format.backing.key-secret=file:c.key
check "converted over an encrypted one" vhost img convert -q qemu.raw delta.qcow2 -f raw -O qcow2 -B other.qcow2 -F qcow2 -o "backing.key-secret=file:c.key"
check "with the same contents" vhost img compare delta.qcow2 qemu.raw -f qcow2 -F raw --format.backing.key-secret=file:c.key
check "they are told without any" vhost img info mid.qcow2
finish
