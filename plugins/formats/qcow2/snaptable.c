/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The table of internal snapshots: reading, writing, finding. An entry that is written again keeps all that it had. */
#include <stdio.h>
#include "snapshot.h"

#define FIXED 40u
#define KNOWN_EXTRA 24u
#define MAX_EXTRA 1024u
#define MAX_TABLE (UINT64_C(16) << 20)

static void snap_free(struct q2_snap *s)
{
	free(s->id);
	free(s->name);
	free(s->extra);
}

void q2_snaps_free(struct q2 *q)
{
	for (uint32_t k = 0; q->snaps && k < q->h.nsnaps; k++)
		snap_free(&q->snaps[k]);
	free(q->snaps);
	q->snaps = NULL;
}

/* Reads ahead, so that many small entries are few reads. */
struct reader { struct q2 *q; uint64_t off, at, have; uint8_t *buf; };
#define AHEAD 65536u

static int take(struct reader *r, void *to, uint64_t len)
{
	uint8_t *p = to;

	if (r->at + len > MAX_TABLE)
		return -EFBIG;
	while (len) {
		uint64_t n = q2_min(r->have - r->at % AHEAD, len);

		if (r->at % AHEAD == 0) {
			int e = q2_read(r->q, r->buf, AHEAD, r->off + r->at);

			if (e < 0)
				return e;
			r->have = AHEAD;
			n = q2_min(AHEAD, len);
		}
		memcpy(p, r->buf + r->at % AHEAD, n);
		p += n;
		r->at += n;
		len -= n;
	}
	return 0;
}

static int take_text(struct reader *r, char **out, uint32_t len)
{
	*out = malloc((size_t)len + 1);
	if (!*out)
		return -ENOMEM;
	(*out)[len] = 0; /* a NUL inside ends it: what follows means nothing to anybody */
	return take(r, *out, len);
}

static int snap_read(struct reader *r, struct q2_snap *s)
{
	uint8_t b[FIXED + KNOWN_EXTRA] = {0}, pad[8];
	uint32_t id, name, known;
	int e = take(r, b, FIXED);

	if (e < 0)
		return e;
	s->l1_off = q2_be64(b);
	s->l1_size = q2_be32(b + 8);
	id = q2_be16(b + 12);
	name = q2_be16(b + 14);
	s->sec = q2_be32(b + 16);
	s->nsec = q2_be32(b + 20);
	s->clock = q2_be64(b + 24);
	s->vm_state = q2_be32(b + 32);
	s->extra_len = q2_be32(b + 36);
	s->bytes = r->q->h.bytes;
	s->icount = UINT64_MAX;
	if (s->extra_len > MAX_EXTRA)
		return -EFBIG;
	known = (uint32_t)q2_min(s->extra_len, KNOWN_EXTRA);
	e = take(r, b + FIXED, known);
	if (e < 0)
		return e;
	if (known >= 8)
		s->vm_state = q2_be64(b + FIXED);
	if (known >= 16)
		s->bytes = q2_be64(b + FIXED + 8);
	if (known >= 24)
		s->icount = q2_be64(b + FIXED + 16);
	if (s->extra_len > KNOWN_EXTRA) {
		s->extra = malloc(s->extra_len - KNOWN_EXTRA);
		e = s->extra ? take(r, s->extra, s->extra_len - KNOWN_EXTRA) : -ENOMEM;
	}
	if (e >= 0)
		e = take_text(r, &s->id, id);
	if (e >= 0)
		e = take_text(r, &s->name, name);
	if (e >= 0)
		e = take(r, pad, q2_up(r->at, 8) - r->at);
	return e;
}

