#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# One Debian guest whose fio writes and verifies a LUN of a real target and an image of a real Ceph cluster, both started here, in the lab.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -n "${VH_LONG:-}${VH_NAMED:-}" ] || skip_all "takes minutes (a Ceph cluster in emulation): runs with --long, or by its name"
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
[ -n "${GUEST_ROOTFS:-}" ] || skip_all "tests/lab/prepare made no root file system"
: "${GUEST_TIMEOUT:=400}" # two servers beside it
. "$(dirname "$0")/guests.bash"
. "$SRCDIR/tests/servers/ceph"
step() { echo "# $((SECONDS - began)) s: $*"; }
began=$SECONDS
store=/mnt/scratch/fio.$$
mkdir -p "$store" 2>/dev/null && [ -d /mnt/scratch/lost+found ] || store=$tmp
on_exit "rm -rf $store"
disks=() kinds=""

# ---- Ceph: bluestore where a disk is, which takes O_DIRECT ----
if [ ! -e "$BUILDDIR/plugins/storage/ceph/ceph.so" ]; then
	skip "an image of a Ceph cluster" "the plugin ceph is not built"
elif why=$(ceph_lacks); then
	skip "an image of a Ceph cluster" "$why"
else
	on_exit ceph_stop
	if ceph_start "$store/c" "$([ "$store" = "$tmp" ] && echo memstore || echo bluestore)"; then
		ok "a Ceph cluster is there"
		step "the cluster is up"
		status 0 "its pool" vhost pool define ceph --type ceph --pool rbd --conf "$store/c/ceph.conf" --timeout 0
		status 0 "an image" vhost vol create ceph/fio --size 32M
		disks+=(--disk ceph/fio) kinds+=" ceph"
	else
		tail -n 20 "$store"/c/log/*.out 2>/dev/null | sed 's/^/# /'
		not_ok "a Ceph cluster is there"
	fi
fi

# ---- iSCSI ----
if [ ! -e "$BUILDDIR/plugins/storage/iscsi/iscsi.so" ]; then
	skip "a LUN" "the plugin iscsi is not built"
elif ! command -v tgtd >/dev/null || ! command -v ss >/dev/null; then
	skip "a LUN" "tgtd or ss is not installed"
else
	on_exit '"$SRCDIR/tests/servers/tgt" kill "$tmp/tgt"'
	iqn=iqn.2024-01.test.vhost:lab
	check "a target is there" "$SRCDIR/tests/servers/tgt" start "$tmp/tgt"
	"$SRCDIR/tests/servers/tgt" target "$tmp/tgt" 1 $iqn
	"$SRCDIR/tests/servers/tgt" lun "$tmp/tgt" 1 1 32M
	status 0 "its pool" vhost pool define iscsi --type iscsi --portal "127.0.0.1:$(<"$tmp/tgt/port")" --target $iqn
	status 0 "its LUN" vhost vol set iscsi/lun1 --format raw
	disks+=(--disk iscsi/lun1) kinds+=" iscsi"
fi
[ -n "$kinds" ] || finish

# ---- the guest ----
check "a pool for the root" vhost pool define lab --type dir --path "$store/pool" --make
cp --sparse=always "$GUEST_ROOTFS" "$store/pool/root"
vhost vol set lab/root --format raw >/dev/null
step "the guest starts"
append="vhost.root=/dev/vda" start debian fio --cpus 2 --memory 512M --disk lab/root "${disks[@]}"
good debian "a Debian boots, and fio writes and verifies on:$kinds"
k=0
for kind in $kinds; do
	dev=/dev/vd$(printf '%b' "\\x$((62 + k))") k=$((k + 1))
	like "on $kind" "$(log debian)" "*guest: fio verified $dev *"
done
# What it wrote is at the server, and not in something in between.
for v in ${kinds//iscsi/iscsi\/lun1}; do
	v=${v/#ceph/ceph\/fio}
	vhost vol download "$v" "$tmp/back" >/dev/null 2>&1
	check "$v has it: $(tr -d '\0' <"$tmp/back" | head -c 9000000 | wc -c) bytes" test "$(tr -d '\0' <"$tmp/back" | head -c 9000000 | wc -c)" -gt 8000000
	rm -f "$tmp/back"
done
few_complaints
step end
finish
