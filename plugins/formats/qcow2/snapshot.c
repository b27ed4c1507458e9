/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Internal snapshots. All that refers to clusters is walked in bulk (bulk.c), and written in an order in which a crash leaves
 * leaked clusters at most: COPIED is cleared, then counts are raised, then the header names what is new; on the way down the header
 * forgets, then counts are lowered, then COPIED is set where one owner is left.
 */
#include <stdio.h>
#include <time.h>
#include "snapshot.h"

static int begin(struct q2 *q, struct vh_err *e)
{
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (q->read_only)
		return q2_fail(e, -EROFS, "the image is open for reading only");
	if (q->has_data)
		return q2_fail(e, -EOPNOTSUPP, "an image with an external data file cannot have snapshots");
	if (__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
		return q2_fail(e, -EIO, "writing to the image has failed before");
	if (q->h.nsnaps && !q->snaps) {
		q2_hint(e, "check and repair the image");
		return q2_fail(e, -EUCLEAN, "the snapshot table is damaged");
	}
	r = q2_writing_begin(q, e);
	if (r < 0)
		return r;
	r = q2_sync(q);
	return r < 0 ? q2_fail(e, r, "cannot write the metadata") : 0;
}

static int damaged(struct vh_err *e, int r, const char *what)
{
	if (r == -EUCLEAN) {
		q2_hint(e, "check and repair the image");
		return q2_fail(e, r, "%s: the image's metadata is damaged", what);
	}
	return q2_fail(e, r, "%s", what);
}

/* ---- a tree: an L1 table with all below it ---- */

struct tree { struct q2 *q; struct q2_l2s l2s; uint64_t clusters; struct q2_counts counts; uint64_t lo; struct vh_job *job; };

static int tree_init(struct tree *t, struct q2 *q, const uint64_t *l1, uint64_t n, struct vh_job *job)
{
	int r;

	memset(t, 0, sizeof(*t));
	t->q = q;
	t->job = job;
	t->clusters = ((q2_io->bytes(q->vol) + q->cluster - 1) >> q->h.bits) + 1;
	t->lo = UINT64_MAX;
	r = q2_l2s_add(q, &t->l2s, l1, n, 0);
	q2_l2s_sort(&t->l2s);
	return r;
}

static void tree_free(struct tree *t)
{
	q2_l2s_free(&t->l2s);
	q2_counts_free(&t->counts);
}

/* Gives the memory of the counts back; they are counted again when they are wanted. */
static void tree_shrink(struct tree *t)
{
	q2_counts_free(&t->counts);
	t->lo = UINT64_MAX;
}

/* Counts the window from lo on, unless it is the one that is counted. */
static int tree_count(struct tree *t, uint64_t lo, int clear)
{
	struct q2_walk w = {.q = t->q, .l2s = &t->l2s, .counts = &t->counts, .with_tables = 1, .clear_copied = clear, .job = t->job};
	int r;

	if (t->lo == lo && !clear)
		return 0;
	t->lo = UINT64_MAX;
	r = q2_counts_init(&t->counts, lo, q2_min(Q2_WINDOW, t->clusters - lo));
	if (r >= 0)
		r = q2_walk(&w);
	if (r >= 0)
		t->lo = lo;
	return r;
}

static int tree_apply(struct tree *t, int sign, int dry, int clear)
{
	int r = 0;

	for (uint64_t lo = 0; r >= 0 && lo < t->clusters; lo += Q2_WINDOW) {
		r = tree_count(t, lo, clear && !lo);
		if (r >= 0)
			r = q2_counts_apply(t->q, &t->counts, sign, dry);
		if (r >= 0)
			q2_progress(t->job, q2_min(lo + Q2_WINDOW, t->clusters), t->clusters);
	}
	return r;
}

/* One more for all that the tree names. COPIED is cleared on the way. */
static int tree_raise(struct tree *t, struct vh_err *e)
{
	int r = tree_apply(t, 1, 1, 1);

	if (r == -ERANGE) {
		q2_hint(e, "amend the image to a larger refcount-bits, or remove a snapshot");
		return q2_fail(e, r, "a cluster's count does not fit into %u bits", 1u << t->q->h.ref_order);
	}
	if (r >= 0)
		r = q2_io->flush(t->q->vol);
	t->job = NULL; /* from here on it is not cancelled half way */
	if (r >= 0)
		r = tree_apply(t, 1, 0, 0);
	q2_ref_changed(t->q, 0);
	return r < 0 ? damaged(e, r, "cannot raise the counts") : 0;
}

/* What is free now is given back to the volume. */
static int tree_discard(struct tree *t)
{
	struct q2 *q = t->q;
	uint64_t first = 0, n = 0, count;
	struct q2_refs refs;
	int r;

	if (q2_io->size < VH_UPTO(struct vh_meta_ops, discard) || !q2_io->discard)
		return 0;
	r = q2_refs_init(&refs, q);
	for (uint64_t lo = 0; r >= 0 && lo < t->clusters; lo += Q2_WINDOW) {
		r = tree_count(t, lo, 0);
		for (uint64_t k = 0; r >= 0 && k < t->counts.n; k++) {
			if (!t->counts.v[k])
				continue;
			r = q2_refs_get(&refs, lo + k, &count);
			if (r < 0 || count)
				continue;
			if (n && first + n == lo + k) {
				n++;
				continue;
			}
			if (n)
				q2_io->discard(q->vol, n << q->h.bits, first << q->h.bits);
			first = lo + k;
			n = 1;
		}
	}
	if (n)
		q2_io->discard(q->vol, n << q->h.bits, first << q->h.bits);
	q2_refs_free(&refs);
	return r;
}

/* One less; nothing in the file refers to the tree any more. What cannot be done leaks. */
static void tree_lower(struct tree *t)
{
	int r = tree_apply(t, -1, 1, 0);

	if (r >= 0)
		r = tree_apply(t, -1, 0, 0);
	if (r >= 0)
		r = q2_io->flush(t->q->vol);
	q2_ref_changed(t->q, 1);
	if (r >= 0)
		r = tree_discard(t);
	tree_shrink(t);
	if (r < 0)
		q2_warn("clusters that are not used any more could not be freed (%s): check the image", strerror(-r));
}

/* Nothing came of what the counts were raised for. Not when the header may name it. */
static void take_back(struct tree *t)
{
	if (!__atomic_load_n(&t->q->failed, __ATOMIC_ACQUIRE) && q2_sync(t->q) >= 0)
		tree_lower(t);
}

static int copied_again(struct q2 *q, struct vh_err *e)
{
	int r = q2_copied(q, 1, NULL, NULL, NULL);

	if (r >= 0)
		r = q2_sync(q);
	return r < 0 ? q2_fail(e, r, "cannot write the metadata") : 0;
}

/* An L1 table in new clusters; not durable yet. */
static int l1_write(struct q2 *q, const uint64_t *l1, uint64_t n, uint64_t *off, struct vh_err *e)
{
	uint64_t clusters = (n * 8 + q->cluster - 1) >> q->h.bits;
	uint8_t *buf;
	int r;

	*off = 0;
	if (!n) /* a disk of no bytes */
		return 0;
	buf = calloc(1, clusters << q->h.bits);
	r = buf ? q2_alloc(q, clusters, off) : -ENOMEM;
	for (uint64_t k = 0; r >= 0 && k < n; k++)
		q2_put64(buf + 8 * k, l1[k] & ~Q2_COPIED);
	if (r >= 0)
		r = q2_write(q, buf, clusters << q->h.bits, *off);
	free(buf);
	return r < 0 ? q2_fail(e, r, "cannot write an L1 table of %llu entries", (unsigned long long)n) : 0;
}

/* ---- create ---- */

static int new_names(struct q2 *q, const char *name, struct q2_snap *s, struct vh_err *e)
{
	unsigned long long id = 0;
	char text[24];

	if (!*name || strlen(name) > 255)
		return q2_fail(e, -EINVAL, "a snapshot's name has 1 to 255 bytes");
	for (uint32_t k = 0; q->snaps && k < q->h.nsnaps; k++) {
		unsigned long long n = strtoull(q->snaps[k].id, NULL, 10);

		if (!strcmp(q->snaps[k].name, name)) {
			q2_hint(e, "choose another name, or remove that snapshot");
			return q2_fail(e, -EEXIST, "there is a snapshot '%s' already", name);
		}
		if (n > id && n < UINT32_MAX)
			id = n;
	}
	if (q->h.nsnaps >= Q2_MAX_SNAPSHOTS)
		return q2_fail(e, -EFBIG, "the image has %u snapshots, which is the most there can be", q->h.nsnaps);
	snprintf(text, sizeof(text), "%llu", id + 1);
	s->id = strdup(text);
	s->name = strdup(name);
	return s->id && s->name ? 0 : q2_fail(e, -ENOMEM, "no memory");
}

static int create(struct q2 *q, struct q2_snap *s, struct vh_err *e)
{
	struct q2_snap *v = realloc(q->snaps, (q->h.nsnaps + 1) * sizeof(*v));
	struct tree t;
	int r, raised;

	if (!v)
		return q2_fail(e, -ENOMEM, "no memory");
	q->snaps = v;
	r = tree_init(&t, q, q->l1, q->h.l1_size, NULL);
	r = r < 0 ? q2_fail(e, r, "no memory for the list of tables") : tree_raise(&t, e);
	for (uint64_t k = 0; r >= 0 && k < q->h.l1_size; k++)
		if (q2_l1(q, k) & Q2_COPIED)
			q2_l1_set(q, k, q2_l1(q, k) & ~Q2_COPIED);
	q2_l2_forget(q);
	raised = r >= 0;
	if (r >= 0)
		r = l1_write(q, q->l1, q->h.l1_size, &s->l1_off, e);
	if (r >= 0) {
		v[q->h.nsnaps] = *s;
		r = q2_snaps_write(q, v, q->h.nsnaps + 1, e); /* syncs first */
		if (r < 0 && !__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
			q2_ref_add(q, s->l1_off, (uint64_t)s->l1_size * 8, -1);
	}
	if (r < 0 && raised)
		take_back(&t);
	tree_free(&t);
	if (r < 0)
		return r;
	r = q2_sync(q);
	if (r < 0)
		q2_warn("a snapshot was made; what it replaced in the file is leaked");
	return 0;
}

int q2_snapshot_create(void *img, const char *name, struct vh_err *e)
{
	struct q2 *q = img;
	struct timespec now;
	struct q2_snap s = {.icount = UINT64_MAX, .extra_len = 24};
	int r = begin(q, e);

	if (r >= 0)
		r = new_names(q, name, &s, e);
	if (r >= 0) {
		clock_gettime(CLOCK_REALTIME, &now);
		s.sec = (uint32_t)now.tv_sec;
		s.nsec = (uint32_t)now.tv_nsec;
		s.bytes = q->h.bytes;
		s.l1_size = q->h.l1_size;
		r = create(q, &s, e);
		if (r < 0 && !__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
			copied_again(q, NULL);
	}
	if (r < 0) {
		free(s.id);
		free(s.name);
	}
	return r;
}

/* ---- remove ---- */

static struct q2_snap *must_find(struct q2 *q, const char *name, struct vh_err *e)
{
	struct q2_snap *s = q2_snap_find(q, name);

	if (s)
		return s;
	q2_hint(e, "list the image's snapshots");
	q2_fail(e, -ENOENT, "the image has no snapshot '%s'", name);
	return NULL;
}

int q2_snapshot_remove(void *img, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	struct q2_snap *s, old;
	uint64_t *l1 = NULL;
	struct tree t;
	int r = begin(q, e);

	if (r < 0)
		return r;
	s = must_find(q, name, e);
	r = s ? q2_snap_l1(q, s, &l1, e) : -ENOENT;
	if (r < 0)
		return r;
	old = *s;
	r = tree_init(&t, q, l1, old.l1_size, j);
	if (r < 0)
		q2_fail(e, r, "no memory for the list of tables");
	if (r >= 0 && q2_cancelled(j))
		r = q2_fail(e, -ECANCELED, "cancelled");
	t.job = NULL;
	if (r >= 0) {
		memmove(s, s + 1, (size_t)(q->snaps + q->h.nsnaps - s - 1) * sizeof(*s));
		r = q2_snaps_write(q, q->snaps, q->h.nsnaps - 1, e);
		if (r < 0) { /* as it was, in memory as well */
			memmove(s + 1, s, (size_t)(q->snaps + q->h.nsnaps - s - 1) * sizeof(*s));
			*s = old;
		}
	}
	if (r >= 0)
		r = q2_sync(q);
	if (r >= 0) {
		tree_lower(&t);
		if (q2_ref_add(q, old.l1_off, (uint64_t)old.l1_size * 8, -1) < 0)
			q2_warn("the L1 table of a removed snapshot is leaked");
		r = copied_again(q, e);
		free(old.id);
		free(old.name);
		free(old.extra);
	}
	tree_free(&t);
	free(l1);
	return r;
}

/* ---- apply ---- */

/* The header names the new L1 table, of the disk's size then. */
static int switch_l1(struct q2 *q, uint64_t off, uint32_t size, uint64_t bytes, struct vh_err *e)
{
	struct q2_header h = q->h;
	int r = q2_sync(q);

	if (r < 0)
		return q2_fail(e, r, "cannot write the metadata");
	h.l1_off = off;
	h.l1_size = size;
	h.bytes = bytes;
	r = q2_header_write(q->vol, &h, e);
	if (r >= 0) {
		r = q2_io->flush(q->vol);
		if (r < 0)
			q2_fail(e, r, "cannot flush the header");
	}
	if (r < 0)
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
	return r;
}

static int load_l1(struct q2 *q, uint64_t off, uint32_t size, uint64_t bytes, struct vh_err *e)
{
	q2_l2_forget(q);
	for (uint64_t k = 0; k < q->h.l1_size; k++)
		if (q2_l1(q, k) & Q2_OFFSET_MASK)
			q2_meta_del(q, q2_l1(q, k) & Q2_OFFSET_MASK);
	q2_l1_close(q);
	q->h.l1_off = off;
	q->h.l1_size = size;
	q->h.bytes = bytes;
	q->l1_any_dirty = q->l1_any_copied = 0;
	q->backing_bytes = q2_min(q->backing_all, bytes);
	return q2_l1_open(q, e);
}

int q2_l1_replace(struct q2 *q, const uint64_t *l1, uint32_t size, uint64_t bytes, struct vh_err *e)
{
	uint64_t old_off = q->h.l1_off, old_size = q->h.l1_size, off;
	struct tree t;
	int r = tree_init(&t, q, q->l1, q->h.l1_size, NULL);

	if (r < 0)
		q2_fail(e, r, "no memory for the list of tables");
	if (r >= 0)
		r = l1_write(q, l1, size, &off, e);
	if (r >= 0) {
		r = switch_l1(q, off, size, bytes, e);
		if (r < 0 && !__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
			q2_ref_add(q, off, (uint64_t)size * 8, -1);
	}
	if (r >= 0) {
		r = load_l1(q, off, size, bytes, e);
		if (r >= 0) {
			tree_lower(&t);
			if (q2_ref_add(q, old_off, old_size * 8, -1) < 0)
				q2_warn("the old L1 table is leaked");
			r = copied_again(q, e);
		}
		if (r < 0)
			__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
	}
	tree_free(&t);
	return r;
}

int q2_snapshot_apply(void *img, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	uint64_t *l1 = NULL, need;
	uint32_t shift = q->h.bits + q->l2_bits, size;
	struct q2_snap *s;
	struct tree t;
	int r = begin(q, e);

	if (r < 0)
		return r;
	s = must_find(q, name, e);
	r = s ? q2_snap_l1(q, s, &l1, e) : -ENOENT;
	if (r < 0)
		return r;
	need = (s->bytes >> shift) + !!(s->bytes & ((UINT64_C(1) << shift) - 1));
	if (need > Q2_MAX_L1 / 8 || s->bytes > INT64_MAX - (UINT64_C(64) << 20)) {
		free(l1);
		return q2_fail(e, -EUCLEAN, "the snapshot '%s' is damaged: of a disk of %llu bytes", name, (unsigned long long)s->bytes);
	}
	size = need > s->l1_size ? (uint32_t)need : s->l1_size;
	if (s->bytes != q->h.bytes)
		r = q2_bitmaps_can_resize(q, s->bytes, e);
	if (r >= 0) {
		uint64_t *grown = calloc((uint64_t)size + 1, 8);

		if (grown)
			memcpy(grown, l1, (uint64_t)s->l1_size * 8);
		free(l1);
		l1 = grown;
		r = l1 ? tree_init(&t, q, l1, size, j) : -ENOMEM;
		if (r < 0)
			q2_fail(e, r, "no memory for the list of tables");
		if (r >= 0)
			r = tree_raise(&t, e);
		q2_l2_forget(q);
		if (r >= 0) {
			tree_shrink(&t);
			r = q2_l1_replace(q, l1, size, s->bytes, e);
			if (r < 0)
				take_back(&t);
		}
		if (l1)
			tree_free(&t);
	}
	free(l1);
	return r;
}
