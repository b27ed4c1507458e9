#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost vm snapshot, resize-disk: disks of a guest that writes all the time; it goes on, and the image is sound afterwards.
. "$(dirname "$0")/functions.sh"
requires python3
[ -r /dev/kvm ] && [ -w /dev/kvm ] || skip_all "/dev/kvm is missing or may not be opened"
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1].splitlines()[-1]); print(eval(sys.argv[2]))' "$out" "$1"; }
on_exit 'vhost vm kill web >/dev/null 2>&1'
guest=$BUILDDIR/tests/guest/guest-blkbench
# start VOLUME: a guest that writes until it is ended, however slow the machine is
start() {
	run vhost run --detach --name web --kernel "$guest" --cmdline "rw=randwrite bs=16K depth=8 secs=3600 size=8M" --memory 64M --serial none --disk "default/$1"
	is "a guest over $1 runs" "$rc" 0
}
ended() {
	local i
	status 0 "$1: the guest is ended while it writes" vhost vm kill web
	for ((i = 0; i < 300; i++)); do vhost vol info "$1" | grep -q '^In use: *no' && break; sleep 0.1; done # it closes its disks last
}

vhost vol create raw --size 8M >/dev/null
vhost vol create toy --size 8M --format toy-format --format.max-size 64M >/dev/null
for f in raw toy; do
	start $f
	status 0 "$f: more size while the guest writes" vhost vm resize-disk web default/$f 12M --json
	is "$f: says it" "$(json '(j["disk"], j["bytes"])')" "('default/$f', 12582912)"
	for i in 1 2 3 4 5 6 7 8; do run vhost vm resize-disk web 0 +1M; [ "$rc" = 0 ] || break; done
	is "$f: again and again, by number" "$rc:$i" 0:8
	status 0 "$f: info tells the new size" vhost vm info web --json
	is "$f: which is" "$(json 'j["disks"][0]["bytes"]')" 20971520
	status 4 "$f: not smaller" vhost vm resize-disk web default/$f 1M
	status 1 "$f: whole sectors" vhost vm resize-disk web default/$f 20971521
	status 3 "$f: a disk that it does not have" vhost vm resize-disk web nothing 1G
	like "$f: names those that it has" "$err" "*default/$f*"
	status 1 "$f: a format without snapshots" vhost vm snapshot web default/$f create one
	like "$f: says so" "$err" "*have no snapshots of their own*"
	status 2 "$f: nothing is applied under a guest" vhost vm snapshot web default/$f apply one
	status 2 "$f: a name is missing" vhost vm snapshot web default/$f create
	ended $f
	status 0 "$f: the size has stayed" vhost vol info $f --json
	is "$f: in the image" "$(json 'j["disk_bytes"]')" 20971520
	status 0 "$f: the image is sound" vhost vol check $f
done
status 1 "toy: more than its table has room for" vhost vol resize toy 100M

if vhost plugin info qcow2 >/dev/null 2>&1; then
	vhost vol create q --size 8M --format qcow2 >/dev/null
	start q
	for i in 1 2 3 4 5; do run vhost vm snapshot web default/q create "s$i"; [ "$rc" = 0 ] || break; done
	is "qcow2: snapshots while the guest writes" "$rc:$i" 0:5
	status 0 "qcow2: listed" vhost vm snapshot web default/q list --json
	is "qcow2: all of them" "$(json '[s["name"] for s in j["snapshots"]]')" "['s1', 's2', 's3', 's4', 's5']"
	run vhost vm snapshot web default/q create s1
	check "qcow2: not twice of one name" test "$rc" != 0
	status 0 "qcow2: deleted while the guest writes" vhost vm snapshot web default/q delete s3
	status 3 "qcow2: one that is not there" vhost vm snapshot web default/q delete s3
	status 0 "qcow2: more size" vhost vm resize-disk web default/q 16M
	ended q
	status 0 "qcow2: the image is sound" vhost vol check q
	if command -v qemu-img >/dev/null; then check "qcow2: qemu-img finds it so as well" qemu-img check -f qcow2 "$VHOST_ROOT/data/images/q"; fi
	for s in s1 s2 s4 s5; do status 0 "qcow2: apply $s" vhost vol snapshot apply q $s; done
	status 0 "qcow2: sound after that" vhost vol check q
else
	skip "snapshots of a running guest's qcow2 disk" "the plugin qcow2 is not built"
fi
finish
