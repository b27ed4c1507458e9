/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Whether a plugin's answer to map() obeys vhost/format.h. Pure: no I/O, no state, any bytes as input. */
#ifndef FMT_VALIDATE_H
#define FMT_VALIDATE_H

#include <vhost/format.h>

/* What is known of the image. */
struct fmt_rules {
	uint64_t bytes, backing_bytes;
	uint64_t caps;      /* VH_FMT_* that the host allows */
	uint32_t unit;      /* a power of two */
	uint32_t volumes;
	uint64_t missing;   /* bit v: volume v (below 64) is not there */
	uint64_t max_map;
	uint64_t crypt_base;   /* CRYPT: no extent before this address */
	uint32_t crypt_sector; /* a power of two; 0: no cipher */
	int read_only, has_commit, has_decode;
};

/* NULL: good. Else the rule that it breaks, a constant string. Looks at m->ext[0..min(n, cap)) only. */
const char *fmt_validate(const struct fmt_rules *r, const struct vh_map *m);

#endif
