#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost vol list of 10,000 volumes: what it costs is counted, not timed (system calls, by strace), and what it shows is right.
. "$(dirname "$0")/functions.sh"
requires python3 strace
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" # which does not work under strace
strace -o /dev/null true 2>/dev/null || skip_all "strace may not trace here"
vh() { "$VHOST" --plugin "$SHELF" "$@"; }
mkdir "$tmp/d" "$tmp/s"
vh pool define d --path "$tmp/d" >/dev/null
vh pool define s --type shelf --path "$tmp/s" >/dev/null
many=10000
python3 - "$tmp" $many <<'PY'
import os, sys
root, n = sys.argv[1], int(sys.argv[2])
os.makedirs(f'{root}/root/data/volumes')
with open(f'{root}/root/data/volumes/s.conf', 'w') as out:
    for i in range(n):
        for p in 'ds':
            f = f'{root}/{p}/vol-{i:05d}'
            fd = os.open(f, os.O_CREAT | os.O_RDWR, 0o600)
            os.ftruncate(fd, (i + 1) * 4096)
            if p == 'd':
                try: os.setxattr(f, 'user.vhost.format', b'raw')
                except OSError: open(f'{root}/d/.noattr', 'w')
            st = os.fstat(fd)
            os.close(fd)
        out.write(f'[vol-{i:05d} shelf:{st.st_dev}:{st.st_ino}]\nformat=raw\n\n')
PY
for p in d s; do
	strace -f -c -o "$tmp/$p.count" -- "$VHOST" --plugin "$SHELF" vol list $p --json >"$tmp/$p.json" || not_ok "$p: list"
	check "$p: all of them, in order, with size and format" python3 - "$tmp/$p.json" $many "$([ -e "$tmp/d/.noattr" ] && echo skip)" <<'PY'
import json, sys
v = json.load(open(sys.argv[1]))["volumes"]
assert [x["name"] for x in v] == [f"vol-{i:05d}" for i in range(int(sys.argv[2]))]
assert all(x["bytes"] == (i + 1) * 4096 for i, x in enumerate(v))
assert sys.argv[3] or all(x["format"] == "raw" for x in v), v[0]
PY
	calls=$(awk '$NF == "total" { print $4 }' "$tmp/$p.count")
	check "$p: few system calls for each ($calls in all)" test "$calls" -gt $many -a "$calls" -lt $((many * 12))
done
run bash -c 'strace -f -e trace=openat "$VHOST" --plugin "$SHELF" vol list s 2>&1 >/dev/null | grep -c "volumes/s.conf"'
is "the host's records are read once" "$out" 1
is "a table has a line for each" "$(vh vol list d | wc -l)" $((many + 1))
finish
