#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Encrypted images: what QEMU and cryptsetup made is read, what we made they read; key slots; secrets; damage.
. "$(dirname "$0")/functions.sh"
[ -n "$(find "$BUILDDIR/plugins/formats/luks" -name 'luks.so' 2>/dev/null)" ] || skip_all "the plugin luks is not built (libcryptsetup-dev)"
cd "$tmp" || exit 1
umask 077
printf 'first-passphrase\n' >one.key # the newline is the editor's
printf 'first-passphrase' >one.raw
printf 'second' >two.key
printf 'x' >open.key; chmod 644 open.key
cp one.key one.file
mkdir -p "$VHOST_ROOT/config/secrets"; cp one.key "$VHOST_ROOT/config/secrets/disk"
# Data that is not zeros, a hole, and zeros that were written.
{ head -c 1500000 /dev/urandom; head -c 1645728 /dev/zero; head -c 1048576 /dev/urandom; } >plain
truncate -s 6M plain
# The waits are PBKDF2's benchmarks, which libcryptsetup makes for each new key slot.
fast=iter-time=1ms
same() { cmp -s plain "$1"; }
# decode NAME FILE [OPTION...]: what is in FILE is `plain`
decode() {
	local name=$1 file=$2; shift 2
	rm -f got
	run vhost img convert "$file" got -f luks "$@"
	if [ "$rc" = 0 ] && same got; then ok "$name"; else not_ok "$name (exit $rc)"; fi
}

# ---- ours ----
check "luks1 is made from a disk" vhost img convert plain a.luks -f raw -O luks -o key-secret=disk,$fast
decode "and read again" a.luks --source.key-secret=disk
status 1 "a wrong passphrase is refused" vhost img convert a.luks no -f luks --source.key-secret=file:two.key
like "and the error says so" "$err" "*none of the key slots*"
case $err in *second*|*first-pass*) not_ok "no passphrase in the error";; *) ok "no passphrase in the error";; esac
status 1 "no passphrase is refused" vhost img convert a.luks no -f luks
like "with the option to give" "$err" "*key-secret*"
status 1 "a key file that others can read is refused" vhost img convert a.luks no -f luks --source.key-secret=file:open.key
like "with the remedy" "$err" "*chmod 0600*"
status 2 "a passphrase as an argument is no name" vhost img convert a.luks no -f luks --source.key-secret='my secret!'
rm -f got
run vhost img convert a.luks got -f luks --source.key-secret=fd:9 9<one.file
is "a key from a descriptor" "$rc" 0
rm -f got
printf 'first-passphrase' | "$VHOST" img convert a.luks got -f luks --source.key-secret=fd:0 >.out 2>&1
is "a key from a pipe" "$?" 0
run vhost img info a.luks -f luks --format.key-secret=disk --json
like "describe names cipher, mode and slots" "$out" '*"cipher_alg":"aes-256"*'
if grep -qa 'first-passphrase' a.luks; then not_ok "the passphrase is not in the file"; else ok "the passphrase is not in the file"; fi
if cmp -s -n 4096 plain <(tail -c +2068481 a.luks); then not_ok "data is encrypted"; else ok "data is encrypted"; fi
is "zeros are written, encrypted: no block of them is in the file" \
	"$(tail -c +2068481 a.luks | od -An -v -tx8 -w512 | sort -u | grep -c '^\( 0000000000000000\)*$')" 0

for v in "luks2 sector-size=4096" "luks2 sector-size=512,cipher-alg=aes-128" "luks1 cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha512" \
	"luks1 cipher-alg=aes-192,cipher-mode=cbc,ivgen-alg=plain"; do
	rm -f v.luks
	# shellcheck disable=SC2086
	set -- $v
	check "$v is made" vhost img convert plain v.luks -f raw -O luks -o "key-secret=disk,version=$1,$2,$fast"
	decode "$v is read" v.luks --source.key-secret=disk
	[ "$1" = luks1 ] || mv v.luks "${2%%,*}.luks2"
done
status 1 "aes-192 with xts is refused" vhost img create no.luks 1M -f luks -o key-secret=disk,cipher-alg=aes-192,$fast
like "by name" "$err" "*aes-192*xts*"
check "a new image" vhost img create r.luks 1M -f luks -o key-secret=disk,$fast
check "grows" vhost img resize r.luks 2M -f luks --format.key-secret=disk
is "by as much" "$(stat -c %s r.luks)" $((2068480 + 2097152))
run vhost img measure --size 1M -O luks -o key-secret=disk --json
like "measure counts the header" "$out" '*3117056*'

