#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Debian guests whose NICs the kernel's vhost-net serves: one queue and two, a reset, limits that come while it runs. With
# VH_RATES=1 also what iperf3 moves, by vhost-net, by us, and by QEMU both ways.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
modprobe vhost_net 2>/dev/null
[ -c /dev/vhost-net ] || skip_all "the kernel has no vhost-net"
command -v iperf3 >/dev/null || skip_all "iperf3 is not installed"
: "${GUEST_TIMEOUT:=400}" # the first guest boots twice
. "$(dirname "$0")/guests.bash"
[ -e "$GUEST_CLOUD/initrd-net" ] || skip_all "the guest has no iperf3"
initrd=$GUEST_CLOUD/initrd-net append="vhost.ip=10.77.0.2/24 vhost.gw=10.77.0.1"
export initrd append
ip link add labbr0 type bridge mcast_snooping 0
ip addr add 10.77.0.1/24 dev labbr0
ip link set labbr0 up
on_exit 'ip link del labbr0'
nic() { vhost vm stats "$1" --json | sed -n "s/.*\"nics\":\[[^]]*\"$2\":\([0-9]*\).*/\1/p"; } # python takes seconds here
# The server serves one client after the other, and may need a moment in between. Sets $mbit.
iperf() {
	local i
	for i in 1 2 3 4; do
		timeout 30 iperf3 -c 10.77.0.2 -t "${seconds:-1}" --connect-timeout 5000 -f m "$@" >"$tmp/iperf.txt" 2>/dev/null &&
			mbit=$(awk '$NF == "receiver" {m = $(NF - 2)} END {print m + 0}' "$tmp/iperf.txt") &&
			[ "${mbit%.*}" -gt 0 ] && return 0
		sleep 1
	done
	return 1
}
boots() { # NAME N: it has said for the N-th time that iperf3 waits
	local i
	for ((i = 0; i < 300; i++)); do
		[ "$(log "$1" | grep -c 'guest: iperf3 waits')" -ge "$2" ] && return 0
		kill -0 "$guest_pid" 2>/dev/null || return 1
		sleep 0.2
	done
	return 1
}
end() { # the guest goes on when somebody has been at its port 7
	for _ in $(seq 50); do timeout 2 bash -c 'exec 3<>/dev/tcp/10.77.0.2/7' 2>/dev/null && break; sleep 0.3; done
	good "$@"
}
threads() { ps -eo comm= | grep -c "^vhost-$(vm_pid)$"; }

if [ -z "${VH_RATES:-}" ]; then
	start one net --memory 256M --cpus 1 --net type=bridge,name=labbr0
	check "a guest with one queue comes up" boots one 1
	is "both its rings are the kernel's" "$(nic one kernel_queues)" 2
	is "which has a thread for them" "$(threads)" 1
	check "the host pings the guest" ping -c 3 -i 0.3 -W 5 -q 10.77.0.2
	check "iperf3 to the guest" iperf
	check "iperf3 from the guest" iperf -R
	is "the kernel counts" "$([ "$(nic one rx_bytes)" -gt 65536 ] && [ "$(nic one tx_bytes)" -gt 65536 ] && echo both)" both
	status 0 "it is paused and goes on" vhost vm pause one
	vhost vm resume one
	check "and answers" ping -c 3 -i 0.3 -W 5 -q 10.77.0.2
	status 0 "a reset" vhost vm reset one
	check "it comes up again" boots one 2
	is "its rings are the kernel's again" "$(nic one kernel_queues)" 2
	check "the host pings it" ping -c 3 -i 0.3 -W 5 -q 10.77.0.2
	status 0 "a limit takes the rings back" vhost vm limit one 0 --rate-in 1G --rate-out 1G
	for _ in $(seq 50); do [ "$(nic one kernel_queues)" = 0 ] && break; sleep 0.1; done
	is "none is the kernel's" "$(nic one kernel_queues)" 0
	check "nothing is lost on the way" ping -c 3 -i 0.3 -W 5 -q 10.77.0.2
	check "iperf3 to the guest, by us" iperf
	check "iperf3 from the guest, by us" iperf -R
	end one "the guest ends"
	start two net --memory 256M --cpus 2 --net type=bridge,name=labbr0,queues=2,vhost=on
	check "a guest with two queues comes up" boots two 1
	is "all four rings are the kernel's" "$(nic two kernel_queues)" 4
	check "iperf3 to the guest over both" iperf -P 4
	check "iperf3 from the guest over both" iperf -P 4 -R
	end two "it ends"
	is "nothing is left" "$(ip -o link show master labbr0)" ""
	few_complaints
	finish
fi

# --- for the record: emulated, so only the order of things means anything ---
seconds=5
rates() { # NAME
	iperf; echo "# $1: to the guest $mbit Mbit/s"
	iperf -R; echo "# $1: from the guest $mbit Mbit/s"
}
for how in on off; do
	start "v$how" net --memory 256M --cpus 1 --net "type=bridge,name=labbr0,vhost=$how"
	check "vhost=$how comes up" boots "v$how" 1
	rates "vhost, vhost=$how"
	end "v$how" "vhost=$how ends"
	ip tuntap add dev qtap0 mode tap vnet_hdr
	ip link set qtap0 master labbr0 up
	: >"$tmp/q$how.log"
	timeout -k 5 "$GUEST_TIMEOUT" qemu-system-x86_64 -M q35 -accel kvm -cpu host -m 256 -nodefaults -no-user-config -display none -no-reboot \
		-serial "file:$tmp/q$how.log" -kernel "$GUEST_CLOUD/vmlinuz" -initrd "$initrd" \
		-append "console=ttyS0 quiet panic=-1 vhost.job=net $append" \
		-netdev "tap,id=n,ifname=qtap0,script=no,downscript=no,vhost=$how" -device virtio-net-pci,disable-legacy=on,netdev=n &
	guest_pid=$!
	check "QEMU, vhost=$how comes up" boots "q$how" 1
	rates "QEMU, vhost=$how"
	for _ in $(seq 50); do timeout 2 bash -c 'exec 3<>/dev/tcp/10.77.0.2/7' 2>/dev/null && break; sleep 0.3; done
	wait $guest_pid
	ip link del qtap0
done
finish
