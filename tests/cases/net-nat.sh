#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Networks of the nat plugin under whole VMs: shared, ended, killed; in a network namespace of its own.
if [ -z "${VH_IN_NETNS:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
	command -v unshare >/dev/null && command -v ip >/dev/null || { echo "1..0 # SKIP unshare or ip is not installed"; exit 0; }
	unshare -n true 2>/dev/null || { echo "1..0 # SKIP network namespaces are not allowed"; exit 0; }
	[ -w /dev/net/tun ] || { echo "1..0 # SKIP /dev/net/tun is missing"; exit 0; }
	VH_IN_NETNS=1 exec unshare -n "$0" "$@"
fi
. "$(dirname "$0")/functions.sh"
PATH=$PATH:/usr/sbin:/sbin
requires python3 nft dnsmasq
[ -e "$BUILDDIR/plugins/net/nat/nat.so" ] || skip_all "the nat plugin is not built (libnl-3-dev, libnl-route-3-dev, libnftables-dev)"
guest=$BUILDDIR/tests/guest/guest-hello
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1].splitlines()[-1]); print(eval(sys.argv[2]))' "$out" "$1"; }
# dnsmasq and its keeper in this namespace; one that waits to be reaped is none.
processes() {
	local p me; me=$(readlink /proc/self/ns/net)
	for p in $(pgrep -x 'dnsmasq|vhost-dhcp'); do
		[ "$(readlink "/proc/$p/ns/net" 2>/dev/null)" = "$me" ] && ! grep -q '^State:.[ZX]' "/proc/$p/status" 2>/dev/null && cat "/proc/$p/comm"
	done 2>/dev/null | sort
}
state() {
	ip -o link | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//'; ip -o addr | sed 's/^[0-9]*: //; s/ valid_lft.*//'
	ip route; nft list ruleset; processes
	(cd /proc/sys/net && grep . ipv4/ip_forward ipv[46]/conf/*/forwarding ipv6/conf/*/accept_ra)
}
# A killed process is alive until the kernel has taken it apart.
settles() { local i; for i in $(seq 200); do [ "$(state)" = "$before" ] && break; sleep 0.05; done; is "$1" "$(state)" "$before"; }
on_exit 'for v in a b; do vhost vm kill $v >/dev/null 2>&1; done; vhost net gc >/dev/null 2>&1'
ip link set lo up
ip link add up0 type veth peer name out0 && ip link set up0 addrgenmode none && ip addr add 203.0.113.1/24 dev up0 && ip link set up0 up
nft list ruleset
before=$(state)
net=type=nat,name=vhn,address=192.168.77.1/24,address6=fd00:77::1/64

status 0 "plan" vhost net plan --type nat --name vhn --address 192.168.77.1/24 --json
is "tells the steps" "$(json '[any(w in s for s in j["steps"]) for w in ("create bridge vhn", "table inet vhost_vhn: masquerade", "up0/forwarding to 1", "start dnsmasq: DHCP 192.168.77.2 to 192.168.77.254", "create tap")]')" \
	"[True, True, True, True, True]"
is "and changes nothing" "$(state)" "$before"
status 1 "an address that is none is refused" vhost net plan --type nat --name vhn --address 192.168.77.0/24
like "it says what to do" "$err" "*192.168.77.0/24*take an address*"
like "options are told" "$(vhost plugin help nat)" "*address6*dhcp-range*host*forward*"

