#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost img on qcow2, with qemu-img as the judge: what ours makes theirs reads, and the other way round; contents by qemu-img alone.
. "$(dirname "$0")/functions.sh"
requires python3 qemu-img qemu-io
vhost plugin info qcow2 >/dev/null 2>&1 || skip_all "the plugin qcow2 is not built"
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
mkdir "$tmp/d"; cd "$tmp/d" || exit 1
io() { local f=$1; shift; local a=(); for c; do a+=(-c "$c"); done; qemu-io -f qcow2 "${a[@]}" "$f" >/dev/null; }
# sum FILE [FORMAT]: of the disk's contents, as QEMU reads them
sum() { qemu-img convert -f "${2:-qcow2}" -O raw "$1" "$tmp/sum" && sha256sum <"$tmp/sum" | cut -c1-16; }
sound() { check "$1: sound for QEMU" qemu-img check -q -f qcow2 "$2"; check "$1: sound for us" vhost img check -q -f qcow2 "$2"; }

# Making: every flavour is sound for QEMU, and is what was asked for.
while read -r name opts want; do
	status 0 "create $name" vhost img create -f qcow2 ${opts:+-o "$opts"} "c-$name" 33M
	check "$name: sound for QEMU" qemu-img check -q -f qcow2 "c-$name"
	check "$name: as asked" python3 -c 'import json,subprocess,sys
j = json.loads(subprocess.run(["qemu-img", "info", "--output=json", sys.argv[1]], stdout=subprocess.PIPE, check=True).stdout)
d = j["format-specific"]["data"]; d["cs"] = j["cluster-size"]; assert j["virtual-size"] == 33 << 20, j
for w in sys.argv[2].split(","):
    k, v = w.split("=")
    assert str(d[k]) == v, (k, d)' "c-$name" "$want"
done <<'E'
plain cluster_size=64K compat=1.1
v2 compat=0.10 compat=0.10
small cluster_size=512 cs=512
large cluster_size=2M cs=2097152
one-bit refcount_bits=1 refcount-bits=1
wide refcount_bits=64 refcount-bits=64
subclusters extended_l2=on,cluster_size=128K extended-l2=True
lazy lazy_refcounts=on lazy-refcounts=True
zstd compression_type=zstd compression-type=zstd
meta preallocation=metadata compat=1.1
full preallocation=full compat=1.1
E
status 0 "preallocated metadata leaves holes" test "$(stat -c %b c-meta)" -lt 4000
status 0 "full does not" test "$(stat -c %b c-full)" -ge 67584
status 1 "what a format cannot" vhost img create -f qcow2 -o cluster_size=3K x 1M
check "leaves nothing" test ! -e x

# A data file of its own.
status 0 "with a data file" vhost img create -f qcow2 -o data_file=d.data,data_file_raw=on withdata 8M
check "is there, and sound" qemu-img check -q -f qcow2 withdata
check "as large as the disk" test "$(stat -c %s d.data)" = 8388608
io withdata 'write -P 5 1M 1M'
is "the data goes there" "$(sum d.data raw)" "$(sum withdata)"
status 0 "info" vhost img info withdata --json
is "names it" "$(json 'j["data_files"]')" "['d.data']"
status 0 "map" vhost img map withdata --json -s 1M -l 1M
is "says where" "$(json '(j["file"].rsplit("/", 1)[1], j["file_offset"])')" "('d.data', 1048576)"
status 4 "a data file of others' is not taken" vhost img create -f qcow2 -o data_file=d.data other 8M
check "nor harmed" test "$(sum d.data raw)" = "$(sum withdata)"
check "and nothing is left" test ! -e other
status 0 "in a pool" vhost vol create two --size 4M --format qcow2 --format.data-file two.data
status 1 "a clone would share it" vhost vol clone two three
status 0 "delete" vhost vol delete two
check "takes it with it" test -z "$(ls -A "$VHOST_ROOT/data/images")"
# Killed at any moment while it is made: made anew.
for ms in 1 3 5 8 12 20 30; do
	timeout -s KILL 0.0$(printf %02d $ms) "$VHOST" img create -q -f qcow2 -o data_file=k.data killed 64M >/dev/null 2>&1
	run vhost img create -f qcow2 -o data_file=k.data killed 64M
	[ "$rc" = 0 ] || break
	qemu-img check -q -f qcow2 killed && [ -e k.data ] || { rc=99; break; }
	vhost vol list >/dev/null
	rm -f killed k.data
done
is "killed while it is made, and made again" "$rc" 0

