#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A plugin has one public symbol, its entry; the program has none, so that no plugin can come to depend on one; a plugin needs
# nothing of the program.
. "$(dirname "$0")/functions.sh"
requires nm

# Symbols of libc that the linker copied into the program (stderr@GLIBC...) are not the program's.
symbols() { nm -D --defined-only "$1" | awk '$3 !~ /@GLIBC/ && $3 !~ /^(_init|_fini|_edata|_end|__bss_start)$/ {print $3}'; }

is "the program has no public symbol" "$(symbols "$VHOST" | paste -sd' ')" ""
mapfile -t files < <(find "$BUILDDIR/plugins" "$BUILDDIR/sdk/examples" -name '*.so' 2>/dev/null | sort)
check "there are plugins" test ${#files[@]} -gt 0
for f in "${files[@]}"; do
	name=$(basename "$f")
	is "$name exports its entry alone" "$(symbols "$f" | paste -sd' ')" vh_plugin_entry_v1
	check "$name has an identity note" readelf -nW "$f"
	like "$name: of owner VHOST" "$out" "*VHOST*"
	is "$name needs no symbol of the host" "$(nm -D --undefined-only "$f" | awk '$1 == "U" {print $2}' | grep -E '^vh_' | paste -sd' ')" ""
done
finish
