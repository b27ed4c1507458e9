#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Unmodified Debian guests on volumes and a bridge, all of it from plugins. Runs where /dev/kvm runs an ordinary kernel: in the lab.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
. "$(dirname "$0")/guests.bash"
store=/mnt/scratch
[ -d $store ] || store=$tmp
fresh() { vhost vol delete "lab/$1" >/dev/null 2>&1; vhost vol create "lab/$1" --size "$2" --format raw >/dev/null; }

# ---- a pool and its volumes ----
check "a dir pool is made" vhost pool define lab --type dir --path "$store/pool" --make
check "a raw volume is made" vhost vol create lab/disk --size 64M --format raw

# ---- the disk; 1 vCPU, 128 MiB, bzImage ----
start one disk,rng --cpus 1 --memory 128M --disk lab/disk
good one "a bzImage boots with 1 vCPU and 128 MiB, writes its disk and reads it back"
is "with one vCPU" "$(said one cpus)" 1
is "its disk is as large as the volume" "$(said one bytes)" 67108864
is "the volume holds what the guest wrote" \
	"$(dd if="$store/pool/disk" bs=1M skip=8 count=4 status=none | sha256sum | cut -c1-64)" "$(said one sha256)"
like "the entropy device works" "$(log one)" "*guest: rng virtio_rng*"

# ---- discard; 2 vCPUs, ELF by PVH ----
before=$(stat -c %b "$store/pool/disk")
sum=$(dd if="$store/pool/disk" bs=64k count=16 status=none | sha256sum | cut -c1-64)
kernel=$GUEST_CLOUD/vmlinux start two read,discard,fs --cpus 2 --memory 512M --disk lab/disk --protocol pvh
await two 'guest: discard done'
after=$(stat -c %b "$store/pool/disk")
good two "a vmlinux boots by PVH with 2 vCPUs, discards, makes a file system and reads a file back"
is "with two vCPUs" "$(said two cpus)" 2
is "it reads what the host sees" "$(log two | sed -n 's/^guest: read sha256=//p')" "$sum"
check "the discarded blocks are given back ($before, then $after)" test "$after" -lt $((before / 2))
check "the host finds a sound file system" e2fsck -fn "$store/pool/disk"

# ---- 8 vCPUs, 6 GiB: more than the lab has of either ----
kernel=$GUEST_CLOUD/vmlinux start eight disk --cpus 8 --memory 6G --disk lab/disk
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

# ---- the network ----
net_guest() {
	local name=$1 want=$2
	shift 2
	initrd=$GUEST_CLOUD/initrd
	[ -e "$GUEST_CLOUD/initrd-net" ] && command -v iperf3 >/dev/null && initrd=$GUEST_CLOUD/initrd-net
	append="vhost.ip=10.77.0.2/24 vhost.gw=10.77.0.1" initrd=$initrd start "$name" net --memory 256M "$@"
	await "$name" 'guest: net up'
	ip addr replace 10.77.0.1/24 dev labbr0 && ip link set labbr0 up
	check "$want: the guest pings the host" await "$name" 'guest: net pings the host' 60
	check "$want: the host pings the guest" ping -c 3 -i 0.3 -W 5 10.77.0.2
	if [ "$initrd" = "$GUEST_CLOUD/initrd-net" ]; then
		await "$name" 'guest: iperf3 waits' 30
		check "$want: iperf3 to the guest" iperf "$name"
		check "$want: iperf3 from the guest" iperf "$name" -R
	else
		skip "$want: iperf3 to the guest" "iperf3 is not installed"
		skip "$want: iperf3 from the guest" "iperf3 is not installed"
	fi
	# The guest goes on when somebody has been at its port 7.
	for _ in $(seq 100); do timeout 2 bash -c 'exec 3<>/dev/tcp/10.77.0.2/7' 2>/dev/null && break; sleep 0.3; done
	good "$name" "$want: the guest ends"
}
# The server serves one client after the other; it may need a moment in between.
iperf() {
	local i
	shift
	for i in $(seq 20); do
		timeout 60 iperf3 -c 10.77.0.2 -t 2 -J "$@" >"$tmp/iperf.json" 2>/dev/null &&
			python3 -c 'import json, sys
b = json.load(open(sys.argv[1]))["end"]["sum_received"]["bytes"]
print(b)
sys.exit(b < 1 << 20)' "$tmp/iperf.json" && return 0
		sleep 0.5
	done
	cat "$tmp/iperf.json"
	return 1
}
net_guest net1 "one queue" --cpus 1 --net type=bridge,name=labbr0,create=on
is "its tap is gone" "$(ip -o link | grep -c vnet)" 0
net_guest net2 "two queues, MTU 9000" --cpus 2 --net type=bridge,name=labbr0,create=on,queues=2,mtu=9000
is "the guest has both queues" "$(said net2 queues)" 2
is "and the MTU" "$(said net2 mtu)" 9000
ip link del labbr0 2>/dev/null

