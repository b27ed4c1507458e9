#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# The whole machine with bare-metal guests: PCI, disks on every kind of volume, NICs, a hostile guest, failing disks.
. "$(dirname "$0")/functions.sh"
[ -c /dev/kvm ] && [ -w /dev/kvm ] || skip_all "there is no /dev/kvm to use"
guests=$BUILDDIR/tests/guest
[ -e "$guests/guest-blk" ] || skip_all "the bare-metal guests are not built"
go() { local g=$1; shift; timeout -k 5 100 "$VHOST" run --kernel "$guests/guest-$g" "$@"; }
truncate -s 16M "$tmp/disk" "$tmp/disk2"
disk=path=$tmp/disk,format=raw
all=(--cpus 2 --disk "$disk" --disk "path=$tmp/disk2,format=raw,readonly=on" --console "file:$tmp/console")

status 0 "ports" go ports "${all[@]}"
like "all right" "$out" "*ports: ok*"
status 0 "PCI: sizes, moves, both ways of configuration" go pci "${all[@]}"
like "all right" "$out" "*1af4:1042*pci: ok*"
status 0 "4 vCPUs started by the guest" go smp --cpus 4 --cmdline cpus=4
like "are four" "$out" "*smp: ok 4 CPUs*"

for engine in aio uring threads; do
	status 0 "a disk by $engine" go blk --disk "$disk,engine=$engine"
	like "reads what it wrote" "$out" "*blk: ok*"
done
status 0 "a disk through the page cache" go blk --disk "$disk,cache=writeback"
like "reads what it wrote" "$out" "*blk: ok*"
status 0 "a disk of a plugin that moves the data (submit tier)" go blk --disk type=ram,volume=x,pool.size=16M,format=raw
like "reads what it wrote" "$out" "*blk: ok*"
mkdir "$tmp/toys"; vhost pool define toys --type dir --path "$tmp/toys" >/dev/null 2>&1
if vhost vol create toys/t --size 16M --format toy-format >/dev/null 2>&1; then
	status 0 "a disk in a format that maps (map tier)" go blk --disk toys/t
	like "reads what it wrote" "$out" "*blk: ok*"
	status 0 "and again, what was allocated" go blk --disk toys/t
	like "reads what it wrote" "$out" "*blk: ok*"
else
	not_ok "a toy volume is made"
fi
status 0 "a filter in between" go blk --disk "$disk,filter=delay,filter.time=20us"
like "reads what it wrote" "$out" "*blk: ok*"

# ---- a disk that fails: the guest is told, or stopped until it is resumed ----
status 0 "a failing read is told to the guest" go blkbench --cmdline "rw=randread ms=300" --disk "$disk,filter=fault,filter.ops=read,filter.every=1,filter.after=5,filter.count=1,on-error=report"
like "as an error" "$out" "*request failed with status 1*"
"$VHOST" run --name stops --kernel "$guests/guest-blkbench" --cmdline "rw=randread ms=300" --serial "file:$tmp/serial" \
	--disk "$disk,filter=fault,filter.ops=read,filter.every=1,filter.after=5,filter.count=1,on-error=stop" </dev/null >"$tmp/o" 2>&1 &
pid=$!
on_exit "kill -9 $pid 2>/dev/null"
state() { vhost vm info stops --json 2>/dev/null | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])' 2>/dev/null; }
for _ in $(seq 100); do [ "$(state)" = io-error ] && break; sleep .1; done
is "with on-error=stop the machine is paused" "$(state)" io-error
status 0 "and resumed" vhost vm resume stops
for _ in $(seq 100); do kill -0 $pid 2>/dev/null || break; sleep .1; done
wait $pid
is "the guest goes on to its end" $? 0
like "and never saw an error" "$(<"$tmp/serial")" "*blkbench rw=randread*iops=*"

# The same while a command has it paused: the request that failed meanwhile is repeated when it is resumed.
mkdir "$tmp/full"
if mount -t tmpfs -o size=64k none "$tmp/full" 2>/dev/null; then
	on_exit "umount -l '$tmp/full'"
	truncate -s 4M "$tmp/full/disk"
	"$VHOST" run --name stops --kernel "$guests/guest-blkbench" --cmdline "rw=write bs=128K ms=300" --serial "file:$tmp/serial2" \
		--disk "path=$tmp/full/disk,format=raw,filter=delay,filter.time=3s,on-error=stop-enospc" </dev/null >"$tmp/o" 2>&1 &
	pid=$!
	on_exit "kill -9 $pid 2>/dev/null"
	for _ in $(seq 100); do [ "$(state)" = running ] && break; sleep .1; done
	sleep 1
	status 0 "a machine is paused while its write is under way" vhost vm pause stops
	sleep 4
	is "it stays so when that fails for want of space" "$(state)" paused
	mount -o remount,size=8m "$tmp/full"
	status 0 "it is resumed when there is space" vhost vm resume stops
	for _ in $(seq 150); do kill -0 $pid 2>/dev/null || break; sleep .1; done
	kill -0 $pid 2>/dev/null && kill -9 $pid
	wait $pid
	is "the guest goes on to its end" $? 0
	like "and never saw an error" "$(<"$tmp/serial2")" "*blkbench rw=write*iops=*"
