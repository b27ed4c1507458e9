#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# kill -9 at every step that changes something (every STEP-th: the argument) of create, delete, clone, convert and upload: the same
# command again finishes, or finds it done, and nothing is left that should not be there.
. "$(dirname "$0")/functions.sh"
requires strace python3
. "$(dirname "$0")/json.sh"
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" # which does not work under strace
step=${1:-1}
calls=link,linkat,unlink,unlinkat,rename,renameat,renameat2,ftruncate,fallocate,pwrite64,pwritev,pwritev2,write,writev,fsync,fdatasync
calls+=,mkdir,mkdirat,setxattr,fsetxattr,removexattr,fremovexattr,ioctl,copy_file_range,io_submit,io_uring_enter
strace -f -o /dev/null -e trace=$calls true 2>/dev/null || skip_all "strace may not trace here"
vh() { "$VHOST" --plugin "$SHELF" "$@"; }
mkdir "$tmp/d" "$tmp/s" "$tmp/other"
vh pool define d --type dir --path "$tmp/d" >/dev/null
vh pool define s --type shelf --path "$tmp/s" >/dev/null
vh pool define other --type dir --path "$tmp/other" >/dev/null
head -c 300000 /dev/urandom >"$tmp/data"; truncate -s 4M "$tmp/data"
vh vol create other/src --size 4M >/dev/null; vh vol upload other/src "$tmp/data" >/dev/null

# What is in a pool's folder, and in the host's records of it.
content() { (cd "$tmp/$1" && find . -mindepth 1 ! -path ./.snaps | sort | tr '\n' ' '); sed -n 's/^\[\([^ ]*\) .*/[\1]/p' "$VHOST_ROOT/data/volumes/$1.conf" 2>/dev/null; }
clean() { rm -rf "$VHOST_ROOT/data/volumes"; find "$tmp/$1" -mindepth 1 -delete; }

# every POOL NAME PREPARE GOOD COMMAND...: GOOD judges the end, `want` is what may be there then.
every() {
	local pool=$1 name=$2 prepare=$3 good=$4 k=$((1 + RANDOM % step)) kills=0 bad=0 finished=0 rc; shift 4
	case $2 in delete) finished=3 ;; create) ;; *) finished=4 ;; esac
	while :; do
		clean "$pool"; eval "$prepare"
		{
			strace -f -qq -o /dev/null -e trace=$calls -e inject=$calls:signal=KILL:when=$k "$VHOST" --plugin "$SHELF" "$@" >/dev/null 2>"$tmp/.err" &
			wait $!
			rc=$?
		} 2>/dev/null
		if [ $rc != 137 ]; then
			[ $rc = 0 ] || { err=$(<"$tmp/.err"); not_ok "$pool: $name without a kill (exit $rc)"; return; }
			break
		fi
		kills=$((kills + 1))
		run vh "$@"
		# It was finished already, and killed before it could say so: that is told from one that must not be touched.
		if [ "$rc" != 0 ] && [ "$rc" != "$finished" ]; then
			not_ok "$pool: $name, killed at call $k: run again it fails (exit $rc)"; bad=1
		elif ! eval "$good" >"$tmp/.err" 2>&1; then
			err=$(<"$tmp/.err"); not_ok "$pool: $name, killed at call $k and run again: the result is wrong"; bad=1
		elif [ "$(content "$pool")" != "$want" ]; then
			not_ok "$pool: $name, killed at call $k and run again: $(content "$pool"), not $want"; bad=1
		fi
		[ $bad = 0 ] || return
		k=$((k + step))
	done
	ok "$pool: $name, killed at $kills places"
	total=$((total + kills))
}
format_is() { [ "$(out=$(vh vol info "$1" --json) && json 'j["format"]')" = "$2" ]; }

total=0
for p in d s; do
	rec=""; [ $p = d ] || rec="[v]"
	want="./v $rec"
	every $p "create" : "format_is $p/v raw" vol create $p/v --size 4M
	every $p "upload --create" : "format_is $p/v raw && vh vol download $p/v - | cmp - $tmp/data" vol upload $p/v "$tmp/data" --create --format raw
	every $p "clone from another pool" : "format_is $p/v raw && vh vol download $p/v - | cmp - $tmp/data" vol clone other/src $p/v
	every $p "convert, raw" : "format_is $p/v raw && vh vol compare $p/v other/src" vol convert other/src $p/v
	if [ -e "$BUILDDIR/plugins/formats/qcow2/qcow2.so" ]; then
		every $p "create, qcow2" : "format_is $p/v qcow2 && vh vol check $p/v" vol create $p/v --size 4M --format qcow2
		every $p "convert, qcow2" : "format_is $p/v qcow2 && vh vol check $p/v && vh vol compare $p/v other/src" vol convert other/src $p/v --format qcow2
	fi
	want=""
	every $p "delete" "vh vol create $p/v --size 4M >/dev/null" "! vh vol info $p/v 2>/dev/null" vol delete $p/v
	clean $p
done
check "$total kills" test "$total" -ge $((90 / step))
finish