# Chains that QEMU made, of all sizes, in all flavours; rebase and commit judged by their contents.
n_chain=0
chain() { # BASE-SIZE TOP-SIZE OPTIONS...
	n_chain=$((n_chain + 1)); rm -f base other mid top
	qemu-img create -q -f qcow2 base "$1"; qemu-img create -q -f qcow2 ${4:+-o "$4"} other "$3"
	qemu-img create -q -f qcow2 -b base -F qcow2 mid "$1"; qemu-img create -q -f qcow2 -b mid -F qcow2 ${4:+-o "$4"} top "$2"
	python3 - "$n_chain" "$1" "$2" "$3" <<'P'
import random, subprocess, sys
r = random.Random(int(sys.argv[1]))
m = lambda s: int(s[:-1]) << 20
for f, size in (("base", m(sys.argv[2])), ("mid", m(sys.argv[2])), ("top", m(sys.argv[3])), ("other", m(sys.argv[4]))):
    c = []
    for _ in range(14):
        off = r.randrange(0, size // 512) * 512
        n = min(size - off, r.choice((512, 4096, 65536, 100 * 512, 300000 // 512 * 512)))
        c += ["-c", r.choice(("write -P %d %d %d" % (r.randrange(1, 256), off, n), "write -z %d %d" % (off, n), "write -P %d %d %d" % (r.randrange(1, 256), off, n)))]
    subprocess.run(["qemu-io", "-f", "qcow2"] + c + [f], stdout=subprocess.DEVNULL, check=True)
P
}
for s in "8M 8M 8M" "5M 9M 12M" "9M 5M 3M" "3M 9M 9M cluster_size=4K" "8M 8M 8M extended_l2=on,cluster_size=32K" "6M 7M 9M compat=0.10"; do
	# shellcheck disable=SC2086
	chain $s
	before=$(sum top)
	run vhost img rebase -f qcow2 top -b other -F qcow2 --json
	is "$s: rebase" "$rc" 0
	is "$s: same contents over another image" "$(sum top)" "$before"
	is "$s: which is the backing image" "$(qemu-img info --output=json top | python3 -c 'import json,sys; j=json.load(sys.stdin); print(j["backing-filename"], j["backing-filename-format"])')" "other qcow2"
	sound "$s: after rebase" top
	# shellcheck disable=SC2086
	chain $s
	before=$(sum top)
	run vhost img rebase -f qcow2 top -b ''
	is "$s: same contents over none" "$rc $(sum top)" "0 $before"
	# shellcheck disable=SC2086
	chain $s
	before=$(sum top)
	qemu-img convert -f qcow2 -O raw top want.raw
	run vhost img commit -f qcow2 top --json
	is "$s: commit" "$rc $(json 'j["emptied"]')" "0 True"
	is "$s: same contents above" "$(sum top)" "$before"
	qemu-img convert -f qcow2 -O raw mid got.raw
	check "$s: same contents below" cmp -n "$(stat -c %s want.raw)" want.raw got.raw
	is "$s: nothing of its own is left" "$(qemu-img map --output=json top | python3 -c 'import json,sys; print([e for e in json.load(sys.stdin) if e["depth"] == 0 and e["data"]])')" "[]"
	sound "$s: after commit, top" top; sound "$s: after commit, mid" mid
done
# The same map as theirs.
chain 8M 9M 8M
qemu-img map --output=json top >their.json; vhost img map -f qcow2 top --holes off --json >our.json
check "map says what qemu-img map says" python3 -c '
import json
def runs(l):
    out = []
    for off, n, data, depth in l:
        if out and out[-1][2:] == [data, depth if data else None] and out[-1][0] + out[-1][1] == off: out[-1][1] += n
        else: out.append([off, n, data, depth if data else None])
    return out
a = runs([(e["start"], e["length"], not e["zero"] and e["data"], e["depth"]) for e in json.load(open("their.json"))])
b = runs([(e["offset"], e["bytes"], e["kind"] != "zero", e["depth"]) for e in map(json.loads, open("our.json"))])
assert a == b, (a, b)'

# Snapshots, made and applied in turns.
qemu-img create -q -f qcow2 snap 16M
io snap 'write -P 1 0 4M' 'write -P 2 6M 1M'
s1=$(sum snap); status 0 "snapshot create" vhost img snapshot create -f qcow2 snap one
io snap 'write -P 3 2M 5M'; s2=$(sum snap); qemu-img snapshot -c two snap
status 0 "ours and theirs are listed" vhost img snapshot list -f qcow2 snap --json
is "both" "$(json '[(s["name"], s["disk_bytes"]) for s in j["snapshots"]]')" "[('one', 16777216), ('two', 16777216)]"
io snap 'write -P 4 0 16M'
status 0 "apply ours" vhost img snapshot apply -f qcow2 snap one
is "is what it was" "$(sum snap)" "$s1"
status 0 "apply theirs" vhost img snapshot apply -f qcow2 snap two
is "is what it was" "$(sum snap)" "$s2"
qemu-img snapshot -a one snap; is "theirs applies ours" "$(sum snap)" "$s1"
status 0 "delete theirs" vhost img snapshot delete -f qcow2 snap two
qemu-img snapshot -d one snap
sound "without snapshots" snap
run vhost img snapshot apply -f qcow2 snap one
is "one that is gone" "$rc" 3
is "contents as before" "$(sum snap)" "$s1"

# Damage: told from leaks, and mended.
qemu-img create -q -f qcow2 -o compat=1.1 bad 16M; io bad 'write -P 1 0 1M'
cp bad leaky
python3 - leaky bad <<'P'
import struct, sys
def be(f, off, fmt): f.seek(off); return struct.unpack(">" + fmt, f.read(struct.calcsize(fmt)))[0]
for name, what in zip(sys.argv[1:], ("leak", "corrupt")):
    with open(name, "r+b") as f:
        table = be(f, 48, "Q"); block = be(f, table, "Q"); l1 = be(f, 40, "Q"); l2 = be(f, l1, "Q") & 0x00fffffffffffe00
        if what == "leak": # a cluster that nobody refers to
            f.seek(0, 2); end = f.tell() // 65536; f.truncate((end + 1) * 65536)
            f.seek(block + 2 * end); f.write(struct.pack(">H", 1))
        else:              # one that is used and counts as free
            c = (be(f, l2, "Q") & 0x00fffffffffffe00) // 65536
            f.seek(block + 2 * c); f.write(struct.pack(">H", 0))
P
before=$(sum bad)
status 13 "leaks" vhost img check -f qcow2 leaky --json
is "are counted" "$(json '(j["result"], j["leaks"], j["corruptions"])')" "('leaks', 1, 0)"
status 12 "damage" vhost img check -f qcow2 bad --json
is "is counted" "$(json '(j["result"], j["corruptions"] > 0)')" "('damaged', True)"
status 12 "mending leaks leaves damage" vhost img check -f qcow2 bad -r leaks
status 0 "leaks are mended" vhost img check -f qcow2 leaky -r leaks --json
is "which is said" "$(json '(j["result"], j["fixed"] > 0)')" "('clean', True)"
status 0 "damage is mended" vhost img check -f qcow2 bad -r all
sound "mended, leaky" leaky; sound "mended, bad" bad
is "contents as before" "$(sum bad)" "$before"

# Amend.
qemu-img create -q -f qcow2 -o compat=1.1 amended 8M; io amended 'write -P 9 1M 1M'; before=$(sum amended)
status 0 "amend" vhost img amend -f qcow2 amended -o lazy_refcounts=on
like "is so for QEMU" "$(qemu-img info amended)" "*lazy refcounts: true*"
is "contents as before" "$(sum amended)" "$before"
status 2 "what cannot be amended" vhost img amend -f qcow2 amended -o cluster_size=4K
sound "amended" amended

# Hostile names.
for name in /etc/passwd ../../../../../../etc/passwd nbd:localhost:1 'json:{"driver":"file","filename":"/etc/passwd"}'; do
	rm -f evil; qemu-img create -q -f qcow2 -u -b "$name" -F raw evil 1M
	status 1 "refused: $name" vhost img info -f qcow2 evil --backing-chain
	like "and named" "$err" "*${name%%[[\{]*}*"
	status 0 "info alone tells the name" vhost img info -f qcow2 evil
	status 1 "map as well" vhost img map -f qcow2 evil
done
rm -f evil; qemu-img create -q -f raw ext 1M; qemu-img create -q -f qcow2 -o data_file=ext evil 1M
python3 - evil <<'P'
import sys
b = open(sys.argv[1], "rb").read(); i = b.index(b"ext\0")
open(sys.argv[1], "r+b").write(b.replace(b"ext\0", b"/d2\0"))
P
status 1 "a data file outside" vhost img info -f qcow2 evil --backing-chain
if vhost plugin info vdi >/dev/null 2>&1; then
	qemu-img create -q -f qcow2 poly 1M; printf '\x7f\x10\xda\xbe\x01\x00\x01\x00' | dd of=poly bs=1 seek=64 conv=notrunc status=none
	status 0 "a file that is two formats" vhost img probe poly --json
	is "is told as both" "$(json '(j["format"], j["ambiguous"], sorted(f["format"] for f in j["formats"]))')" "(None, True, ['qcow2', 'raw', 'vdi'])"
	status 1 "and info takes neither" vhost img info poly
	like "naming both" "$err" "*valid as qcow2 and as vdi*--format*"
	status 1 "info of what cannot be opened fails" vhost img info -f vdi poly
fi
finish