# ---- key slots ----
check "a passphrase is added" vhost img amend a.luks -f luks --format.key-secret=disk -o "new-secret=file:$tmp/two.key,$fast"
decode "it opens the image" a.luks --source.key-secret=file:two.key
decode "so does the first one" a.luks --source.key-secret=disk
check "the first one is removed" vhost img amend a.luks -f luks --format.key-secret=file:two.key -o old-secret=disk
status 1 "and does not open it any more" vhost img convert a.luks no -f luks --source.key-secret=disk
status 1 "the last one cannot be removed" vhost img amend a.luks -f luks --format.key-secret=file:two.key -o old-secret=file:two.key
like "and the error says why" "$err" "*the last one*"
decode "nothing is lost" a.luks --source.key-secret=file:two.key
check "one passphrase takes the other's place" vhost img amend a.luks -f luks --format.key-secret=file:two.key \
	-o "new-secret=disk,keyslot=5,old-secret=file:$tmp/two.key,$fast"
decode "in the slot that was named" a.luks --source.key-secret=disk --source.keyslot=5

# ---- damage ----
if command -v cryptsetup >/dev/null; then
	cp sector-size=4096.luks2 d.luks
	printf 'XXXX' | dd of=d.luks bs=1 seek=5000 conv=notrunc status=none
	status 12 "a damaged copy of the LUKS2 header is found" vhost img check d.luks -f luks --format.key-secret=disk
	check "and mended" vhost img check d.luks -f luks --format.key-secret=disk -r all
	check "for good" vhost img check d.luks -f luks --format.key-secret=disk
	check "so cryptsetup finds" cryptsetup luksDump d.luks
fi
cp r.luks d.luks; truncate -s 2000000 d.luks
status 1 "a volume that ends within its header is refused" vhost img info d.luks -f luks --backing-chain --format.key-secret=disk
printf '\377\377\377\377' | dd of=r.luks bs=1 seek=212 conv=notrunc status=none # slot 0: 4 billion iterations
start=$SECONDS
run vhost img convert r.luks no -f luks --source.key-secret=disk
[ "$rc" != 0 ] && [ $((SECONDS - start)) -lt 20 ]
result $? "a slot that asks for hours is refused at once"
like "and named" "$err" "*key slot 0*"

# ---- cryptsetup ----
if ! command -v cryptsetup >/dev/null; then
	skip "cryptsetup both ways" "cryptsetup is not installed"
else
	check "cryptsetup opens a slot of ours" cryptsetup open --test-passphrase --key-file one.raw a.luks
	check "of LUKS2 too" cryptsetup open --test-passphrase --key-file one.raw sector-size=4096.luks2
	rm -f c.luks; truncate -s 8M c.luks
	check "cryptsetup makes a header" cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 --key-file one.raw c.luks
	rm -f h.luks h.data; truncate -s 8M h.data
	run cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 --key-file one.raw --header h.luks h.data
	if [ "$rc" = 0 ]; then
		truncate -s 8M h.luks
		status 1 "a header whose data is elsewhere is refused" vhost img convert h.luks no -f luks --source.key-secret=disk
		like "by name" "$err" "*stands alone*"
	else
		skip "a header whose data is elsewhere" "cryptsetup does not make one here: ${err%%$'\n'*}"
	fi
	check "whose image we open" vhost img info c.luks -f luks --backing-chain --format.key-secret=disk
	# Its userspace encryption writes data: a real peer for sectors of 4096 bytes.
	for o in "--sector-size 4096" "--cipher aes-cbc-essiv:sha256 --key-size 256 --sector-size 512"; do
		cp plain c.luks; truncate -s 24M c.luks
		# shellcheck disable=SC2086
		run cryptsetup reencrypt --encrypt --type luks2 --reduce-device-size 16M -q --key-file one.raw --pbkdf pbkdf2 \
			--pbkdf-force-iterations 1000 $o c.luks
		if [ "$rc" != 0 ]; then
			skip "LUKS2 $o of cryptsetup" "cryptsetup reencrypt does not work here: ${err%%$'\n'*}"
			continue
		fi
		rm -f got
		run vhost img convert c.luks got -f luks --source.key-secret=disk
		[ "$rc" = 0 ] && cmp -s -n 6291456 plain got
		result $? "LUKS2 $o of cryptsetup is read"
	done
	cp sector-size=4096.luks2 c.luks
	run cryptsetup reencrypt --decrypt --header c.hdr -q --key-file one.raw c.luks
	if [ "$rc" != 0 ]; then
		skip "cryptsetup decrypts ours" "cryptsetup reencrypt --decrypt does not work here: ${err%%$'\n'*}"
	else
		cmp -s -n 6291456 plain c.luks
		result $? "cryptsetup decrypts ours"
	fi
	rm -f s.luks; truncate -s 8M s.luks
	run cryptsetup luksFormat -q --type luks1 --cipher serpent-xts-plain64 --pbkdf-force-iterations 1000 --key-file one.raw s.luks
	if [ "$rc" = 0 ]; then
		status 1 "serpent is refused" vhost img convert s.luks no -f luks --source.key-secret=disk
		like "by name, with a remedy" "$err" "*serpent-xts-plain64*(*"
	else
		skip "serpent is refused" "cryptsetup cannot make it here: ${err%%$'\n'*}"
	fi
