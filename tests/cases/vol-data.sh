#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost vol upload and download: exact bytes, holes kept, pipes, cancelling.
. "$(dirname "$0")/functions.sh"
requires python3
pool="$VHOST_ROOT/data/images"
blocks() { stat -c %b "$1"; }

# 64 MiB with data at 0, at 30 MiB and in the odd end; the rest holes.
f="$tmp/sparse"
truncate -s $(((64 << 20) + 1234)) "$f"
head -c 100000 /dev/urandom | dd of="$f" conv=notrunc status=none
head -c 300000 /dev/urandom | dd of="$f" bs=1M seek=30 conv=notrunc status=none
head -c 1000 /dev/urandom | dd of="$f" bs=1 seek=$(((64 << 20) + 200)) conv=notrunc status=none

status 2 "--create needs --format" vhost vol upload v "$f" --create
status 0 "upload --create" vhost vol upload v "$f" --create --format raw
check "exact bytes" cmp "$f" "$pool/v"
check "holes kept" test "$(blocks "$pool/v")" -le $(($(blocks "$f") + 512))
status 4 "--create does not overwrite" vhost vol upload v "$f" --create --format raw
status 0 "download" vhost vol download v "$tmp/out"
check "exact bytes" cmp "$f" "$tmp/out"
check "holes kept" test "$(blocks "$tmp/out")" -le $(($(blocks "$f") + 512))
status 4 "an existing file is not overwritten" vhost vol download v "$tmp/out"
head -c 90000000 /dev/urandom >"$tmp/out"
status 0 "but with --force" vhost vol download v "$tmp/out" --force
check "wholly" cmp "$f" "$tmp/out"
check "to a pipe" bash -c '"$VHOST" vol download v - | cmp - "$0"' "$f"
check "to a redirected file" bash -c '"$VHOST" vol download v - >"$1"; cmp "$0" "$1" && [ "$(stat -c %b "$1")" -lt 20000 ]' "$f" "$tmp/redirected"
check "appended to a file" bash -c 'printf abc >"$1"; "$VHOST" vol download v - >>"$1"; tail -c +4 "$1" | cmp - "$0"' "$f" "$tmp/appended"
check "into the middle of a file" bash -c 'head -c 80000000 /dev/zero | tr "\0" x >"$1"; { dd bs=5 count=1 status=none >/dev/null <"$1"; "$VHOST" vol download v - >&3; } 3<>"$1"; head -c $(stat -c %s "$0") "$1" | cmp - "$0"' "$f" "$tmp/middle"

# Uploading over old contents: what the file does not have becomes zeros.
head -c $(((64 << 20) + 1234)) /dev/urandom | tr '\0' x >"$pool/old"; vhost vol set old --format raw >/dev/null
status 0 "upload over old data" vhost vol upload old "$f"
check "holes became zeros" cmp "$f" "$pool/old"
check "as holes" test "$(blocks "$pool/old")" -le $(($(blocks "$f") + 2048))
printf hello >"$tmp/short"
status 0 "a shorter file" vhost vol upload old "$tmp/short"
check "zeros to the end" bash -c '{ cat "$1"; head -c $(($(stat -c %s "$0") - 5)) /dev/zero; } | cmp - "$0"' "$pool/old" "$tmp/short"
check "from a pipe" bash -c 'cat "$0" | "$VHOST" vol upload old -' "$f"
check "exact bytes" cmp "$f" "$pool/old"
vhost vol create small --size 1M >/dev/null
status 1 "a file that does not fit is refused" vhost vol upload small "$f"
like "with the remedy" "$err" "vhost: volume default/small: *larger than*[(]*resize*)"
check "from a pipe as well" bash -c '! "$VHOST" vol upload small - <"$0" 2>/dev/null && ! cat "$0" | "$VHOST" vol upload small - 2>/dev/null' "$f"
status 3 "a file that is not there" vhost vol upload small "$tmp/nothing"
status 3 "a volume that is not there" vhost vol upload nothing "$f"
status 1 "a folder as target" vhost vol download v "$tmp" --force
status 1 "the volume onto itself" vhost vol download v "$pool/v" --force
check "is not harmed" cmp "$f" "$pool/v"
if [ -w /dev/full ]; then status 1 "a full target" vhost vol download v /dev/full --force; fi

# Cancelled: nothing of the target stays, the lease is gone.
mkfifo "$tmp/slow"
"$VHOST" vol upload big "$tmp/slow" --create --format raw >/dev/null 2>&1 </dev/null &
p=$!; sleep 0.2; exec 8>"$tmp/slow"; exec 8>&-; wait $p
check "--create wants a file of known size" test ! -e "$pool/big"
vhost vol create big --size 65M --preallocation full >/dev/null
exec 7<>"$tmp/slow" # no input ever comes
"$VHOST" vol upload big - <&7 >/dev/null 2>&1 &
p=$!; sleep 0.4; status 4 "while it waits for input it holds the lease" vhost vol delete big
kill -9 $p; wait $p 2>/dev/null; exec 7>&-
status 0 "killed in the middle: the lease is gone" vhost vol upload big "$f" --json
cat >"$tmp/cancel.py" <<'PY'
import os, signal, subprocess, sys, time
vhost, src, dst = sys.argv[1:4]
# Cloned between pools it is read and written by vhost itself: slow enough to be met, else the end is accepted.
for delay in (0.02, 0.05, 0.1, 0.2, 0.01):
    p = subprocess.Popen([vhost, "vol", "clone", src, dst], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(delay)
    p.send_signal(signal.SIGINT)
    err = p.communicate()[1].decode()
    if "cancelled" in err:
        print("cancelled", p.returncode)
        break
    subprocess.run([vhost, "vol", "delete", dst], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
else:
    print("never met")
PY
mkdir "$tmp/p2"; vhost pool define p2 --path "$tmp/p2" >/dev/null
head -c 150000000 /dev/urandom >"$pool/huge"; vhost vol set huge --format raw >/dev/null
run python3 "$tmp/cancel.py" "$VHOST" huge p2/huge
if [ "$out" = "never met" ]; then skip "Ctrl-C in the middle of a copy" "it was over too early on this machine"
else is "Ctrl-C cancels a copy" "$out" "cancelled 1"; fi
check "nothing of it stays" test -z "$(ls -A "$tmp/p2")"
finish
