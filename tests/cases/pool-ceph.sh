#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# The pool type ceph against a real cluster of one monitor and one OSD: volumes, snapshots, clones, leases and their breaking, and what a
# cluster that stops, dies or comes back does to a load that verifies. All of it in a private folder, on loopback.
. "$(dirname "$0")/functions.sh"
. "$SRCDIR/tests/servers/ceph"
requires python3 rbd
[ -e "$BUILDDIR/plugins/storage/ceph/ceph.so" ] || skip_all "the plugin ceph is not built"
! why=$(ceph_lacks) || skip_all "$why"
. "$(dirname "$0")/json.sh"
load=$BUILDDIR/tests/unit/store/vol-load
admin_rbd() { rbd -c "$CEPH_DIR/ceph.conf" "$@"; }
# rbd_info IMAGE EXPRESSION
rbd_info() { out=$(admin_rbd info "$1" --format json) && json "$2"; }
# seconds COMMAND...: how long it took, in whole seconds, with its status in rc
seconds() { local s=$SECONDS; run "$@"; took=$((SECONDS - s)); }
# waits until a program that was started in the background has said that it runs
running() { local k; for ((k = 0; k < 200; k++)); do ! grep -q running "$1" || return 0; sleep 0.05; done; return 1; }
figure() { sed -n "s/.* *$1=\([-0-9]*\).*/\1/p" "$2"; }

