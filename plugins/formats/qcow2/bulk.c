/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Lists of L2 tables, what they refer to, counted. */
#include "bulk.h"

#define BATCH (UINT64_C(1) << 20) /* bytes of tables that are read at once where they lie together */

/* ---- L2 tables ---- */

static int by_off(const void *a, const void *b)
{
	const struct q2_l2 *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

void q2_l2s_sort(struct q2_l2s *s)
{
	uint64_t k = 0, in_order = 1;

	if (s->sorted == s->n)
		return;
	for (uint64_t i = 1; i < s->n && in_order; i++)
		in_order = s->v[i - 1].off < s->v[i].off;
	if (!in_order) {
		qsort(s->v, s->n, sizeof(*s->v), by_off);
		for (uint64_t i = 1; i < s->n; i++) {
			if (s->v[k].off == s->v[i].off) {
				s->v[k].refs += s->v[i].refs;
				s->v[k].seen |= s->v[i].seen;
			} else {
				s->v[++k] = s->v[i];
			}
		}
		s->n = k + 1;
	}
	s->sorted = s->n;
}

void q2_l2s_free(struct q2_l2s *s)
{
	free(s->v);
	memset(s, 0, sizeof(*s));
}

/* Many snapshots name the same tables: they are joined before more memory is taken. */
static int l2s_room(struct q2_l2s *s)
{
	struct q2_l2 *v;
	uint64_t cap;

	if (s->n < s->cap)
		return 0;
	q2_l2s_sort(s);
	if (s->cap && s->n < s->cap / 2)
		return 0;
	cap = s->cap ? 2 * s->cap : 1024;
	v = realloc(s->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->v = v;
	s->cap = cap;
	return 0;
}

int q2_l2s_add(struct q2 *q, struct q2_l2s *s, const uint64_t *l1, uint64_t n, int active)
{
	for (uint64_t k = 0; k < n; k++) {
		uint64_t off = l1[k] & Q2_OFFSET_MASK;

		if (!off || off & (q->cluster - 1))
			continue;
		if (l2s_room(s) < 0)
			return -ENOMEM;
		s->v[s->n++] = (struct q2_l2){off, 1, !active ? 0 : l1[k] & Q2_COPIED ? Q2_SEEN_COPIED : Q2_SEEN_SHARED};
	}
	return 0;
}

/* ---- counts ---- */

int q2_counts_init(struct q2_counts *c, uint64_t lo, uint64_t n)
{
	if (c->room < n) {
		free(c->v);
		c->v = calloc(n, sizeof(*c->v)); /* touched where something is counted */
		c->room = c->v ? n : 0;
	} else {
		memset(c->v, 0, n * sizeof(*c->v));
	}
	free(c->many);
	c->many = NULL;
	c->nmany = c->many_cap = 0;
	c->no_memory = 0;
	c->lo = lo;
	c->n = n;
	return c->v ? 0 : -ENOMEM;
}

void q2_counts_free(struct q2_counts *c)
{
	free(c->v);
	free(c->many);
	memset(c, 0, sizeof(*c));
}

static struct q2_many *many_slot(struct q2_many *t, uint64_t cap, uint64_t cluster)
{
	uint64_t k = (cluster * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (cap - 1);

	while (t[k].c && t[k].c != cluster + 1)
		k = (k + 1) & (cap - 1);
	return &t[k];
}

static void many_add(struct q2_counts *c, uint64_t cluster, uint64_t refs)
{
	struct q2_many *m;

	if (2 * (c->nmany + 1) > c->many_cap) {
		uint64_t cap = c->many_cap ? 2 * c->many_cap : 1024;
		struct q2_many *t = calloc(cap, sizeof(*t));

		if (!t) {
			c->no_memory = 1;
			return;
		}
		for (uint64_t k = 0; k < c->many_cap; k++)
			if (c->many[k].c)
				*many_slot(t, cap, c->many[k].c - 1) = c->many[k];
		free(c->many);
		c->many = t;
		c->many_cap = cap;
	}
	m = many_slot(c->many, c->many_cap, cluster);
	if (!m->c)
		c->nmany++;
	m->c = cluster + 1;
	m->n += refs;
}

uint64_t q2_count_lookup(const struct q2_counts *c, uint64_t cluster)
{
	return c->many_cap ? many_slot(c->many, c->many_cap, cluster)->n : 0;
}

static inline void add(struct q2_counts *c, uint64_t cluster, uint64_t refs, unsigned seen)
{
	uint64_t i = cluster - c->lo, have, sum;

	if (i >= c->n)
		return;
	have = c->v[i] & Q2_COUNT_BIG;
	c->v[i] |= (uint16_t)seen;
	sum = have + refs;
	if (sum < Q2_COUNT_BIG) {
		c->v[i] = (uint16_t)(c->v[i] + refs);
		return;
	}
	many_add(c, cluster, have < Q2_COUNT_BIG ? sum : refs);
	c->v[i] |= Q2_COUNT_BIG;
}

void q2_count_add(struct q2_counts *c, uint64_t cluster, uint64_t refs, unsigned seen)
{
	add(c, cluster, refs, seen);
}

void q2_count_range(struct q2_counts *c, uint32_t bits, uint64_t off, uint64_t len, uint64_t refs)
{
	uint64_t k, hi;

	if (!len)
		return;
	k = off >> bits;
	hi = (off + len - 1) >> bits;
	if (k < c->lo)
		k = c->lo;
	if (hi >= c->lo + c->n)
		hi = c->lo + c->n - 1;
	for (; k <= hi && c->n; k++)
		add(c, k, refs, 0);
}

/* ---- the walk ---- */

struct state {
	struct q2_walk *w;
	uint64_t file;
	int r, changed; /* changed: of the table that is looked at */
};

static void flaw(struct state *s, enum q2_flaw what, const struct q2_l2 *t, uint32_t index, uint8_t *p)
{
	int r = s->w->flaw ? s->w->flaw(s->w->ctx, what, t, index, p) : -EUCLEAN;

	if (r < 0)
		s->r = r;
	else if (r)
		s->changed = 1;
}

static void refer(struct state *s, uint64_t cluster, const struct q2_l2 *t, unsigned seen)
{
	if (cluster > s->w->max)
		s->w->max = cluster;
	if (s->w->counts)
		add(s->w->counts, cluster, t->refs, seen);
}

static void compressed(struct state *s, const struct q2_l2 *t, uint32_t i, uint8_t *p, uint64_t e)
{
	struct q2 *q = s->w->q;
	uint64_t off;
	uint32_t len;

	if (q->has_data || (q->extended && q2_be64(p + 8))) {
		flaw(s, Q2_FLAW_COMPRESSED, t, i, p);
		return;
	}
	if (e & Q2_COPIED)
		flaw(s, Q2_FLAW_COPIED, t, i, p);
	q2_compressed(q, e, &off, &len);
	len += (uint32_t)(off & 511); /* whole sectors, as others count */
	off &= ~UINT64_C(511);
	if (off + len >= s->file + q->cluster || off >= Q2_MAX_OFFSET) {
		flaw(s, Q2_FLAW_OUTSIDE, t, i, p);
		return;
	}
	for (uint64_t c = off >> q->h.bits; c <= (off + len - 1) >> q->h.bits; c++)
		refer(s, c, t, 0);
}

/* What is not the plainest. */
static void entry(struct state *s, const struct q2_l2 *t, uint32_t i, uint8_t *p, uint64_t e)
{
	struct q2 *q = s->w->q;
	uint64_t off = e & Q2_OFFSET_MASK, bitmap = q->extended ? q2_be64(p + 8) : 0;
	int has = off || (q->has_data && (e & Q2_COPIED));
	int zero = q->extended ? !(bitmap & 0xffffffffu) : !!(e & Q2_ZERO);

	if (e & Q2_COMPRESSED) {
		compressed(s, t, i, p, e);
		return;
	}
	if (e & Q2_L2_RESERVED || ((e & Q2_ZERO) && (q->extended || !q->zero_flag)))
		flaw(s, Q2_FLAW_RESERVED, t, i, p);
	if ((bitmap >> 32 & bitmap) || (!has && bitmap & 0xffffffffu))
		flaw(s, Q2_FLAW_BITMAP, t, i, p);
	if (!off)
		return;
	if (off & (q->cluster - 1)) {
		flaw(s, zero ? Q2_FLAW_ZERO_UNALIGNED : Q2_FLAW_UNALIGNED, t, i, p);
		return;
	}
	if (q->has_data)
		return;
	if (off >= s->file) {
		flaw(s, Q2_FLAW_OUTSIDE, t, i, p);
		return;
	}
	refer(s, off >> q->h.bits, t, !t->seen ? 0 : e & Q2_COPIED ? Q2_SEEN_COPIED : Q2_SEEN_SHARED);
}

static void clear_copied(struct state *s, uint8_t *p, uint64_t e)
{
	if (!(e & Q2_COPIED) || e & Q2_COMPRESSED || s->w->q->has_data)
		return;
	q2_put64(p, e & ~Q2_COPIED);
	s->changed = 1;
}

static void table(struct state *s, const struct q2_l2 *t, uint8_t *data)
{
	struct q2 *q = s->w->q;
	uint32_t n = 1u << q->l2_bits;
	uint64_t odd = (q->cluster - 1) | ~(Q2_OFFSET_MASK | Q2_COPIED); /* bits that a plain entry has not */
	int plain = !q->extended && !q->has_data;

	for (uint32_t i = 0; i < n && s->r >= 0; i++) {
		uint8_t *p = data + (size_t)i * q->entry;
		uint64_t e = q2_be64(p);

		if (s->w->each) {
			s->changed |= s->w->each(s->w->ctx, t, i, p);
			continue;
		}
		if (plain && !(e & odd) && (e & Q2_OFFSET_MASK) && (e & Q2_OFFSET_MASK) < s->file)
			refer(s, (e & Q2_OFFSET_MASK) >> q->h.bits, t,
			      !t->seen ? 0 : e & Q2_COPIED ? Q2_SEEN_COPIED : Q2_SEEN_SHARED);
		else if (e || q->extended)
			entry(s, t, i, p, e);
		if (s->w->clear_copied)
			clear_copied(s, p, e);
	}
}

/* How many tables from k on lie behind each other, at most a batch. */
static uint64_t together(const struct q2_l2s *s, uint64_t k, uint64_t cluster)
{
	uint64_t n = 1;

	while (k + n < s->n && (n + 1) * cluster <= BATCH && s->v[k + n].off == s->v[k].off + n * cluster)
		n++;
	return n;
}

static int batch(struct state *s, uint64_t k, uint64_t n, uint8_t *buf)
{
	struct q2 *q = s->w->q;
	uint64_t off = s->w->l2s->v[k].off, lo = UINT64_MAX, hi = 0;
	int r = q2_read(q, buf, n << q->h.bits, off);

	if (r < 0)
		return r;
	for (uint64_t j = 0; j < n && s->r >= 0; j++) {
		const struct q2_l2 *t = &s->w->l2s->v[k + j];

		s->changed = 0;
		if (s->w->with_tables)
			refer(s, t->off >> q->h.bits, t, t->seen);
		table(s, t, buf + (j << q->h.bits));
		if (s->changed) {
			lo = lo < j ? lo : j;
			hi = j + 1;
		}
	}
	if (s->r < 0)
		return s->r;
	return lo < hi ? q2_write(q, buf + (lo << q->h.bits), (hi - lo) << q->h.bits, off + (lo << q->h.bits)) : 0;
}

int q2_walk(struct q2_walk *w)
{
	struct q2 *q = w->q;
	struct state s = {.w = w, .file = q2_io->bytes(q->vol)};
	uint8_t *buf = malloc(BATCH > q->cluster ? BATCH : q->cluster);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t k = 0, n; r >= 0 && k < w->l2s->n; k += n) {
		const struct q2_l2 *t = &w->l2s->v[k];

		n = 1;
		if (q2_cancelled(w->job)) {
			r = -ECANCELED;
		} else if (t->off >= s.file) {
			flaw(&s, Q2_FLAW_TABLE, t, 0, NULL);
			r = s.r;
		} else {
			n = together(w->l2s, k, q->cluster);
			r = batch(&s, k, n, buf);
		}
	}
	free(buf);
	return r < 0 ? r : w->counts && w->counts->no_memory ? -ENOMEM : 0;
}
