#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# The same for a pool of every type: pool-suite.sh TYPE (a row of pool-rows.sh). What a type cannot do is refused in words.
# SUITE_SHORT=1, where machines are emulated: without what depends on the type the least (hostile names, images, ways of wiping, the kit).
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/pool-rows.sh"
requires python3
[ -z "${SHELF:-}" ] || vhost() { "$VHOST" --plugin "$SHELF" "$@"; }
export -f vhost
type=$1
start_row "$type"
MiB=1048576
same() { run bash -c 'vhost vol download "$0" - | cmp - "$1"' "$1" "$2"; result $rc "$3"; }

# ---- the pool
status 0 "define again is no error" vhost pool define p "${options[@]}"
status 0 "start" vhost pool start p
run vhost pool info p --json
is "info" "$(json '(j["name"],j["type"],j["state"])')" "('p', '$type', 'active')"
run vhost pool list --json
is "list" "$(json '[x["type"] for x in j["pools"] if x["name"]=="p"]')" "['$type']"
run vhost pool capabilities p --json
caps=$out
status 0 "stop" vhost pool stop p
status 1 "stopped it is not used" vhost vol list p
status 0 "autostart starts it" vhost autostart
status 0 "an empty list" vhost vol list p --json
is "is empty" "$(json 'j["volumes"]')" "[]"
status 3 "what is not there" vhost vol info "p/${v[3]}"
like "is named" "$err" "vhost: volume p/${v[3]}: *"
status 3 "nor deleted" vhost vol delete "p/${v[3]}"
if [ -z "${SUITE_SHORT:-}" ]; then
	for bad in ../etc .hidden 'a b' -x "$(printf 'x%.0s' {1..300})"; do
		run vhost vol create --size 1M -- "p/$bad"
		check "a hostile name is refused: $(head -c 12 <<<"$bad")" test "$rc" -ge 1 -a "$rc" -le 3 -a "$(wc -l <<<"$err")" = 1
	done
fi

# ---- volumes
if [ -z "$make" ]; then
	status 0 "create" vhost vol create "p/${v[0]}" --size 8M
	status 0 "again is no error" vhost vol create "p/${v[0]}" --size 8M
	status 4 "another size is" vhost vol create "p/${v[0]}" --size 24M
else
	status 1 "create is refused" vhost vol create "p/${v[0]}" --size 8M
	like "with a remedy" "$err" "vhost: volume p/${v[0]}: *[(]*[)]"
	check "made by other means" $make "${v[0]}" 8M
fi
run vhost vol list p --json
is "it is listed" "$(json '[(x["name"],x["bytes"],x["format"]) for x in j["volumes"]]')" "[('${v[0]}', 8388608, 'raw')]"
id=$(json 'j["volumes"][0]["identity"]')
run vhost vol info "p/${v[0]}" --json
is "info: the same identity" "$(json 'j["identity"]')" "$id"
check "which says its type" test -n "${id%%:*}" -a "$id" != "${id#*:}"
run vhost vol path "p/${v[0]}"
if can files; then check "its path is there" test -e "$out"; else is "it has no path" "$rc" 1; fi
head -c 3000000 /dev/urandom >"$tmp/data"; truncate -s 8M "$tmp/data"; head -c 100000 /dev/urandom | dd of="$tmp/data" bs=1M seek=6 conv=notrunc status=none
status 0 "upload" vhost vol upload "p/${v[0]}" "$tmp/data"
same "p/${v[0]}" "$tmp/data" "download gives it back"
head -c 70000 /dev/urandom >"$tmp/short"; cp "$tmp/short" "$tmp/padded"; truncate -s 8M "$tmp/padded"
status 0 "a shorter file" vhost vol upload "p/${v[0]}" "$tmp/short"
same "p/${v[0]}" "$tmp/padded" "the rest is zeros"
truncate -s 9M "$tmp/long"
status 1 "a longer one does not fit" vhost vol upload "p/${v[0]}" "$tmp/long"
vhost vol upload "p/${v[0]}" "$tmp/data" >/dev/null

# ---- size
run vhost vol resize "p/${v[0]}" 12M
if can grow; then
	is "grow" "$rc" 0
	cp "$tmp/data" "$tmp/grown"; truncate -s 12M "$tmp/grown"
	same "p/${v[0]}" "$tmp/grown" "what is new reads as zeros"
	status 2 "not smaller by accident" vhost vol resize "p/${v[0]}" 8M
	run vhost vol resize "p/${v[0]}" 8M --shrink
	if can shrink; then is "shrink" "$rc" 0; same "p/${v[0]}" "$tmp/data" "what stays is as it was"; else is "no type of pool that shrinks" "$rc" 1; fi
