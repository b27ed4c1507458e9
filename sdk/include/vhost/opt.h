/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * Options are data: a plugin publishes a schema per scope, the host parses, checks ranges, applies defaults and
 * refuses unknown names; the plugin receives typed values that are valid already. Help, JSON schema and completion
 * come from the same table.
 */
#ifndef VHOST_OPT_H
#define VHOST_OPT_H

#include <vhost/abi.h>

#define VH_OPT_STR 1u      /* str; min and max bound its length when max > 0 */
#define VH_OPT_PATH 2u     /* str; absolute after parsing */
#define VH_OPT_SIZE 3u     /* num, bytes; K M G T accepted */
#define VH_OPT_INT 4u      /* num */
#define VH_OPT_BOOL 5u     /* num, 0 or 1; on off yes no true false accepted */
#define VH_OPT_ENUM 6u     /* num, index into choices; str, the word */
#define VH_OPT_SECRET 7u   /* str, what to ask vh.secret/1 for: NAME, file:PATH, fd:N, prompt:; never the secret */
#define VH_OPT_HOSTPORT 8u /* str, host:port or [v6]:port */
#define VH_OPT_MAC 9u      /* num, 48 bits, first octet highest; str */
#define VH_OPT_DURATION 10u /* num, ns; ms s min accepted */

#define VH_OPT_REQUIRED UINT64_C(0x1)
#define VH_OPT_REPEAT UINT64_C(0x2)      /* may be given more than once: one vh_val each, in order */
#define VH_OPT_LIVE UINT64_C(0x4)        /* may be changed while open */
#define VH_OPT_DEPRECATED UINT64_C(0x8)
#define VH_OPT_MAIN UINT64_C(0x10)       /* the main key: a first part without `=` sets it */
#define VH_OPT_NIC UINT64_C(0x20)        /* net: of one port, not of its network: given with --net NAME, not at `net define` */

struct vh_opt {
	uint32_t size, type; /* VH_OPT_STR ... */
	uint64_t flags;
	const char *name; /* [a-z][a-z0-9-]* */
	const char *doc;  /* one sentence, no full stop */
	const char *defval; /* as a person would type it; NULL: no value unless given */
	const char *const *choices; /* ENUM: NULL-terminated */
	int64_t min, max; /* SIZE INT DURATION: inclusive; both 0: no bound but the type's */
};

struct vh_val {
	uint32_t size, type;
	const char *name, *str;
	int64_t num;
};

/* The values of one scope, defaults included. Lives until the call that it was handed to returns. */
struct vh_opts {
	uint32_t size, n;
	const struct vh_val *const *val;
};

/* A schema: NULL-terminated array of pointers. */
typedef const struct vh_opt *const *vh_schema;

#endif
