#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A Debian guest on a macvtap: it reaches the outside, the host beside it, and both by IPv6, for which its multicast groups must
# have got to the kernel.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
modprobe -a veth macvtap 2>/dev/null
ip link add up0 type veth peer name out0 2>/dev/null || skip_all "this kernel has no veth"
on_exit "ip link del up0 2>/dev/null"
. "$(dirname "$0")/guests.bash"
ip netns add outside
on_exit "ip netns del outside"
out() { ip netns exec outside "$@"; }
ip link set out0 netns outside
ip link set up0 up
out ip link set lo up
out ip link set out0 up
out ip addr add 10.78.0.9/24 dev out0
out ip addr add fe80::9/64 dev out0 nodad
append="vhost.ip=10.78.0.2/24 vhost.peers=10.78.0.9,10.78.0.1,fe80::9%eth0" start mv peers --memory 256M --cpus 2 \
	--net type=macvtap,uplink=up0,host=on,address=10.78.0.1/24,queues=2,mac=52:54:00:01:02:03
check "the guest's driver is up" await mv 'guest: net up'
check "the guest reaches the outside" await mv 'guest: reaches 10.78.0.9' 60
check "the guest reaches the host" await mv 'guest: reaches 10.78.0.1' 60
check "the guest reaches the outside by IPv6" await mv 'guest: reaches fe80::9' 60
check "the outside reaches the guest" out ping -c 3 -i 0.3 -W 5 10.78.0.2
check "and by IPv6" out ping -6 -c 3 -i 0.3 -W 5 fe80::5054:ff:fe01:203%out0
check "the host reaches the guest" ping -c 3 -i 0.3 -W 5 10.78.0.2
check "and by IPv6" ping -6 -c 3 -i 0.3 -W 5 fe80::5054:ff:fe01:203%mv-up0
like "the kernel knows the guest's solicited-node group" "$(ip maddr show dev vnet0)" "*33:33:ff:01:02:03*"
is "and nothing makes it hear all others" "$(ip -o link show vnet0 | grep -c ALLMULTI)" 0
is "the guest has both queues" "$(said mv queues)" 2
for _ in $(seq 100); do timeout 2 bash -c 'exec 3<>/dev/tcp/10.78.0.2/7' 2>/dev/null && break; sleep 0.3; done
good mv "the guest ends"
is "its interfaces are gone" "$(ip -o link | grep -c '@up0')" 0
few_complaints
finish
