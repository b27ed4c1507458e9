#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# User networking: whole VMs beside Debian's passt, as root and as an ordinary user; in namespaces of its own.
if [ -z "${VH_IN_NETNS:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root (to make a host with a default route)"; exit 0; }
	command -v unshare >/dev/null && command -v ip >/dev/null || { echo "1..0 # SKIP unshare or ip is not installed"; exit 0; }
	unshare -n -m true 2>/dev/null || { echo "1..0 # SKIP namespaces are not allowed"; exit 0; }
	VH_IN_NETNS=1 exec unshare -n -m "$0" "$@"
fi
. "$(dirname "$0")/functions.sh"
requires python3 setpriv pgrep
guests=$BUILDDIR/tests/guest
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1].splitlines()[-1]); print(eval(sys.argv[2]))' "$out" "$1"; }
ip link set lo up
ip link add v0 type veth peer name v1 || skip_all "this kernel has no veth"
ip link set v0 up; ip link set v1 up
ip addr add 10.9.0.1/24 dev v0
ip route add default via 10.9.0.254

status 3 "a passt that is not there" vhost net plan --type passt --program /nowhere/passt
like "is named" "$err" "*/nowhere/passt cannot be run*"
status 1 "options are checked" vhost net plan --type passt --tcp 0 --program /bin/true
like "and say what is wrong" "$err" "*tcp=0 names no ports (write it like 2222:22*"
run vhost doctor --json
if [ ! -x /usr/bin/passt ] && [ ! -x /usr/local/bin/passt ]; then
	like "doctor says that passt is missing" "$out" "*passt is not installed*"
	skip "guests" "passt is not installed"
	finish
fi
like "doctor finds passt" "$out" "*user networking by /usr/*passt*"
status 0 "plan" vhost net plan --type passt --tcp 2222:22 --json
is "tells what is started" "$(json '"--tcp-ports 2222:22" in j["steps"][0], "--no-map-gw" in j["steps"][0]')" "(True, True)"
[ -r /dev/kvm ] && [ -w /dev/kvm ] || { skip "guests" "/dev/kvm is missing or may not be opened"; finish; }

# The host's servers: an answer to every UDP packet, a port that can be connected to.
cat >"$tmp/server" <<'P'
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("10.9.0.1", 7777))
t = socket.socket(); t.bind(("10.9.0.1", 7777)); t.listen(8)
def accept():
    while True:
        t.accept()
threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
while True:
    data, who = u.recvfrom(100)
    u.sendto(b"answer to " + data, who)
P
python3 "$tmp/server" >"$tmp/server.out" &
server=$!
on_exit "kill $server"
for _ in $(seq 200); do [ -s "$tmp/server.out" ] && break; sleep 0.05; done
net=type=passt,address=10.9.0.2/24,gateway=10.9.0.254
# The passt processes of this namespace that are no zombies.
passts() { pgrep -r D,R,S,T --ns $$ --nslist net '^passt(.av|$)'; }
gone() { local _; for _ in $(seq 200); do [ -z "$(passts)" ] && return 0; sleep 0.05; done; return 1; }
on_exit 'for v in a b; do vhost vm kill $v >/dev/null 2>&1; done'
# told FILE PATTERN: within 20 s the guest has said it
told() { local _; for _ in $(seq 400); do grep -q "$2" "$1" 2>/dev/null && return 0; sleep 0.05; done; return 1; }

status 0 "a guest as root" timeout -k 5 60 "$VHOST" run --kernel "$guests/guest-netuser" --memory 32M --cmdline "dst=10.9.0.1 port=7777" --net $net
like "gets its address by DHCP, its gateway by ARP" "$out" "*dhcp address=10.9.0.2 gateway=10.9.0.254*netuser: arp*"
like "a server's answer by UDP, a connection by TCP" "$out" "*answer <answer to question>*connected, ack=2*netuser: ok*"
check "its passt ends with it" gone
is "and leaves no journal" "$(ls "$VHOST_ROOT/state/.net" | grep -vxE 'lock|networks')" ""

# A port of the host that leads to the guest.
run vhost run --detach --name a --kernel "$guests/guest-netuser" --memory 32M --cmdline "dst=10.9.0.1 port=7777 wait=1" \
	--serial "file:$tmp/a.log" --net "$net,udp=127.0.0.1/5007:7"
