#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Three Debian guests and another host on a trunk, in both builds at once: each guest has one NIC on an uplink with VLAN devices and one
# on an uplink with a VLAN-filtering bridge. Two guests are in VLAN 10, one in 20; so is the other host, a namespace on the uplinks' far ends.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
modprobe 8021q 2>/dev/null || [ -e /sys/module/8021q ] || skip_all "the kernel has no 8021q"
. "$(dirname "$0")/guests.bash"

ip netns add far
on_exit "ip netns del far"
far() { ip netns exec far "$@"; }
far sysctl -qw net.ipv4.conf.all.arp_ignore=1 # an address is of one interface, not of the host
for u in 0 1; do
	ip link add vlup$u type veth peer name far$u netns far
	ip link set vlup$u up
	far ip link set far$u up
	for v in 10 20; do
		far ip link add link far$u name far$u.$v type vlan id $v
		far ip link set far$u.$v up
	done
	# All in one network of addresses: what keeps them apart is the VLAN. The other host has another address in each.
	far ip addr add 10.$u.0.110/24 dev far$u.10
	far ip addr add 10.$u.0.120/32 dev far$u.20
done
before=$(ip -o link | sed 's/^[0-9]*: //; s/ state.*//')

declare -A pid
boot() { # boot NAME VLAN LAST-BYTE PEERS [NETWORK]: the network instead of the first NIC's own options
	append="vhost.ip=10.0.0.$3/24,10.1.0.$3/24 vhost.peers=$4" start "$1" vlan --memory 160M --cpus 1 \
		--net "${5:-type=vlan,uplink=vlup0,id=$2}" --net "type=vlan,uplink=vlup1,id=$2,mode=filter"
	pid[$1]=$guest_pid
}
boot one 10 1 10.0.0.2,10.1.0.2,10.0.0.3,10.1.0.3,10.0.0.110,10.1.0.110,10.0.0.120,10.1.0.120
boot two 10 2 10.0.0.1,10.1.0.1
# As a newcomer would: a network is defined, and a machine put on it, without any other command.
check "a network of VLAN 20" vhost net define lan --kind vlan --uplink vlup0 --id 20
boot three 20 3 10.0.0.1,10.1.0.1,10.0.0.110,10.1.0.110 lan
for g in one two three; do guest_pid=${pid[$g]}; check "$g is up" await $g 'guest: vlan ready'; done
is "one VLAN device for two guests" "$(ip -o link show type vlan | grep -c 'vlup0\.10@')" 1
is "and no VLAN 1 anywhere" "$(bridge vlan show | awk '{for (i = 1; i <= NF; i++) if ($i == 1) n++} END {print n + 0}')" 0
# The other host reaches them over the trunk, each in its VLAN: this is also the guests' sign to go on.
knock() { # knock PORT NAME ADDRESS
	local i
	for ((i = 0; i < 50; i++)); do
		far timeout 3 bash -c "exec 3<>/dev/tcp/$3/$1" 2>/dev/null && return 0
		sleep 0.2
	done
	return 1
}
check "the other host reaches the first one in VLAN 10" knock 7 one 10.0.0.1
check "and the second one" knock 7 two 10.1.0.2
far ip addr add 10.0.0.121/32 dev far0.20
far ip route add 10.0.0.3/32 dev far0.20 src 10.0.0.121
check "and the third one in VLAN 20" knock 7 three 10.0.0.3
reaches() { is "$1 $2 $3" "$(log "$1" | grep -oE "vlan (reaches|misses) ${3//./\\.}\$")" "vlan $2 $3"; }
for g in one two three; do guest_pid=${pid[$g]}; await $g 'guest: vlan pinged' 90; done
for u in 0 1; do
	[ $u = 0 ] && echo "# VLAN devices" || echo "# a VLAN-filtering bridge"
	reaches one reaches 10.$u.0.2
	reaches one misses 10.$u.0.3
	reaches one reaches 10.$u.0.110
	reaches one misses 10.$u.0.120
	reaches two reaches 10.$u.0.1
	reaches three misses 10.$u.0.1
	reaches three misses 10.$u.0.110
done
knock 8 one 10.0.0.1; knock 8 two 10.0.0.2; knock 8 three 10.0.0.3
for g in one two three; do guest_pid=${pid[$g]}; good $g "$g ends"; done
is "nothing is left" "$(ip -o link | sed 's/^[0-9]*: //; s/ state.*//')" "$before"
few_complaints
finish
