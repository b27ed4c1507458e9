#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost pool: definitions, the default pool, starting and stopping, what --json says.
. "$(dirname "$0")/functions.sh"
requires python3
# json EXPRESSION: of the last command's output, as `j`
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }

status 0 "list shows the built-in pool" vhost pool list --json
is "named default, of type dir" "$(json '[(p["name"],p["type"],p["state"],p["autostart"]) for p in j["pools"]]')" "[('default', 'dir', 'active', True)]"
check "looking makes nothing" test ! -e "$VHOST_ROOT/data/images"
status 0 "first use makes it" vhost vol list --json
is "empty" "$(json 'j["volumes"]')" "[]"
check "in the data folder" test -d "$VHOST_ROOT/data/images"
is "with a mode that lets nobody list it" "$(stat -c %a "$VHOST_ROOT/data/images")" "$([ "$(id -u)" = 0 ] && echo 711 || echo 700)"
status 0 "info" vhost pool info default --json
is "has sizes that fit" "$(json 'j["capacity"] >= j["available"] >= 0 and j["allocated"] > 0')" True
like "for people in GiB" "$(vhost pool info default)" "*Capacity:*iB*Available:*iB*"

mkdir "$tmp/a"
status 0 "define" vhost pool define fast --type dir --path "$tmp/a"
status 4 "twice is refused" vhost pool define fast --type dir --path "$tmp/b"
like "with the remedy" "$err" "vhost: pool fast: *defined already*(*undefine*)"
status 0 "but the same again is no error" vhost pool define fast --type dir --path "$tmp/a"
check "and changes nothing" grep -qx "path=$tmp/a" "$VHOST_ROOT/config/pools/fast.conf"
(cd "$tmp" && vhost pool define rel --path a >/dev/null)
run vhost pool info rel --json
is "a relative path is kept absolute" "$(json 'j["options"]["path"]')" "$tmp/a"
status 2 "a wrong option is refused" vhost pool define x --type dir --pth /x
like "with what is near" "$err" "*did you mean path*"
status 2 "a missing option is refused" vhost pool define x --type dir
status 6 "a missing plugin is named" vhost pool define x --type nonesuch --path /x
like "and where it was searched" "$err" "*nonesuch*searched*"
status 2 "a bad name is refused" vhost pool define ../x --type dir --path /x
status 2 "a long name is refused" vhost pool define "$(printf 'x%.0s' {1..70})" --type dir --path /x
status 3 "no such pool" vhost pool info nothere
like "says what to do" "$err" "vhost: pool nothere: there is no such pool (*)"
check "and none of these defined anything" test ! -e "$VHOST_ROOT/config/pools/x.conf"

status 0 "define a folder that is not there" vhost pool define later --path "$tmp/later/pool"
status 3 "its use fails" vhost vol list later
like "naming the folder and the remedy" "$err" "*$tmp/later/pool*[(]vhost pool start later --make*"
run vhost pool list --json
is "list tells it is broken" "$(json '[p["state"] for p in j["pools"] if p["name"]=="later"]')" "['broken']"
status 3 "start without --make too" vhost pool start later
status 0 "start --make builds it" vhost pool start later --make
status 0 "and it works" vhost vol create later/v --size 1M
status 1 "making it over a file fails" vhost pool define bad --path "$tmp/later/pool/v" --make
status 3 "and defines nothing" vhost pool info bad

status 0 "stop" vhost pool stop later
status 1 "a stopped pool is refused" vhost vol list later
like "with the remedy" "$err" "vhost: pool later: it is stopped (vhost pool start later)"
status 0 "start" vhost pool start later
status 0 "autostart off" vhost pool autostart later off
status 0 "leaves a started pool started" vhost vol list later
rm -r "$VHOST_ROOT/state" # the host starts anew
status 1 "after a start of the host it is stopped" vhost vol list later
status 0 "autostart on" vhost pool autostart later
status 0 "and then it is not" vhost vol list later
status 2 "autostart takes on or off" vhost pool autostart later maybe
status 0 "refresh says that it is not needed" vhost pool refresh later
like "in words" "$out" "*needs no refresh*"
status 0 "capabilities" vhost pool capabilities later --json
is "as booleans" "$(json 'j["capabilities"]["create"], j["capabilities"]["clone_cow"]')" "(True, False)"

# Once after the host has started: what is marked, whatever else fails.
mkdir "$tmp/g1" "$tmp/g2"
vhost pool define g1 --path "$tmp/g1" >/dev/null; vhost pool define g2 --path "$tmp/g2" --autostart off >/dev/null
vhost pool define gone --path "$tmp/gone" >/dev/null
rm -rf "$VHOST_ROOT/state"
status 1 "autostart: one fails" vhost autostart
like "it is told" "$err" "vhost: pool gone: *$tmp/gone*"
like "the others are started" "$out" "*pool fast started*pool g1 started*4 pools started, 1 failed"
check "what has no mark is not" bash -c '! "$VHOST" vol list g2 2>/dev/null'
run vhost autostart --json
is "json has all of them" "$(json '([(p["name"],p["result"],p["error"]) for p in j["pools"]], j["started"], j["failed"])')" \
	"([('fast', 'started', None), ('g1', 'started', None), ('gone', 'failed', 'ENOENT'), ('later', 'started', None), ('rel', 'started', None)], 4, 1)"
vhost pool undefine gone >/dev/null
status 0 "then nothing fails" vhost autostart
status 0 "quiet" vhost autostart --quiet
is "means quiet" "$out" ""
for p in g1 g2; do vhost pool undefine $p >/dev/null; done
check "the unit runs it" grep -qx "ExecStart=/.*/vhost autostart" "$BUILDDIR/core/vhost-autostart.service"

# A pool in use is not stopped under its user.
coproc HOLD { python3 -c '
import fcntl, struct, sys
f = open(sys.argv[1], "r+b"); fcntl.fcntl(f, 37, struct.pack("hhqqi4x", 1, 0, 0, 1, 0)); print("held", flush=True); sys.stdin.read()' "$tmp/later/pool/v"; }
read -r _ <&"${HOLD[0]}"
status 4 "stop refuses while a volume is in use" vhost pool stop later
like "naming it" "$err" "vhost: pool later: its volume v is in use (*)"
eval "exec ${HOLD[1]}>&-"; wait "$HOLD_PID" 2>/dev/null

status 0 "undefine" vhost pool undefine later
check "leaves the volumes" test -f "$tmp/later/pool/v"
status 3 "it is gone" vhost pool info later
status 1 "the built-in pool cannot be undefined" vhost pool undefine default
status 0 "but defined otherwise" vhost pool define default --path "$tmp/a"
run vhost pool info default --json
is "to another folder" "$(json 'j["options"]["path"]')" "$tmp/a"
status 0 "and undefined again" vhost pool undefine default

echo 'garbage' >"$VHOST_ROOT/config/pools/broken.conf"
status 0 "a broken file does not hide the others" vhost pool list --json
is "and is listed as broken" "$(json '[p["state"] for p in j["pools"] if p["name"]=="broken"]')" "['broken']"
status 1 "using it names the file" vhost vol list broken
like "and what is wrong" "$err" "vhost: pool broken: *broken.conf*"
status 3 "--json errors are objects" vhost pool info nothere --json
is "with error, object, message, remedy" "$(python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(j["error"], j["object"], bool(j["message"]), bool(j["remedy"]))' "$err")" "ENOENT pool nothere True True"
is "and nothing on standard output" "$out" ""
finish
