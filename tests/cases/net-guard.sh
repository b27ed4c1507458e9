#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# What a NIC may send, and how much: a whole VM whose guest forges frames, in a network namespace of its own.
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
guest=$BUILDDIR/tests/guest/guest-netsend

# --- what is refused when the options are read ---
try() { vhost run --dry-run --kernel "$guest" --net "type=bridge,name=br0,create=on,$1"; }
status 2 "a full guard needs addresses" try guard=full
like "and says that none are learned" "$err" "*not learned*ip=ADDR*guard=mac*"
status 2 "addresses without a guard" try ip=192.0.2.5
status 2 "an unknown guard" try guard=strict
status 2 "an address that is none" try guard=full,ip=192.0.2.0/24
status 2 "a group's address" try guard=full,ip=ff02::1
status 2 "tags without a guard" try guard-tags=on
status 2 "a burst without a rate" try burst-in=1M
status 2 "a rate that is none" try rate-out=fast
status 0 "all together" try guard=full,ip=192.0.2.5,ip=2001:db8::5,guard-tags=on,rate-in=10M,burst-in=1M,rate-out=5M,packets-out=1000
status 0 "several addresses in one part" try 'guard=full,ip=192.0.2.5 2001:db8::5;192.0.2.6'

[ -r /dev/kvm ] && [ -w /dev/kvm ] || { skip "guests" "/dev/kvm is missing or may not be opened"; finish; }

# --- frames: M is the guest's MAC address; own is 192.0.2.5 and 2001:db8::5, other .6 and ::6 ---
b=ffffffffffff x=020000000099 own=c0000205 other=c0000206
own6=20010db8000000000000000000000005 other6=20010db8000000000000000000000006 all6=ff020000000000000000000000000001
na() { echo "${b}M86dd6000000000203aff$1${all6}8800000020000000$2""0201$3"; }
good=(
	"${b}M08060001080006040001M${own}000000000000$other"
	"${b}M08004500001c00000000401100""00${own}${other}1000003500080000"
	"${b}M0800450000240000000040110000""00000000ffffffff00440043001000000102030405060708"
	"$(na $own6 $own6 M)"
)
forged=(
	"${b}${x}08060001080006040001${x}${own}000000000000$other"
	"${b}M08060001080006040002M${other}000000000000$own"
	"${b}M08060001080006040002${x}${own}000000000000$own"
	"${b}M08004500001c00000000401100""00${other}${own}1000003500080000"
	"${b}M0800450000240000000040110000${own}ffffffff00430044001000000102030405060708"
	"$(na $own6 $other6 M)"
	"$(na $own6 $own6 $x)"
	"$(na $other6 $own6 M)"
	"${b}M86dd6000000000283cff${own6}${all6}3a00010400000000$(na $own6 $other6 M | cut -c98-)"
	"${b}M86dd6000000000103aff${own6}${all6}86000000400007080000000000000000"
	"${b}M86dd6000000000103aff${own6}${all6}89000000000000000000000000000000"
	"${b}M86dd6000000000102cff${own6}${all6}3a000001000012348800000020000000"
	"${b}M86dd60000000001011ff${own6}${all6}02230222001000000102030405060708"
	"${b}M8100000508060001080006040002M${other}000000000000$own"
	"0180c2000000M0026424203000000000000"
	"${b}M88b500"
)
ip link add br0 type bridge mcast_snooping 0
ip link set br0 up

