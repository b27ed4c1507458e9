#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# The pool type iscsi through the commands, against a real tgtd: what it shows, logging in, errors that say what to do, in time.
. "$(dirname "$0")/functions.sh"
requires python3 tgtd tgtadm ss
tgt() { local verb=$1; shift; "$SRCDIR/tests/servers/tgt" "$verb" "$tmp/tgt" "$@"; }
. "$(dirname "$0")/json.sh"
# seconds COMMAND...: as run, and how long it took, in tenths
seconds() { local from=${EPOCHREALTIME/./}; run "$@"; took=$(((${EPOCHREALTIME/./} - from) / 100000)); }
iqn=iqn.2024-01.test.vhost
tgt start || { not_ok "tgtd starts"; finish; }
on_exit "tgt kill"
port=$(<"$tmp/tgt/port") portal=127.0.0.1:$(<"$tmp/tgt/port")
tgt target 1 $iqn:disks
tgt lun 1 1 64M
tgt lun 1 2 32M
tgt lun 1 300 1M
define() { vhost pool define "$@" --type iscsi --quiet; }

# What is there.
status 0 "define" define san --portal $portal --target $iqn:disks
status 0 "again is no error" define san --portal $portal --target $iqn:disks
status 0 "start looks whether it works" vhost pool start san
status 0 "list" vhost vol list san --json
is "every disk, and not the controller" "$(json '[(v["name"],v["bytes"]) for v in j["volumes"]]')" "[('lun1', 67108864), ('lun2', 33554432), ('lun300', 1048576)]"
is "each with an identity of its own" "$(json 'len(set(v["identity"] for v in j["volumes"]))')" 3
like "of target, NAA id and serial number" "$(json 'j["volumes"][0]["identity"]')" "iscsi:$iqn:disks/naa.*/beaf*"
status 0 "info" vhost pool info san --json
is "their sizes, and nothing to spare" "$(json '(j["state"],j["capacity"],j["available"])')" "('active', $(((64 + 32 + 1) << 20)), 0)"
status 0 "capabilities" vhost pool capabilities san --json
is "no LUNs from here, no lease of other hosts" "$(json '(j["capabilities"]["create"],j["capabilities"]["remove"],j["capabilities"]["lease_hosts"])')" "(False, False, False)"
status 3 "a LUN that is not there" vhost vol info san/lun7
like "is named" "$err" "vhost: volume san/lun7: *$iqn:disks has no LUN 7*"
status 3 "a name that is no LUN" vhost vol info san/web
like "with what is one" "$err" "*lun1, lun2*"
status 3 "the controller is no volume" vhost vol info san/lun0
status 1 "making a LUN" vhost vol create san/lun9 --size 1M --format raw
like "says where that is done" "$err" "*no way to make LUNs*storage system*[(]*[)]"
status 1 "deleting one" vhost vol delete san/lun1
like "too" "$err" "*no way to delete LUNs*[(]*[)]"
status 1 "resizing one" vhost vol resize san/lun1 +1M --format raw
like "too" "$err" "*no way to resize LUNs*[(]*[)]"

# Bytes.
head -c 8000000 /dev/urandom >"$tmp/in"
truncate -s 64M "$tmp/in"
status 0 "upload" vhost vol upload san/lun1 "$tmp/in"
check "the LUN has it" cmp "$tmp/in" "$tmp/tgt/1-1.img"
status 0 "download" vhost vol download san/lun1 "$tmp/back"
check "and gives it back" cmp "$tmp/in" "$tmp/back"
status 0 "record a format" vhost vol set san/lun1 --format raw
status 0 "it is kept" vhost vol info san/lun1 --json
is "by the host" "$(json '(j["format"],j["disk_bytes"])')" "('raw', 67108864)"
status 0 "convert to a file" vhost img convert -O qcow2 -f raw "$tmp/tgt/1-1.img" "$tmp/x.qcow2"
status 0 "compare" vhost vol compare san/lun1 san/lun1
head -c 1M /dev/zero >"$tmp/z"
status 0 "upload something smaller" vhost vol upload san/lun1 "$tmp/z"
check "the rest becomes zeros" cmp "$tmp/tgt/1-1.img" <(head -c 64M /dev/zero)

# A guest's disk.
if [ -w /dev/kvm ] && [ -e "$BUILDDIR/tests/guest/guest-blk" ]; then
	status 0 "a guest reads, writes, zeroes and discards on a LUN" timeout 100 "$VHOST" run --kernel "$BUILDDIR/tests/guest/guest-blk" --memory 128M \
		--disk san/lun1
	like "which has its serial number" "$out" "*id 'beaf11'*blk: ok*"
else
	skip "a guest's disk" "no usable /dev/kvm"
fi

# Which targets there are.
tgt target 2 $iqn:secret
tgt lun 2 1 16M
tgt chap 2 alice alicealicealice
tgt target 3 $iqn:both
tgt lun 3 1 16M
tgt chap 3 bob bobbobbobbob targetbob bobtargetbob
define some --portal $portal
status 3 "without a target" vhost vol list some
like "those of the portal are named" "$err" "*$iqn:disks*[(]*--target*[)]"
define wrong --portal $portal --target $iqn:nothere
status 3 "a target that is not there" vhost vol list wrong
like "is named, with those that are" "$err" "*no target $iqn:nothere*$iqn:disks*"

