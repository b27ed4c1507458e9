#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A Debian guest in a network of kind nat: its addresses come from the network, and outside it goes by the host's.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
PATH=$PATH:/usr/sbin:/sbin
requires dnsmasq nft socat ip
. "$(dirname "$0")/guests.bash"
state() { ip -o addr | sed 's/^[0-9]*: //; s/ valid_lft.*//'; nft list ruleset; ps -eo stat=,comm= | awk '$1 !~ /^[ZX]/ && $2 ~ /^(dnsmasq|vhost-dhcp)$/ {print $2}'; (cd /proc/sys/net && grep . ipv[46]/conf/*/forwarding); }
on_exit '{ ip netns pids vh-out | xargs -r kill; ip netns del vh-out; ip link del up0; } 2>/dev/null'
ip netns add vh-out
ip link add up0 type veth peer name out0 netns vh-out
ip addr add 203.0.113.1/24 dev up0 && ip addr add 2001:db8::1/64 dev up0 nodad && ip link set up0 up
ip -n vh-out link set lo up
ip -n vh-out addr add 203.0.113.254/24 dev out0 && ip -n vh-out addr add 2001:db8::fe/64 dev out0 nodad && ip -n vh-out link set out0 up
ip route add default via 203.0.113.254 2>/dev/null
for i in $(seq 100); do ip -6 addr show dev up0 | grep -q 'inet6 fe80.*tentative' || break; sleep 0.1; done
ip netns exec vh-out socat TCP4-LISTEN:7000,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR' </dev/null >/dev/null 2>&1 &
ip netns exec vh-out socat TCP6-LISTEN:7000,ipv6only=1,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR' </dev/null >/dev/null 2>&1 &
nft list ruleset
before=$(state)
append="vhost.gw=192.168.77.1 vhost.name=printer.lab vhost.out4=203.0.113.254 vhost.out6=2001:db8::fe" start nat1 nat --cpus 1 --memory 128M \
	--net type=nat,name=labnat,address=192.168.77.1/24,address6=fd00:77::1/64,domain=lab,host=52:54:00:00:00:77=192.168.77.7=printer,mac=52:54:00:12:34:56,dhcp-range=192.168.77.50-192.168.77.50
good nat1 "a guest asks for its address"
is "and gets it" "$(said nat1 address)" 192.168.77.50/24
is "with the router" "$(said nat1 router)" 192.168.77.1
is "the name server" "$(said nat1 dns)" 192.168.77.1
is "and the domain" "$(said nat1 domain)" lab
is "which knows names" "$(said nat1 name)" 192.168.77.7
is "outside it goes by the host's address" "$(said nat1 seen4)" 203.0.113.1
is "by IPv6 as well" "$(said nat1 seen6)" "[2001:0db8:0000:0000:0000:0000:0000:0001]"
for i in $(seq 50); do [ "$(state)" = "$before" ] && break; sleep 0.2; done
is "its end leaves nothing" "$(state)" "$before"
few_complaints
finish
