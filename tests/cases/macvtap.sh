#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Whole VMs on macvtaps: in a network namespace of its own, with the outside in a second one behind a veth pair.
if [ -z "${VH_IN_NETNS:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
	command -v unshare >/dev/null && command -v ip >/dev/null || { echo "1..0 # SKIP unshare or ip is not installed"; exit 0; }
	unshare -n true 2>/dev/null || { echo "1..0 # SKIP network namespaces are not allowed"; exit 0; }
	VH_IN_NETNS=1 exec unshare -n "$0" "$@"
fi
. "$(dirname "$0")/functions.sh"
requires python3 nsenter ping
[ -e "$BUILDDIR/plugins/net/macvtap/macvtap.so" ] || skip_all "the macvtap plugin is not built (libnl-3-dev, libnl-route-3-dev)"
guests=$BUILDDIR/tests/guest
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1].splitlines()[-1]); print(eval(sys.argv[2]))' "$out" "$1"; }
links() { ip -o link | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//'; ip -o addr | sed 's/^[0-9]*: //'; }
unshare -n sleep 600 &
outside=$!
on_exit "kill $outside"
out() { nsenter -t "$outside" -n "$@"; }
ip link add up0 type veth peer name out0 || skip_all "this kernel has no veth"
if ip link add probe link up0 type macvtap 2>/dev/null; then ip link del probe; else skip_all "this kernel has no macvtap"; fi
for _ in $(seq 100); do ip link set out0 netns "$outside" 2>/dev/null && out ip link show out0 >/dev/null 2>&1 && break; sleep 0.05; done
ip link set up0 addrgenmode none; ip link set up0 up; ip link set lo up
out ip link set out0 addrgenmode none; out ip link set out0 up; out ip addr add 10.9.0.9/24 dev out0
on_exit 'for v in a b; do vhost vm kill $v >/dev/null 2>&1; done'

before=$(links)
status 0 "plan" vhost net plan --type macvtap --uplink up0 --host on --address 10.9.0.1/24 --queues 2 --json
is "tells the steps" "$(json 'len(j["steps"]), "create macvlan mv-up0" in j["steps"][0], "10.9.0.1/24" in j["steps"][1]')" "(5, True, True)"
is "and changes nothing" "$(links)" "$before"
status 3 "without an uplink" vhost net plan --type macvtap --uplink nowhere
like "it says what is missing" "$err" "*uplink nowhere does not exist*"

[ -r /dev/kvm ] && [ -w /dev/kvm ] || { skip "ports of guests" "/dev/kvm is missing or may not be opened"; finish; }
start() { # NAME ADDRESS NETS...
	local name=$1 ip=$2; shift 2
	run vhost run --detach --name "$name" --kernel "$guests/guest-netecho" --cmdline "ip=$ip" --memory 32M --serial none "$@"
}
# pings WHO ADDRESS: within 10 s
pings() {
	for _ in $(seq 20); do $1 ping -c 1 -W 0.5 -q "$2" >/dev/null 2>&1 && return 0; done
	return 1
}
start a 10.9.0.2 --net type=macvtap,uplink=up0,host=on,address=10.9.0.1/24
is "a VM with the host beside it" "$rc" 0
start b 10.9.0.3 --net type=macvtap,uplink=up0,queues=2,ifname=two
is "and a second one, with two queues" "$rc" 0
status 0 "net ports" vhost net ports --json
is "both are there" "$(json '[(p["vm"], p["ifname"], p["link"], p["queue_pairs"]) for p in j["ports"]]')" "[('a', 'vnet0', True, 1), ('b', 'two', True, 2)]"
check "the outside pings the first" pings out 10.9.0.2
check "and the second" pings out 10.9.0.3
check "the host pings the first" pings env 10.9.0.2
check "and the second" pings env 10.9.0.3
helper=$(pgrep -P "$(cut -d' ' -f1 "$VHOST_ROOT/state/b/pid")" | head -1)
is "the helper may administer networks, and nothing else" "$(grep -h 'Cap\(Eff\|Bnd\)' /proc/"$helper"/status | cut -f2 | sort -u)" 0000000000001000
status 0 "the first one, which made the host's interface, ends" vhost vm kill a
like "it stays with the second" "$(ip -o link show mv-up0 2>&1)" "*mv-up0@up0*"
status 0 "nothing to collect while that runs" vhost net gc --json
is "nothing was" "$(json 'j["removed"]')" 0
status 0 "the second ends" vhost vm kill b
is "and nothing is left" "$(links)" "$before"

start a 10.9.0.2 --net type=macvtap,uplink=up0,host=on
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid")
kill -9 "$pid"
for _ in $(seq 200); do [ "$(links)" = "$before" ] && break; sleep 0.05; done
is "a killed VM's helper leaves nothing" "$(links)" "$before"

start a 10.9.0.2 --net type=macvtap,uplink=up0,host=on
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid") helper=$(pgrep -P "$pid" | head -1)
kill -9 "$helper" "$pid"
for _ in $(seq 200); do grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$pid/stat" 2>/dev/null || break; sleep 0.05; done
like "killed with its helper, it leaves both interfaces" "$(ip -o link)" "*mv-up0@up0*vnet0@up0*"
ip link add foreign link up0 type macvtap
status 0 "which net gc removes" vhost net gc --json
is "those and no others" "$(json 'sorted((o["object"], o["removed"]) for o in j["objects"])')" "[('macvlan mv-up0', True), ('macvtap vnet0', True)]"
ip link del foreign
is "nothing is left" "$(links)" "$before"
is "nor a journal" "$(ls "$VHOST_ROOT/state/.net" | grep -vxE "lock|networks")" ""

# As a network with a name.
status 0 "a network is defined" vhost net define direct --kind macvtap --uplink up0 --host on --address 10.9.0.1/24
start a 10.9.0.2 --net direct
is "a VM is in it" "$rc" 0
check "and can be reached" pings env 10.9.0.2
status 0 "which info shows" vhost net info direct
like "from the uplink to the VM" "$out" "*up0*mv-up0*vnet0*"
status 0 "it is started, and takes the host's interface over" vhost net start direct
like "by its tag" "$(ip link show mv-up0)" "*alias vhost:@direct:*"
status 4 "it does not stop under a VM" vhost net stop direct
vhost vm kill a
like "without a VM the host's interface stays" "$(ip -o link show mv-up0)" "*mv-up0*"
status 0 "it stops" vhost net stop direct
status 0 "and is deleted" vhost net delete direct
is "nothing is left" "$(links)" "$before"

start a 10.9.0.2 --net type=macvtap,uplink=up0,mode=passthru
check "passthru: the outside pings the guest" pings out 10.9.0.2
start b 10.9.0.3 --net type=macvtap,uplink=up0
is "and nobody else gets on that uplink" "$rc" 4
like "and is told who has it" "$err" "*vnet0 has all of up0 for itself (mode=passthru): vhost:a:*"
# The uplink goes under the guest's feet.
ip link del up0
status 0 "a VM without its uplink lives" vhost vm info a
status 0 "until it is told to end" vhost vm kill a
is "and leaves no journal" "$(ls "$VHOST_ROOT/state/.net" | grep -vxE "lock|networks")" ""
finish
