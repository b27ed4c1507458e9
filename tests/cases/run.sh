#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost run: options, files, refusals, how a guest's end becomes an exit status, signals, detaching. With bare-metal guests.
. "$(dirname "$0")/functions.sh"
[ -c /dev/kvm ] && [ -w /dev/kvm ] || skip_all "there is no /dev/kvm to use"
hello=$BUILDDIR/tests/guest/guest-hello
[ -e "$hello" ] || skip_all "the bare-metal guests are not built"
go() { timeout -k 5 60 "$VHOST" run --kernel "$hello" "$@"; }
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
truncate -s 16M "$tmp/disk"
disk=path=$tmp/disk,format=raw

# ---- refusals: which option, why, what is near ----
status 2 "an unknown option" vhost run --kernle x
like "with what is near" "$err" "vhost: run: *--kernle*--kernel*"
status 2 "nothing to boot" vhost run
like "and the remedy" "$err" "vhost: *nothing to boot*--kernel FILE*"
status 3 "a kernel that is not there" vhost run --kernel "$tmp/none"
status 1 "a file that is no kernel" vhost run --kernel "$tmp/disk"
status 2 "a wrong memory size" go --memory 12x
status 2 "memory that is not whole pages" go --memory 1048577
status 2 "an unknown part of --memory" go --memory 64M,hugepage=2M
status 2 "no vCPU" go --cpus 0
status 2 "a vCPU that is not there is pinned" go --cpus 2 --pin 2=0
status 2 "a NIC without a type" go --net name=br0
status 6 "a network plugin that is not there" go --net type=brigde
bridge=$BUILDDIR/plugins/net/bridge/bridge.so no_bridge="the bridge plugin is not built (libnl-3-dev, libnl-route-3-dev)"
if [ -e "$bridge" ]; then
	status 2 "a NIC with a wrong MAC" go --net type=bridge,name=x,mac=01:00:00:00:00:01
else
	skip "a NIC with a wrong MAC" "$no_bridge"
fi
status 3 "a volume that is not there" go --disk default/none
status 2 "a disk option that is not there" go --disk "$disk,fromat=raw"
like "with what is near" "$err" "*fromat*format*"
status 2 "a file whose format nobody names" go --disk "path=$tmp/disk"
like "is never guessed" "$err" "*format=*"
status 2 "a bad name" go --name ../x
status 2 "two consoles on one terminal" go --serial stdio --console stdio

# ---- the guest's end is the exit status ----
status 0 "a guest that powers off" go --disk "$disk"
like "has said hello" "$out" "*hello from ring 3*"
status 10 "a reset with --on-reboot exit" go --on-reboot exit --cmdline end=reboot
status 10 "a triple fault with --on-reboot exit" go --on-reboot exit --cmdline end=triple
status 11 "a panic" go --cmdline end=panic
status 0 "overcommit: 16 vCPUs" go --cpus 16
status 0 "3 GiB on both sides of the hole" go --memory 3G

# ---- dry run ----
if [ -e "$bridge" ]; then
	status 0 "a dry run" go --dry-run --disk "$disk" --net type=bridge,name=nobr,create=on
	like "tells disks and network steps" "$out" "*disk 0:*raw*NIC 0*create bridge nobr*"
	check "and makes nothing" test ! -e /sys/class/net/nobr
else
	skip "a dry run" "$no_bridge"
fi

# ---- from a file ----
mkdir -p "$VHOST_ROOT/config/vms"
cat >"$VHOST_ROOT/config/vms/web.conf" <<F
[vm]
kernel=$hello
cmdline=from the file
memory=64M
[disk 0]
path=$tmp/disk
format=raw
F
status 0 "a VM from its file" vhost run web
like "takes its values" "$out" "*64 MiB*from the file*"
status 0 "options stand before it" vhost run web --memory 128M --cmdline "from the line"
like "each for itself" "$out" "*128 MiB*from the line*"
status 3 "a VM without a file" vhost run nobody
printf '[vm]\ncpu=3\n' >"$tmp/bad.conf"
status 2 "a wrong key in a file" vhost run --file "$tmp/bad.conf"
like "with the file, and what is near" "$err" "*bad.conf*cpu*cpus*"
printf '[disc 0]\npath=x\n' >"$tmp/bad.conf"
status 2 "a wrong group in a file" vhost run --file "$tmp/bad.conf"

# ---- detached, and its signals ----
status 0 "detach returns when the guest runs" go --detach --name bg --disk "$disk" --cmdline end=hang
pid=$(cat "$VHOST_ROOT"/state/bg/pid 2>/dev/null | head -1 | cut -d' ' -f1)
status 0 "it is listed" vhost vm list --json
is "by name" "$(json '[v["name"] for v in j["vms"]]')" "['bg']"
status 4 "a second VM of its name is refused" go --name bg
status 4 "and a second writer of its volume" go --name other --disk "$disk"
like "naming the holder" "$err" "*in use by pid*"
status 0 "it is killed" vhost vm kill bg
for _ in $(seq 100); do [ -e "$VHOST_ROOT/state/bg" ] || break; sleep .1; done
check "and leaves no state" test ! -e "$VHOST_ROOT/state/bg"
status 3 "a failure of the detached one is reported here" go --detach --name bg --disk default/none
like "with its text" "$err" "*default/none*"
"$VHOST" run --kernel "$hello" --name sig --serial null --cmdline end=hang </dev/null >/dev/null 2>&1 &
pid=$!
for _ in $(seq 100); do vhost vm info sig >/dev/null 2>&1 && break; sleep .1; done
kill -TERM $pid; sleep .5
check "one SIGTERM presses the power button, no more" kill -0 $pid
kill -TERM $pid; wait $pid
is "a second one ends it with status 0" $? 0

# ---- without the plugins ----
mkdir "$tmp/empty"
VHOST_PLUGIN_PATH=$tmp/empty status 6 "without plugins nothing runs" go --disk "$disk"
like "naming the one that is missing" "$err" "vhost: *dir*not found*"
finish
