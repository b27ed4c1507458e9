#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# snapshot.sh check|update LIBRARY SDK: compares the ABI in LIBRARY's debug information with SDK/abi/v1.abixml, or writes it.
set -u
lib=$2 sdk=$3 want=$3/abi/v1.abixml
draft() { sed -n 's/^#define VH_ABI_DRAFT \([0-9]*\)u$/\1/p' "$sdk/include/vhost/abi.h"; }
case $1 in
update)
	command -v abidw >/dev/null || { echo "abidw is missing: install abigail-tools" >&2; exit 1; }
	abidw --no-corpus-path --no-comp-dir-path --short-locs --no-show-locs "$lib" >"$want.new" &&
		mv "$want.new" "$want" && draft >"$sdk/abi/v1.draft"
	exit
	;;
esac
command -v abidiff >/dev/null || { echo "skipped: abidiff is missing (package abigail-tools)"; exit 77; }
# Bit 0: it could not run; bit 1: usage; bit 2: the ABI changed; bit 3: incompatibly.
abidiff --suppressions "$sdk/abi/suppressions" "$want" "$lib"
rc=$?
[ $((rc & 3)) = 0 ] || exit 1
[ $rc = 0 ] && exit 0
if [ "$(draft)" != 0 ]; then
	echo "The ABI differs from the snapshot of draft $(cat "$sdk/abi/v1.draft")."
	echo "Raise VH_ABI_DRAFT in vhost/abi.h, then write the snapshot: ninja -C build abi-update"
else
	echo "Members at the end of a struct: raise VH_ABI_MINOR and write the snapshot (ninja -C build abi-update)."
	echo "Anything else breaks plugins: undo it, or give it a new interface id (docs/abi.md)."
fi
exit 1