# Logging in.
mkdir -p -m 700 "$VHOST_ROOT/config/secrets"
secret() { (umask 077; printf '%s\n' "$2" >"$VHOST_ROOT/config/secrets/$1"); }
secret alice alicealicealice
secret wrong wrongwrongwrong
secret bob bobbobbobbob
secret target bobtargetbob
define chap --portal $portal --target $iqn:secret --user alice --secret alice
status 0 "CHAP" vhost vol list chap --json
is "shows its LUNs" "$(json 'len(j["volumes"])')" 1
check "the definition has no secret" sh -c "! grep -r alicealicealice '$VHOST_ROOT/config/pools'"
(umask 077; echo alicealicealice >"$tmp/key")
define chap2 --portal $portal --target $iqn:secret --user alice --secret "file:$tmp/key"
status 0 "the secret in a file elsewhere" vhost vol list chap2
define chap3 --portal $portal --target $iqn:secret --user alice --secret wrong
seconds vhost vol list chap3
is "a wrong secret" "$rc" 1
like "is refused, saying what to check" "$err" "vhost: pool chap3: *$iqn:secret refuses the login*Authentication*[(]check*secret*[)]"
check "without telling it" test -n "${err##*wrongwrong*}"
define chap4 --portal $portal --target $iqn:secret
status 1 "no secret at all" vhost vol list chap4
like "says so" "$err" "*[(]*set user and secret*[)]"
chmod 644 "$VHOST_ROOT/config/secrets/alice"
status 1 "a secret that others may read is refused" vhost vol list chap
chmod 600 "$VHOST_ROOT/config/secrets/alice"
mutual() { define "$1" --portal $portal --target "$2" --user bob --secret bob --target-user "$3" --target-secret "$4"; }
mutual m1 $iqn:both targetbob target
status 0 "mutual CHAP" vhost vol list m1
mutual m2 $iqn:both targetbob wrong
status 1 "a target that has another secret is refused" vhost vol list m2
like "it is the target that failed" "$err" "*CHAP_R*"
mutual m3 $iqn:both someone target
status 1 "a target of another name" vhost vol list m3
mutual m4 $iqn:disks targetbob target
status 1 "a target that proves nothing" vhost vol list m4
define half --portal $portal --target $iqn:both --user bob
status 1 "a user without a secret" vhost vol list half
like "is refused before anything is sent" "$err" "*user and secret go together*"

# In time.
define dead --portal 127.0.0.1:1 --target $iqn:disks
seconds vhost vol list dead
like "nobody at the portal" "$rc $err" "1 vhost: pool dead: 127.0.0.1:1 cannot be reached: *refused*[(]*[)]"
check "is told at once" test "$took" -lt 20
define quiet --portal $portal --target $iqn:disks --login-timeout 1s
tgt stop
seconds vhost vol list quiet
tgt cont
like "a portal that says nothing" "$rc $err" "1 *does not answer*"
check "is told after the time for logging in" test "$took" -ge 9 -a "$took" -lt 40

# One LUN, two users. Who reads from the pipe has the LUN: its lease and, where asked for, its reservation (a pipe takes 64 KiB unread).
mkfifo "$tmp/slow"
has_it() { timeout 60 head -c 128K /dev/zero >&7; }
exec 7<>"$tmp/slow"
"$VHOST" vol upload san/lun2 - <"$tmp/slow" >/dev/null 2>&1 7<&- &
user=$!
define again --portal localhost:$port --target $iqn:disks
check "its first user" has_it
status 4 "by another pool and portal: in use" vhost vol upload again/lun2 "$tmp/z"
like "by whom is told" "$err" "*in use by pid $user*upload*"
exec 7<&-
wait $user
status 0 "afterwards it is free" vhost vol upload again/lun2 "$tmp/z"

# Two hosts: whoever reserves it keeps the other out.
host() { define "$1" --portal $portal --target $iqn:disks --reservation on --initiator $iqn:$1; }
host east
host west
status 0 "a pool that reserves says so" vhost pool capabilities east --json
is "as a capability" "$(json 'j["capabilities"]["lease_hosts"]')" True
VHOST_ROOT=$tmp/elsewhere
mkdir -p "$VHOST_ROOT"
host west
exec 7<>"$tmp/slow"
"$VHOST" vol upload west/lun2 - <"$tmp/slow" >/dev/null 2>&1 7<&- &
user=$!
check "the first host's" has_it
VHOST_ROOT=$tmp/root
status 4 "reserved by another host" vhost vol upload east/lun2 "$tmp/z"
like "what is known of it is told" "$err" "*reserved by another host*key 0x5648*[(]*vol unlock*[)]"
status 4 "the target itself keeps out who does not ask" "$VHOST" vol upload san/lun2 <(head -c 1M "$tmp/in")
exec 7<&-
wait $user
status 0 "afterwards it is free" vhost vol upload east/lun2 "$tmp/z"
exec 7<>"$tmp/slow"
VHOST_ROOT=$tmp/elsewhere "$VHOST" vol upload west/lun2 - <"$tmp/slow" >/dev/null 2>&1 7<&- &
user=$!
check "again the first host's" has_it
kill -9 $user
wait $user 2>/dev/null
exec 7<&-
status 4 "a host that died keeps it" vhost vol upload east/lun2 "$tmp/z"
status 4 "unlock asks" vhost vol unlock east/lun2
status 0 "and takes it away" vhost vol unlock east/lun2 --force
status 0 "then it is free" vhost vol upload east/lun2 "$tmp/z"
finish
