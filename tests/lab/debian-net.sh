#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Debian guests on a bridge: ping and iperf3 both ways, queues, MTU; the bridge, the taps and the NICs are the plugin's work.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
. "$(dirname "$0")/guests.bash"
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
# The server serves one client after the other, and may need a moment in between.
iperf() {
	local i
	shift
	for i in 1 2 3 4; do
		timeout 30 iperf3 -c 10.77.0.2 -t 2 --connect-timeout 5000 -J "$@" >"$tmp/iperf.json" 2>/dev/null &&
			python3 -c 'import json, sys
b = json.load(open(sys.argv[1]))["end"]["sum_received"]["bytes"]
print(b)
sys.exit(b < 65536)' "$tmp/iperf.json" && return 0
		sleep 2
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
few_complaints
finish
