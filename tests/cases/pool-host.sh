#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# What vhost does for pools that have nothing on this host: leases by identity, recorded formats, snapshots and clones by the
# pool, formats on volumes that do not grow, unlocking. The pool type `shelf` (tests/unit/store/shelf.c) stands for a server's.
. "$(dirname "$0")/functions.sh"
requires python3
[ -e "$SHELF" ] || skip_all "the plugin shelf is not built"
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
vhost() { "$VHOST" --plugin "$SHELF" "$@"; }
mkdir "$tmp/a" "$tmp/b"
status 0 "define" vhost pool define s --type shelf --path "$tmp/a"
status 0 "the same folder by another definition" vhost pool define s2 --type shelf --path "$tmp/a"
status 0 "create" vhost vol create s/v --size 8M
run vhost vol info s2/v --json
is "the other definition sees the volume" "$(json 'j["bytes"]')" 8388608
is "but its records are the definition's" "$(json 'j["format"]')" None
run vhost vol set s2/v --format raw

# --- leases: whoever comes by whatever name.
# holds MODE POOL/VOLUME: a process that has it, as $holder.
holds() {
	case $1 in
	write) mkfifo "$tmp/in"; exec 7<>"$tmp/in"; "$VHOST" --plugin "$SHELF" vol upload "$2" - <&7 7<&- >/dev/null 2>&1 & ;;
	read) mkfifo "$tmp/in"; "$VHOST" --plugin "$SHELF" vol download "$2" "$tmp/in" --force >/dev/null 2>&1 & ;;
	esac
	holder=$!
	for _ in $(seq 100); do
		run vhost vol info "$2" --json
		[ "$(json 'j["in_use"]')" = True ] && return
		sleep 0.05
	done
	not_ok "the holder never took its lease"
}
ends() { kill -9 $holder; wait $holder 2>/dev/null; exec 7>&- 2>/dev/null; rm -f "$tmp/in"; }
head -c 8388608 /dev/urandom >"$tmp/data"
vhost vol create s/other --size 1M >/dev/null
holds write s/v
for c in "delete s2/v" "resize s2/v 9M" "clone s2/v s2/w" "upload s2/v $tmp/data" "download s2/v $tmp/out" "snapshot create s2/v a" \
	"snapshot rollback s2/v a" "convert s2/v s2/w" "check s2/v"; do
	# shellcheck disable=SC2086
	status 4 "while it is written: $c" vhost vol $c
	like "the holder is named" "$err" "vhost: volume s2/v: in use by pid $holder vhost vol upload since 2*[(]*)"
done
status 4 "the pool is not stopped" vhost pool stop s2
status 4 "unlock: the holder is named" vhost vol unlock s2/v --force
like "and is to be stopped" "$err" "vhost: volume s2/v: in use on this host by pid $holder *[(]stop it*)"
status 0 "another volume of the pool is free" vhost vol download s/other "$tmp/o"
ends
status 0 "killed: the lease is gone" vhost vol unlock s2/v
like "and unlock says so" "$out" "volume s2/v not locked"
vhost vol upload s/v "$tmp/data" >/dev/null
holds read s/v
status 0 "while it is read: others read" vhost vol download s2/v "$tmp/out"
status 4 "nobody writes" vhost vol upload s2/v "$tmp/data"
like "the holder is named" "$err" "*in use by pid $holder vhost vol download since 2*"
status 0 "a snapshot is taken" vhost vol snapshot create s2/v first
ends
vhost vol unlock s/v >/dev/null
check "no lease file is left" test -z "$(ls "$VHOST_ROOT/state/.leases")"

# --- snapshots and clones by the pool
run vhost vol snapshot list s/v --json
is "list names the keeper" "$(json '[(s["name"],s["disk_bytes"],s["kept_by"]) for s in j["snapshots"]]')" "[('first', 8388608, 'pool')]"
head -c 1000000 /dev/urandom >"$tmp/new"
vhost vol upload s/v "$tmp/new" >/dev/null
status 0 "clone of a snapshot" vhost vol clone s/v c1 --snapshot first
status 0 "has what was" bash -c '"$VHOST" --plugin "$SHELF" vol download s/c1 - | cmp - "$0"' "$tmp/data"
run vhost vol info s/c1 --json
is "and the format" "$(json 'j["format"]')" raw
status 0 "a copy-on-write clone" vhost vol clone s/v c2 --cow
status 1 "not into another pool" vhost vol clone s/v default/c2 --cow
status 1 "nor where the pool has none" bash -c '"$VHOST" vol create d --size 1M >/dev/null; "$VHOST" vol clone d d2 --cow'
status 0 "rollback" vhost vol snapshot rollback s/v first
check "is what it was" bash -c '"$VHOST" --plugin "$SHELF" vol download s/v - | cmp - "$0"' "$tmp/data"
status 0 "delete the snapshot" vhost vol snapshot delete s/v first
run vhost vol snapshot list s/v --json
is "it is gone" "$(json 'j["snapshots"]')" "[]"
status 2 "a snapshot's name is checked" vhost vol snapshot create s/v ../x

# --- a lease that outlives its holder
status 0 "define a pool with such leases" vhost pool define st --type shelf --path "$tmp/b" --sticky on
vhost vol create st/v --size 1M >/dev/null
holds write st/v
ends
status 4 "the holder is gone, its lease is not" vhost vol upload st/v "$tmp/o"
status 4 "unlock names it and wants to be sure" vhost vol unlock st/v
like "without a terminal: by --force" "$err" "vhost: volume st/v: in use by pid $holder vhost vol upload*[(]*--force*)"
status 0 "with --force" vhost vol unlock st/v --force
like "it says whose it was" "$out" "*pid $holder vhost vol upload*"
status 0 "and the volume is free" vhost vol upload st/v "$tmp/o"

# --- what the plugins say of themselves
status 0 "capabilities of all types" vhost pool capabilities --json
is "by the plugins' own word" "$(json '[(t["type"],t["capabilities"]["snapshot"],t["capabilities"]["lease"]) for t in j["types"] if t["type"] in ("dir","shelf")]')" \
	"[('dir', False, True), ('shelf', True, False)]"
status 0 "for people" vhost pool capabilities
like "one table" "$out" "CAPABILITY*dir*shelf*create*yes*yes*lease *yes*vhost*"
finish
