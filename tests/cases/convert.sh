#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost img convert, compare, dd, measure, bench and their twins: the same bytes, holes kept, nothing left behind.
. "$(dirname "$0")/functions.sh"
requires python3
mkdir "$tmp/d"; cd "$tmp/d" || exit 1
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$out" "$1"; }
blocks() { stat -c %b "$1"; }
formats=(toy-format)
for f in qcow2 vmdk vdi; do [ -e "$BUILDDIR/plugins/formats/$f/$f.so" ] && formats+=("$f"); done
qemu() { # FORMAT of ours: has qemu-img it?
	command -v qemu-img >/dev/null && [ "$1" != toy-format ]
}

# A disk of holes, data, zeros that are written out, and an end that is no whole sector.
python3 - <<'P'
import random
r = random.Random(7)
with open("s.raw", "wb") as f:
    f.truncate((40 << 20) + 777)
    for i in range(24):
        f.seek(r.randrange(0, 40 << 20) & ~4095)
        f.write(r.randbytes(r.choice([512, 4096, 70000, 300000])))
    f.seek(20 << 20)
    f.write(bytes(2 << 20))
    f.seek((40 << 20) + 700)
    f.write(b"the end")
P
cp --sparse=never s.raw full.raw
truncate -s %512 s.raw full.raw
want=$(sha256sum <s.raw)
same() { [ "$(sha256sum <"$1")" = "$want" ]; }

status 0 "raw to raw" vhost img convert -f raw s.raw r.raw
check "the same bytes" same r.raw
check "no more space than the source" test "$(blocks r.raw)" -le "$(($(blocks s.raw) + 8))"
status 0 "zeros that are written out become holes" vhost img convert -f raw full.raw r2.raw
check "the same bytes" same r2.raw
check "less than half of the source's space" test "$(($(blocks r2.raw) * 2))" -lt "$(blocks full.raw)"
status 0 "but with --sparse 0" vhost img convert -f raw s.raw r3.raw --sparse 0
check "the same bytes" same r3.raw
check "all of it is allocated" test "$(blocks r3.raw)" -ge "$(($(stat -c %s s.raw) / 512))"
status 4 "a file that is there stays" vhost img convert -f raw s.raw r3.raw
status 0 "and is replaced with --force" vhost img convert -f raw s.raw r3.raw --force
check "by the new one" test "$(blocks r3.raw)" -lt "$(blocks full.raw)"

for f in "${formats[@]}"; do
	status 0 "$f: from raw" vhost img convert -f raw s.raw -O "$f" "a.$f" --json
	is "$f: the counts make up the disk" "$(json 'j["written"]+j["zero"]+j["shared"]==j["disk_bytes"]')" True
	vhost img convert "a.$f" - >p.raw
	check "$f: through a pipe" same p.raw
	status 0 "$f: to raw" vhost img convert "a.$f" b.raw --force
	check "$f: the same bytes" same b.raw
	check "$f: holes are kept" test "$(blocks b.raw)" -le "$(($(blocks s.raw) * 3 / 2 + 64))"
	status 0 "$f: to itself" vhost img convert "a.$f" -O "$f" "c.$f"
	status 0 "$f: compares as the same" vhost img compare "a.$f" "c.$f"
	if vhost img check --help >/dev/null 2>&1; then status 0 "$f: is sound" vhost img check "c.$f"; fi
	vhost img convert -f raw s.raw -O "$f" - >piped.img
	status 0 "$f: into a pipe" vhost img compare -f "$f" piped.img "a.$f"
	if qemu "$f"; then
		check "$f: qemu-img reads it" qemu-img convert -f "$f" -O raw "a.$f" q.raw
		check "$f: the same bytes" same q.raw
		check "$f: qemu-img finds no difference" qemu-img compare -f raw -F "$f" s.raw "a.$f"
		qemu-img convert -f raw -O "$f" s.raw "q.$f"
		status 0 "$f: what qemu-img made" vhost img convert -f "$f" "q.$f" b.raw --force
		check "$f: the same bytes" same b.raw
		q=$(blocks "q.$f") o=$(blocks "a.$f")
		check "$f: about the space of qemu-img's ($o blocks against $q)" test "$o" -le "$((q * 11 / 10 + 1024))"
	fi
done

