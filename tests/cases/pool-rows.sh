# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# One row per pool type: how its server starts, the pool's options, how a volume is made that the type cannot make by itself, and
# the ways in which one volume can be reached. Sourced by pool-suite.sh and pool-locks.sh, which run any row the same.
#
#   row_NAME     starts what is needed, or skips the whole file; sets
#     options    of `pool define`, for the pool p
#     make       a function NAME BYTES that makes what `vol create` cannot; empty: vol create can
#     v          names of the volumes that the tests use
#     ways       "TEXT|VERB-PREFIX|TARGET" each: TARGET is what stands for the volume in a command of `vhost PREFIX`
# The volume of the ways is p/${v[0]}.

define() { vhost pool define "$@" >/dev/null; }

row_dir() {
	make="" v=(one two three four)
	mkdir "$tmp/p" "$tmp/links"
	options=(--type dir --path "$tmp/p")
}
ways_dir() {
	local f="$tmp/p/${v[0]}"
	ways=("by name|vol|p/${v[0]}" "by a second definition|vol|p2/${v[0]}" "by a hard link|vol|links/hard" "as a file|img|$f"
		"as a symbolic link|img|$tmp/links/soft")
	define p2 "${options[@]}"
	define links --path "$tmp/links"
	ln "$f" "$tmp/links/hard"; ln -s "$f" "$tmp/links/soft"
	vhost vol set links/hard --format raw >/dev/null 2>&1
	ln -s "$tmp/p" "$tmp/linked"; define linked --path "$tmp/linked"
	ways+=("through a linked folder|vol|linked/${v[0]}")
	if [ "$(id -u)" = 0 ] && mkdir "$tmp/bound" && mount --bind "$tmp/p" "$tmp/bound" 2>/dev/null; then
		on_exit "umount -l $tmp/bound"
		define bound --path "$tmp/bound"
		ways+=("through a bind mount|vol|bound/${v[0]}")
	fi
}

row_shelf() {
	make="" v=(one two three four)
	mkdir "$tmp/p" "$tmp/links"
	options=(--type shelf --path "$tmp/p")
}
ways_shelf() {
	define p2 "${options[@]}"
	define links --type shelf --path "$tmp/links"
	ln "$tmp/p/${v[0]}" "$tmp/links/hard"
	vhost vol set p2/"${v[0]}" --format raw >/dev/null; vhost vol set links/hard --format raw >/dev/null
	ways=("by name|vol|p/${v[0]}" "by a second definition|vol|p2/${v[0]}" "by a second name elsewhere|vol|links/hard")
}

row_iscsi() {
	[ -e "$BUILDDIR/plugins/storage/iscsi/iscsi.so" ] || skip_all "the plugin iscsi is not built"
	requires tgtd tgtadm ss
	iqn=iqn.2024-01.test.vhost:suite
	"$SRCDIR/tests/servers/tgt" start "$tmp/tgt" || skip_all "tgtd does not start here"
	on_exit '"$SRCDIR/tests/servers/tgt" kill "$tmp/tgt"'
	"$SRCDIR/tests/servers/tgt" target "$tmp/tgt" 1 $iqn
	make=make_lun v=(lun1 lun2 lun3 lun4)
	options=(--type iscsi --portal "127.0.0.1:$(<"$tmp/tgt/port")" --target $iqn)
}
make_lun() { "$SRCDIR/tests/servers/tgt" lun "$tmp/tgt" 1 "${1#lun}" "$2" >/dev/null && vhost vol set "p/$1" --format raw >/dev/null; }
ways_iscsi() {
	local port
	port=$(<"$tmp/tgt/port")
	ways=("by name|vol|p/${v[0]}" "by a second definition|vol|p2/${v[0]}")
	define p2 "${options[@]}"; vhost vol set "p2/${v[0]}" --format raw >/dev/null
	if "$SRCDIR/tests/servers/tgt" admin "$tmp/tgt" --lld iscsi --op new --mode portal --param portal="127.0.0.2:$port" >/dev/null 2>&1; then
		define p3 --type iscsi --portal "127.0.0.2:$port" --target $iqn
		vhost vol set "p3/${v[0]}" --format raw >/dev/null
		ways+=("by another portal|vol|p3/${v[0]}")
	fi
}

row_ceph() {
	local why
	[ -e "$BUILDDIR/plugins/storage/ceph/ceph.so" ] || skip_all "the plugin ceph is not built"
	. "$SRCDIR/tests/servers/ceph"
	! why=$(ceph_lacks) || skip_all "$why"
	on_exit ceph_stop
	ceph_start "$tmp/c" memstore auth || skip_all "the cluster does not start here"
	mkdir -p "$VHOST_ROOT/config/secrets"
	sed -n 's/.*key = //p' "$tmp/c/vhost.keyring" >"$VHOST_ROOT/config/secrets/key"; chmod 600 "$VHOST_ROOT/config/secrets/key"
	make="" v=(one two three four)
	options=(--type ceph --pool rbd --conf "$tmp/c/ceph.conf" --keyring "$tmp/c/vhost.keyring" --user vhost)
}
ways_ceph() {
	define p2 --type ceph --pool rbd --mon "127.0.0.1:$CEPH_PORT" --key key --user vhost
	ways=("by name|vol|p/${v[0]}" "by monitor and key|vol|p2/${v[0]}")
}

# Needs device-mapper: in the lab VM, or on a machine that has it.
row_lvm() {
	local dev
	[ -e "$BUILDDIR/plugins/storage/lvm/lvm.so" ] || skip_all "the plugin lvm is not built"
	requires_root
	requires lvm losetup
	dmsetup version >/dev/null 2>&1 || skip_all "this kernel has no device-mapper; it runs in the lab VM"
	truncate -s 2G "$tmp/disk"
	dev=$(losetup -f --show "$tmp/disk") || skip_all "there is no free loop device"
	vg=vhsuite$$
	on_exit "losetup -d $dev"
	on_exit "vgremove -qq -ff -y $vg"
	vgcreate -qq -y $vg "$dev" >/dev/null 2>&1 || skip_all "vgcreate fails here"
	make="" v=(one two three four)
	options=(--type lvm --vg $vg)
}
ways_lvm() {
	define p2 "${options[@]}"
	ways=("by name|vol|p/${v[0]}" "by a second definition|vol|p2/${v[0]}")
}

# start_row NAME: the pool p of that type.
start_row() {
	declare -F "row_$1" >/dev/null || { echo "Bail out! there is no row $1"; exit 1; }
	"row_$1"
	define p "${options[@]}" || { run vhost pool define p "${options[@]}"; not_ok "the pool is defined"; finish; }
}
# volume NAME BYTES: a raw volume of the pool p, by whatever means.
volume() { if [ -n "$make" ]; then $make "$1" "$2"; else vhost vol create "p/$1" --size "$2" >/dev/null; fi; }
# can CAPABILITY
can() { python3 -c 'import json,sys; sys.exit(not json.loads(sys.argv[1])["capabilities"][sys.argv[2]])' "$caps" "$1"; }