# What the guest sends, as the tap sees it: one frame in hexadecimal digits a line, without padding behind 40 bytes.
listen() { # FILE
	python3 - "$1" <<-'PY' &
	import socket, sys
	s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
	s.bind(('tap0', 0))
	f = open(sys.argv[1], 'w')
	f.write('ready\n'); f.flush()
	while True:
	    d, a = s.recvfrom(4096)
	    if a[2] != socket.PACKET_OUTGOING:
	        f.write(d.hex() + '\n'); f.flush()
	PY
	listener=$!
	for _ in $(seq 200); do grep -q ready "$1" 2>/dev/null && return; sleep 0.05; done
}
on_exit 'vhost vm kill g >/dev/null 2>&1; [ -z "${listener:-}" ] || kill "$listener" 2>/dev/null'
stat() { vhost vm stats g --json | python3 -c 'import json,sys; n=json.load(sys.stdin)["nics"][0]; print(eval(sys.argv[1]))' "$1" 2>/dev/null; }
until_is() { # NAME EXPRESSION WANT: within 10 s
	local got="" end=$((SECONDS + 10))
	while got=$(stat "$2"); [ "$got" != "$3" ] && [ $SECONDS -lt $end ]; do sleep 0.05; done
	is "$1" "$got" "$3"
}
frames() { local f; for f; do printf ' frame=%s' "$f"; done; }
go() { # NIC-OPTIONS CMDLINE
	run vhost run --detach --paused --name g --kernel "$guest" --cmdline "$2" --memory 32M --serial null \
		--net "type=bridge,name=br0,ifname=tap0,mac=02:00:00:00:00:05$1"
	[ "$rc" = 0 ] || not_ok "a VM starts"
	rm -f "$tmp/frames"
	listen "$tmp/frames"
	vhost vm resume g
}
stop() { kill "$listener"; wait "$listener" 2>/dev/null; listener=; vhost vm kill g; }
arrived() { grep -c -v ready "$tmp/frames"; }
seen() { # how many of FRAMES arrived, whatever padding is behind them
	local f k=0
	for f; do f=${f//M/020000000005}; grep -q "^${f:0:100}" "$tmp/frames" && k=$((k + 1)); done
	echo $k
}
all=$((${#good[@]} + ${#forged[@]}))

go "" "secs=60$(frames "${good[@]}" "${forged[@]}")"
until_is "without a guard all of it is sent" 'n["tx_packets"]' "$all"
is "and is seen" "$(seen "${good[@]}" "${forged[@]:0:13}")" $((${#good[@]} + 13)) # the kernel takes the tag off another
is "and nothing was dropped" "$(stat 'n["guard_dropped"]')" 0
stop

go ",guard=full,ip=192.0.2.5,ip=2001:db8::5" "times=3 secs=60$(frames "${good[@]}" "${forged[@]}")"
until_is "a full guard drops what is forged, and only that" 'n["guard_dropped"], n["tx_packets"]' "($((3 * ${#forged[@]})), $((3 * ${#good[@]})))"
is "what is the guest's own arrives" "$(seen "${good[@]}")" "${#good[@]}"
is "and nothing else does" "$(arrived)" $((3 * ${#good[@]}))
like "people see it, too" "$(vhost vm stats g)" "*GUARD*$((3 * ${#forged[@]}))*"
stop

go ",guard=mac" "secs=60$(frames "${good[@]}" "${forged[@]}")"
until_is "a guard of MAC addresses drops another's and tags" 'n["guard_dropped"], n["tx_packets"]' "(2, $((all - 2)))"
stop

go ",guard=full,ip=192.0.2.5,guard-tags=on" "secs=60 frame=${b}M8100000508060001080006040002M${own}000000000000$own frame=${b}M8100000508060001080006040002M${other}000000000000$own"
until_is "on a trunk the guard looks behind the tags" 'n["guard_dropped"], n["tx_packets"]' "(1, 1)"
stop

# --- limits: so small that time plays no part ---
go ",rate-out=1,burst-out=100" "times=20 secs=60 frame=${good[0]}"
until_is "a limit holds back what is sent" 'n["tx_packets"], n["rate_out_waits"]' "(2, 1)"
status 2 "a limit of nothing" vhost vm limit g 0
status 3 "a NIC that is not there" vhost vm limit g 1 --rate-out 0
status 0 "it is lifted while the guest runs" vhost vm limit g 0 --rate-out 0
until_is "and the rest goes" 'n["tx_packets"]' 20
is "all of it" "$(arrived)" 20
status 0 "one for what is received" vhost vm limit g 0 --rate-in 1 --burst-in 100
for _ in $(seq 20); do ip neigh flush dev br0 2>/dev/null; python3 -c '
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("br0", 0))
s.send(bytes.fromhex("ffffffffffff02000000007788b5") + b"x" * 60)'; done
until_is "leaves it in the tap" 'n["rate_in_waits"]' 1
stop
finish