# Pipes.
check "from a pipe" bash -c "cat s.raw | $VHOST img convert --size $(stat -c %s s.raw) - i.raw"
check "the same bytes" same i.raw
check "holes are found" test "$(blocks i.raw)" -le "$(($(blocks s.raw) + 64))"
status 2 "a pipe does not tell its size" bash -c "cat s.raw | $VHOST img convert - j.raw"
check "nothing is there" test ! -e j.raw
status 1 "more comes than there is room" bash -c "cat s.raw | $VHOST img convert --size 1M - j.raw"
like "says so" "$err" "*more comes*"
check "nothing is there" test ! -e j.raw
check "less comes" bash -c "head -c 5000000 s.raw | $VHOST img convert --size 8M - less.raw"
check "the rest is zeros" bash -c "cmp <(head -c 5000000 s.raw; head -c $((8 * 1048576 - 5000000)) /dev/zero) less.raw"
status 1 "a reader that goes is an error" bash -c "set -o pipefail; $VHOST img convert -f raw full.raw - | head -c 100 >/dev/null"

# Into what is there.
head -c 45M /dev/urandom >old.raw; cp old.raw before.raw
status 0 "into an existing target" vhost img convert -n -f raw s.raw -O raw old.raw
check "the disk, and what lies behind it as it was" bash -c "cmp <(cat s.raw; tail -c +$(($(stat -c %s s.raw) + 1)) before.raw) old.raw"
truncate -s 1M small.raw
status 1 "not into a smaller one" vhost img convert -n -f raw s.raw -O raw small.raw
like "says what can be done" "$err" "*larger*"

# Onto a backing image.
cp s.raw changed.raw
printf 'changed' | dd of=changed.raw bs=1 seek=$((10 << 20)) conv=notrunc status=none
dd if=/dev/zero of=changed.raw bs=64K seek=40 count=3 conv=notrunc status=none
status 0 "only what differs from the backing image" vhost img convert -f raw changed.raw -O toy-format -B a.toy-format over.toy --json
is "nearly all of it is the same" "$(json 'j["same"] > j["disk_bytes"] * 9 // 10')" True
check "a small file" test "$(blocks over.toy)" -lt 2000
status 0 "the changed disk" vhost img compare -F raw over.toy changed.raw
status 0 "an overlay over the same backing image" vhost img convert over.toy -O toy-format -B a.toy-format over2.toy --json
is "what both share is not even read" "$(json 'j["written"] + j["zero"] < 2 << 20')" True
status 0 "the changed disk" vhost img compare over.toy over2.toy
status 2 "raw has no backing image" vhost img convert -f raw s.raw -B a.toy-format no.raw

# Compare.
cp s.raw d.raw; printf 'x' | dd of=d.raw bs=1 seek=30000001 conv=notrunc status=none
status 1 "a difference" vhost img compare -f raw -F raw s.raw d.raw --json
is "where it is" "$(json '(j["same"], j["differs_in"], j["at"])')" "(False, 'content', 30000001)"
cp s.raw l.raw; truncate -s +5M l.raw
status 0 "a longer disk whose rest is zeros" vhost img compare -f raw -F raw s.raw l.raw
status 1 "is another one with --strict" vhost img compare -s -f raw -F raw l.raw s.raw
printf 'x' | dd of=l.raw bs=1 seek=$(($(stat -c %s l.raw) - 1)) conv=notrunc status=none
status 1 "a longer disk whose rest is not zeros" vhost img compare -f raw -F raw l.raw s.raw --json
is "where it is" "$(json 'j["at"]')" "$(($(stat -c %s l.raw) - 1))"
status 1 "strict: allocation counts" vhost img compare -s -f raw s.raw a.toy-format
status 3 "a missing file is no difference" vhost img compare -f raw -F raw s.raw nothing
echo junk >junk.toy
status 4 "a failure is no difference" vhost img compare -f toy-format -F raw junk.toy s.raw

