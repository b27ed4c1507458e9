#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost doctor: every finding has what a person and a program need; refusals name the part of the path that refuses.
. "$(dirname "$0")/functions.sh"
requires python3
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
pick() { json "[f['level'] for f in j['findings'] if f['topic']=='$1' and '$2' in f['message']]"; }

run vhost doctor --json
is "exit status tells whether run can work" "$rc" "$(json '0 if j["can_run"] else 1')"
is "levels are known words" "$(json 'set(f["level"] for f in j["findings"]) <= {"ok","note","problem"}')" True
is "what is wrong has a remedy" "$(json 'all(f["remedy"] for f in j["findings"] if f["level"]!="ok")')" True
is "the fields" "$(json '{"kvm","aio","io_uring","memlock","tun","bridge","plugins","folders","pools"} <= set(f["topic"] for f in j["findings"])')" True
check "it changes nothing" test -z "$(ls -A "$VHOST_ROOT")"
run vhost doctor
like "for people, with a summary" "$out" "*vhost run can*"

(VHOST_PLUGIN_PATH="$tmp" vhost doctor --json >"$tmp/out"); out=$(<"$tmp/out")
case "$(pick plugins 'missing is dir')" in "['note']") ok "a missing plugin is named" ;;
*) if ls /usr/*/lib/*/vhost/plugins/v1/storage/dir.so >/dev/null 2>&1; then skip "a missing plugin is named" "vhost is installed on this machine"
   else not_ok "a missing plugin is named"; fi ;; esac

vhost pool define gone --path "$tmp/gone" >/dev/null
run vhost doctor --json
is "a pool whose folder is gone" "$(pick pools gone:)" "['note']"
mkdir -p "$VHOST_ROOT/config/secrets"; chmod 755 "$VHOST_ROOT/config/secrets"
run vhost doctor --json
is "secrets that others may read" "$(pick secrets 'read by others')" "['note']"
like "with the remedy" "$(json '[f["remedy"] for f in j["findings"] if f["topic"]=="secrets"][0]')" "chmod 700 *"

chmod 755 "$tmp"; cp "$VHOST" "$tmp/vhost" # the build may be where no other user can go
if [ "$(id -u)" = 0 ] && setpriv --reuid 65534 --clear-groups test -x "$tmp/vhost" 2>/dev/null; then
	 mkdir -p "$tmp/closed/x/root"; chmod 700 "$tmp/closed"
	# The other user cannot read a sanitizer's suppressions in this checkout.
	(unset ASAN_OPTIONS LSAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS; VHOST_ROOT="$tmp/closed/x/root" setpriv --reuid 65534 --clear-groups "$tmp/vhost" doctor --json >"$tmp/out"); out=$(<"$tmp/out")
	is "a folder that refuses is a problem" "$(pick folders "$tmp/closed: Permission denied")" "['problem', 'note', 'note']"
	like "with a remedy for that very folder" "$(json '[f["remedy"] for f in j["findings"] if f["topic"]=="folders"][0]')" "chmod o+x $tmp/closed,*"
else
	skip "a folder that refuses is a problem" "needs root"
fi
finish
