#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Networks as objects: vhost net define, plan, start, info, run --net NAME, stop, delete, autostart, gc. In a network namespace of its own.
if [ -z "${VH_IN_NETNS:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
	command -v unshare >/dev/null && command -v ip >/dev/null || { echo "1..0 # SKIP unshare or ip is not installed"; exit 0; }
	unshare -n true 2>/dev/null || { echo "1..0 # SKIP network namespaces are not allowed"; exit 0; }
	[ -w /dev/net/tun ] || { echo "1..0 # SKIP /dev/net/tun is missing"; exit 0; }
	VH_IN_NETNS=1 exec unshare -n "$0" "$@"
fi
. "$(dirname "$0")/functions.sh"
requires python3
[ -e "$BUILDDIR/plugins/net/bridge/bridge.so" ] || skip_all "the bridge plugin is not built (libnl-3-dev, libnl-route-3-dev)"
guest=$BUILDDIR/tests/guest/guest-hello
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1].splitlines()[-1]); print(eval(sys.argv[2]))' "$out" "$1"; }
# What the host has, without what runs down by itself.
links() {
	ip -o link | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//'; ip -o addr | sed 's/^[0-9]*: //; s/[0-9]*sec/Nsec/g'
	ip -4 route show table all; ip -6 route show table all | grep -v ff00::/8
}
on_exit 'for v in a b; do vhost vm kill $v >/dev/null 2>&1; done'
config=$VHOST_ROOT/config/networks

# The card: a veth, its other end stands for the cable.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link add eth0 address 52:54:00:aa:00:01 type veth peer name far
ip link set far addrgenmode none; ip link set far up; ip link set eth0 up
for i in $(seq 300); do ip -o link show eth0 | grep -q LOWER_UP && ip -o addr show eth0 | grep -q 'inet6 fe80' && break; sleep 0.01; done
ip addr add 192.0.2.1/24 dev eth0; ip addr add 192.0.2.2/24 dev eth0 label eth0:two; ip addr add 2001:db8::1/64 dev eth0 nodad
ip route add default via 192.0.2.254 metric 50 proto dhcp; ip -6 route add default via 2001:db8::ff
before=$(links)

# ---- definitions ----
status 0 "none at first" vhost net list --json
is "none" "$(json 'j["networks"]')" "[]"
status 3 "a network that is not defined" vhost run --kernel "$guest" --net lan
like "what to do" "$err" "*network lan: there is no such network (vhost net define lan --kind KIND makes one; none is defined)"
status 2 "a kind is needed" vhost net define lan --uplink eth0
status 2 "a kind that nobody makes" vhost net define lan --kind bridge --uplink eth0
like "with a near one" "$err" "*'bridge'*did you mean bridged?*"
status 2 "an option that there is not" vhost net define lan --kind bridged --upling eth0
like "with a near one" "$err" "*upling*uplink*"
status 2 "an option of one NIC" vhost net define lan --kind bridged --uplink eth0 --isolated on
like "where it is given" "$err" "*option isolated is of one NIC*--net lan,isolated=on*"
status 2 "a name that is none" vhost net define ../lan --kind bridged
check "nothing is written" test ! -e "$config/lan.conf"
status 0 "define" vhost net define lan --kind bridged --uplink eth0
like "its file" "$(<"$config/lan.conf")" "*kind=bridged*type=bridge*uplink=eth0*"
status 0 "the same again" vhost net define lan --kind bridged --uplink eth0
status 4 "another one of that name" vhost net define lan --kind bridged --uplink eth1
status 0 "listed" vhost net list --json
is "as stopped" "$(json '[(n["name"], n["kind"], n["type"], n["state"], n["ports"], n["options"]) for n in j["networks"]]')" \
	"[('lan', 'bridged', 'bridge', 'stopped', 0, {'uplink': 'eth0'})]"
is "nothing is made" "$(links)" "$before"

# ---- plan, start, info, stop ----
status 0 "plan" vhost net plan lan --json
is "tells each step" "$(json 'j["network"], j["steps"][0].startswith("create bridge br-lan, MAC 52:54:00:aa:00:01"), "make eth0 a port of bridge br-lan" in j["steps"], "move address 192.0.2.2/24 from eth0 to br-lan" in j["steps"], "move route default via 192.0.2.254 metric 50 from eth0 to br-lan" in j["steps"]')" \
	"('lan', True, True, True, True)"