# A part of a disk, measuring, benchmarks.
status 0 "dd" vhost img dd -f raw s.raw part.raw --block-size 1M --skip 3 --count 5
check "the part" bash -c "cmp <(dd if=s.raw bs=1M skip=3 count=5 status=none) part.raw"
status 0 "dd past the end" vhost img dd -f raw s.raw part.raw --force --block-size 1M --skip 39 --count 5
check "is what is left" bash -c "cmp <(dd if=s.raw bs=1M skip=39 status=none) part.raw"
status 0 "measure" vhost img measure -f raw s.raw -O toy-format --json
check "is at least what the image took" test "$(json 'j["required"]')" -ge "$(($(blocks a.toy-format) * 512))"
status 0 "bench reads" vhost img bench -f raw s.raw --count 500 --depth 8 --json
is "counts" "$(json 'j["requests"]')" 500
cp s.raw w.raw
status 0 "bench writes and flushes" vhost img bench -f raw w.raw -w --count 300 --depth 4 --flush-interval 50 --pattern 0x5a
check "the pattern" bash -c "head -c $((300 * 4096)) w.raw | tr -d '\132' | cmp - /dev/null"
# A disk of 10 MiB and 777 bytes has room for less than ten such steps: whole blocks all the same, and always others.
head -c $(((10 << 20) + 777)) /dev/zero >w.raw
status 0 "bench goes around the end" vhost img bench -f raw w.raw -w --count 100 --depth 4 --shared-buffer --step-size $((257 * 4096)) --pattern 0x5a
is "in the steps that it was told" "$(python3 -c 'd = open("w.raw", "rb").read(); print(sum(d[i:i + 4096] == b"Z" * 4096 for i in range(0, len(d), 4096)), d.count(b"Z"))')" "100 409600"

# Volumes of pools.
vhost vol create default/v --size 8M >/dev/null; head -c 8M /dev/urandom >v.raw; vhost vol upload default/v v.raw >/dev/null
status 0 "a volume into another format" vhost vol convert default/v default/t --format toy-format --json
is "says which" "$(json '(j["pool"], j["name"], j["result"])')" "('default', 't', 'created')"
status 0 "the format is recorded" vhost vol info default/t --json
is "toy-format" "$(json 'j["format"]')" toy-format
status 0 "the same disk" vhost vol compare default/v default/t
status 4 "a volume that is there stays" vhost vol convert default/v default/t --format toy-format
status 0 "measure" vhost vol measure default/v --format toy-format --json

# Failures leave nothing, and running it again finishes.
gone() { # what a kill left: no image under that name
	check "$1: no file" test ! -e k.img
	check "$1: no temporary file either" test -z "$(find . -maxdepth 1 -name '.*' -type f -newer mark)"
}
touch mark; sleep 0.02
status 1 "the target is full" bash -c "ulimit -f 4096; exec $VHOST img convert -f raw v.raw k.img"
gone "full"
for how in KILL INT TERM; do
	"$VHOST" img convert -f raw full.raw k.img --rate-limit 4M >/dev/null 2>&1 & p=$!
	sleep 0.4
	kill -$how $p; wait $p 2>/dev/null
	gone "$how"
done
status 0 "again" vhost img convert -f raw s.raw k.img
check "the same bytes" same k.img
"$VHOST" vol convert default/v default/k --format toy-format --rate-limit 1M >/dev/null 2>&1 & p=$!
for i in {1..50}; do vhost vol info default/k >/dev/null 2>&1 && break; sleep 0.05; done
kill -9 $p; wait $p 2>/dev/null
status 0 "a volume that was being filled when its maker was killed" vhost vol info default/k --json
is "has no format, so nothing uses it" "$(json 'j["format"]')" None
status 0 "and is made by running it again" vhost vol convert default/v default/k --format toy-format
status 0 "the same disk" vhost vol compare default/v default/k
"$VHOST" vol convert default/v default/i --format toy-format --rate-limit 1M >/dev/null 2>&1 & p=$!
for i in {1..50}; do vhost vol info default/i >/dev/null 2>&1 && break; sleep 0.05; done
kill -INT $p; wait $p 2>/dev/null
status 3 "an interrupted one is taken away" vhost vol info default/i

