#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A Debian guest on user networking: an address by DHCP, a file from a server on the host, a forwarded port.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
[ -x /usr/bin/passt ] || [ -x /usr/local/bin/passt ] || skip_all "passt is not installed"
modprobe veth 2>/dev/null
ip link add up0 type veth peer name out0 2>/dev/null || skip_all "this kernel has no veth"
on_exit "ip link del up0"
. "$(dirname "$0")/guests.bash"
ip link set up0 up; ip link set out0 up
ip addr add 10.79.0.1/24 dev up0
ip route add default via 10.79.0.254
mkdir "$tmp/www"
dd if=/dev/urandom of="$tmp/www/file" bs=64k count=32 2>/dev/null
busybox httpd -f -p 10.79.0.1:8000 -h "$tmp/www" &
server=$!
on_exit "kill $server"
append="vhost.url=http://10.79.0.1:8000/file" start user dhcp,wait7 --memory 256M \
	--net type=passt,address=10.79.0.2/24,gateway=10.79.0.254,dns=10.79.0.53,tcp=127.0.0.1/7007:7
check "the guest gets an address" await user 'guest: dhcp address=10.79.0.2 router=10.79.0.254 dns=10.79.0.53'
check "and fetches a file from the host" await user 'guest: fetched' 60
is "which is whole" "$(said user sha256)" "$(sha256sum "$tmp/www/file" | cut -c1-64)"
await user 'guest: waits at port 7' 30
for _ in $(seq 100); do
	timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7007 && read -r line <&3 && echo "$line"' >"$tmp/line" 2>/dev/null && break
	sleep 0.3
done
is "the host reaches the guest by a forwarded port" "$(<"$tmp/line")" "hello from the guest"
good user "the guest ends"
for _ in $(seq 100); do pgrep -r D,R,S,T '^passt(.av|$)' >/dev/null || break; sleep 0.1; done
is "and its passt with it" "$(pgrep -r D,R,S,T '^passt(.av|$)')" ""
few_complaints
finish
