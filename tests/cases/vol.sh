#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost vol: making, listing, resizing, cloning, deleting; formats are recorded and never guessed; leases are taken.
. "$(dirname "$0")/functions.sh"
requires python3
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
pool="$VHOST_ROOT/data/images"

status 0 "create" vhost vol create default/web --size 10M
status 0 "again, the same: no error" vhost vol create web --size 10M
status 4 "another size" vhost vol create web --size 11M
like "exists already" "$err" "vhost: volume default/web: *exists already*[(]*)"
status 2 "a size is needed" vhost vol create x
status 2 "no size" vhost vol create x --size lots
status 2 "size 0" vhost vol create x --size 0
status 1 "too large for the file system" vhost vol create x --size 7000000T
status 6 "a format that is not there" vhost vol create x --size 1M --format nonesuch
check "leaves nothing" test ! -e "$pool/x"
status 0 "falloc" vhost vol create falloc --size 1M --preallocation falloc
status 0 "full" vhost vol create full --size 1M --preallocation full
status 0 "list" vhost vol list default --json
is "sorted, with format and sizes" "$(json '[(v["name"],v["format"],v["bytes"],v["allocated"]>=v["bytes"]) for v in j["volumes"]]')" \
	"[('falloc', 'raw', 1048576, True), ('full', 'raw', 1048576, True), ('web', 'raw', 10485760, False)]"
like "for people a table" "$(vhost vol list | head -1)" "NAME *FORMAT *SIZE *ALLOCATED *MODIFIED"
status 0 "info" vhost vol info web --json
is "has the conventions' members" "$(json 'sorted(j)')" \
	"['allocated', 'backing', 'bytes', 'cluster_bytes', 'data_files', 'dirty', 'disk_bytes', 'encrypted', 'end', 'format', 'format_source', 'identity', 'in_use', 'modified', 'name', 'not_opened', 'path', 'pool', 'properties', 'snapshots']"
is "times are RFC 3339" "$(json '__import__("datetime").datetime.fromisoformat(j["modified"].replace("Z","+00:00")).year > 2000')" True
status 0 "path" vhost vol path web
is "is the file" "$out" "$pool/web"
status 2 "a pool's option that is not there" vhost vol create y --size 1M --nocowx

for bad in ../etc . .. 'a b' 'a
b' "$(printf 'x%.0s' {1..300})" .hidden -x; do
	run vhost vol create --size 1M -- "default/$bad"
	check "hostile name refused: $(head -c 20 <<<"$bad" | tr '\n' '?')" test "$rc" = 2 -a "$(wc -l <<<"$err")" = 1
done
check "nothing came of them" test "$(ls -A "$pool" | wc -l)" = 3
status 2 "no volume named" vhost vol info default/
mkfifo "$pool/fifo"; ln -s /etc/passwd "$pool/link"; mkdir "$pool/folder"
for x in fifo link folder; do
	status 1 "a $x is no volume" timeout 10 "$VHOST" vol info "$x"
	status 1 "nor can it be uploaded to" timeout 10 "$VHOST" vol upload "$x" /dev/null
	status 1 "nor deleted" timeout 10 "$VHOST" vol delete "$x"
done
run vhost vol list --json
is "they are not listed" "$(json 'len(j["volumes"])')" 3
rm -r "$pool/fifo" "$pool/link" "$pool/folder"

status 0 "resize" vhost vol resize web 20M
status 0 "by a step" vhost vol resize web +5M
is "is exact" "$(stat -c %s "$pool/web")" $((25 << 20))
status 2 "shrinking is not done by accident" vhost vol resize web 1M
like "but on demand" "$err" "*[(]add --shrink*"
status 0 "with --shrink" vhost vol resize web 1M --shrink
status 3 "of nothing" vhost vol resize nothing 1M

status 0 "clone" vhost vol clone web web2
status 0 "again: found done" vhost vol clone web web2
status 4 "over another one" vhost vol clone full web2
status 3 "of nothing" vhost vol clone nothing web3
mkdir "$tmp/p2"; vhost pool define p2 --path "$tmp/p2" >/dev/null
head -c 700000 /dev/urandom >"$tmp/data"
vhost vol upload web "$tmp/data" >/dev/null
status 0 "clone into another pool" vhost vol clone web p2/web
check "has the bytes" cmp "$pool/web" "$tmp/p2/web"
run vhost vol info p2/web --json
is "and the format" "$(json 'j["format"]')" raw
status 4 "and is not overwritten" vhost vol clone web2 p2/web

# Formats
cp "$tmp/data" "$pool/foreign"
run vhost vol info foreign --json
is "a foreign file has no format" "$(json 'j["format"]')" None
status 2 "and is not guessed" vhost vol resize foreign 2M
like "the error says what to do" "$err" "*not recorded*[(]*format=*vhost vol set default/foreign --format*)"
status 2 "nor cloned to another pool" vhost vol clone foreign p2/foreign
status 6 "only formats that exist are recorded" vhost vol set foreign --format nonesuch
status 0 "set records it" vhost vol set foreign --format raw
status 0 "and then it works" vhost vol resize foreign 2M
status 2 "a contradiction is refused" vhost vol resize foreign 3M --format qcow2
like "naming both" "$err" "*recorded as raw, not qcow2*"

# Leases: a VM's is played by byte 0, as virtlockd takes it.
coproc HOLD { exec -a pretend-vm python3 -c '
import fcntl, struct, sys
f = open(sys.argv[1], "r+b"); fcntl.fcntl(f, 37, struct.pack("hhqqi4x", 1, 0, 0, 1, 0)); print("held", flush=True); sys.stdin.read()' "$pool/web"; }
read -r _ <&"${HOLD[0]}"
for c in "delete web" "resize web 30M" "clone web web9" "upload web $tmp/data" "download web $tmp/out"; do
	# shellcheck disable=SC2086
	status 4 "in use: $c" vhost vol $c
	like "the holder is named" "$err" "vhost: volume default/web: in use by pid $HOLD_PID *[(]*)"
done
run vhost vol info web --json
is "info says that it is in use" "$(json 'j["in_use"]')" True
check "nothing was left" test ! -e "$tmp/out" -a ! -e "$pool/web9"
eval "exec ${HOLD[1]}>&-"; wait "$HOLD_PID" 2>/dev/null

status 0 "delete" vhost vol delete web --json
is "says so" "$(json '(j["pool"],j["name"],j["result"])')" "('default', 'web', 'deleted')"
status 3 "twice" vhost vol delete web
check "no file is left" test ! -e "$pool/web"
finish
