#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost-plugin-check's IO group finds each broken rule of the data path, and nothing in a plugin that breaks none.
# usage: check-notices.sh CHECK BAD.so
check=$1 so=$2 n=0 failed=0
ok() { n=$((n + 1)); echo "ok $n - $1"; }
bad() { n=$((n + 1)); failed=1; echo "not ok $n - $1"; printf '%s\n' "$2" | sed 's/^/# /'; }
out=$("$check" --only IO --set bad=good "$so") && ok "a good plugin passes" || bad "a good plugin passes" "$out"
while read -r mode id; do
	out=$("$check" --only "$id" --set bad="$mode" "$so")
	if printf '%s\n' "$out" | grep -q "^not ok .* - $id"; then ok "$mode is found by $id"; else bad "$mode is found by $id" "$out"; fi
done <<END
double io-random
late-touch io-random
wrong-data io-random
foreign-done io-random
too-many io-random
positive io-random
short-ctx io-random
leak-fd io-fds
not-cloexec io-fds
big-info io-info
shared-writer io-attach-modes
unknown-ok io-unknown-op
END
echo "1..$n"
exit $failed
