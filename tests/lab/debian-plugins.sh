#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Every part is a plugin: `vhost run` without one of them, and with a vendor's.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
. "$(dirname "$0")/guests.bash"
store=/mnt/scratch/$$
mkdir -p "$store" 2>/dev/null && [ -d /mnt/scratch/lost+found ] || store=$tmp
fresh() { vhost vol delete "lab/$1" >/dev/null 2>&1; vhost vol create "lab/$1" --size "$2" --format raw >/dev/null; }

vhost pool define lab --type dir --path "$store/pool" --make >/dev/null

vhost vol create lab/disk --size 64M --format raw >/dev/null
for missing in storage/dir formats/raw net/bridge; do
	name=${missing#*/}
	path=$(tr : '\n' <<<"$VHOST_PLUGIN_PATH" | grep -v "/$missing\$" | paste -sd:)
	VHOST_PLUGIN_PATH=$path timeout 60 "$VHOST" run --name without --kernel "$GUEST_CLOUD/vmlinuz" --initrd "$GUEST_CLOUD/initrd" \
		--cmdline "console=ttyS0 vhost.job=disk" --disk lab/disk --net type=bridge,name=labbr1,create=on --serial null \
		>"$tmp/.out" 2>"$tmp/.err" </dev/null
	rc=$? out='' err=$(<"$tmp/.err")
	is "without $name.so the exit status is 6" "$rc" 6
	like "and the message names $name" "$err" "vhost: *$name*"
done
ip link del labbr1 2>/dev/null

# ---- a plugin from elsewhere ----
if [ -n "${VENDOR_PLUGIN:-}" ] && [ -e "$VENDOR_PLUGIN" ]; then
	path=$(tr : '\n' <<<"$VHOST_PLUGIN_PATH" | grep -v /sdk/ | paste -sd:) # our own build of it must not be found
	VHOST_PLUGIN_PATH=$path start vendor disk --cpus 1 --memory 256M --plugin "$VENDOR_PLUGIN" \
		--disk type=ram,volume=scratch,pool.size=64M,format=raw
	good vendor "a plugin that was built against the installed headers alone serves a disk"
	VHOST_PLUGIN_PATH=$path status 6 "which is not there without --plugin" vhost run --name vendor --kernel "$GUEST_CLOUD/vmlinux" \
		--disk type=ram,volume=scratch,format=raw --serial null
else
	not_ok "a plugin that was built against the installed headers alone serves a disk (tests/lab/prepare built none)"
fi
few_complaints
finish
