#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# The lock matrix: pool-locks.sh TYPE (a row of pool-rows.sh). One volume, held by every way to reach it in every mode, and every way
# to reach it tried with every command: refused, with the holder named, or allowed where both read.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/pool-rows.sh"
requires python3
[ -z "${SHELF:-}" ] || vhost() { "$VHOST" --plugin "$SHELF" "$@"; }
plugin=(); [ -z "${SHELF:-}" ] || plugin=(--plugin "$SHELF")
start_row "$1"
volume "${v[0]}" 1M || { not_ok "a volume is made"; finish; }
"ways_$1"
truncate -s 1M "$tmp/in"
kvm=no; [ -r /dev/kvm ] && [ -w /dev/kvm ] && [ -e "$BUILDDIR/tests/guest/guest-hello" ] && kvm=yes

# hold MODE PREFIX TARGET: somebody has it, $holder is its process.
hold() {
	local seen=$3; [ "$2" = vol ] || seen=p/${v[0]}
	rm -f "$tmp/fifo"; mkfifo "$tmp/fifo"
	case $1 in
	write) exec 7<>"$tmp/fifo"
		if [ "$2" = vol ]; then "$VHOST" "${plugin[@]}" vol upload "$3" - <&7 7<&- >/dev/null 2>"$tmp/hold.err" &
		else "$VHOST" img convert - "$3" --size 1M --no-create --format raw <&7 7<&- >/dev/null 2>"$tmp/hold.err" & fi ;;
	read)
		if [ "$2" = vol ]; then "$VHOST" "${plugin[@]}" vol download "$3" "$tmp/fifo" --force >/dev/null 2>"$tmp/hold.err" &
		else exec 7<>"$tmp/fifo"; head -c 65536 /dev/zero >&7; "$VHOST" img convert "$3" - --source-format raw >&7 7<&- 2>"$tmp/hold.err" & fi ;;
	run) run vhost run --detach --name holder --kernel "$BUILDDIR/tests/guest/guest-hello" --cmdline end=echo --memory 64M --serial none \
			--disk "$([ "$2" = vol ] && echo "$3" || echo "path=$3"),format=raw"
		[ "$rc" = 0 ] || { not_ok "a VM has it $2 $3"; return 1; }
		return 0 ;;
	esac
	holder=$!
	for ((k = 0; k < 200; k++)); do
		vhost vol info "$seen" | grep -q "^In use: *yes" && kill -0 $holder 2>/dev/null && return
		kill -0 $holder 2>/dev/null || break
		sleep 0.02
	done
	err=$(<"$tmp/hold.err"); not_ok "held ($1) $2 $3"; return 1
}
release() {
	if [ "$1" = run ]; then vhost vm kill holder >/dev/null 2>&1 || vhost vm stop holder --force >/dev/null 2>&1; return; fi
	{ kill -9 $holder; wait $holder; exec 7>&-; } 2>/dev/null
}

# try COMMAND PREFIX TARGET
try() {
	case $1-$2 in
	read-vol) run vhost vol download "$3" "$tmp/out" --force ;;
	read-img) run vhost img convert "$3" "$tmp/out" --source-format raw --format raw --force ;;
	write-vol) run vhost vol upload "$3" "$tmp/in" ;;
	write-img) run vhost img convert "$tmp/in" "$3" --source-format raw --format raw --no-create ;;
	convert-vol) run vhost vol convert "$3" q/x --no-create --source-format raw ;;
	convert-img) run vhost img convert "$3" "$tmp/q/x" --no-create --source-format raw ;;
	resize-*) run vhost "$2" resize "$3" +1M --format raw ;;
	wipe-vol) run vhost vol wipe "$3" ;;
	delete-vol) run vhost vol delete "$3" ;;
	rollback-vol) run vhost vol snapshot rollback "$3" none ;;
	clone-vol) run vhost vol clone "$3" q/clone; vhost vol delete q/clone >/dev/null 2>&1 ;;
	check-img) run vhost img bench "$3" --format raw --write --count 1 --buffer-size 4K ;;
	run-vol | run-img) [ $kvm = yes ] || return 1
		run timeout 20 "$VHOST" "${plugin[@]}" run --kernel "$BUILDDIR/tests/guest/guest-hello" --memory 64M --serial none \
			--disk "$([ "$2" = vol ] && echo "$3" || echo "path=$3"),format=raw" ;;
	*) return 1 ;;
	esac
}
mkdir "$tmp/q"; define q --path "$tmp/q"
vhost vol create q/x --size 4M >/dev/null

caps=$(vhost pool capabilities p --json)
writers="write resize wipe delete rollback check run" readers="read convert clone"
can grow || writers=${writers/resize/}
can remove || writers=${writers/delete/}
can snapshot || writers=${writers/rollback/}
modes="write read"; [ $kvm = no ] || modes="write read run"
# LOCKS_FEW=N: of the commands only N for each pair of ways, other ones each time, where everything takes long.
read -ra commands <<<"$writers $readers"
few=${LOCKS_FEW:-${#commands[@]}} next=0
pairs=0
for h in "${ways[@]}"; do
	IFS='|' read -r htext hprefix htarget <<<"$h"
	for mode in $modes; do
		holder=""
		hold $mode "$hprefix" "$htarget" || continue
		bad=0 who="pid $holder "; [ $mode != run ] || who="vhost run holder"
		for t in "${ways[@]}"; do
			IFS='|' read -r ttext tprefix ttarget <<<"$t"
			[ -z "${VH_LONG:-}" ] || echo "# held $htext ($mode), now $ttext" # a lab that says nothing for long counts as hung
			for ((k = 0; k < few; k++)); do
				c=${commands[next++ % ${#commands[@]}]}
				try $c "$tprefix" "$ttarget" || continue
				pairs=$((pairs + 1))
				want=4; [ $mode = read ] && [[ " $readers " == *" $c "* ]] && want=0
				if [ "$rc" != $want ]; then
					bad=1; not_ok "held $htext ($mode): $c $ttext gave $rc, not $want"
				elif [ $want = 4 ] && [[ $err != *"in use"*"$who"* ]]; then
					bad=1; not_ok "held $htext ($mode): $c $ttext does not name the holder"
				fi
			done
		done
		release $mode
		[ $bad = 1 ] || ok "held $htext ($mode): ${#ways[@]} ways, $few of: ${writers} refused$([ $mode = read ] && echo ", $readers allowed" || echo " and $readers too")"
	done
done
try write vol "p/${v[0]}"
is "free again" "$rc" 0
check "$pairs pairs tried" test "$pairs" -ge $((${#ways[@]} * ${#ways[@]} * (few < 8 ? few : 8)))
! declare -F "around_$1" >/dev/null || "around_$1"
[ $kvm = yes ] || skip "a VM as the holder, and as the one that comes" "/dev/kvm is missing or may not be opened"
finish
