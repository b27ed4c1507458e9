#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A guest whose iSCSI target goes away: it waits and goes on, or is told, or is stopped, as its disk asks for; and its machine can be ended.
. "$(dirname "$0")/functions.sh"
requires python3 tgtd tgtadm ss
[ -r /dev/kvm ] && [ -w /dev/kvm ] || { skip "guests on a lost target" "/dev/kvm is missing or may not be opened"; finish; }
. "$(dirname "$0")/json.sh"
tgt() { local verb=$1; shift; "$SRCDIR/tests/servers/tgt" "$verb" "$tmp/tgt" "$@"; }
iqn=iqn.2024-01.test.vhost
tgt start || { not_ok "tgtd starts"; finish; }
pid=
on_exit 'tgt kill 2>/dev/null; [ -z "$pid" ] || kill -9 $pid 2>/dev/null'
portal=127.0.0.1:$(<"$tmp/tgt/port")
tgt target 1 $iqn:disks
tgt lun 1 1 64M
define() { vhost pool define "$@" --type iscsi --portal $portal --target $iqn:disks --quiet; }
status 0 "a pool that waits for its target" define waits
status 0 "one that does not" define limit --timeout 1s

# A guest that is about to use its disk: begin VM DISK. It writes, reads back and compares, and says "blk: ok".
begin() {
	vm=$1
	"$VHOST" run --name $vm --paused --kernel "$BUILDDIR/tests/guest/guest-blk" --memory 64M --serial "file:$tmp/$vm" --disk "$2" \
		</dev/null >"$tmp/$vm.log" 2>&1 &
	pid=$!
	until_true 100 'vhost vm info $vm >/dev/null 2>&1'
}
until_true() { local i; for ((i = 0; i < $1; i++)); do eval "$2" && return; sleep .1; done; echo "# not so: $2"; return 1; }
field() { vhost vm info $vm --json 2>/dev/null | python3 -c 'import json,sys; j=json.load(sys.stdin); d=j["disks"][0]; print(eval(sys.argv[1]))' "$1" 2>/dev/null; }
lose() { tgt kill; vhost vm resume $vm >/dev/null; }
# Sets code: how it ended.
ended() { until_true 200 '! kill -0 $pid 2>/dev/null' && { wait $pid; code=$?; pid=; }; }

begin patient waits/lun1,format=raw
lose
check "a disk whose target is gone is shown as lost" until_true 100 '[ "$(field "d[\"lost\"]")" = True ]'
is "the guest waits" "$(field 'j["state"]')" running
like "people see it, too" "$(vhost vm info $vm)" "*lun1, 64 MiB, its storage is lost*"
tgt start
check "when it is back the guest goes on to its end" ended
like "and has seen nothing of it" "$code $(<"$tmp/patient")" "0 *blk: ok*"

begin told waits/lun1,format=raw,io-timeout=500ms,on-error=report
lose
check "io-timeout with on-error=report" until_true 100 'grep -q "status 1" "$tmp/told"'
like "is an error for the guest" "$(<"$tmp/told")" "*request 1 of 65536 bytes at sector 0: status 1*"
like "and the log says why" "$(<"$tmp/told.log")" "*lun1: a request takes longer than 500 ms*"
tgt start
check "its machine ends" ended

# Requests that were given up are done again by each resume, until the target is there.
again() { until_true 100 '! kill -0 $pid 2>/dev/null || { vhost vm resume $vm >/dev/null 2>&1; false; }'; wait $pid; code=$?; pid=; }
begin stopped waits/lun1,format=raw,io-timeout=500ms,on-error=stop
lose
check "with on-error=stop the guest is stopped" until_true 100 '[ "$(field "j[\"state\"]")" = io-error ]'
like "for a reason" "$(field 'j["reason"]')" "disk waits/lun1: Connection timed out"
tgt start
again
like "resumed when the target is back, it has seen nothing" "$code $(<"$tmp/stopped")" "0 *blk: ok*"

begin limited limit/lun1,format=raw,on-error=stop
lose
check "the pool's own limit stops it likewise" until_true 100 '[ "$(field "j[\"state\"]")" = io-error ]'
tgt start
again
like "and nothing is lost" "$code $(<"$tmp/limited")" "0 *blk: ok*"
begin failed limit/lun1,format=raw
lose
check "by default the pool's limit is an error for the guest" until_true 100 'grep -q "status 1" "$tmp/failed"'
tgt start
check "its machine ends" ended

# A target that is there and says nothing has the request: it is late, and stays.
begin late waits/lun1,format=raw,io-timeout=300ms
tgt stop
vhost vm resume late >/dev/null
check "a request that the target sits on is late" until_true 100 '[ "$(field "d[\"late\"]")" = 1 ]'
is "and the guest not told" "$(field '(j["state"], d["lost"])')" "('running', False)"
like "people see it" "$(vhost vm info late)" "*requests late: 1*"
tgt cont
check "when it goes on, so does the guest" ended
like "which has seen nothing" "$code $(<"$tmp/late")" "0 *blk: ok*"

# The end of a machine whose target is gone.
begin reader waits/lun1,format=raw,readonly=on
lose
check "a reader waits" until_true 100 '[ "$(field "d[\"lost\"]")" = True ]'
status 0 "and is ended" timeout 60 "$VHOST" vm kill reader
check "with its process" ended
tgt start
begin writer waits/lun1,format=raw
lose
check "a writer waits" until_true 100 '[ "$(field "d[\"lost\"]")" = True ]'
timeout 60 "$VHOST" vm kill writer >/dev/null 2>"$tmp/killed" &
killer=$!
sleep 1
tgt start
wait $killer
is "its end waits for a target that comes back" $? 0
check "its process ends" ended
is "having flushed" $code 0
begin gone waits/lun1,format=raw
lose
check "a writer whose target stays away" until_true 100 '[ "$(field "d[\"lost\"]")" = True ]'
status 0 "is ended all the same" timeout 60 "$VHOST" vm kill gone
check "with its process" ended
like "which says that it could not flush" "$code $(<"$tmp/gone.log")" "1 *nothing waits for it any more*disk waits/lun1: cannot flush*cannot be reached*"
finish
