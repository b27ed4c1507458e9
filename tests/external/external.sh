#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# A vendor's way: the development files are installed somewhere, `vhost plugin new` starts a plugin, it is built with
# pkg-config alone outside of any vhost tree, checked with the kit, and loaded with --plugin.
. "$(dirname "$0")/../cases/functions.sh"
requires meson ninja pkg-config

check "headers and pkg-config file install by themselves" \
	meson install -C "$BUILDDIR" --no-rebuild --quiet --destdir "$tmp/dest" --tags devel
pc=$(find "$tmp/dest" -name vhost-plugin.pc -printf '%h\n')
check "the pkg-config file is among them" test -n "$pc"
check "no header is missing" sh -c "cd '$SRCDIR/sdk/include/vhost' && for h in *.h; do
	cmp -s \$h \"\$(find '$tmp/dest' -path \"*/vhost/\$h\")\" || { echo \$h >&2; exit 1; }; done"
check "nothing but headers and the pkg-config file" test -z "$(find "$tmp/dest" -type f ! -name '*.h' ! -name '*.pc')"
export PKG_CONFIG_PATH=$pc PKG_CONFIG_SYSROOT_DIR=$tmp/dest
check "pkg-config knows the folder for plugins" sh -c 'pkg-config --variable=plugindir vhost-plugin | grep -q /vhost/plugins/v1'

mkdir "$tmp/vendor"
for kind in storage format net; do
	name=my-$kind dir=$tmp/vendor/$kind
	check "a $kind plugin is started" vhost plugin new "$name" --kind "$kind" "$dir"
	check "it names itself everywhere" sh -c "! grep -ri 'skel' '$dir'"
	# Away from everything: nothing of the tree may be in reach of the compiler.
	check "it configures against the installed headers" env -C "$dir" meson setup --werror build
	check "it builds without a warning" env -C "$dir" ninja -C build
	so=$dir/build/$name.so
	check "it needs nothing of vhost" sh -c "! readelf -d '$so' | grep NEEDED | grep -i vhost"
	check "its note is what readelf shows" sh -c "readelf -nW '$so' | grep -q VHOST"
	status 0 "it loads with --plugin" vhost --plugin "$so" plugin info "$name" --json
	like "and is what it says" "$out" "*\"id\":\"$name\"*"
	status 0 "its options are shown" vhost --plugin "$so" plugin help "$name"
	status 0 "the kit finds nothing" "$BUILDDIR/sdk/check/vhost-plugin-check" "$so"
	[ "$rc" = 0 ] || grep -A6 '^not ok' <<<"$out" | sed 's/^/# /'
	status 4 "the same is not written twice" vhost plugin new "$name" --kind "$kind" "$dir"
done
status 2 "a kind that there is not is refused" vhost plugin new x --kind teapot "$tmp/x"
status 2 "a name that is no name is refused" vhost plugin new ../x --kind net "$tmp/x"

# By name, through the search path: flat, and by folders.
mkdir -p "$tmp/plugins/formats"
cp "$tmp/vendor/storage/build/my-storage.so" "$tmp/plugins/"
cp "$tmp/vendor/format/build/my-format.so" "$tmp/plugins/formats/"
export VHOST_PLUGIN_PATH=$tmp/plugins
status 0 "found by name in VHOST_PLUGIN_PATH" vhost plugin info my-storage
status 0 "found by name in its subfolder" vhost plugin info my-format
chmod 0777 "$tmp/plugins/formats"
status 5 "refused when anybody may write its folder" vhost plugin info my-format
like "and says why" "$err" "*its folder can be written by everybody (chmod go-w *"
finish
