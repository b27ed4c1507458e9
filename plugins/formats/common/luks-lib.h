/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * libcryptsetup, loaded when the first LUKS header is met. It brings device-mapper, udev and JSON along, which takes longer than opening
 * an image does, and which the process of a VM without encrypted disks better has not in its memory.
 */
#ifndef PLUGIN_LUKS_LIB_H
#define PLUGIN_LUKS_LIB_H

#include <libcryptsetup.h>

#define LUKS_LIB_SONAME "libcryptsetup.so.12"
#define LUKS_LIB(X)                                                                                                    \
	X(crypt_dump_json) X(crypt_format) X(crypt_free) X(crypt_get_cipher) X(crypt_get_cipher_mode) X(crypt_get_data_offset)  \
	X(crypt_get_integrity_info) X(crypt_get_iv_offset) X(crypt_get_sector_size) X(crypt_get_type) X(crypt_get_uuid)          \
	X(crypt_get_volume_key_size) X(crypt_init) X(crypt_keyslot_add_by_volume_key) X(crypt_keyslot_destroy)                   \
	X(crypt_keyslot_get_encryption) X(crypt_keyslot_get_pbkdf) X(crypt_keyslot_max) X(crypt_keyslot_status) X(crypt_load)    \
	X(crypt_metadata_locking) X(crypt_persistent_flags_get) X(crypt_repair) X(crypt_set_data_offset)                         \
	X(crypt_set_log_callback) X(crypt_set_pbkdf_type) X(crypt_volume_key_get) X(crypt_volume_key_verify)

struct luks_lib {
#define LUKS_LIB_FIELD(f) __typeof__(f) *f;
	LUKS_LIB(LUKS_LIB_FIELD)
#undef LUKS_LIB_FIELD
};
extern struct luks_lib luks_lib;
/* [any] May block. NULL, or why it cannot be loaded; luks_lib is usable from then on. */
const char *luks_lib_load(void);

#endif