is "and makes none" "$(links)" "$before"
status 2 "a network has its options" vhost net plan lan --name br7
status 0 "info before" vhost net info lan
like "nothing exists" "$out" "*State:      stopped*Nothing of it exists now*"
status 0 "start" vhost net start lan
is "the card has no address now" "$(ip -o addr show dev eth0)" ""
like "the bridge has them" "$(ip -o addr show dev br-lan)" "*192.0.2.1/24*192.0.2.2/24*2001:db8::1/64*"
like "and the routes" "$(ip route)" "*default via 192.0.2.254 dev br-lan proto dhcp metric 50*"
like "it carries the network's tag" "$(ip link show br-lan)" "*alias vhost:@lan:*"
held=$(links)
status 0 "start again" vhost net start lan
is "is nothing" "$(links)" "$held"
status 0 "gc" vhost net gc --json
is "leaves what is held" "$(json 'j["removed"]')" 0
is "all of it" "$(links)" "$held"
status 4 "delete is refused" vhost net delete lan
like "saying why" "$err" "*network lan: it is started (vhost net stop lan)"
status 0 "info" vhost net info lan
like "draws the uplink" "$out" "*State:      started*
eth0  (uplink, MTU 1500, up)
└─ br-lan  (bridge, 192.0.2.1/24 192.0.2.2/24 2001:db8::1/64*, MTU 1500, up)"
status 0 "info as JSON" vhost net info lan --json
is "its parts" "$(json '[(p["kind"], p["name"], p["above"], p["vm"]) for p in j["parts"]]')" "[('uplink', 'eth0', None, None), ('bridge', 'br-lan', 'eth0', None)]"
status 0 "info as dot" vhost net info lan --dot
like "a graph" "$out" 'graph network {*n0 \[label="eth0"*n1 \[label="br-lan"*n0 -- n1;*}'
status 0 "info as SVG" vhost net info lan --svg
check "well-formed" python3 -c 'import sys, xml.dom.minidom as m; d = m.parseString(sys.argv[1]); assert len(d.getElementsByTagName("rect")) == 3 and len(d.getElementsByTagName("path")) == 1' "$out"
status 2 "one form at a time" vhost net info lan --dot --svg
status 0 "stop" vhost net stop lan
is "everything is as before" "$(links)" "$before"
is "no journal is left" "$(ls "$VHOST_ROOT/state/.net")" "lock
networks"
status 0 "stop again" vhost net stop lan

# ---- autostart ----
status 0 "autostart" vhost net autostart lan on
status 0 "a network that cannot start" vhost net define broken --kind bridged --uplink nothing --autostart
status 1 "vhost autostart" vhost autostart --json
is "starts those with the mark" "$(json '[(n["name"], n["result"], n["error"]) for n in j["networks"]]')" "[('broken', 'failed', 'ENOENT'), ('lan', 'started', None)]"
is "as start does" "$(links | grep -v 'br-lan.*valid_lft\|alias')" "$(grep -v 'br-lan.*valid_lft\|alias' <<<"$held")"
status 0 "stop" vhost net stop lan
vhost net delete broken >/dev/null; vhost net autostart lan off >/dev/null
status 0 "without the mark" vhost autostart
is "nothing is started" "$(links)" "$before"

# ---- what dies ----
# A start that its process did not live to finish: what it made, and a record that says so.
status 0 "start" vhost net start lan
record=$(cat "$VHOST_ROOT/state/.net/networks/lan")
sleep 0.01 & dead=$!
wait "$dead"
echo "${record%% *} starting $dead 1" >"$VHOST_ROOT/state/.net/networks/lan"
status 0 "is listed so" vhost net list --json
is "as left behind" "$(json 'j["networks"][0]["state"]')" "left behind"
status 0 "gc" vhost net gc --json
is "takes the bridge" "$(json '[(o["object"], o["removed"]) for o in j["objects"]]')" "[('bridge br-lan', True)]"
is "and gives back what was moved" "$(links)" "$before"
check "the record is gone" test ! -e "$VHOST_ROOT/state/.net/networks/lan"

# ---- long names ----
long=a-network-of-the-second-floor
vhost net define $long --kind bridged --uplink eth0 >/dev/null
status 0 "a name over 15 characters" vhost net start $long
like "is an altname" "$(ip link show br-$long)" "*: br-a-net-*altname br-$long*"
check "its bridge's name fits" bash -c '[ "$(ip -o link show type bridge | sed "s/^[0-9]*: //; s/:.*//" | wc -L)" -le 15 ]'
status 0 "it stops" vhost net stop $long
is "and all is as before" "$(links)" "$before"
status 0 "it is deleted" vhost net delete $long

