#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# What vhost does for pools that have nothing on this host: leases by identity, recorded formats, snapshots and clones by the
# pool, formats on volumes that do not grow, unlocking. The pool type `shelf` (tests/unit/store/shelf.c) stands for a server's.
. "$(dirname "$0")/functions.sh"
requires python3
[ -e "$SHELF" ] || skip_all "the plugin shelf is not built"
. "$(dirname "$0")/json.sh"
vhost() { "$VHOST" --plugin "$SHELF" "$@"; }
mkdir "$tmp/a" "$tmp/b"
status 0 "define" vhost pool define s --type shelf --path "$tmp/a"
status 0 "the same folder by another definition" vhost pool define s2 --type shelf --path "$tmp/a"
status 0 "create" vhost vol create s/v --size 8M
run vhost vol info s2/v --json
is "the other definition sees the volume" "$(json 'j["bytes"]')" 8388608
is "but its records are the definition's" "$(json 'j["format"]')" None
run vhost vol set s2/v --format raw

# --- definitions: secrets are named, never in it; what is given more than once stays so.
status 2 "a descriptor is no definition" vhost pool define sec --type shelf --path "$tmp/a" --secret fd:5
(cd "$tmp" && vhost pool define sec --type shelf --path a --secret file:key --tag one --tag 'two;three' --tag four >/dev/null)
run vhost pool info sec --json
is "the secret's place is kept absolute" "$(json 'j["options"]["secret"]')" "file:$tmp/key"
like "all that was repeated is shown" "$(vhost pool info sec)" "*tag=one*tag=two;three*tag=four*"
status 3 "the secret is missing" vhost vol list sec
like "the file is named" "$err" "*$tmp/key*"
echo sesame >"$tmp/key"
status 1 "it may be read by others" vhost vol list sec
like "and is refused" "$err" "vhost: secret file:*$tmp/key can be read by others*[(]*chmod 0600*"
chmod 600 "$tmp/key"
status 0 "with mode 0600 it is taken" vhost vol list sec
run vhost pool info sec --json
check "and never shown" bash -c '! grep -rq sesame "$0" "$1"' "$VHOST_ROOT/config" "$tmp/.out"
status 0 "the same again is no error" vhost pool define sec --type shelf --path "$tmp/a" --secret "file:$tmp/key" --tag one --tag 'two;three' --tag four
status 4 "another list is" vhost pool define sec --type shelf --path "$tmp/a" --secret "file:$tmp/key" --tag one --tag four
vhost pool undefine sec >/dev/null

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

# --- images on volumes that do not grow by being written
if [ -e "$BUILDDIR/plugins/formats/qcow2/qcow2.so" ]; then
	status 0 "qcow2" vhost vol create s/q --size 64M --format qcow2
	run vhost vol info s/q --json
	room=$(json 'j["bytes"]')
	is "has a disk of that size" "$(json 'j["disk_bytes"]')" 67108864
	need=$(vhost vol measure --size 64M --format qcow2 --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["fully_allocated"])')
	check "and all the room that it can need" test "$room" -gt "$need" -a "$room" -lt $((need + (2 << 20)))
	head -c 67108864 /dev/urandom >"$tmp/full"
	vhost vol create s/raw --size 64M >/dev/null; vhost vol upload s/raw "$tmp/full" >/dev/null
	status 0 "every byte of the disk can be written" vhost vol convert s/raw s/q --no-create
	status 0 "and is there" vhost vol compare s/raw s/q
	status 0 "check finds no fault" vhost vol check s/q
	status 0 "again: found done" vhost vol create s/q --size 64M --format qcow2
	status 0 "resize" vhost vol resize s/q 128M
	run vhost vol info s/q --json
	check "the volume has grown with it" test "$(json 'j["bytes"]')" -gt 134217728
	status 0 "check finds no fault" vhost vol check s/q
	status 0 "the volume alone" vhost vol resize s/q 200M --volume
	run vhost vol info s/q --json
	is "the disk stays" "$(json '(j["bytes"], j["disk_bytes"])')" "(209715200, 134217728)"
	status 2 "never smaller" vhost vol resize s/q 1M --volume --shrink
	status 0 "convert into the pool" vhost vol convert s/raw s/q2 --format qcow2
	status 0 "is the same" vhost vol compare s/raw s/q2
	status 0 "and out of it" vhost vol convert s/q2 default/q3 --format qcow2
	status 0 "is the same" vhost vol compare s/q2 default/q3
	status 0 "an image with a backing image in the pool" vhost vol create s/top --backing q2 --format qcow2
	status 0 "all of it is written" vhost vol convert s/raw s/top --no-create
	status 0 "commit" vhost vol commit s/top
	status 0 "is in the backing image" vhost vol compare s/raw s/q2
	status 0 "rebase" vhost vol rebase s/top --backing ""
	status 0 "is the same" vhost vol compare s/raw s/top
	vhost vol convert s/raw s/top --no-create >/dev/null
	status 1 "a snapshot inside it, and then all of it again, has no room" bash -c '"$VHOST" --plugin "$SHELF" vol snapshot create s/top x --by format && "$VHOST" --plugin "$SHELF" vol convert s/raw s/top --no-create'
	status 0 "until the volume has more" vhost vol resize s/top +70M --volume
	status 0 "then it has" bash -c '"$VHOST" --plugin "$SHELF" vol convert s/raw s/top --no-create'
	status 0 "without a fault" vhost vol check s/top
	vhost vol delete s/top >/dev/null
	# What is there and not known is somebody's.
	vhost vol create s/theirs --size 64M >/dev/null; vhost vol upload s/theirs "$tmp/full" >/dev/null
	rm "$VHOST_ROOT/data/volumes/s.conf"
	for q in raw q2; do vhost vol set s/$q --format "${q/q2/qcow2}" >/dev/null; done
	status 4 "a volume of unknown contents is not converted over" vhost vol convert s/raw s/theirs
	status 4 "nor cloned over" vhost vol clone default/q3 s/theirs
	status 4 "nor formatted" vhost vol create s/theirs --size 60M --format qcow2
	check "it is as it was" cmp "$tmp/full" "$tmp/a/theirs"
fi

# --- wiping
vhost vol create s/w --size 8M >/dev/null
for how in write random discard zero; do
	vhost vol upload s/w "$tmp/data" >/dev/null
	status 0 "wipe: $how" vhost vol wipe s/w --how $how
	if [ $how = random ]; then check "nothing of it is left" bash -c '! cmp -s -n 4096 "$0" "$1" && ! tail -c 4096 "$1" | cmp -s - <(tail -c 4096 "$0")' "$tmp/data" "$tmp/a/w"
	else check "all zeros" cmp -n 8388608 /dev/zero "$tmp/a/w"; fi
done
holds write s/w
status 4 "not while somebody uses it" vhost vol wipe s2/w
like "who is named" "$err" "vhost: volume s2/w: in use by pid $holder *"
ends

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
