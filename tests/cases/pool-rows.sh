# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# One row per pool type: how its server starts, the pool's options, how a volume is made that the type cannot make by itself, and
# the ways in which one volume can be reached. Sourced by pool-suite.sh and pool-locks.sh, which run any row the same.
#
#   row_NAME     starts what is needed, or skips the whole file; sets
#     options    of `pool define`, for the pool p
#     make       a function NAME BYTES that makes what `vol create` cannot; empty: vol create can
#     v          names of the volumes that the tests use
#   ways_NAME    sets
#     ways       "TEXT|VERB-PREFIX|TARGET" each: TARGET is what stands for the volume in a command of `vhost PREFIX`
#   around_NAME  optional: tests of what leads around names and is no target of a command (loop devices, device nodes)
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

# A loop device asks nobody for a lease, so whoever takes one looks for it.
around_dir() {
	local f="$tmp/p/${v[0]}" dev
	[ "$(id -u)" = 0 ] && dev=$(losetup -f --show "$f" 2>/dev/null) || { skip "a loop device on the volume" "none can be made here"; return; }
	on_exit "losetup -d $dev 2>/dev/null"
	for c in "upload p/${v[0]} $tmp/in" "download p/${v[0]} $tmp/out --force" "resize p/${v[0]} +1M" "delete p/${v[0]}" "clone p/${v[0]} q/clone"; do
		# shellcheck disable=SC2086
		status 4 "a loop device on it: ${c%% *} is refused" vhost vol $c
		like "naming it" "$err" "*in use by the loop device $dev on top of it*"
	done
	losetup -d "$dev"
	dev=$(losetup -r -f --show "$f")
	status 0 "one that only reads: reading is not" vhost vol download "p/${v[0]}" "$tmp/out" --force
	status 4 "but writing is" vhost vol upload "p/${v[0]}" "$tmp/in"
	losetup -d "$dev"
	status 0 "and without it neither" vhost vol upload "p/${v[0]}" "$tmp/in"
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

# Needs device-mapper: in the lab VM (tests/lab/pool-rows.sh), or on a machine that has it. Its lvm.conf shows lvm our devices alone.
row_lvm() {
	local dev
	[ -e "$BUILDDIR/plugins/storage/lvm/lvm.so" ] || skip_all "the plugin lvm is not built"
	requires_root
	requires lvm losetup
	dmsetup version >/dev/null 2>&1 || skip_all "this kernel has no device-mapper; it runs in the lab VM"
	truncate -s 1G "$tmp/disk"
	dev=$(losetup -f --show "$tmp/disk") || skip_all "there is no free loop device"
	vg=vhsuite$$
	export LVM_SYSTEM_DIR=$tmp/lvm LVM_SUPPRESS_FD_WARNINGS=1
	mkdir "$LVM_SYSTEM_DIR"
	lvm_conf "$dev"
	on_exit "losetup -d $dev"
	on_exit "lvm vgremove -qq -ff -y $vg >/dev/null 2>&1"
	make="" v=(one two three four)
	options=(--type lvm --vg $vg --thin-pool tp)
	define maker "${options[@]}" --devices "$dev" --thin-size 256M --make || skip_all "no volume group can be made here"
	vhost pool undefine maker >/dev/null
}
lvm_conf() { # DEVICE...: what lvm may see
	local d filter=""
	for d; do filter+="\"a|^$d\$|\", "; done
	cat >"$LVM_SYSTEM_DIR/lvm.conf" <<-C
		activation {
			monitoring = 0
			udev_sync = $([ -n "${DM_DISABLE_UDEV:-}" ] && echo 0 || echo 1)
			udev_rules = $([ -n "${DM_DISABLE_UDEV:-}" ] && echo 0 || echo 1)
		}
		global {
			locking_dir = "$tmp/lock"
			use_lvmpolld = 0
		}
		devices {
			use_devicesfile = 0
			obtain_device_list_from_udev = 0
			external_device_info_source = "none"
			scan_lvs = 0
			filter = [ $filter"r|.*|" ]
		}
		backup {
			backup = 0
			archive = 0
		}
	C
}
ways_lvm() {
	define p2 "${options[@]}"
	ways=("by name|vol|p/${v[0]}" "by a second definition|vol|p2/${v[0]}")
}
# The nodes of the device are no volumes; they are claimed all the same, so that mkfs does not get it. And a loop device on the volume, with a
# group of its own on top of that.
around_lvm() {
	local node alias dev disk
	disk=$(losetup -j "$tmp/disk" -n -O NAME | tr -d ' ')
	vhost vol create p/under --size 24M --thick on >/dev/null
	lvm lvchange -qq -ay $vg/under 2>/dev/null
	dev=$(losetup -f --show "/dev/$vg/under")
	on_exit 'losetup -d $dev 2>/dev/null'
	for c in "upload p/under $tmp/in" "download p2/under $tmp/out --force" "resize p2/under +4M" "wipe p/under"; do
		# shellcheck disable=SC2086
		status 4 "a loop device on it: ${c%% *} is refused" vhost vol $c
		like "naming it" "$err" "*in use by the loop device $dev on top of it*"
	done
	lvm_conf "$disk" "$dev"
	lvm vgcreate -qq --metadatasize 1m ${vg}i "$dev" >/dev/null 2>&1
	define inner --type lvm --vg ${vg}i
	status 0 "a volume of a group on that loop device" vhost vol create inner/v --size 4M
	lvm lvchange -qq -an ${vg}i/v 2>/dev/null
	losetup -d "$dev"
	for ((k = 0; k < 100; k++)); do losetup "$dev" >/dev/null 2>&1 || break; sleep 0.1; done # it goes with its last user
	lvm_conf "$disk"
	lvm lvchange -qq -an $vg/under 2>/dev/null
	check "nobody has the volume below" sh -c "! dmsetup info $vg-under >/dev/null 2>&1"
	hold write vol p/under || return
	node=$(basename "$(readlink -f "/sys/dev/block/$(stat -L -c '%Hr:%Lr' "/dev/$vg/under")")")
	for alias in "/dev/$vg/under" "/dev/mapper/$vg-under" "/dev/$node"; do
		status 1 "$alias is no target of a command" vhost img convert "$tmp/in" "$alias" --source-format raw --format raw --no-create
		like "being a device node" "$err" "*device node*"
		run mkfs.ext4 -q -F "$alias"
		check "nor does mkfs get it" test "$rc" != 0
	done
	dev=$(losetup -f --show "/dev/$node")
	lvm_conf "$disk" "$dev"
	status 4 "what lies on a volume in use is not written" vhost vol upload inner/v "$tmp/in"
	like "and the user of what is below named" "$err" "*in use by pid $holder *$dev*"
	status 4 "nor read" vhost vol download inner/v "$tmp/out" --force
	release write
	status 0 "when that is free it is" vhost vol upload inner/v "$tmp/in"
	losetup -d "$dev"
	lvm_conf "$disk"
}

# start_row NAME: the pool p of that type.
start_row() {
	declare -F "row_$1" >/dev/null || { echo "Bail out! there is no row $1"; exit 1; }
	"row_$1"
	define p "${options[@]}" || { run vhost pool define p "${options[@]}"; not_ok "the pool is defined"; finish; }
}
# volume NAME BYTES: a raw volume of the pool p, by whatever means.
volume() { if [ -n "$make" ]; then $make "$1" "$2"; else vhost vol create "p/$1" --size "$2" >/dev/null; fi; }
. "$(dirname "${BASH_SOURCE[0]}")/json.sh"
# can CAPABILITY: of the pool p, of which $caps is what `pool capabilities` says
can() { [ "$(out=$caps json "j['capabilities']['$1']")" = True ]; }
