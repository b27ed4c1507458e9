#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# header.sh c11|c++17 INCLUDE HEADER: the SDK header compiles alone, twice included, without a warning. 77: skipped.
case $1 in
c11) cc=${CC:-cc} lang=c ;;
*) cc=${CXX:-c++} lang=c++ ;;
esac
command -v "$cc" >/dev/null || { echo "skipped: there is no compiler '$cc'"; exit 77; }
printf '#include <vhost/%s>\n#include <vhost/%s>\n' "$3" "$3" |
	"$cc" -x "$lang" -std="$1" -Wall -Wextra -Wpadded -Wundef -Wshadow -pedantic -Werror -I"$2" -fsyntax-only -