# Reflinks, where a file system has them.
reflink() {
	[ "$(id -u)" = 0 ] || { echo "needs root"; return; }
	command -v mkfs.xfs >/dev/null || { echo "mkfs.xfs is not installed"; return; }
	truncate -s 400M xfs.img
	mkfs.xfs -q -m reflink=1 xfs.img 2>/dev/null || { echo "mkfs.xfs fails"; return; }
	mkdir -p mnt
	mount -o loop xfs.img mnt 2>/dev/null || { echo "nothing can be mounted here"; return; }
	on_exit "umount '$tmp/d/mnt'"
}
why=$(reflink)
if [ -z "$why" ]; then
	on_exit "umount '$tmp/d/mnt' 2>/dev/null"
	cp s.raw mnt/s.raw; head -c 64M /dev/urandom >mnt/big.raw; sync
	before=$(df --output=used -k mnt | tail -1)
	status 0 "raw to raw shares blocks" vhost img convert -f raw mnt/big.raw mnt/b.raw --json
	is "all of them" "$(json 'j["shared"]')" "$((64 << 20))"
	check "the same bytes" cmp mnt/big.raw mnt/b.raw
	status 0 "raw to an allocating format shares them too" vhost img convert -f raw mnt/big.raw -O toy-format mnt/b.toy --json
	is "all of them" "$(json 'j["shared"]')" "$((64 << 20))"
	status 0 "the same disk" vhost img compare -f raw mnt/big.raw mnt/b.toy
	sync; after=$(df --output=used -k mnt | tail -1)
	check "hardly any space" test "$((after - before))" -lt 8192
	status 0 "and back" vhost img convert mnt/b.toy mnt/c.raw --json
	is "shared" "$(json 'j["shared"] > 60 << 20')" True
	check "the same bytes" cmp mnt/big.raw mnt/c.raw
	status 0 "a disk with holes and an odd end" vhost img convert -f raw mnt/s.raw -O toy-format mnt/s.toy
	status 0 "is the same" vhost img compare -f raw mnt/s.raw mnt/s.toy
	status 0 "not with --reflink off" vhost img convert -f raw mnt/big.raw mnt/d.raw --reflink=off --json
	is "nothing shared" "$(json 'j["shared"]')" 0
else
	skip "reflinks" "$why"
fi

# Compressed, where a format does that.
if [[ " ${formats[*]} " == *" vmdk "* ]]; then
	head -c 9000001 full.raw >st.raw; cat /bin/* 2>/dev/null | head -c 6M >>st.raw; truncate -s %512 st.raw
	for level in default fast; do
		status 0 "streamOptimized, $level" vhost img convert -c --compress-level $level -f raw st.raw -O vmdk -o subformat=streamOptimized st.$level
		status 0 "the same disk" vhost img compare -f raw st.raw st.$level
		vhost img convert -c --compress-level $level -f raw st.raw -O vmdk -o subformat=streamOptimized - >st.pipe
		status 0 "through a pipe" vhost img compare -f raw -F vmdk st.raw st.pipe
		if qemu vmdk; then check "qemu-img finds no difference" qemu-img compare -f raw -F vmdk st.raw st.$level; fi
	done
	status 1 "not without --compress" vhost img convert -f raw st.raw -O vmdk -o subformat=streamOptimized st.plain
	check "nothing is there" test ! -e st.plain
else
	skip "streamOptimized" "the plugin vmdk is not built"
fi
for f in qcow2; do
	[[ " ${formats[*]} " == *" $f "* ]] || { skip "compressed $f" "the plugin $f is not built"; continue; }
	tar cf - /usr/include 2>/dev/null | head -c 24M >text.raw; truncate -s 32M text.raw
	for type in zlib zstd; do
		status 0 "compressed $f, $type" vhost img convert -c -f raw text.raw -O $f -o compression_type=$type z.$type
		status 0 "the same disk" vhost img compare -f raw text.raw z.$type
		check "is smaller" test "$(blocks z.$type)" -lt "$(($(blocks text.raw) / 2))"
		status 0 "is sound" vhost img check z.$type
		status 0 "read and compressed again" vhost img convert -c z.$type -O $f y.$type --force
		status 0 "the same disk" vhost img compare -f raw text.raw y.$type
		if qemu $f; then
			check "qemu-img reads it" qemu-img compare -f raw -F $f text.raw z.$type
			check "qemu-img finds it sound" qemu-img check -q -f $f z.$type
			qemu-img convert -c -f raw -O $f -o compression_type=$type text.raw qz.$type
			status 0 "what qemu-img compressed" vhost img compare -f raw -F $f text.raw qz.$type
		fi
	done
	status 0 "what does not get smaller" vhost img convert -c -f raw v.raw -O $f rnd.$f
	status 0 "the same disk" vhost img compare -f raw v.raw rnd.$f
done
finish
