#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost plugin: what is listed without running anything, what is refused and with which status, what a bad plugin can do (nothing).
. "$(dirname "$0")/functions.sh"
requires python3
variants=$BUILDDIR/tests/unit/plug
[ -e "$variants/good.so" ] || skip_all "the test plugins are not built ($variants)"

# json FILTER: a Python expression over the object j that $doc holds.
json() { python3 -c 'import json, sys; j = json.loads(sys.argv[1]); assert eval(sys.argv[2]), j' "$doc" "$1"; }

mkdir -m 0755 "$tmp/p" "$tmp/p/storage"
cp "$variants"/{good,wrong_major,no_note}.so "$tmp/p/"
chmod 0755 "$tmp/p"/*.so
export VHOST_PLUGIN_PATH=$tmp/p

status 0 "list succeeds although some cannot be loaded" vhost plugin list --json
doc=$out
check "it has the good one" json '[p["id"] for p in j["plugins"] if p["loadable"]] == ["variant"]'
check "it says why the others are refused" json 'sorted(bool(p["refused"]) for p in j["plugins"]) == [False, True, True]'
check "it says where it looked" json "'$tmp/p' in j['searched']"
status 0 "list as a table" vhost plugin list
like "with the reason in words" "$out" "*needs vhost ABI 2, this is 1*"
status 0 "only one kind" vhost plugin list --kind net --json
doc=$out
check "leaves the pools out" json 'not [p for p in j["plugins"] if "pool" in p["kinds"]]'
status 2 "a kind that there is not" vhost plugin list --kind teapot

status 0 "info finds a plugin whose file has another name" vhost plugin info variant --json
doc=$out
check "sizes seen and known" json 'j["interfaces"][0]["size"] == j["interfaces"][0]["known_size"] and j["descriptor_size"] >= 72'
check "every absent operation with what happens instead" json \
	'{"member": "clone", "fallback": "the host copies"} in j["interfaces"][0]["absent"]'
check "libraries that it needs" json 'all(n.startswith("lib") for n in j["needs"]) and j["needs"]'
check "its build id" json 'j["build_id"] is None or len(j["build_id"]) == 40'
status 0 "help tells the options" vhost plugin help variant
like "with form, text and flags" "$out" "*path=PATH*the folder*required, main option*"
status 0 "as JSON too" vhost plugin help variant --json
doc=$out
check "from the schema" json 'j["scopes"][0]["options"][0]["name"] == "path" and j["scopes"][0]["options"][0]["required"]'

status 6 "a plugin that is not there" vhost plugin info nothing
like "names every place" "$err" "*$tmp/p*plugins/v1/storage*"
status 6 "a file that is not there" vhost --plugin "$tmp/none.so" plugin list
status 2 "a relative VHOST_PLUGIN_PATH" env VHOST_PLUGIN_PATH=plugins "$VHOST" plugin info variant
like "is never looked in" "$err" "*'plugins' is not an absolute path*"
(cd "$tmp/p" && VHOST_PLUGIN_PATH='' "$VHOST" plugin info variant >/dev/null 2>&1)
is "the working directory is not searched" $? 6

# Refusals: status 5, one line each, every one with its own words.
declare -A said
refused() {
	cp "$variants/$1.so" "$tmp/$1.so"
	chmod 0755 "$tmp/$1.so"
	[ -z "${3:-}" ] || chmod "$3" "$tmp/$1.so"
	status 5 "$1${3:+ with mode $3} is refused" vhost plugin info "$tmp/$1.so"
	like "with these words" "$err" "$2"
	is "in one line" "$(wc -l <<<"$err")" 1
	said[${err##*.so: }]=1
	rm -f "$tmp/$1.so"
}
refused no_note "*not a vhost plugin: it has no identity note*"
refused wrong_major "*plugin variant needs vhost ABI 2, this is 1*"
refused wrong_draft "*needs draft * of vhost ABI 1, this is draft *"
refused no_entry "*no entry vh_plugin_entry_v1*"
refused dep_entry "*is not its own but belongs to the library*"
refused short_table "*too short for the mandatory member attach*"
refused id_mismatch "*its note says that it is 'other'*"
refused gmodule "*defines g_module_check_init*"
refused fail_text "*the license of variant has run out (buy a license)"
refused good "*the file can be written by everybody (chmod go-w *" 0757
refused crash "*it crashed while it was being loaded: Illegal instruction*"
refused hang "*it hung for * in its entry*"
is "each refusal has its own words" "${#said[@]}" 12
status 5 "a text file is no plugin" vhost plugin info "$SRCDIR/meson.build"
like "and the error says so" "$err" "*not an ELF file*"
status 5 "as JSON" vhost plugin info "$SRCDIR/meson.build" --json
check "the error is an object" python3 -c 'import json, sys; e = json.loads(sys.argv[1]); assert e["error"] == "ENOEXEC", e' "$err"
if [ "$(id -u)" = 0 ]; then
	cp "$variants/good.so" "$tmp/foreign.so"
	chown 12345 "$tmp/foreign.so"
	status 5 "somebody else's file is refused" vhost plugin info "$tmp/foreign.so"
	like "naming the owner" "$err" "*belongs to user 12345, who is neither root nor you*"
else
	skip "somebody else's file is refused" "needs root to give a file away"
fi
finish
