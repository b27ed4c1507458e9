#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost img crashtest: what it prints, its exit statuses, that it fails, and that a failure can be seen again.
. "$(dirname "$0")/functions.sh"
requires python3
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
broken=$BUILDDIR/tests/unit/crash/toy-publish_early.so

status 0 "a safe format" vhost img crashtest --format toy-format --states 200 --seed 3
like "says how many states" "$out" "format toy-format: 200 states of * rounds are good*"
like "and why qemu-img was not asked" "$out" "*qemu-img was not asked: *"
status 0 "as JSON" vhost img crashtest --format raw --states 100 --json
is "passed" "$(json 'j["result"], j["states"], j["failure"]')" "('passed', 100, None)"
is "kinds add up" "$(json 'j["prefixes"] + j["lost"] + j["torn"]')" 100

status 1 "a broken one" vhost --plugin "$broken" img crashtest --format toy-broken --seed 5 --depth 1 --backing on --keep "$tmp/keep" --json
is "failed" "$(json 'j["result"]')" failed
state=$(json 'j["state"]') record=$(json 'j["record"]') failure=$(json 'j["failure"]')
check "keeps the image" test -s "$tmp/keep/disk.toy-broken"
check "the record" test -s "$tmp/keep/record"
check "and a report" grep -q "^state $state\$" "$tmp/keep/report"
status 1 "the same state again" vhost --plugin "$broken" img crashtest --format toy-broken --seed 5 --depth 1 --backing on --only "$state" --json
is "from the same record" "$(json 'j["record"]')" "$record"
is "the same failure" "$(json 'j["failure"]')" "$failure"
status 1 "and from what was kept" vhost --plugin "$broken" img crashtest --format toy-broken --backing on --record "$tmp/keep/record" --only "$state" --json
is "the same failure as well" "$(json 'j["failure"]')" "$failure"
status 1 "for people" vhost --plugin "$broken" img crashtest --format toy-broken --seed 5 --depth 1 --backing on
like "the recipe" "$out" "*state *to see it again: --seed 5 --only *"

status 2 "no format" vhost img crashtest
status 2 "no state" vhost img crashtest --format toy-format --only nonsense
status 2 "no pair" vhost img crashtest --format toy-format --option size
status 6 "a format that is not there" vhost img crashtest --format nonesuch
status 2 "an option that it does not have" vhost img crashtest --format toy-format --option nonesuch=1
head -c 100000 /dev/urandom >"$tmp/garbage"
status 1 "a record that is none" vhost img crashtest --format toy-format --record "$tmp/garbage"
head -c 3000 "$tmp/keep/record" >"$tmp/cut"
status 1 "a record that was cut" vhost --plugin "$broken" img crashtest --format toy-broken --backing on --record "$tmp/cut"
finish
