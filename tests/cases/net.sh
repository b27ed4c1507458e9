#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost net, and the life of a VM's ports: in a network namespace of its own.
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
links() { ip -o link | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//'; ip -o addr | sed 's/^[0-9]*: //'; }
on_exit 'for v in a b; do vhost vm kill $v >/dev/null 2>&1; done'

before=$(links)
status 0 "plan" vhost net plan --type bridge --name br0 --create on --address 192.0.2.1/24 --queues 2 --json
is "tells the steps" "$(json 'len(j["steps"]), "create bridge br0" in j["steps"][0], "192.0.2.1/24" in j["steps"][1]')" "(7, True, True)"
like "for people" "$(vhost net plan --name br0 --create on)" "create bridge br0*attach it to bridge br0*"
is "and changes nothing" "$(links)" "$before"
status 3 "without a bridge" vhost net plan --name br0
like "it says what to do" "$err" "*bridge br0 does not exist (add create=on*"
status 2 "a wrong option is refused" vhost net plan --nmae br0
like "with what is near" "$err" "*name*"
status 0 "nothing to collect" vhost net gc --json
is "nothing was" "$(json 'j["removed"], j["objects"]')" "(0, [])"
status 0 "no ports" vhost net ports --json
is "none" "$(json 'j["ports"]')" "[]"

[ -r /dev/kvm ] && [ -w /dev/kvm ] || { n=$((n + 1)); echo "ok $n - ports of guests # SKIP /dev/kvm is missing or may not be opened"; finish; }
start() { # NAME NETS...
	local name=$1; shift
	run vhost run --detach --name "$name" --kernel "$guest" --cmdline end=echo --memory 32M --serial none "$@"
}
start a --net type=bridge,name=br0,create=on,address=192.0.2.1/24,ifname=one --net type=bridge,name=br0,create=on,isolated=on,ifname=two
is "a VM with two NICs on a bridge that it makes" "$rc" 0
status 0 "net ports" vhost net ports --json
is "both are there" "$(json '[(p["vm"], p["index"], p["master"], p["link"]) for p in j["ports"]]')" "[('a', 0, 'br0', True), ('a', 1, 'br0', True)]"
is "with MACs of their own" "$(json 'len(set(p["mac"] for p in j["ports"]))')" 2
macs=$(json '[p["mac"] for p in j["ports"]]')
like "the bridge has its address" "$(ip -o addr show br0)" "*192.0.2.1/24*"
like "the port is isolated" "$(bridge -d link show dev two)" "*isolated on*"
like "and tagged with its owner" "$(ip link show one)" "*alias vhost:a:*"
helper=$(pgrep -P "$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid")" | head -1)
is "the helper may administer networks, and nothing else" "$(grep -h 'Cap\(Eff\|Bnd\)' /proc/"$helper"/status | cut -f2 | sort -u)" 0000000000001000
is "under seccomp" "$(grep -h Seccomp: /proc/"$helper"/status | cut -f2)" 2
is "with no guest memory" "$(grep -c memfd /proc/"$helper"/maps)" 0
like "vm info tells no network" "$(vhost vm info a)" "*NIC:     one on br0, MAC*"
status 0 "vm link down" vhost vm link a two off --json
is "by the interface's name" "$(json 'j["nic"], j["ifname"], j["link"]')" "(1, 'two', False)"
like "the interface is down" "$(ip -o link show two)" "*state DOWN*"
like "the other is not" "$(ip -o link show one)" "*UP*"
status 0 "it is shown" vhost vm link a 1
is "as down" "$out" "NIC 1 (two) of VM a: link down"
run vhost net ports --json
is "in the list of ports too" "$(json '[p["link"] for p in j["ports"]]')" "[True, False]"
status 0 "vm link up, by number" vhost vm link a 1 on
like "the interface is up" "$(ip -o link show two)" "*,UP*"
status 3 "a NIC that is not there" vhost vm link a 7 off
like "it says which there are" "$err" "*no NIC 7*0 to 1*"
status 2 "on or off" vhost vm link a 1 maybe
start b --net type=bridge,name=br0
is "a second VM joins" "$rc" 0
status 0 "the first one, which made the bridge, ends" vhost vm kill a
like "the bridge stays with its user" "$(ip -o link show master br0)" "*vnet*"
status 0 "nothing to collect while it runs" vhost net gc --json
is "nothing was" "$(json 'j["removed"]')" 0
status 0 "the last user ends" vhost vm kill b
is "and nothing is left" "$(links)" "$before"

start a --net type=bridge,name=br0,create=on --net type=bridge,name=br0,create=on,isolated=on
run vhost net ports --json
is "MACs are the same at the next start" "$(json '[p["mac"] for p in j["ports"]]')" "$macs"
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid")
kill -9 "$pid"
for i in $(seq 200); do [ "$(links)" = "$before" ] && break; sleep 0.05; done
is "a killed VM's helper leaves nothing" "$(links)" "$before"

start a --net type=bridge,name=br0,create=on
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid") helper=$(pgrep -P "$pid" | head -1)
kill -9 "$helper" "$pid"
for i in $(seq 200); do ip link show vnet0 >/dev/null 2>&1 || break; sleep 0.05; done
for i in $(seq 100); do vhost vm info a >/dev/null 2>&1 || break; sleep 0.05; done
# A killed process is alive until the kernel has taken it apart, which for a VM takes a while on a busy machine.
for i in $(seq 200); do grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$pid/stat" 2>/dev/null || break; sleep 0.05; done
like "killed with its helper, it leaves the bridge" "$(ip -o link show br0)" "*br0*"
ip link add foreign type bridge
status 0 "which net gc removes" vhost net gc --json
is "that one only" "$(json '[(o["object"], o["removed"]) for o in j["objects"]]')" "[('bridge br0', True)]"
like "and no other" "$(ip -o link show foreign)" "*foreign*"
ip link del foreign
is "nothing is left" "$(links)" "$before"
is "nor a journal" "$(ls "$VHOST_ROOT/state/.net")" lock

start a --net type=bridge,name=br0,create=on,address=192.0.2.1/24 --net type=bridge,name=br0,create=on,isolated=on
start b --net type=bridge,name=br0
taps=$(ip -o link show master br0 | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//' | sort)
ip link del br0
for i in $(seq 200); do [ "$(ip -o link show master br0 2>/dev/null | wc -l)" = 3 ] && break; sleep 0.05; done
is "a bridge that is deleted under them has all its ports again" "$(ip -o link show master br0 | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//' | sort)" "$taps"
like "and its address" "$(ip -o addr show br0)" "*192.0.2.1/24*"
for i in $(seq 200); do [ "$(cat "$VHOST_ROOT"/state/[ab]/log 2>/dev/null | grep -c "bridge br0 was deleted by another program")" = 3 ] && break; sleep 0.05; done
like "the VMs' logs say so" "$(cat "$VHOST_ROOT/state/b/log")" "*NIC 0 (vnet2) of VM b: bridge br0 was deleted by another program*"
status 0 "they end" vhost vm kill a
status 0 "one after the other" vhost vm kill b
is "and nothing is left" "$(links)" "$before"

start a --net type=bridge,name=nobr
is "a missing bridge stops the start" "$rc" 3
like "and says what to do" "$err" "*bridge nobr does not exist*create=on*"
is "nothing is left" "$(links)" "$before"
finish