int q2_snaps_load(struct q2 *q, struct vh_err *e)
{
	struct reader r = {.q = q, .off = q->h.snaps_off};
	uint64_t file = q2_io->bytes(q->vol);
	uint32_t n = q->h.nsnaps, k;
	int x = 0;

	q->snaps_bytes = 0;
	if (!n)
		return 0;
	if (n > Q2_MAX_SNAPSHOTS || (uint64_t)n * FIXED > file)
		return q2_fail(e, -EFBIG, "the snapshot table is damaged: %u snapshots in a file of %llu bytes", n,
			       (unsigned long long)file);
	r.buf = malloc(AHEAD);
	q->snaps = calloc(n, sizeof(*q->snaps));
	if (!r.buf || !q->snaps)
		x = -ENOMEM;
	for (k = 0; x >= 0 && k < n; k++) {
		x = r.off + r.at >= file ? -EFBIG : snap_read(&r, &q->snaps[k]);
		if (x < 0)
			break;
	}
	free(r.buf);
	q->snaps_bytes = r.at;
	if (x >= 0 && r.off + r.at > q2_up(file, 8))
		x = -EFBIG;
	if (x >= 0)
		return 0;
	q2_snaps_free(q);
	if (q->flags & (VH_OPEN_RO | VH_OPEN_REPAIR) && x != -ENOMEM) {
		q2_warn("the snapshot table is damaged: entry %u does not end", k);
		return 0;
	}
	if (x == -EFBIG)
		return q2_fail(e, -EUCLEAN, "the snapshot table is damaged: entry %u does not end", k);
	return q2_fail(e, x, x == -ENOMEM ? "no memory for the snapshot table" : "cannot read the snapshot table");
}

struct q2_snap *q2_snap_find(struct q2 *q, const char *name)
{
	for (uint32_t k = 0; q->snaps && k < q->h.nsnaps; k++)
		if (!strcmp(q->snaps[k].name, name))
			return &q->snaps[k];
	for (uint32_t k = 0; q->snaps && k < q->h.nsnaps; k++)
		if (!strcmp(q->snaps[k].id, name))
			return &q->snaps[k];
	return NULL;
}

static uint64_t entry_bytes(const struct q2_snap *s)
{
	uint32_t extra = s->extra_len < KNOWN_EXTRA ? KNOWN_EXTRA : s->extra_len;

	return q2_up(FIXED + extra + strlen(s->id) + strlen(s->name), 8);
}

static uint8_t *entry_put(uint8_t *p, const struct q2_snap *s)
{
	uint32_t extra = s->extra_len < KNOWN_EXTRA ? KNOWN_EXTRA : s->extra_len;
	uint8_t *start = p;

	q2_put64(p, s->l1_off);
	q2_put32(p + 8, s->l1_size);
	q2_put16(p + 12, (uint16_t)strlen(s->id));
	q2_put16(p + 14, (uint16_t)strlen(s->name));
	q2_put32(p + 16, s->sec);
	q2_put32(p + 20, s->nsec);
	q2_put64(p + 24, s->clock);
	q2_put32(p + 32, s->vm_state > UINT32_MAX ? 0 : (uint32_t)s->vm_state);
	q2_put32(p + 36, extra);
	q2_put64(p + 40, s->vm_state);
	q2_put64(p + 48, s->bytes);
	q2_put64(p + 56, s->icount);
	if (s->extra)
		memcpy(p + FIXED + KNOWN_EXTRA, s->extra, extra - KNOWN_EXTRA);
	p += FIXED + extra;
	memcpy(p, s->id, strlen(s->id));
	p += strlen(s->id);
	memcpy(p, s->name, strlen(s->name));
	return start + entry_bytes(s);
}

int q2_snaps_write(struct q2 *q, const struct q2_snap *v, uint32_t n, struct vh_err *e)
{
	uint64_t len = 0, off = 0, clusters, old_off = q->h.snaps_off, old_len = q->h.nsnaps ? q->snaps_bytes : 0;
	struct q2_header h = q->h;
	uint8_t *buf = NULL, *p;
	int r = 0;

	for (uint32_t k = 0; k < n; k++)
		len += entry_bytes(&v[k]);
	if (n > Q2_MAX_SNAPSHOTS || len > MAX_TABLE)
		return q2_fail(e, -EFBIG, "no room for a further snapshot: there are %u", q->h.nsnaps);
	if (n) {
		clusters = (len + q->cluster - 1) >> q->h.bits;
		p = buf = calloc(1, clusters << q->h.bits);
		if (!buf)
			return q2_fail(e, -ENOMEM, "no memory for the snapshot table");
		r = q2_alloc(q, clusters, &off);
		if (r < 0) {
			free(buf);
			return q2_fail(e, r, "cannot allocate %llu clusters for the snapshot table", (unsigned long long)clusters);
		}
		for (uint32_t k = 0; k < n; k++)
			p = entry_put(p, &v[k]);
		r = q2_write(q, buf, clusters << q->h.bits, off);
		free(buf);
	}
	if (r >= 0)
		r = q2_sync(q); /* counts, and the table, before anything names it */
	if (r < 0) {
		if (len)
			q2_ref_add(q, off, len, -1);
		return q2_fail(e, r, "cannot write the snapshot table");
	}
	h.nsnaps = n;
	h.snaps_off = n ? off : 0;
	r = q2_header_write(q->vol, &h, e);
	if (r >= 0) {
		r = q2_io->flush(q->vol);
		if (r < 0)
			q2_fail(e, r, "cannot flush the header");
	}
	if (r < 0) { /* which of the tables is in the file is not known */
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
		return r;
	}
	q->h.nsnaps = n;
	q->h.snaps_off = h.snaps_off;
	q->snaps_bytes = len;
	if (old_len && q2_ref_add(q, old_off, old_len, -1) < 0)
		q2_warn("the old snapshot table at byte %llu is leaked", (unsigned long long)old_off);
	return 0;
}

