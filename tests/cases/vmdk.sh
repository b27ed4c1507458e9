#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# The format vmdk against other programs, both ways: qemu-img and qemu-io, and where they are installed 7-Zip and libvmdk.
. "$(dirname "$0")/functions.sh"
requires qemu-img qemu-io
tool=$BUILDDIR/tests/unit/formats/vmdk-tool
[ -x "$tool" ] || skip_all "$tool is not built"
cd "$tmp" || exit 1
size=$((12 * 1024 * 1024 + 3 * 512))

same() { cmp "$1" "$2"; }
# reads NAME IMAGE RAW: the plugin reads what is expected, and finds nothing wrong
reads() {
	check "$1: read" "$tool" read "$2" out.raw
	check "$1: what is read is right" same out.raw "$3"
	check "$1: check finds nothing" vhost img check "$2" -f vmdk
}
qemu_reads() {
	check "$1: qemu-img reads the same" qemu-img compare -q -f vmdk -F raw "$2" "$3"
	check "$1: qemu-img check" qemu-img check -q -f vmdk "$2"
}
qio() { # FORMAT FILE COMMANDS...
	local f=$1 i=$2 args=() c
	shift 2
	for c; do args+=(-c "$c"); done
	qemu-io -f "$f" "${args[@]}" "$i" >/dev/null
}
writes=("write -P 17 100k 70k" "write -P 18 4M 300k" "write -P 19 8999k 1k" "write -P 20 12288k 1536" "write -z 1M 128k")
ours=(write:17:102400:71680 write:18:4194304:307200 write:19:9214976:1024 write:20:12582912:1536 zero:1048576:131072)
later=("write -P 33 3000k 200k" "write -P 34 7M 64k")

"$SRCDIR/tests/flavours/make-vmdk" >list || { echo "Bail out! make-vmdk"; exit 1; }
cp base.raw changed.raw
qio raw changed.raw "${writes[@]}"
cp changed.raw again.raw
qio raw again.raw "${later[@]}"
while read -r name file; do
	reads "made by QEMU, $name" "$file" base.raw
	if [ "$name" = streamOptimized ]; then
		status 1 "$name: is not written a second time" "$tool" io "$file" "${ours[@]}"
		continue
	fi
	check "made by QEMU, $name: written" "$tool" io "$file" "${ours[@]}" flush
	reads "$name, then written" "$file" changed.raw
	qemu_reads "$name, then written" "$file" changed.raw
	check "$name: QEMU writes again" qio vmdk "$file" "${later[@]}"
	reads "$name, written by both" "$file" again.raw
done <list

for s in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
	for o in "" ,adapter-type=lsilogic,hwversion=13 ,compat6=on ,zeroed-grain=on; do
		case $s$o in *Flat,zeroed*) continue ;; esac
		rm -f n*.vmdk
		check "$s$o: created" vhost img create "$tmp/n.vmdk" $size -f vmdk -o "subformat=$s$o"
		truncate -s $size n.raw
		rm -f n.raw; truncate -s $size n.raw
		qio raw n.raw "${writes[@]}"
		check "$s$o: written" "$tool" io n.vmdk "${ours[@]}"
		reads "$s$o" n.vmdk n.raw
		qemu_reads "$s$o" n.vmdk n.raw
		check "$s$o: QEMU writes" qio vmdk n.vmdk "${later[@]}"
		qio raw n.raw "${later[@]}"
		reads "$s$o, written by both" n.vmdk n.raw
		is "$s$o: mapped ranges take no call of the plugin" "$("$tool" calls n.vmdk)" 0
		check "$s$o: still good" vhost img check "$tmp/n.vmdk" -f vmdk
	done
done
status 1 "zeroed-grain needs a sparse subformat" vhost img create "$tmp/z.vmdk" 1M -f vmdk -o subformat=monolithicFlat,zeroed-grain=on
like "... and says so" "$err" "*zeroed-grain is for*"

for p in metadata falloc full; do
	rm -f p.vmdk
	check "preallocation $p" vhost img create "$tmp/p.vmdk" $size -f vmdk --preallocation $p
	rm -f z.raw; truncate -s $size z.raw
	reads "preallocation $p" p.vmdk z.raw
	qemu_reads "preallocation $p" p.vmdk z.raw
	is "preallocation $p: everything is mapped" "$("$tool" calls p.vmdk)" 0
done

# ---- streams ----
for l in default fast 1 9; do
	check "stream, level $l: written" "$tool" stream base.raw s.vmdk $l
	reads "stream, level $l" s.vmdk base.raw
	qemu_reads "stream, level $l" s.vmdk base.raw
