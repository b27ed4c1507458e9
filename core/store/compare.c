/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Comparing disks, and measuring what one holds: by the engine that copies. */
#include "store/convert-i.h"

/* The ranges of one image as a list, to hold them against another's. */
static int collect(void *ctx, const struct fmt_range *r)
{
	GArray *a = ctx;
	struct fmt_range *last = a->len ? &g_array_index(a, struct fmt_range, a->len - 1) : NULL;

	if (last && last->allocated == r->allocated)
		last->len += r->len;
	else
		g_array_append_val(a, *r);
	return 0;
}

/* The first byte of [0, bytes) that one image decides and the other does not. */
static int allocation(struct compare *c, uint64_t bytes, struct vh_err *e)
{
	g_autoptr(GArray) a = g_array_new(FALSE, FALSE, sizeof(struct fmt_range));
	g_autoptr(GArray) b = g_array_new(FALSE, FALSE, sizeof(struct fmt_range));
	int ret = fmt_walk(c->a, 0, bytes, 0, collect, a, e);

	if (!ret)
		ret = fmt_walk(c->b, 0, bytes, 0, collect, b, e);
	for (guint i = 0, k = 0; !ret && i < a->len && k < b->len;) {
		struct fmt_range *x = &g_array_index(a, struct fmt_range, i), *y = &g_array_index(b, struct fmt_range, k);

		if (x->allocated != y->allocated) {
			c->what = "allocation";
			c->at = MAX(x->off, y->off);
			return 0;
		}
		if (x->off + x->len <= y->off + y->len)
			i++;
		else
			k++;
	}
	return ret;
}

int compare_run(struct compare *c, struct vh_job *j, struct vh_err *e)
{
	struct convert v = {.src = c->a, .dst = c->b, .src_name = c->a_name, .dst_name = c->b_name, .compare = 1, .differs = 1,
			    .no_share = 1};
	struct fmt_info a, b;
	int ret;

	c->what = NULL;
	fmt_get_info(c->a, &a);
	fmt_get_info(c->b, &b);
	if (c->strict && a.bytes != b.bytes) {
		c->what = "size";
		c->at = MIN(a.bytes, b.bytes);
		return 0;
	}
	v.bytes = MIN(a.bytes, b.bytes);
	ret = convert_run(&v, j, e);
	if (!ret && v.mismatch == CONVERT_ALL && a.bytes != b.bytes) {
		/* What the longer one has more must be zeros. */
		v.src = a.bytes > b.bytes ? c->a : c->b;
		v.src_name = a.bytes > b.bytes ? c->a_name : c->b_name;
		v.dst = NULL;
		v.src_off = MIN(a.bytes, b.bytes);
		v.bytes = MAX(a.bytes, b.bytes) - v.src_off;
		v.fresh = 1;
		v.differs = 0;
		ret = convert_run(&v, j, e);
	}
	if (!ret && v.mismatch != CONVERT_ALL) {
		c->what = "content";
		c->at = v.mismatch;
	}
	if (!ret && !c->what && c->strict)
		ret = allocation(c, a.bytes, e);
	return ret;
}

struct used {
	uint64_t unit, end, sum; /* end: what is counted ends here, at a multiple */
};

static int count_used(void *ctx, const struct fmt_range *r)
{
	struct used *u = ctx;
	uint64_t lo = r->off - r->off % u->unit, hi = (r->off + r->len + u->unit - 1) / u->unit * u->unit;

	if (r->type == VH_EXT_ZERO)
		return 0;
	lo = MAX(lo, u->end);
	if (hi > lo)
		u->sum += hi - lo;
	u->end = MAX(u->end, hi);
	return 0;
}

int measure_used(struct fmt_image *i, uint64_t unit, uint64_t *used, struct vh_err *e)
{
	struct used u = {.unit = unit};
	struct fmt_info info;
	int ret;

	fmt_get_info(i, &info);
	ret = fmt_walk(i, 0, info.bytes, 1, count_used, &u, e);
	*used = u.sum;
	return ret;
}
