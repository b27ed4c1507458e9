/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * The file that the filter `record` writes: a head, then entries in the order in which things happened. Numbers are those of
 * the host (little-endian, as vhost runs nowhere else). What a crash at the end of entry N may leave: every WRITE, ZERO, DISCARD and
 * RESIZE that ended before a FLUSH began which has ended by N; of the others that have begun, any part, by 512-byte sectors.
 */
#ifndef VHOST_RECORD_H
#define VHOST_RECORD_H

#include <stdint.h>

#define RECORD_MAGIC "VHRECORD"
#define RECORD_VERSION 1u

struct record_head {
	char magic[8];
	uint32_t version, bytes; /* of this head: entries begin behind it */
	uint64_t volume;         /* bytes of the volume when it was opened */
	uint64_t time;           /* then; ns since 1970 */
};

#define RECORD_BEGIN 1u /* handed to the volume; a WRITE's data follows the entry, unless data=off */
#define RECORD_END 2u   /* the volume has answered: `result` */

#define RECORD_RESIZE 16u /* beside VH_WRITE ... of vhost/io.h; len is the new size */
#define RECORD_CLOSE 17u  /* the last entry; without it the record was cut */

struct record_entry {
	uint32_t bytes;     /* of the entry, with its data, a multiple of 8 */
	uint16_t what, op;
	uint32_t flags;     /* VH_REQ_* */
	int32_t result;     /* END */
	uint64_t id;        /* the same in BEGIN and END of one request */
	uint64_t off, len;
	uint64_t time;      /* ns since the volume was opened */
};

#endif