done
check "stream, flushed in the middle" "$tool" stream base.raw s2.vmdk default 20
reads "stream, flushed in the middle" s2.vmdk base.raw
qemu_reads "stream, flushed in the middle" s2.vmdk base.raw
mv s.vmdk renamed.vmdk
reads "stream under another name" renamed.vmdk base.raw
is "a stream's header says version 3" "$(od -An -tu4 -j4 -N4 renamed.vmdk | tr -d ' ')" 3
is "... and that its directory is at the end" "$(od -An -tx8 -j56 -N8 renamed.vmdk | tr -d ' ')" ffffffffffffffff
truncate -s 40000000 big.raw # more than one table, nothing in the first
printf 'far away' | dd of=big.raw bs=1 seek=39000000 conv=notrunc status=none
check "stream with holes" "$tool" stream big.raw big.vmdk
reads "stream with holes" big.vmdk big.raw
qemu_reads "stream with holes" big.vmdk big.raw
truncate -s 5M none.raw
check "stream without a grain" "$tool" stream none.raw none.vmdk
reads "stream without a grain" none.vmdk none.raw
qemu_reads "stream without a grain" none.vmdk none.raw
if command -v 7zz >/dev/null; then
	check "7-Zip reads a stream" bash -c '7zz x -so renamed.vmdk >7z.raw 2>/dev/null && cmp 7z.raw base.raw'
else
	skip "7-Zip reads a stream" "7zz is not installed"
fi
pyvmdk() {
	/usr/bin/python3 - "$1" "$2" <<-PY
	import sys, pyvmdk
	h = pyvmdk.handle()
	h.open(sys.argv[1])
	try:
	    h.open_extent_data_files()
	except Exception:
	    h.open_extent_data_files_file_objects([open(sys.argv[1], "rb")])
	want = open(sys.argv[2], "rb").read()
	assert h.get_media_size() == len(want), (h.get_media_size(), len(want))
	got = b""
	while len(got) < len(want):
	    piece = h.read_buffer(min(1 << 20, len(want) - len(got)))
	    assert piece
	    got += piece
	assert got == want
	PY
}
if /usr/bin/python3 -c 'import pyvmdk' 2>/dev/null; then
	check "written for libvmdk" "$tool" stream base.raw py.vmdk
	check "libvmdk reads a stream" pyvmdk py.vmdk base.raw
	rm -f n*.vmdk
	for s in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
		vhost img create "$tmp/n-$s.vmdk" $size -f vmdk -o "subformat=$s" >/dev/null && "$tool" io n-$s.vmdk "${ours[@]}"
		rm -f n.raw; truncate -s $size n.raw
		qio raw n.raw "${writes[@]}"
		check "libvmdk reads $s" pyvmdk n-$s.vmdk n.raw
	done
else
	skip "libvmdk reads our images" "python3-libvmdk is not installed"
fi

check "convert -c makes one" vhost img convert -c "$tmp/base.raw" "$tmp/conv.vmdk" -f raw -O vmdk -o subformat=streamOptimized
reads "converted to a stream" conv.vmdk base.raw
qemu_reads "converted to a stream" conv.vmdk base.raw
check "convert -c into a pipe" bash -c '"$VHOST" img convert -c "$PWD/base.raw" - -f raw -O vmdk -o subformat=streamOptimized | cat >pipe.vmdk'
reads "a stream out of a pipe" pipe.vmdk base.raw
qemu_reads "a stream out of a pipe" pipe.vmdk base.raw
for s in monolithicFlat twoGbMaxExtentSparse; do
	check "convert makes $s" vhost img convert "$tmp/conv.vmdk" "$tmp/conv-$s.vmdk" -f vmdk -O vmdk -o subformat=$s
	qemu_reads "converted to $s" conv-$s.vmdk base.raw
done