# ---- balloon in and out, pause and resume ----
free_kib() { log balloon | sed -n 's/^guest: memory .*MemFree:\([0-9]*\).*/\1/p' | tail -n 1; }
below() { [ "$(free_kib)" -lt "$1" ]; }
above() { [ "$(free_kib)" -gt "$1" ]; }
until_true() { local i; for ((i = 0; i < 150; i++)); do "$@" && return 0; sleep 0.2; done; return 1; }
start balloon balloon --cpus 1 --memory 512M --balloon
await balloon 'guest: memory'
full=$(free_kib)
check "the balloon is inflated by command" vhost vm balloon balloon 256M
check "the guest has less memory ($full KiB free before)" until_true below $((full - 150000))
check "the balloon is deflated" vhost vm balloon balloon 512M
check "the guest has it back" until_true above $((full - 60000))
check "the guest is paused" vhost vm pause balloon
lines=$(log balloon | wc -l); sleep 2
is "and says nothing meanwhile" "$(log balloon | wc -l)" "$lines"
check "it is resumed" vhost vm resume balloon
more() { [ "$(log balloon | wc -l)" -gt "$lines" ]; }
check "and goes on" until_true more
check "it is killed by command" vhost vm kill balloon
ends balloon
is "which is an end with status 0" "$rc" 0

# ---- reboot, power button, exit statuses ----
fresh boot 16M
start reboot reboot --cpus 2 --memory 256M --disk lab/boot
good reboot "a guest resets itself and boots again in the same process"
like "with its disk as it was" "$(log reboot)" "*guest: resets itself*guest: second boot*"
fresh boot 16M
start exits reboot --cpus 1 --memory 256M --disk lab/boot --on-reboot exit
ends exits
is "--on-reboot exit ends it with status 10" "$rc" 10
start button button --cpus 1 --memory 256M
await button 'guest: waits for the power button'
kill -TERM "$(vm_pid)"
good button "SIGTERM presses the power button"
like "as the guest saw" "$(log button)" "*guest: power button pressed*"
start stop button --cpus 1 --memory 256M
await stop 'guest: waits for the power button'
like "a running guest is listed" "$(vhost vm list)" "*stop*"
check "vm stop presses it as well" vhost vm stop stop
good stop "and the guest ends"
start term hang --cpus 1 --memory 256M
await term 'guest: hangs'
pid=$(vm_pid)
kill -TERM "$pid"; sleep 1; kill -TERM "$pid"
ends term
is "a second SIGTERM ends a guest that does not listen" "$rc" 0

# ---- again and again ----
rounds=3; [ -z "${VH_LONG:-}" ] || rounds=20
for ((i = 1; i <= rounds; i++)); do
	start "round$i" disk --cpus $((i % 2 + 1)) --memory 256M --disk lab/disk
	good "round$i" "boot $i of $rounds in a row"
done
is "nothing is left of them" "$(vhost vm list --json | tr -d ' \n' | grep -c round)" 0

# ---- without the plugins ----
for missing in storage/dir formats/raw net/bridge; do
	name=${missing#*/}
	path=$(tr : '\n' <<<"$VHOST_PLUGIN_PATH" | grep -v "/$missing\$" | paste -sd:)
	VHOST_PLUGIN_PATH=$path timeout 60 "$VHOST" run --name without --kernel "$GUEST_CLOUD/vmlinuz" --initrd "$GUEST_CLOUD/initrd" \
		--cmdline "console=ttyS0 vhost.job=disk" --disk lab/disk --net type=bridge,name=labbr1,create=on --serial null \
		>"$tmp/.out" 2>"$tmp/.err" </dev/null
	rc=$? out='' err=$(<"$tmp/.err")
	is "without $name.so the exit status is 6" "$rc" 6
	like "and the message names $name" "$err" "vhost: *$name*"
done
ip link del labbr1 2>/dev/null

# ---- a plugin from elsewhere ----
if [ -n "${VENDOR_PLUGIN:-}" ] && [ -e "$VENDOR_PLUGIN" ]; then
	path=$(tr : '\n' <<<"$VHOST_PLUGIN_PATH" | grep -v /sdk/ | paste -sd:) # our own build of it must not be found
	VHOST_PLUGIN_PATH=$path kernel=$GUEST_CLOUD/vmlinux start vendor disk --cpus 1 --memory 256M --plugin "$VENDOR_PLUGIN" \
		--disk type=ram,volume=scratch,pool.size=64M,format=raw
	good vendor "a plugin that was built against the installed headers alone serves a disk"
	VHOST_PLUGIN_PATH=$path status 6 "which is not there without --plugin" vhost run --name vendor --kernel "$GUEST_CLOUD/vmlinux" \
		--disk type=ram,volume=scratch,format=raw --serial null
else
	not_ok "a plugin that was built against the installed headers alone serves a disk (tests/lab/prepare built none)"
fi
finish
