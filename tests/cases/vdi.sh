#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vdi images by the commands: made as QEMU reads them, with options, refused where they lie.
. "$(dirname "$0")/functions.sh"
requires python3
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
pool="$VHOST_ROOT/data/images"

status 0 "create" vhost vol create default/a --size 10M --format vdi
status 0 "again, the same: no error" vhost vol create default/a --size 10M --format vdi
status 0 "info" vhost vol info default/a --json
is "the disk's size is told" "$(json 'j["format"], j["disk_bytes"]')" "('vdi', 10485760)"
status 0 "static, with small blocks" vhost vol create default/s --size 3M --format vdi --format.static=on --format.block-size=64K
status 0 "info" vhost vol info default/s --json
is "all of it is there" "$(json 'j["disk_bytes"], j["bytes"] >= 4 << 20')" "(3145728, True)"
status 0 "reserved" vhost vol create default/p --size 3M --format vdi --preallocation falloc
check "on the file system too" test $(($(stat -c '%b*%B' "$pool/p"))) -ge 3145728
run vhost vol create default/x --size 3M --format vdi --format.block-size=12K
check "no power of two" test "$rc" != 0
check "leaves nothing" test ! -e "$pool/x"
if command -v qemu-img >/dev/null; then
	status 0 "QEMU finds no fault" qemu-img check -f vdi "$pool/a"
	status 0 "and the size" qemu-img info -f vdi --output json "$pool/a"
	is "is ours" "$(json 'j["virtual-size"]')" 10485760
	status 0 "theirs" qemu-img create -q -f vdi "$pool/q" 7M
	status 0 "is recorded" vhost vol set default/q --format vdi
	status 0 "info" vhost vol info default/q --json
	is "and understood" "$(json 'j["disk_bytes"]')" 7340032
else
	skip "QEMU agrees" "qemu-img is not installed"
fi
# The file has no name for its parent: it is recorded beside it, and the UUIDs are compared.
status 0 "a child" vhost img create "$pool/child" --format vdi --backing a --backing-format vdi
status 0 "info" vhost img info "$pool/child" --json
like "tells the parent" "$out" "*\"a\"*"
status 0 "it opens with its parent" vhost img map "$pool/child"
status 0 "info of the whole chain" vhost img info "$pool/child" --backing-chain --json
cp "$pool/child" "$pool/lost" # without what is recorded
status 0 "its format is" vhost vol set default/lost --format vdi
status 1 "a child whose parent nobody knows" vhost img map "$pool/lost"
like "says what to do" "$err" "*does not say which*--backing NAME*"
status 0 "record it" vhost img set "$pool/lost" --backing a
status 0 "it opens" vhost img map "$pool/lost"
status 0 "a clone knows it too" vhost vol clone default/child twin
status 0 "it opens" vhost img map "$pool/twin"
status 0 "rebase" vhost img rebase --unsafe "$pool/lost" --backing a --backing-format vdi
status 0 "it opens" vhost img map "$pool/lost"
status 0 "another parent" vhost vol create default/other --size 10M --format vdi
status 0 "rebase to it" vhost img rebase "$pool/lost" --backing other --backing-format vdi
status 0 "it opens" vhost img map "$pool/lost"
status 0 "to none" vhost img rebase "$pool/lost" --backing ""
status 0 "it opens" vhost img map "$pool/lost"
printf '\1' | dd of="$pool/a" bs=1 seek=408 conv=notrunc status=none # as if it had been written to
status 1 "a parent that was changed" vhost img map "$pool/child"
like "is named as the cause" "$err" "*was changed after this image was made*"
finish