on_exit ceph_stop
mgr=mgr; command -v ceph-mgr >/dev/null || mgr=
if ! ceph_start "$tmp/c" bluestore auth $mgr; then
	tail -n 20 "$tmp"/c/log/*.out "$tmp"/c/log/*.err 2>/dev/null | sed 's/^/# /'
	not_ok "the cluster starts"; finish
fi
conf=$tmp/c/ceph.conf keyring=$tmp/c/vhost.keyring
mkdir -p "$VHOST_ROOT/config/secrets"
sed -n 's/.*key = //p' "$keyring" >"$VHOST_ROOT/config/secrets/key"; chmod 600 "$VHOST_ROOT/config/secrets/key"

# ---- connecting ----
status 0 "define, by configuration file and keyring" vhost pool define c --type ceph --pool rbd --conf "$conf" --keyring "$keyring" --user vhost
status 0 "define, by monitor and key" vhost pool define k --type ceph --pool rbd --mon "127.0.0.1:$CEPH_PORT" --key key --user vhost
status 0 "the same cluster is reached by either" vhost vol list c
status 0 "without a configuration file" vhost vol list k
status 0 "start" vhost pool start c
run vhost pool capabilities c --json
is "it says what it can" "$(json '[j["capabilities"][n] for n in ("create","grow","shrink","clone_cow","snapshot","lease","lease_hosts","meta","files")]')" \
	"[True, True, True, True, True, True, True, True, False]"
printf '[client.vhost]\n\tkey = AQCf9AVrE/9PIBAAVp0JNCdn4GPJtJ1o+4Xugw==\n' >"$tmp/wrong.keyring"
vhost pool define wrong --type ceph --pool rbd --conf "$conf" --keyring "$tmp/wrong.keyring" --user vhost >/dev/null
seconds timeout 30 "$VHOST" vol list wrong
is "a wrong key is refused" "$rc" 1
like "in words" "$err" "vhost: pool wrong: *refuses client.vhost*wrong*(*)"
vhost pool define nobody --type ceph --pool rbd --conf "$conf" --user nobody >/dev/null
status 1 "so is an unknown client" timeout 30 "$VHOST" vol list nobody
chmod 644 "$VHOST_ROOT/config/secrets/key"
status 1 "and a key that others may read" vhost vol list k
like "which names the remedy" "$err" "*chmod 0600*"
chmod 600 "$VHOST_ROOT/config/secrets/key"
echo "no key" >"$VHOST_ROOT/config/secrets/text"; chmod 600 "$VHOST_ROOT/config/secrets/text"
vhost pool define text --type ceph --pool rbd --mon "127.0.0.1:$CEPH_PORT" --key text --user vhost >/dev/null
status 1 "and a secret that is no key" vhost vol list text
check "which is not told" test "${err#*no key}" != "$err" -a "${err#*AQ}" = "$err"
vhost pool define nopool --type ceph --pool nopool --conf "$conf" --keyring "$keyring" --user vhost >/dev/null
status 3 "a pool that is not there" vhost vol list nopool
vhost pool define nons --type ceph --pool rbd --namespace n1 --conf "$conf" --keyring "$tmp/c/keyring" >/dev/null
status 3 "a namespace that is not there" vhost vol list nons
status 0 "start --make makes it" vhost pool start nons --make
status 0 "and it is a pool of its own" vhost vol create nons/a --size 1M
vhost pool define noconf --type ceph --pool rbd --conf "$tmp/nothere.conf" >/dev/null
status 1 "a configuration file that is not there" vhost vol list noconf
vhost pool define dead --type ceph --pool rbd --mon 127.0.0.1:1 --key key --user vhost --answer-timeout 2s >/dev/null
seconds timeout 60 "$VHOST" vol list dead
like "a dead monitor is an error that names it" "$err" "*no monitor answered within 2 s (*127.0.0.1:1*"
check "in bounded time ($took s)" test "$took" -le 5

# ---- volumes ----
status 0 "create" vhost vol create c/a --size 64M
status 0 "again, the same: no error" vhost vol create c/a --size 64M
status 4 "another size is" vhost vol create c/a --size 65M
status 0 "object size and features" vhost vol create c/small --size 8M --object-size 64K --features "layering exclusive-lock"
is "are what was asked for" "$(rbd_info small 'j["object_size"], sorted(j["features"])')" \
	"(65536, ['exclusive-lock', 'layering'])"
status 4 "other features are another volume" vhost vol create c/small --size 8M --features "layering exclusive-lock object-map"
status 1 "no exclusive lock, no volume" vhost vol create c/x --size 1M --features layering
status 1 "an unknown feature" vhost vol create c/x --size 1M --features "layering,teleport"
status 1 "an object size that is no power of two" vhost vol create c/x --size 1M --object-size 5000
status 1 "no such data pool" vhost vol create c/x --size 1M --data-pool nothere
ceph_admin osd pool create data 4 4 >/dev/null
status 0 "a data pool" vhost vol create c/data --size 4M --data-pool data
is "holds the data" "$(rbd_info data 'j["data_pool"]')" data
status 1 "space is not reserved" vhost vol create c/x --size 1M --preallocation falloc
status 0 "but written" vhost vol create c/full --size 8M --preallocation full
run vhost vol info c/full --json
is "all of it" "$(json 'j["bytes"], j["allocated"]')" "(8388608, 8388608)"
run vhost vol list c --json
is "list" "$(json '[(v["name"],v["format"],v["bytes"]) for v in j["volumes"]]')" \
	"[('a', 'raw', 67108864), ('data', 'raw', 4194304), ('full', 'raw', 8388608), ('small', 'raw', 8388608)]"
like "an identity says cluster, pool and image" "$(json '[v["identity"] for v in j["volumes"] if v["name"] == "a"][0]')" \
	"rbd:$(ceph_admin fsid):[0-9]*::$(rbd_info a 'j["id"]')"
status 3 "what is not there" vhost vol info c/nothere
status 2 "no hostile names" vhost vol create --size 1M -- "c/a@b"
head -c 20000001 /dev/urandom >"$tmp/f"; truncate -s 40M "$tmp/f"; head -c 4097 /dev/urandom >>"$tmp/f"
status 0 "upload" vhost vol upload c/a "$tmp/f"
status 0 "download" vhost vol download c/a "$tmp/g"
check "is the same" cmp -n "$(stat -c %s "$tmp/f")" "$tmp/f" "$tmp/g"
status 0 "and by another way to the same cluster" vhost vol download k/a "$tmp/g2"
check "too" cmp "$tmp/g" "$tmp/g2"
check "holes stay holes" test "$(stat -c %b "$tmp/g")" -lt $((45 << 11))
head -c 3M /dev/urandom >"$tmp/s"
status 0 "small objects" vhost vol upload c/small "$tmp/s"
status 0 "read back" vhost vol download c/small "$tmp/s2"
check "are the same" cmp -n "$(stat -c %s "$tmp/s")" "$tmp/s" "$tmp/s2"
status 0 "resize" vhost vol resize c/a +36M
status 2 "never smaller by accident" vhost vol resize c/a 50M
status 0 "--shrink" vhost vol resize c/a 50M --shrink
status 0 "a qcow2 on it" vhost vol create c/q --size 20M --format qcow2
status 0 "that is clean" vhost vol check c/q
status 0 "convert into it" vhost vol convert c/a c/q2 --format qcow2
status 0 "and compare" vhost vol compare c/a c/q2

# ---- copies, snapshots, clones ----
status 0 "clone" vhost vol clone c/a b
status 0 "again: found done" vhost vol clone c/a b
status 0 "read it" vhost vol download c/b "$tmp/h"
check "it is the same" cmp -n "$(stat -c %s "$tmp/f")" "$tmp/f" "$tmp/h"
status 4 "over another volume it is refused" vhost vol clone c/b small
status 0 "snapshot" vhost vol snapshot create c/a s1
status 0 "again, unchanged: found done" vhost vol snapshot create c/a s1
status 0 "overwrite" vhost vol upload c/a "$tmp/s"
status 4 "the same name for another state is refused" vhost vol snapshot create c/a s1
run vhost vol snapshot list c/a --json
is "list" "$(json '[(s["name"], s["kept_by"]) for s in j["snapshots"]]')" "[('s1', 'pool')]"
status 0 "a clone of the snapshot that shares" vhost vol clone c/a cow --snapshot s1 --cow
is "names its parent" "$(rbd_info cow 'j["parent"]["image"], j["parent"]["snapshot"]')" "('a', 's1')"
status 0 "read it" vhost vol download c/cow "$tmp/cow"
check "is what the snapshot was" cmp -n "$(stat -c %s "$tmp/f")" "$tmp/f" "$tmp/cow"
status 0 "flatten" vhost vol flatten c/cow
check "leaves no parent" test "$(rbd_info cow '"parent" in j')" = False
status 0 "roll back" vhost vol snapshot rollback c/a s1
status 0 "read it" vhost vol download c/a "$tmp/i"
check "is as it was" cmp -n "$(stat -c %s "$tmp/f")" "$tmp/f" "$tmp/i"
# Readers that come and go while others want it alone: librbd itself would have those wait without end.
odd=
for ((k = 0; k < 6; k++)); do
	for r in 1 2 3; do vhost vol download c/a "$tmp/r$r" >/dev/null 2>"$tmp/r$r.err" & readers[r]=$!; done
	run timeout 30 "$VHOST" vol snapshot rollback c/a s1
	case $rc in 0 | 4) ;; *) odd+=" $rc" ;; esac
	for r in 1 2 3; do wait "${readers[r]}" || case $? in 4) ;; *) odd+=" reader $? $(cat "$tmp/r$r.err")" ;; esac; done
done
is "beside readers it is done or refused, soon" "$odd" ""
rados -c "$CEPH_DIR/ceph.conf" -p rbd lock get "rbd_header.$(rbd_info a 'j["id"]')" vhost.turn --lock-cookie test --lock-duration 3
seconds vhost vol resize c/a 51M
is "who takes a lock has its turn ($took s)" "$rc $((took >= 1))" "0 1"
status 0 "as it was" vhost vol resize c/a 50M --shrink
status 4 "with a snapshot it is not deleted" vhost vol delete c/a
status 0 "delete the snapshot" vhost vol snapshot delete c/a s1
status 0 "a clone of the volume that shares" vhost vol clone c/a cow2 --cow
status 0 "read it" vhost vol download c/cow2 "$tmp/cow2"
check "is the same" cmp "$tmp/i" "$tmp/cow2"
run vhost vol snapshot list c/a --json
is "no snapshot of it is seen" "$(json 'j["snapshots"]')" "[]"
for v in cow cow2; do status 0 "delete the clone $v" vhost vol delete "c/$v"; done
status 0 "and then its parent" vhost vol delete c/a
vhost vol create c/a --size 64M >/dev/null
vhost pool define t --type ceph --pool rbd --conf "$conf" --keyring "$keyring" --user vhost --trash on --trash-time 1min >/dev/null
status 0 "delete into the trash" vhost vol delete t/b
like "it is there" "$(admin_rbd trash ls)" "* b"
status 3 "and nowhere else" vhost vol info c/b

# ---- values of others ----
admin_rbd create --size 8M --image-feature layering nolock
status 1 "an image without an exclusive lock is not written" vhost vol upload c/nolock "$tmp/s"
like "with the remedy" "$err" "*rbd feature enable rbd/nolock exclusive-lock*"
admin_rbd image-meta set data conf_rbd_cache true
status 0 "an image that turns a cache on" vhost vol upload c/data /etc/hostname
status 0 "is written through at each flush" vhost vol download c/data "$tmp/d"
check "as it should be" cmp -n "$(stat -c %s /etc/hostname)" /etc/hostname "$tmp/d"

# ---- leases ----
vhost vol create c/l --size 64M >/dev/null
"$load" c/l "$tmp/state" 60 16 until-error >"$tmp/holder.out" 2>&1 & holder=$!
on_exit "kill -9 $holder 2>/dev/null"
check "a volume is in use" running "$tmp/holder.out"
status 4 "a second writer is refused" vhost vol upload k/l "$tmp/s"
like "naming the holder" "$err" "vhost: volume k/l: in use by pid $holder vol-load on host * since 20*"
status 4 "a reader too" vhost vol download c/l "$tmp/x"
status 4 "and resizing" vhost vol resize c/l 65M
status 4 "and deleting" vhost vol delete c/l
status 4 "and the pool's stopping" vhost pool stop c
run vhost vol info c/l --json
is "looking is not" "$(json 'j["in_use"]')" True
# A snapshot beside it is its own work. While it is stopped nobody shuts it out for that, however often it is asked.
status 0 "a snapshot beside it" vhost vol snapshot create k/l beside --force-share
status 4 "twice is one too many" vhost vol snapshot create k/l beside --force-share
kill -STOP "$holder"
seconds vhost vol snapshot create c/l stopped --force-share
is "one that does not answer takes none" "$rc" 4
like "and is named" "$err" "*in use by pid $holder vol-load*it does not answer*"
check "in bounded time ($took s)" test "$took" -le 10
kill -CONT "$holder"
for ((k = 0; k < 5; k++)); do run vhost vol snapshot create c/l later --force-share; [ "$rc" = 0 ] && break; sleep 0.5; done
is "awake again it does" "$rc" 0
is "and was never shut out" "$(ceph_admin osd blocklist ls 2>/dev/null | grep -c :)" 0
check "still writing" kill -0 "$holder"
like "those that were taken are listed" "$(vhost vol snapshot list c/l --json | tr -d '\n ')" '*"beside"*"later"*'
# Stopped, it could wake up at any time: only keeping it from writing makes breaking its lock safe.
kill -STOP "$holder"
status 4 "unlock names the holder, and wants to be told twice" vhost vol unlock c/l
like "by name" "$err" "*pid $holder vol-load*--force*"
status 0 "unlock --force" vhost vol unlock c/l --force
like "the client is blocklisted" "$(ceph_admin osd blocklist ls 2>&1)" "*127.0.0.1:0/*"
status 0 "another may write" vhost vol upload c/l "$tmp/s"
kill -CONT "$holder"
wait "$holder"; rc=$?
is "the former holder, awake again, gets errors" "$rc" 3
check "at once" test "$(figure errors "$tmp/holder.out")" -gt 0
status 0 "and what the other wrote" vhost vol download c/l "$tmp/x"
check "is untouched" cmp -n "$(stat -c %s "$tmp/s")" "$tmp/s" "$tmp/x"
rm -f "$tmp/state"
for s in beside later; do vhost vol snapshot delete c/l $s >/dev/null; done
vhost vol delete c/l >/dev/null; vhost vol create c/l --size 64M >/dev/null
"$load" c/l "$tmp/state" 60 16 >"$tmp/holder.out" 2>&1 & holder=$!
check "in use again" running "$tmp/holder.out"
sleep 0.5
kill -9 "$holder"; wait "$holder" 2>/dev/null
seconds "$load" c/l "$tmp/state" 0
is "a holder of this host that was killed keeps nobody out, and lost nothing" "$rc $(figure wrong "$tmp/.out")" "0 0"
check "at once ($took s)" test "$took" -le 5

# ---- a cluster that goes away ----
"$load" c/l "$tmp/state" 60 16 >"$tmp/load.out" 2>&1 & l=$!
running "$tmp/load.out"; sleep 0.5
ceph_kill osd STOP; sleep 2.5; ceph_kill osd CONT
kill -TERM $l
wait "$l"; is "an OSD that stops for a while stalls I/O, and loses nothing" "$? $(figure errors "$tmp/load.out") $(figure wrong "$tmp/load.out")" "0 0 0"
check "it did stall" test "$(figure longest_ms "$tmp/load.out")" -ge 2000
"$load" c/l "$tmp/state" 60 16 >"$tmp/load.out" 2>&1 & l=$!
running "$tmp/load.out"; sleep 1
ceph_kill osd KILL; sleep 0.5; ceph_osd
kill -TERM $l
wait "$l"; is "one that is killed and started again loses nothing that was acknowledged" "$? $(figure errors "$tmp/load.out") $(figure wrong "$tmp/load.out")" "0 0 0"
check "and I/O went on" test "$(figure writes "$tmp/load.out")" -gt 100
status 0 "nor when it is read by another" "$load" c/l "$tmp/state" 0
vhost pool define lim --type ceph --pool rbd --conf "$conf" --keyring "$keyring" --user vhost --timeout 1s --answer-timeout 2s >/dev/null
"$load" lim/l "$tmp/state" 30 16 until-error >"$tmp/load.out" 2>&1 & l=$!
running "$tmp/load.out"; sleep 0.5
ceph_kill osd STOP
seconds wait "$l"
is "with a limit it is an error" "$rc $(figure first_error "$tmp/load.out") $(figure wrong "$tmp/load.out")" "3 -110 0"
check "in bounded time ($took s), closing included" test "$took" -le 20
seconds timeout 60 "$VHOST" vol list lim
check "commands fail in bounded time too ($took s)" test "$rc" = 1 -a "$took" -le 10
ceph_kill osd CONT
status 0 "when it is back all is well" "$load" c/l "$tmp/state" 0
ceph_kill mon STOP
"$load" lim/l "$tmp/state" 2 4 >"$tmp/load.out" 2>&1; rc=$?
is "without a monitor nothing new is attached" "$rc" 2
ceph_kill mon CONT
ceph_up

# ---- the plugin's own rules, and what is left at the end ----
check "it keeps the rules of the kit, on the real cluster" "$BUILDDIR/sdk/check/vhost-plugin-check" --set pool=rbd --set "conf=$conf" \
	--set "keyring=$keyring" --set user=vhost "$BUILDDIR/plugins/storage/ceph/ceph.so"
if [ -n "$mgr" ]; then
	for ((k = 0; k < 100; k++)); do
		run vhost pool info c --json
		[ "$(json 'j["capacity"] is not None')" = False ] || break
		sleep 0.2
	done
	is "capacity comes from the cluster" "$(json '3 << 30 < j["capacity"] < 5 << 30 and 0 < j["allocated"] < j["capacity"] and 0 < j["available"] < j["capacity"]')" True
else
	skip "capacity comes from the cluster" "ceph-mgr is not installed"
fi
finish
