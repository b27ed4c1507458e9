#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Every command that is built in keeps the conventions: help, JSON help, exit statuses, streams.
. "$(dirname "$0")/functions.sh"
requires python3

status 2 "no command is a usage error" vhost
is "which says nothing on standard output" "$out" ""
status 0 "--help is a result" vhost --help
is "on standard output alone" "$err" ""
status 2 "an unknown command is a usage error" vhost frobnicate
like "in one line with its form" "$err" "vhost: *'frobnicate' (*)"
is "one line" "$(wc -l <<<"$err")" 1
status 0 "the tables are JSON" vhost help --json

commands=$(python3 -c '
import json, sys
for c in json.load(sys.stdin)["commands"]:
    print((c["noun"] or "-"), c["verb"])
' <<<"$out")
check "there are commands" test -n "$commands"
while read -r noun verb; do
	[ "$noun" = - ] && noun=
	# shellcheck disable=SC2086
	{
	status 0 "help of $noun $verb" vhost $noun $verb --help
	like "starts with its usage" "$out" "Usage: vhost ${noun:+$noun }$verb*"
	run vhost $noun $verb --help --json
	check "and is JSON" python3 -c 'import json, sys; json.loads(sys.argv[1])["commands"][0]["options"]' "$out"
	status 2 "$noun $verb refuses an unknown option" vhost $noun $verb --qwertyuiop --json
	if [ "$rc" = 2 ]; then
		check "as a JSON object of four members" python3 -c '
import json, sys
e = json.loads(sys.argv[1])
assert set(e) == {"error", "object", "message", "remedy"} and e["error"] == "EINVAL", e' "$err"
	fi
	}
done <<<"$commands"

status 0 "the manual page is made" vhost help man
if command -v groff >/dev/null; then
	vhost help man >"$tmp/vhost.1"
	run groff -man -ww -Tutf8 -z "$tmp/vhost.1"
	is "without a complaint of groff" "$err" ""
else
	skip "without a complaint of groff" "groff is not installed"
fi
vhost completion bash >"$tmp/complete"
check "the completion script is a script" bash -n "$tmp/complete"
check "everything is quiet about missing folders" test -z "$(vhost --version 2>&1 >/dev/null)"
finish
