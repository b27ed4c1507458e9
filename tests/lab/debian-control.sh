#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A running Debian guest: balloon, pause, reboot, power button, stop, kill; and how `vhost run` ends.
. "$(dirname "$0")/../cases/functions.sh"
requires_root
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"
. "$(dirname "$0")/guests.bash"
store=/mnt/scratch/$$
mkdir -p "$store" 2>/dev/null && [ -d /mnt/scratch/lost+found ] || store=$tmp
fresh() { vhost vol delete "lab/$1" >/dev/null 2>&1; vhost vol create "lab/$1" --size "$2" --format raw >/dev/null; }

vhost pool define lab --type dir --path "$store/pool" --make >/dev/null

free_kib() { log balloon | sed -n 's/^guest: memory .*MemFree:\([0-9]*\).*/\1/p' | tail -n 1; }
below() { [ "$(free_kib)" -lt "$1" ]; }
above() { [ "$(free_kib)" -gt "$1" ]; }
until_true() { local i; for ((i = 0; i < 150; i++)); do "$@" && return 0; sleep 0.2; done; return 1; }
start balloon balloon --cpus 1 --memory 512M --balloon
await balloon 'guest: memory'
full=$(free_kib)
check "the balloon is inflated by command" vhost vm balloon balloon 256M
check "the guest has less memory ($full KiB free before)" until_true below $((full - 150000))
check "the balloon is deflated" vhost vm balloon balloon 512M
check "the guest has it back" until_true above $((full - 60000))
check "the guest is paused" vhost vm pause balloon
lines=$(log balloon | wc -l); sleep 2
is "and says nothing meanwhile" "$(log balloon | wc -l)" "$lines"
check "it is resumed" vhost vm resume balloon
more() { [ "$(log balloon | wc -l)" -gt "$lines" ]; }
check "and goes on" until_true more
check "it is killed by command" vhost vm kill balloon
ends balloon
is "which is an end with status 0" "$rc" 0

# ---- reboot, power button, exit statuses ----
fresh boot 16M
start reboot reboot --cpus 2 --memory 256M --disk lab/boot
good reboot "a guest resets itself and boots again in the same process"
like "with its disk as it was" "$(log reboot)" "*guest: resets itself*guest: second boot*"
fresh boot 16M
start exits reboot --cpus 1 --memory 256M --disk lab/boot --on-reboot exit
ends exits
is "--on-reboot exit ends it with status 10" "$rc" 10
start button button --cpus 1 --memory 256M
await button 'guest: waits for the power button'
kill -TERM "$(vm_pid)"
good button "SIGTERM presses the power button"
like "as the guest saw" "$(log button)" "*guest: power button pressed*"
start stop button --cpus 1 --memory 256M
await stop 'guest: waits for the power button'
like "a running guest is listed" "$(vhost vm list)" "*stop*"
check "vm stop presses it as well" vhost vm stop stop
good stop "and the guest ends"
start term hang --cpus 1 --memory 256M
await term 'guest: hangs'
pid=$(vm_pid)
kill -TERM "$pid"; sleep 1; kill -TERM "$pid"
ends term
is "a second SIGTERM ends a guest that does not listen" "$rc" 0
few_complaints
finish
