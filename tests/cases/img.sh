#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost img: files outside of pools. Formats are named or recorded, and probed only by those who say so; chains; letters.
. "$(dirname "$0")/functions.sh"
requires python3 setfattr getfattr
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
d="$tmp/d"; mkdir "$d" "$d/sub" "$tmp/other"; cd "$d" || exit 1
toy=toy-format

# Making.
status 0 "raw, as qemu-img is called" vhost img create base.raw 4M
is "has that size" "$(stat -c %s base.raw)" 4194304
is "its format is recorded beside it" "$(getfattr --only-values -n user.vhost.format base.raw 2>/dev/null)" raw
status 0 "again, the same: no error" vhost img create base.raw 4M
status 4 "another size" vhost img create base.raw 5M
like "says what is there" "$err" "vhost: *$d/base.raw: exists already, with 4194304 bytes*"
status 4 "another format" vhost img create -f $toy base.raw 4M
status 2 "no size" vhost img create x.raw
status 2 "a size that is none" vhost img create x.raw lots
status 6 "a format that is not there" vhost img create -f nonesuch x 1M
status 3 "a folder that is not there" vhost img create nothing/x 1M
status 2 "a format's option that is not there" vhost img create -f $toy -o nonesuch=1 x 1M
like "names it" "$err" "*nonesuch*"
status 0 "a format's option, by -o" vhost img create -f $toy -o max_size=64M opt 1M
status 0 "is there" vhost img info opt --json
is "and was understood" "$(json 'j["properties"]["max_size"] >= 64 << 20')" True
status 0 "and as --format.NAME" vhost img create -f $toy --format.max-size 64M opt 1M
check "nothing is left of what failed" test ! -e x.raw -a ! -e x
printf 'somebody elses bytes' >foreign; truncate -s 131072 foreign
status 4 "a file of others' is not overwritten" vhost img create -f $toy foreign 4M
is "and is as it was" "$(head -c 8 foreign)" somebody

# Backing images.
status 0 "over a backing image, whose size is taken" vhost img create -f $toy -b base.raw over
status 0 "info" vhost img info --json over
is "the size" "$(json 'j["disk_bytes"]')" 4194304
is "names it, with its recorded format" "$(json '(j["backing"]["name"], j["backing"]["format"])')" "('base.raw', 'raw')"
is "it is a recorded format" "$(json 'j["format_source"]')" recorded
status 0 "over one in a sub-folder" vhost img create -f $toy -b ../base.raw sub/over --allow "$d"
status 1 "which alone does not permit what lies above it" vhost img info --backing-chain sub/over
like "with the remedy" "$err" "vhost: *'../base.raw'*--allow*"
status 0 "with permission it does" vhost img info --backing-chain sub/over --allow "$d" --json
is "the whole chain" "$(json '[(c["image"].rsplit("/", 1)[1], c["format"]) for c in j["chain"]]')" "[('over', 'toy-format'), ('base.raw', 'raw')]"
status 3 "a backing image that is not there" vhost img create -f $toy -b nothing -F raw x 1M
status 1 "one that is outside" vhost img create -f $toy -b /etc/passwd -F raw x 1M
status 1 "a protocol" vhost img create -f $toy -b nbd:localhost:10809 -F raw x 1M
like "by its name" "$err" "*nbd:localhost:10809*protocol*"
cp base.raw plain
status 1 "one whose format nobody says" vhost img create -f $toy -b plain x
like "is not guessed" "$err" "*never guessed*--backing-format*"
status 2 "raw has no backing image" vhost img create -f raw -b base.raw x
status 2 "unchecked needs all said" vhost img create -f $toy -u -b later x
status 0 "unchecked" vhost img create -f $toy -u -b later -F raw unchecked 1M
check "nothing is left of what failed" test ! -e x
status 4 "the same but for the backing image" vhost img create -f $toy over 4M
like "says so" "$err" "*exists already, with the backing image base.raw*"

# Probing.
status 0 "probe" vhost img probe over --json
is "says it" "$(json '(j["format"], j["ambiguous"])')" "('toy-format', False)"
head -c 4194304 /dev/urandom >noise
status 0 "what nobody knows" vhost img probe noise --json
is "could be raw" "$(json 'j["format"]')" raw
cp over copied; setfattr -x user.vhost.format copied 2>/dev/null
status 0 "info of a file without a record" vhost img info copied
like "says that it was probed" "$out" "*Format: *toy-format (told from the contents, which a guest may have written; not recorded)*"
status 0 "as JSON" vhost img info copied --json
is "says so" "$(json '(j["format"], j["format_source"])')" "('toy-format', 'probed')"
cp unchecked gone; setfattr -x user.vhost.format gone 2>/dev/null
status 0 "what a probed file refers to is not opened" vhost img info gone
like "but told" "$out" "*Backing image: *later (raw)*"
status 3 "unless the chain is asked for" vhost img info gone --backing-chain
for c in "check copied" "map copied" "resize copied 8M" "snapshot list copied" "rebase copied -b base.raw" "commit copied" "amend copied -o a=b"; do
	# shellcheck disable=SC2086
	status 2 "nothing else probes: $c" vhost img $c
	like "it wants the format" "$err" "vhost: *never guessed*"
done
status 0 "with the format named" vhost img check -f $toy copied
status 2 "which must not contradict the record" vhost img check -f raw over