[ -r /dev/kvm ] && [ -w /dev/kvm ] || { n=$((n + 1)); echo "ok $n - NICs of guests # SKIP /dev/kvm is missing or may not be opened"; finish; }
# ---- VMs ----
start() { # NAME NETS...
	local name=$1; shift
	run vhost run --detach --name "$name" --kernel "$guest" --cmdline end=echo --memory 32M --serial none "$@"
}
status 0 "dry run" vhost run --dry-run --name a --kernel "$guest" --net lan,isolated=on
like "plans the network" "$out" "*NIC 0, network lan of kind bridged, type bridge:*move address 192.0.2.1/24 from eth0 to br-lan*isolated*"
status 2 "an option of the network" vhost run --name a --kernel "$guest" --net lan,uplink=eth1
like "is refused by name" "$err" "*option uplink is the network's*"
status 2 "a network has its type" vhost run --name a --kernel "$guest" --net network=lan,type=bridge
like "it says so" "$err" "*a network has its type*"
start a --net lan,isolated=on,ifname=one --net lan,mac=52:54:00:00:00:77
is "run --net NAME, which is not started" "$rc" 0
like "makes it" "$(ip -o addr show dev br-lan)" "*192.0.2.1/24*"
like "with its NIC's options" "$(bridge -d link show dev one)" "*isolated on*"
like "vm info names the network" "$(vhost vm info a)" "*NIC:     one on br-lan, network lan, MAC*"
run vhost net ports --json
is "so do the ports" "$(json '[(p["vm"], p["network"], p["mac"]) for p in j["ports"]][1]')" "('a', 'lan', '52:54:00:00:00:77')"
run vhost net list --json
is "and the list counts them" "$(json 'j["networks"][0]["ports"], j["networks"][0]["state"]')" "(2, 'stopped')"
status 0 "info" vhost net info lan
like "draws the VM" "$out" "*eth0  (uplink*
└─ br-lan  (bridge*
   ├─ *  \(port, VM a NIC *
   └─ *  \(port, VM a NIC *"
run vhost net info lan --json
is "in JSON" "$(json 'sorted((p["vm"], p["nic"]) for p in j["parts"] if p["kind"] == "port")')" "[('a', 0), ('a', 1)]"
run vhost net info lan --dot
like "and as a graph" "$out" "*VM a NIC 0*"
status 4 "delete is refused" vhost net delete lan
like "naming the users" "$err" "*in use by VM a NIC 0 (one), VM a NIC 1*"
status 0 "start" vhost net start lan
status 4 "stop is refused" vhost net stop lan
like "naming the users" "$err" "*in use by VM a NIC 0*"
start b --net lan
is "a second VM" "$rc" 0
status 0 "the first ends" vhost vm kill a
status 0 "the second too" vhost vm kill b
like "the network stays" "$(ip -o addr show dev br-lan)" "*192.0.2.1/24*"
status 0 "until stop" vhost net stop lan
is "then all is as before" "$(links)" "$before"

start a --net lan
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid")
kill -9 "$pid"
for i in $(seq 400); do [ "$(links)" = "$before" ] && break; sleep 0.05; done
is "a killed VM's helper gives the addresses back" "$(links)" "$before"

start a --net lan
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid") helper=$(pgrep -P "$pid" | head -1)
kill -9 "$helper" "$pid"
for i in $(seq 400); do grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$pid/stat" 2>/dev/null || break; sleep 0.05; done
for i in $(seq 400); do ip link show vnet0 >/dev/null 2>&1 || break; sleep 0.05; done
like "killed with its helper, the bridge serves the host" "$(ip -o addr show dev br-lan)" "*192.0.2.1/24*"
status 0 "gc" vhost net gc
is "gives the addresses back" "$(links)" "$before"

mkdir -p "$VHOST_ROOT/config/vms"
printf '[vm]\nkernel=%s\ncmdline=end=echo\nmemory=32M\nserial=null\n[net 0]\nnetwork=lan\nisolated=on\n' "$guest" >"$VHOST_ROOT/config/vms/b.conf"
run vhost run --detach b
is "a VM's file names the network" "$rc" 0
like "it is in it" "$(vhost vm info b)" "*network lan*"
status 0 "it ends" vhost vm kill b
status 0 "delete" vhost net delete lan
status 3 "it is gone" vhost net info lan
is "and all is as before" "$(links)" "$before"
finish