else
	skip "a request that fails while the machine is paused" "tmpfs cannot be mounted"
fi

# ---- storage that does not answer: the third signal does not wait for it ----
"$VHOST" run --name stuck --kernel "$guests/guest-blkbench" --cmdline "rw=write ms=300" --serial null \
	--disk "$disk,filter=delay,filter.time=50s" </dev/null >"$tmp/o" 2>&1 &
pid=$!
on_exit "kill -9 $pid 2>/dev/null"
for _ in $(seq 100); do vhost vm info stuck >/dev/null 2>&1 && break; sleep .1; done
sleep 1
for _ in 1 2 3; do kill -TERM $pid; sleep 1; done
for _ in $(seq 50); do kill -0 $pid 2>/dev/null || break; sleep .1; done
kill -0 $pid 2>/dev/null && kill -9 $pid
wait $pid
is "a third SIGTERM ends a machine whose disk is stuck" $? 1

# ---- the worst guest ----
# It may hit the power-off or reset port, or shoot itself; what counts is that the process ends by its word, not by a crash or a hang.
survived() { # NAME: after run
	if [[ $rc == 0 || $rc == 10 || $rc == 11 ]] && [[ $err != *Sanitizer* ]]; then ok "$1"; else not_ok "$1 (exit $rc)"; fi
}
for seed in 1 2 3; do
	run go hostile --cmdline "what=q ms=2000 seed=$seed" "${all[@]}"
	survived "rings full of rubbish, seed $seed"
	like "the guest is still served afterwards" "$out" "*hostile: done*"
	run go hostile --cmdline "ms=2500 seed=$seed" --on-reboot exit "${all[@]}"
	survived "rings, BARs, ports and configuration space attacked, seed $seed"
done

# ---- a guest that never leaves guest mode ----
"$VHOST" run --name spins --kernel "$guests/guest-hello" --cmdline end=hang --serial null </dev/null >/dev/null 2>&1 &
pid=$!
on_exit "kill -9 $pid 2>/dev/null"
for _ in $(seq 50); do vhost vm info spins >/dev/null 2>&1 && break; sleep .1; done
status 0 "its counters are told" timeout -s KILL 20 "$VHOST" vm stats spins --json
status 0 "it is killed" timeout -s KILL 20 "$VHOST" vm kill spins
wait $pid
is "and ends" $? 0

# ---- the network ----
if [ ! -e "$BUILDDIR/plugins/net/bridge/bridge.so" ]; then
	skip "NICs" "the bridge plugin is not built (libnl-3-dev, libnl-route-3-dev)"
elif [ "$(id -u)" = 0 ] && ip netns add "vhc$$" 2>/dev/null; then
	on_exit "ip netns del vhc$$"
	ns() { ip netns exec "vhc$$" "$@"; }
	run ns timeout -k 5 100 "$VHOST" run --kernel "$guests/guest-hostile" --cmdline "what=q ms=2500" "${all[@]}" \
		--net type=bridge,name=br0,create=on,queues=2
	survived "a hostile guest with a NIC"
	is "and leaves nothing" "$(ns ip -o link | grep -vc ' lo:')" 0
	ns timeout -k 5 60 "$VHOST" run --name echo --kernel "$guests/guest-netecho" --cmdline "ip=10.9.0.2 secs=20" --serial null \
		--net type=bridge,name=br0,create=on,address=10.9.0.1/24 </dev/null >/dev/null 2>&1 &
	pid=$!
	for _ in $(seq 50); do ns ping -c 1 -W 1 -q 10.9.0.2 >/dev/null 2>&1 && break; sleep .1; done
	check "the host pings the guest" ns ping -c 20 -i 0.01 -W 2 -q 10.9.0.2
	vhost vm kill echo; wait $pid
	is "and nothing is left" "$(ns ip -o link | grep -vc ' lo:')" 0
	status 0 "64-byte frames are sent" ns timeout -k 5 60 "$VHOST" run --kernel "$guests/guest-netbench" --cmdline ms=300 \
		--net type=bridge,name=br0,create=on
	like "and counted" "$out" "*netbench*pps=*"
else
	skip "NICs" "no network namespaces for this user"
fi
finish