else
	is "no type of pool that grows" "$rc" 1
	like "said with a remedy" "$err" "vhost: volume p/${v[0]}: *"
fi
run vhost vol info "p/${v[0]}" --json; bytes=$(json 'j["bytes"]')
truncate -s "$bytes" "$tmp/data"

# ---- copies
mkdir "$tmp/q"; define q --path "$tmp/q"
status 0 "clone into another pool" vhost vol clone "p/${v[0]}" q/copy
check "has the bytes" cmp "$tmp/data" "$tmp/q/copy"
status 0 "convert into another pool, qcow2" vhost vol convert "p/${v[0]}" q/x --format qcow2
status 0 "is the same disk" vhost vol compare "p/${v[0]}" q/x
if [ -z "$make" ]; then
	status 0 "clone" vhost vol clone "p/${v[0]}" "${v[1]}"
	same "p/${v[1]}" "$tmp/data" "has the bytes"
	run vhost vol info "p/${v[1]}" --json
	is "and the format" "$(json 'j["format"]')" raw
	check "and an identity of its own" test "$(json 'j["identity"]')" != "$id"
	status 4 "a volume that is there is not cloned over" vhost vol clone q/x "p/${v[1]}"
	status 0 "delete" vhost vol delete "p/${v[1]}"
	status 0 "from another pool" vhost vol clone q/copy "p/${v[1]}"
	same "p/${v[1]}" "$tmp/data" "has the bytes"
	status 0 "delete it" vhost vol delete "p/${v[1]}"
	status 0 "convert from qcow2" vhost vol convert q/x "p/${v[1]}"
	same "p/${v[1]}" "$tmp/data" "has the bytes"
	vhost vol delete "p/${v[1]}" >/dev/null
	run vhost vol clone "p/${v[0]}" "${v[1]}" --cow
	if can clone_cow; then
		is "a copy-on-write clone" "$rc" 0
		same "p/${v[1]}" "$tmp/data" "has the bytes"
		vhost vol upload "p/${v[1]}" "$tmp/short" >/dev/null
		same "p/${v[0]}" "$tmp/data" "and writing it leaves the source alone"
		status 0 "delete it" vhost vol delete "p/${v[1]}"
	else
		is "no copy-on-write clones" "$rc" 1
	fi
else
	check "a second volume" $make "${v[1]}" "$bytes"
	status 0 "convert into one that is there" vhost vol convert q/x "p/${v[1]}" --no-create
	same "p/${v[1]}" "$tmp/data" "has the bytes"
fi