fi

# ---- QEMU; its creation of LUKS is flaky ("Unable to get accurate CPU usage") ----
if ! command -v qemu-img >/dev/null; then
	skip "QEMU both ways" "qemu-img is not installed"
else
	qemu() { # ARGS...: up to ten tries
		local k
		for k in 1 2 3 4 5 6 7 8 9 10; do
			qemu-img "$@" >.out 2>.err && return 0
			grep -q 'accurate CPU usage' .err || break
		done
		cat .err >&2
		return 1
	}
	obj="secret,id=s,file=$tmp/one.raw"
	is_same() { qemu-img compare -q --object "$obj" --image-opts driver=raw,file.filename=plain "$1"; }
	check "QEMU reads ours" is_same driver=luks,file.filename=a.luks,key-secret=s
	for o in "" ",cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256" ",cipher-alg=aes-128,ivgen-alg=plain,hash-alg=sha1" \
		",cipher-mode=xts,ivgen-alg=essiv,ivgen-hash-alg=sha256"; do
		rm -f q.luks
		if ! run qemu convert -f raw -O luks --object "$obj" -o "key-secret=s,iter-time=10$o" plain q.luks || [ "$rc" != 0 ]; then
			skip "QEMU's luks$o" "qemu-img: ${err%%$'\n'*}"
			continue
		fi
		decode "QEMU's luks$o is read" q.luks --source.key-secret=disk
	done
	if run qemu create -f luks --object "$obj" -o key-secret=s,iter-time=10 w.luks 6M && [ "$rc" = 0 ]; then
		check "a disk is written into QEMU's image" vhost img convert plain w.luks -n -f raw --format luks --format.key-secret=disk
		check "as QEMU finds" is_same driver=luks,file.filename=w.luks,key-secret=s
	fi
	if [ -n "$(find "$BUILDDIR/plugins/formats/qcow2" -name qcow2.so 2>/dev/null)" ]; then
		for o in luks aes; do
			rm -f e.qcow2 q.qcow2 got
			check "qcow2 with $o is made" vhost img convert plain e.qcow2 -f raw -O qcow2 -o "encrypt=$o,key-secret=disk,iter-time=10ms" --allow-insecure
			check "QEMU reads it" is_same driver=qcow2,file.filename=e.qcow2,encrypt.key-secret=s
			[ $o = aes ] || iter=,encrypt.iter-time=10
			run qemu convert -f raw -O qcow2 --object "$obj" -o "encrypt.format=$o,encrypt.key-secret=s${iter:-}" plain q.qcow2
			iter=
			if [ "$rc" != 0 ]; then
				skip "QEMU's qcow2 with $o" "qemu-img: ${err%%$'\n'*}"
				continue
			fi
			run vhost img convert q.qcow2 got -f qcow2 --source.key-secret=disk
			[ "$rc" = 0 ] && same got
			result $? "QEMU's qcow2 with $o is read"
		done
	fi
fi
finish