# ---- chains ----
rm -f c*.vmdk
qemu-img convert -O vmdk base.raw c0.vmdk
check "made over QEMU's image" vhost img create "$tmp/c1.vmdk" -f vmdk -b c0.vmdk -F vmdk
check "a split one over that" vhost img create "$tmp/c2.vmdk" -f vmdk -b c1.vmdk -F vmdk -o subformat=twoGbMaxExtentSparse
reads "chain" c2.vmdk base.raw
check "chain: written on top" "$tool" io c2.vmdk "${ours[@]}"
reads "chain, written" c2.vmdk changed.raw
qemu_reads "chain, written" c2.vmdk changed.raw
qemu_reads "chain, below" c1.vmdk base.raw
check "QEMU's over ours" qemu-img create -q -f vmdk -b c2.vmdk -F vmdk c3.vmdk
qio vmdk c3.vmdk "${later[@]}"
reads "QEMU's over ours" c3.vmdk again.raw
cp c1.vmdk keep.vmdk
check "the middle is changed" "$tool" io c1.vmdk write:1:0:512
status 1 "what was made over it is refused then" "$tool" read c2.vmdk out.raw
like "... by the content ids" "$err" "*content id*"
check "... also by QEMU" bash -c '! qemu-io -r -f vmdk -c "read 0 512" c2.vmdk 2>&1 | grep -q "^read 512"'
cp keep.vmdk c1.vmdk
reads "the middle as it was" c2.vmdk changed.raw
check "rebased onto the bottom" vhost img rebase "$tmp/c2.vmdk" -b c0.vmdk -F vmdk
reads "rebased" c2.vmdk changed.raw
qemu_reads "rebased" c2.vmdk changed.raw
check "rebased onto nothing" vhost img rebase "$tmp/c2.vmdk" -b ""
reads "rebased onto nothing" c2.vmdk changed.raw
qemu_reads "rebased onto nothing" c2.vmdk changed.raw
check "another over the bottom" vhost img create "$tmp/c4.vmdk" -f vmdk -b c0.vmdk -F vmdk
"$tool" io c4.vmdk "${ours[@]}"
check "committed into the bottom" vhost img commit "$tmp/c4.vmdk"
reads "committed" c0.vmdk changed.raw
qemu_reads "committed" c0.vmdk changed.raw
status 1 "a parent of another format is refused" vhost img create "$tmp/c5.vmdk" -f vmdk -b base.raw -F raw
like "... and why" "$err" "*must be one too*"

# ---- sizes, discards ----
for s in monolithicSparse monolithicFlat; do
	rm -f r*.vmdk
	vhost img create "$tmp/r.vmdk" $size -f vmdk -o subformat=$s >/dev/null
	"$tool" io r.vmdk "${ours[@]}"
	rm -f r.raw; truncate -s $size r.raw
	qio raw r.raw "${writes[@]}"
	for to in 40M 9G 13M 5M 200M; do
		check "$s: resized to $to" vhost img resize "$tmp/r.vmdk" $to --shrink
		truncate -s $to r.raw
		case $to in 9G) ;; *)
			reads "$s of $to" r.vmdk r.raw
			qemu_reads "$s of $to" r.vmdk r.raw
		esac
		is "$s of $to: QEMU sees the size" "$(qemu-img info --output=json r.vmdk | tr -d ' ,' | sed -n 's/"virtual-size"://p' | head -1)" \
			"$(stat -c %s r.raw)"
		case $to in 40M | 9G | 200M)
			check "$s of $to: QEMU writes near its end" qio vmdk r.vmdk "write -P 7 $(($(stat -c %s r.raw) - 1000000)) 70k"
			qio raw r.raw "write -P 7 $(($(stat -c %s r.raw) - 1000000)) 70k"
			check "$s of $to: check" vhost img check "$tmp/r.vmdk" -f vmdk ;;
		esac
	done
done
for o in zeroed-grain=off zeroed-grain=on; do
	rm -f d.vmdk
	vhost img create "$tmp/d.vmdk" $size -f vmdk -o $o >/dev/null
	"$tool" io d.vmdk write:1:0:$size
	before=$(stat -c %b d.vmdk)
	check "$o: discarded" "$tool" io d.vmdk discard:0:8388608
	after=$(stat -c %b d.vmdk)
	check "$o: the host's space comes back ($before to $after blocks)" test $((before - after)) -gt 15000
	cp base.raw d.raw; qio raw d.raw "write -P 1 0 $size" "write -z 0 8M"
	reads "$o, discarded" d.vmdk d.raw
	qemu_reads "$o, discarded" d.vmdk d.raw
	bytes=$(stat -c %s d.vmdk)
	check "$o: written again" "$tool" io d.vmdk write:2:0:8388608
	is "$o: in the places that were given back" "$(stat -c %s d.vmdk)" "$bytes"
done
check "space that nothing names" bash -c 'head -c 200000 /dev/urandom >>d.vmdk'
status 13 "... is a leak" vhost img check "$tmp/d.vmdk" -f vmdk
check "... which is given back" vhost img check "$tmp/d.vmdk" -f vmdk --repair leaks
check "... and gone" vhost img check "$tmp/d.vmdk" -f vmdk
finish