[ -r /dev/kvm ] && [ -w /dev/kvm ] || { n=$((n + 1)); echo "ok $n - networks of guests # SKIP /dev/kvm is missing or may not be opened"; finish; }
start() { # NAME NETS...
	local name=$1; shift
	run vhost run --detach --name "$name" --kernel "$guest" --cmdline end=echo --memory 32M --serial none "$@"
}
start a --net "$net"
is "a VM makes a network" "$rc" 0
like "its bridge has its address" "$(ip -o addr show vhn)" "*192.168.77.1/24*"
like "its table has its owner" "$(nft list table inet vhost_vhn)" "*comment \"vhost:a:*masquerade*"
is "dnsmasq runs" "$(processes | paste -sd' ')" "dnsmasq vhost-dhcp"
is "not as root" "$(ps -o user= -p "$(pgrep -x dnsmasq | while read -r p; do [ "$(readlink "/proc/$p/ns/net")" = "$(readlink /proc/self/ns/net)" ] && echo "$p"; done)")" "$(ps -o user= -p $$ | sed 's/.*/nobody/')"
keeper=$(pgrep -x vhost-dhcp | while read -r p; do [ "$(readlink "/proc/$p/ns/net")" = "$(readlink /proc/self/ns/net)" ] && echo "$p"; done)
is "its keeper may end it, and nothing else" "$(grep -h CapEff "/proc/$keeper/status" | cut -f2)" 0000000000000020
is "and has no memory or file of the VM's open" "$(ls -l "/proc/$keeper/fd" | grep -c 'tun\|kvm\|memfd')" 0
start b --net "$net,isolated=on" --net type=nat,kind=isolated
is "a second VM joins, and makes an isolated one" "$rc" 0
is "with one dnsmasq" "$(processes | paste -sd' ')" "dnsmasq vhost-dhcp"
like "isolated: no address" "$(ip -o addr show vhisolated)" ""
status 0 "the first one, which made the network, ends" vhost vm kill a
is "dnsmasq stays with its user" "$(processes | paste -sd' ')" "dnsmasq vhost-dhcp"
start a --net type=nat,name=vhn,address=192.168.78.1/24
is "other options are refused" "$rc" 4
like "and it is said why" "$err" "*vhn runs with other options*"
status 0 "nothing to collect while it runs" vhost net gc --json
is "nothing was" "$(json 'j["removed"]')" 0
status 0 "the last user ends" vhost vm kill b
settles "and its sealed helper leaves nothing"
is "nor a file" "$(ls "$VHOST_ROOT/state/.net")" lock

start a --net "$net" --net type=nat,kind=isolated
kill -9 "$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid")"
settles "a killed VM's helper leaves nothing"
is "nor a file" "$(ls "$VHOST_ROOT/state/.net")" lock

start a --net "$net"
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid") helper=$(pgrep -P "$pid" | head -1)
kill -9 "$helper" "$pid"
for i in $(seq 200); do ip link show vnet0 >/dev/null 2>&1 || break; sleep 0.05; done
for i in $(seq 200); do grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$pid/stat" 2>/dev/null || break; sleep 0.05; done
is "killed with its helper, it leaves dnsmasq" "$(processes | paste -sd' ')" "dnsmasq vhost-dhcp"
status 0 "which net gc collects, and all else" vhost net gc --json
is "by name" "$(json 'sorted(o["object"] for o in j["objects"] if o["removed"])')" "['bridge vhn', 'dnsmasq of vhn', 'forwarding', 'table vhost_vhn']"
settles "nothing is left"
is "nor a file" "$(ls "$VHOST_ROOT/state/.net")" lock

start a --net "$net"
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid") helper=$(pgrep -P "$pid" | head -1)
kill -9 "$helper" "$pid"
for i in $(seq 200); do grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$pid/stat" 2>/dev/null || break; sleep 0.05; done
for i in $(seq 100); do vhost vm info a >/dev/null 2>&1 || break; sleep 0.05; done
start b --net type=nat,name=vho,address=192.168.79.1/24
is "the next VM collects as well" "$(ip -o link show vhn 2>/dev/null; nft list tables)" "table inet vhost_vho"
status 0 "and ends" vhost vm kill b
settles "nothing is left"

# A container may not make a process namespace: the keeper is a plain process then.
if command -v setpriv >/dev/null; then
	run setpriv --bounding-set=-sys_admin "$VHOST" run --detach --name a --kernel "$guest" --cmdline end=echo --memory 32M --serial none --net "$net"
	is "without CAP_SYS_ADMIN a VM makes a network" "$rc" 0
	is "with dnsmasq" "$(processes | paste -sd' ')" "dnsmasq vhost-dhcp"
	is "in no process namespace of its own" "$(for p in $(pgrep -x dnsmasq); do [ "$(readlink "/proc/$p/ns/net")" = "$(readlink /proc/self/ns/net)" ] && readlink "/proc/$p/ns/pid"; done)" \
		"$(readlink /proc/self/ns/pid)"
	status 0 "and its end" vhost vm kill a
	settles "leaves nothing either"
else
	skip "without CAP_SYS_ADMIN" "setpriv is not installed"
fi
finish