# Checking, map, sizes.
status 0 "check" vhost img check over --json
is "clean" "$(json '(j["result"], j["corruptions"], j["leaks"])')" "('clean', 0, 0)"
cp --preserve=xattr over damaged
python3 - damaged <<'P'
import struct, sys
f = open(sys.argv[1], "r+b"); f.seek(65536); f.write(struct.pack("<QQ", 2 << 16, 2 << 16))
P
run vhost img check damaged
is "a damaged one is told from one that cannot be checked" "$rc" 1
status 0 "map" vhost img map over --json
is "holes are zeros" "$(json '(j["offset"], j["bytes"], j["kind"], j["depth"], j["file"])')" "(0, 4194304, 'zero', 1, None)"
dd if=/dev/urandom of=base.raw bs=1M count=4 conv=notrunc status=none
status 0 "map of data" vhost img map over --json
is "all is below" "$(json '(j["offset"], j["bytes"], j["kind"], j["depth"], j["file"].rsplit("/", 1)[1])')" "(0, 4194304, 'data', 1, 'base.raw')"
status 0 "a part" vhost img map over -s 1M -l 64K --json
is "only that" "$(json '(j["offset"], j["bytes"], j["file_offset"])')" "(1048576, 65536, 1048576)"
status 0 "for people" vhost img map over
like "a table" "$out" "*OFFSET*BYTES*KIND*DEPTH*data*base.raw*"
status 0 "resize of raw" vhost img resize base.raw +1M
is "grown" "$(stat -c %s base.raw)" 5242880
status 2 "not smaller by accident" vhost img resize base.raw -1M
status 0 "smaller on purpose" vhost img resize base.raw -1M --shrink
is "it is" "$(stat -c %s base.raw)" 4194304
status 0 "resize of a format" vhost img resize opt 32M --json
is "grown" "$(json 'j["disk_bytes"]')" 33554432
status 1 "that cannot shrink" vhost img resize opt 1M --shrink
status 1 "what a format does not have" vhost img snapshot create over s1
like "says so" "$err" "vhost: image $d/over: images of format toy-format have no snapshots of their own"
status 2 "no such action" vhost img snapshot undo over s1
status 2 "a name is missing" vhost img snapshot create over
status 1 "nothing to amend" vhost img amend over -o a=b

# Rebase and commit; their contents are tests/unit/store/test-chain.c's.
status 0 "rebase onto nothing" vhost img rebase over -b '' --json
status 0 "the backing image is gone" vhost img info over --json
is "indeed" "$(json 'j["backing"]')" None
status 0 "and back" vhost img rebase over -b base.raw
status 1 "no loops" vhost img rebase over -b over -F $toy
status 0 "a middle one" vhost img create -f $toy -b over upper
status 1 "no loop over one more" vhost img rebase over -b upper
like "says so" "$err" "*appears twice*"
mv base.raw moved.raw
status 3 "a backing image that was moved" vhost img rebase over -b moved.raw
like "has a remedy" "$err" "*--unsafe*"
status 0 "named anew" vhost img rebase -u over -b moved.raw
status 0 "commit" vhost img commit upper --json
is "says what was done" "$(json '(j["result"], j["emptied"])')" "('committed', True)"
status 0 "and keeping it" vhost img commit -d upper
status 1 "nothing below" vhost img commit moved.raw

# In use: nothing writes, info looks.
coproc HOLD { exec -a pretend-vm python3 -c '
import fcntl, struct, sys
f = open(sys.argv[1], "r+b"); fcntl.fcntl(f, 37, struct.pack("hhqqi4x", 1, 0, 0, 1, 0)); print("held", flush=True); sys.stdin.read()' over; }
read -r _ <&"${HOLD[0]}"
for c in "check over" "map over" "resize over 8M" "rebase over -b moved.raw" "commit over" "commit upper" "snapshot create over x" "info upper --backing-chain --allow $d"; do
	# shellcheck disable=SC2086
	run vhost img $c
	case $c in
	info*) is "in use below: $c" "$rc" 0 ;;
	snapshot*) is "in use: $c" "$([ "$rc" != 0 ] && echo refused)" refused ;;
	*) is "in use: $c" "$rc" 4; like "the holder is named" "$err" "vhost: *in use by pid $HOLD_PID *" ;;
	esac
done
status 0 "info" vhost img info over
like "says that it is in use, and that it took no lease" "$out" "*In use: *yes: read without a lease*"
eval "exec ${HOLD[1]}>&-"; wait "$HOLD_PID" 2>/dev/null

# The twins on volumes.
status 0 "vol create" vhost vol create base --size 2M
status 0 "over it" vhost vol create top -f $toy --backing base
for c in "check top" "map top" "rebase top -b base" "commit top" "info top --backing-chain" "resize top +0"; do
	# shellcheck disable=SC2086
	status 0 "vol $c" vhost vol $c
done
status 1 "vol snapshot" vhost vol snapshot list top
like "by its name" "$err" "vhost: volume default/top: *"

# Letters.
status 2 "a letter that is not there" vhost img check -Z over
status 0 "letters of flags together, values attached" vhost img check -pqf$toy copied
is "-q is quiet" "$out" ""
like "the help shows them" "$(vhost img create --help)" "*-f, --format*-b, --backing*"
like "the manual as well" "$(vhost help man)" "*vhost img rebase*backing*"
finish