# ---- snapshots
run vhost vol snapshot create "p/${v[0]}" before
if can snapshot; then
	is "snapshot" "$rc" 0
	run vhost vol snapshot list "p/${v[0]}" --json
	is "is listed, with its keeper" "$(json '[(s["name"],s["kept_by"]) for s in j["snapshots"]]')" "[('before', 'pool')]"
	vhost vol upload "p/${v[0]}" "$tmp/short" >/dev/null
	run vhost vol clone "p/${v[0]}" "${v[1]}" --snapshot before
	is "a clone of it" "$rc" 0
	same "p/${v[1]}" "$tmp/data" "has what was"
	vhost vol delete "p/${v[1]}" >/dev/null
	run vhost vol snapshot rollback "p/${v[0]}" before
	is "rollback" "$rc" 0
	same "p/${v[0]}" "$tmp/data" "is what it was"
	for _ in 1 2 3 4 5 6 7 8 9 10; do # a merge may run in the background
		run vhost vol snapshot delete "p/${v[0]}" before
		[ "$rc" = 1 ] || break
		sleep 0.5
	done
	run vhost vol snapshot list "p/${v[0]}" --json
	is "deleted" "$(json 'j["snapshots"]')" "[]"
	same "p/${v[0]}" "$tmp/data" "and the volume as it was"
	# Beside a writer, which verifies: each block of the snapshot is one that had been acknowledged before, or one tried until after it.
	load=$BUILDDIR/tests/unit/store/vol-load
	plugins=$VHOST_PLUGIN_PATH; [ -z "${SHELF:-}" ] || plugins+=:${SHELF%/*}
	vhost vol wipe "p/${v[0]}" >/dev/null; vhost vol set "p/${v[0]}" --format raw >/dev/null 2>&1
	VHOST_PLUGIN_PATH=$plugins "$load" "p/${v[0]}" "$tmp/state" 60 8 >"$tmp/load.out" 2>&1 & writer=$!
	for ((k = 0; k < 600; k++)); do grep -q running "$tmp/load.out" && break; sleep 0.05; done
	for ((k = 0; k < 600; k++)); do ! cmp -s -n 8192 "$tmp/state" /dev/zero && break; sleep 0.05; done
	status 4 "a snapshot of a volume in use is refused" vhost vol snapshot create "p/${v[0]}" beside
	like "and the user named" "$err" "*in use by pid $writer *"
	cp "$tmp/state" "$tmp/state.before"
	status 0 "--force-share takes it" vhost vol snapshot create "p/${v[0]}" beside --force-share
	cp "$tmp/state" "$tmp/state.after"
	status 4 "the volume is still in use" vhost vol upload "p/${v[0]}" "$tmp/short"
	check "and its user goes on" bash -c 'for k in {1..200}; do cmp -s "$0" "$1" || exit 0; sleep 0.05; done; exit 1' "$tmp/state" "$tmp/state.after"
	kill -TERM "$writer"; wait "$writer" 2>/dev/null
	status 0 "a clone of it" vhost vol clone "p/${v[0]}" "${v[1]}" --snapshot beside
	python3 -c 'import struct,sys
before, after = (open(f, "rb").read() for f in sys.argv[1:3])
open(sys.argv[3], "wb").write(b"".join(before[k:k + 4] + after[k + 4:k + 8] for k in range(0, len(before), 8)))' \
		"$tmp/state.before" "$tmp/state.after" "$tmp/state.then"
	VHOST_PLUGIN_PATH=$plugins run "$load" "p/${v[1]}" "$tmp/state.then" 0
	is "is what was on the disk then" "$rc" 0
	VHOST_PLUGIN_PATH=$plugins run "$load" "p/${v[0]}" "$tmp/state" 0
	is "and the volume lost nothing" "$rc" 0
	vhost vol delete "p/${v[1]}" >/dev/null
	status 0 "it goes" vhost vol snapshot delete "p/${v[0]}" beside
	status 3 "only what is there is snapshotted" vhost vol snapshot create "p/${v[3]}" beside --force-share
else
	is "a raw disk has no snapshots here" "$rc" 1
fi

# ---- images
if [ -z "$make" ] && [ -z "${SUITE_SHORT:-}" ]; then
	head -c 16M /dev/urandom >"$tmp/random"
	vhost vol upload q/random "$tmp/random" --create --format raw >/dev/null
	status 0 "a qcow2 image" vhost vol create "p/${v[1]}" --size 16M --format qcow2
	status 0 "all of which can be written" vhost vol convert q/random "p/${v[1]}" --no-create
	status 0 "and is there" vhost vol compare q/random "p/${v[1]}"
	status 0 "without a fault" vhost vol check "p/${v[1]}"
	status 0 "its disk grows" vhost vol resize "p/${v[1]}" 24M
	status 0 "without a fault" vhost vol check "p/${v[1]}"
	run vhost vol info "p/${v[1]}" --json
	is "info" "$(json '(j["format"],j["disk_bytes"])')" "('qcow2', $((24 * MiB)))"
	status 0 "delete it" vhost vol delete "p/${v[1]}"
fi

# ---- wiping
for how in $([ -n "${SUITE_SHORT:-}" ] && echo discard || echo zero discard write); do
	vhost vol upload "p/${v[0]}" "$tmp/data" >/dev/null
	status 0 "wipe: $how" vhost vol wipe "p/${v[0]}" --how $how
	truncate -s 0 "$tmp/zeros"; truncate -s "$bytes" "$tmp/zeros"
	same "p/${v[0]}" "$tmp/zeros" "all zeros"
done

# ---- the kit, on this pool
if [ -z "${SUITE_SHORT:-}" ]; then
	kit=("$BUILDDIR/sdk/check/vhost-plugin-check" --only POOL)
	for ((k = 2; k < ${#options[@]}; k += 2)); do kit+=(--set "${options[k]#--}=${options[k + 1]}"); done
	file=$(find "$BUILDDIR/plugins/storage/$type" "$BUILDDIR/tests/unit/store" -name "$type.so" 2>/dev/null | head -1)
	run "${kit[@]}" "$file"
	if [ "$rc" = 0 ]; then ok "vhost-plugin-check: $(grep '^ok' <<<"$out" | grep -vc SKIP) checks of the pool contract"
	else not_ok "vhost-plugin-check"; grep -A3 '^not ok' <<<"$out" | sed 's/^/# /'; fi
fi

# ---- the end
if can remove; then
	status 0 "delete" vhost vol delete "p/${v[0]}"
	status 3 "twice" vhost vol delete "p/${v[0]}"
	run vhost vol list p --json
	is "nothing is left" "$(json 'j["volumes"]')" "[]"
else
	status 1 "deleting is refused" vhost vol delete "p/${v[0]}"
fi
status 0 "undefine" vhost pool undefine p
finish
