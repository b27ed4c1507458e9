#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Every flavour of vdi that qemu-img can make, out of a small raw disk: vdi.sh list | vdi.sh FLAVOUR RAW OUT
set -eu
case "$1" in
list) echo dynamic static static-full empty ;;
dynamic) qemu-img convert -f raw -O vdi "$2" "$3" ;;
static) qemu-img convert -f raw -O vdi -o static=on "$2" "$3" ;;
static-full) qemu-img convert -f raw -O vdi -o static=on,preallocation=full "$2" "$3" ;;
empty) qemu-img create -q -f vdi "$3" "$(stat -c %s "$2")" ;;
*) echo "vdi.sh: no flavour $1" >&2; exit 2 ;;
esac