int q2_snap_l1(struct q2 *q, const struct q2_snap *s, uint64_t **out, struct vh_err *e)
{
	uint64_t len = (uint64_t)s->l1_size * 8, file = q2_io->bytes(q->vol), *l1;
	int r;

	if (len > Q2_MAX_L1)
		return q2_fail(e, -EFBIG, "the L1 table of snapshot '%s' has %u entries", s->name, s->l1_size);
	if (s->l1_off & (q->cluster - 1) || s->l1_off >= Q2_MAX_OFFSET || (len && (s->l1_off >= file || len > file - s->l1_off)))
		return q2_fail(e, -EUCLEAN, "the L1 table of snapshot '%s' lies outside the file", s->name);
	l1 = malloc(len + 8);
	if (!l1)
		return q2_fail(e, -ENOMEM, "no memory for an L1 table");
	r = len ? q2_read(q, l1, len, s->l1_off) : 0;
	if (r < 0) {
		free(l1);
		return q2_fail(e, r, "cannot read the L1 table of snapshot '%s'", s->name);
	}
	for (uint32_t k = 0; k < s->l1_size; k++)
		l1[k] = q2_be64(&l1[k]);
	*out = l1;
	return 0;
}

int q2_snapshot_list(void *img, vh_snapshot_fn *fn, void *ctx, struct vh_err *e)
{
	struct q2 *q = img;
	int r = q2_services(e);

	for (uint32_t k = 0; r == 0 && q->snaps && k < q->h.nsnaps; k++) {
		const struct q2_snap *s = &q->snaps[k];
		struct vh_snapshot v = {.size = sizeof(v), .name = s->name, .id = s->id, .bytes = s->bytes, .vm_state = s->vm_state,
					.clock = s->clock};

		v.when = (int64_t)s->sec * 1000000000 + (s->nsec < 1000000000 ? s->nsec : 0);
		r = fn(ctx, &v);
	}
	return r;
}

int q2_snapshot_use(struct q2 *q, const char *name, struct vh_err *e)
{
	struct q2_snap *s = q2_snap_find(q, name);
	uint32_t shift = q->h.bits + q->l2_bits;

	if (!s) {
		q2_hint(e, "list the image's snapshots");
		return q2_fail(e, -ENOENT, "the image has no snapshot '%s'", name);
	}
	if (!q->read_only) {
		q2_hint(e, "open it read-only, or apply the snapshot first");
		return q2_fail(e, -EROFS, "a snapshot can only be read");
	}
	if (q->has_data)
		return q2_fail(e, -EOPNOTSUPP, "the data of a snapshot is not kept in an external data file");
	if ((s->bytes >> shift) + !!(s->bytes & ((UINT64_C(1) << shift) - 1)) > s->l1_size || (uint64_t)s->l1_size * 8 > Q2_MAX_L1 ||
	    s->bytes > INT64_MAX - (UINT64_C(64) << 20) || s->l1_off & (q->cluster - 1) || (s->l1_size && s->l1_off >= q2_io->bytes(q->vol)))
		return q2_fail(e, -EUCLEAN, "the snapshot '%s' is damaged: its L1 table cannot be right", name);
	q->h.l1_off = s->l1_off;
	q->h.l1_size = s->l1_size;
	q->h.bytes = s->bytes;
	q->backing_bytes = q2_min(q->backing_all, s->bytes);
	q->of_snapshot = 1;
	return 0;
}
