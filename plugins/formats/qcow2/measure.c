/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* How large the image file becomes. */
#include <vhost/pool.h>
#include "qcow2.h"

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
	return a / b + !!(a % b);
}

/* Clusters of refcount blocks and table that count `clusters` others and themselves. */
static uint64_t counting(uint64_t clusters, uint64_t cluster, uint32_t order)
{
	uint64_t per = cluster * 8 >> order, blocks = 0, table = 0, n = 0, last;

	do {
		last = n;
		blocks = ceil_div(clusters + table + blocks, per);
		table = ceil_div(blocks, cluster / 8);
		n = clusters + blocks + table;
	} while (n != last);
	return blocks + table;
}

int q2_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	struct q2_create_params p;
	uint64_t cluster, entry, data, l2, l1, meta;
	int r = q2_services(e);

	if (r >= 0)
		r = q2_create_params(c, &p, e);
	if (r < 0)
		return r;
	cluster = UINT64_C(1) << p.h.bits;
	entry = p.h.incompat & Q2_INCOMPAT_EXTENDED ? 16 : 8;
	data = ceil_div(p.h.bytes, cluster);
	l2 = ceil_div(data, cluster / entry);
	l1 = ceil_div(l2 * 8, cluster);
	meta = 1 + l2 + l1;
	if (p.h.crypt == Q2_CRYPT_LUKS)
		meta += ceil_div(q2_crypt_bytes(c->opts), cluster);
	if (p.h.incompat & Q2_INCOMPAT_DATA)
		data = used = 0; /* elsewhere */
	meta += counting(meta + data, cluster, p.h.ref_order);
	*full = (meta + data) << p.h.bits;
	if (c->prealloc != VH_PREALLOC_OFF)
		used = data << p.h.bits;
	*required = q2_min((meta << p.h.bits) + q2_up(used, cluster), *full);
	return 0;
}