is "a guest with a forwarded port" "$rc" 0
check "has begun" told "$tmp/a.log" "netuser: waits"
status 0 "net ports" vhost net ports --json
is "has it" "$(json '[(p["vm"], p["ifname"], p["link"], p["mtu"]) for p in j["ports"]]')" "[('a', 'passt', True, 65520)]"
for _ in $(seq 100); do
	python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"abc", ("127.0.0.1", 5007))'
	grep -q 'called by' "$tmp/a.log" && break
	sleep 0.1
done
like "the host reaches it" "$(<"$tmp/a.log")" "*called by <abc>*"
check "and its passt ends with it" gone

# As a network with a name.
status 0 "a network is defined" vhost net define mine --kind user --gateway 10.9.0.254
status 0 "a guest in it" timeout -k 5 60 "$VHOST" run --kernel "$guests/guest-netuser" --memory 32M --cmdline "dst=10.9.0.1 port=7777" \
	--net mine,address=10.9.0.2/24
like "has what it says" "$out" "*gateway=10.9.0.254*netuser: ok*"
status 0 "it is deleted" vhost net delete mine

# Deaths: the VM's, with its helper, and passt's.
start() { # NAME
	run vhost run --detach --name "$1" --kernel "$guests/guest-hello" --memory 32M --cmdline end=echo --serial none --net $net
}
start a
is "a guest that stays" "$rc" 0
is "has its passt" "$(passts | wc -l)" 1
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/a/pid")
kill -9 "$(pgrep -P "$pid" | head -1)" "$pid"
check "a passt ends with a killed VM and helper" gone
for _ in $(seq 200); do grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$pid/stat" 2>/dev/null || break; sleep 0.05; done
status 0 "net gc" vhost net gc --json
is "has nothing but the journal to remove" "$(json 'j["removed"]') $(ls "$VHOST_ROOT/state/.net" | grep -vxE 'lock|networks')" "0 "
run vhost run --detach --name b --kernel "$guests/guest-netuser" --memory 32M --cmdline "dst=10.9.0.1 port=7777 wait=1" \
	--serial "file:$tmp/b.log" --net $net
check "a guest that uses its network" told "$tmp/b.log" "netuser: waits"
kill -9 $(passts)
for _ in $(seq 200); do run vhost net ports --json; [ "$(json 'j["ports"][0]["link"]')" = False ] && break; sleep 0.05; done
is "loses its link when passt is killed" "$(json 'j["ports"][0]["link"]')" False
status 0 "and goes on" vhost vm info b
status 0 "until it is ended" vhost vm kill b
is "leaving nothing" "$(passts)$(ls "$VHOST_ROOT/state/.net" | grep -vxE 'lock|networks')" ""

# An ordinary user, who may use /dev/kvm.
mkdir "$tmp/dev" "$tmp/user" && mount -t tmpfs none "$tmp/dev" && mknod "$tmp/dev/kvm" c "$(stat -c '%Hr %Lr' /dev/kvm | cut -d' ' -f1)" \
	"$(stat -c '%Hr %Lr' /dev/kvm | cut -d' ' -f2)" && chmod 666 "$tmp/dev/kvm" && mount --bind "$tmp/dev/kvm" /dev/kvm
on_exit "umount /dev/kvm; umount '$tmp/dev'"
chmod 755 "$tmp"; chown 65534:65534 "$tmp/user"
as_user() { VHOST_ROOT=$tmp/user timeout -k 5 60 setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
if as_user test -r "$VHOST" && as_user test -w /dev/kvm; then
	status 0 "a guest as an ordinary user" as_user "$VHOST" run --kernel "$guests/guest-netuser" --memory 32M \
		--cmdline "dst=10.9.0.1 port=7777" --net $net
	like "has it all as well" "$out" "*dhcp address=10.9.0.2*answer <answer to question>*connected, ack=2*netuser: ok*"
	check "and its passt ends" gone
	is "leaving no journal" "$(ls "$tmp/user/state/.net" | grep -vxE 'lock|networks')" ""
else
	skip "a guest as an ordinary user" "an ordinary user cannot reach the built program or /dev/kvm"
fi

ip route del default
run vhost run --kernel "$guests/guest-hello" --memory 32M --net $net
is "a host without a default route" "$rc" 3
like "is told what is missing" "$err" "*No external routable interface for IPv4*default route*"
is "and nothing is left" "$(passts)$(ls "$VHOST_ROOT/state/.net" | grep -vxE 'lock|networks')" ""
finish
