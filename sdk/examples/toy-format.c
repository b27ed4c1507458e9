/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * toy: a disk format in its smallest complete form: it allocates, copies on write from a backing image, keeps zeros as
 * metadata, gives space back and survives crashes. Read vhost/format.h beside it.
 *
 * File: a header in cluster 0, then a table with one 64-bit entry per cluster of the disk (64 KiB), then data clusters.
 * An entry is 0 (nothing here: the backing image, or zeros), 1 (zeros) or the byte where the cluster lies. Nothing else is
 * stored: which clusters of the file are free follows from the table and is worked out on open.
 *
 * Crash rules. What commit() changes is changed in memory only. flush() phase 0 copies the changed pages of the table and
 * asks the host to flush the volume, which makes the data durable; phase 1 writes those copies and nothing newer; the
 * host's last flush makes them durable. So no entry in the file ever points at data that is not there. A cluster that was
 * freed is used again only when the flush that unlinked it has ended, so an old entry never points at another's data.
 */
#include <stdio.h>
#include <stdlib.h>
#include <vhost/format.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;

#define BITS 16u
#define CLUSTER (UINT64_C(1) << BITS)
#define PAGE 512u /* entries of a table page, which is read and written as one */
#define ZEROS UINT64_C(1)
#define MAX_BYTES (UINT64_C(1) << 44)

struct toy_header {
	char magic[8];
	uint32_t version, bits;
	uint64_t bytes, entries, backing_bytes; /* entries: room in the table, whole pages */
	char backing[1024], backing_format[32];
};
static const char toy_magic[8] = {'V', 'H', 'T', 'O', 'Y', 'F', 'M', 'T'};

struct list { /* of clusters of the file */
	uint64_t *v, n, cap;
};

struct toy {
	const struct vh_meta_ops *ops;
	struct vh_meta *volume;
	struct toy_header h;
	int read_only;
	uint64_t npages;
	uint64_t **page, **copy; /* table pages in memory, NULL: not read yet; copies that flush() is writing */
	uint8_t *dirty;          /* per page */
	uint8_t *used;           /* per cluster of the file, for `end` of them; room for `cap` */
	uint64_t end, cap, hint;
	struct list freed, unlinked; /* since the last flush began; by the flush that is under way, or was last */
	uint64_t promised; /* places in `freed` that answers in flight will need */
	int unlink_written;
};

static const struct vh_meta_ops *toy_meta(struct vh_err *e)
{
	const struct vh_meta_ops *m = vh_service(vh_host_ptr, VH_SVC_META, sizeof(*m));

	if (!m)
		vh_host_ptr->err(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
	return m;
}

static uint64_t data_start(const struct toy_header *h)
{
	return 1 + ((h->entries * 8 + CLUSTER - 1) >> BITS);
}

static uint64_t page_off(uint64_t p)
{
	return CLUSTER + p * PAGE * 8;
}

/* Any bytes may be in the file: everything is checked before it is believed. */
static int header_read(const struct vh_meta_ops *m, struct vh_meta *v, struct toy_header *h, struct vh_err *e)
{
	int r = m->read(v, h, sizeof(*h), 0);

	if (r < 0)
		return vh_host_ptr->err(e, r, "cannot read the header");
	if (memcmp(h->magic, toy_magic, sizeof(toy_magic)))
		return vh_host_ptr->err(e, -EINVAL, "not a toy image");
	if (h->version != 1 || h->bits != BITS)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "version %u with clusters of 2^%u bytes is unknown", h->version, h->bits);
	if (h->bytes > MAX_BYTES || h->entries > (MAX_BYTES >> BITS) || h->entries % PAGE ||
	    h->entries << BITS < h->bytes || h->backing_bytes > h->bytes)
		return vh_host_ptr->err(e, -EINVAL, "the header contradicts itself");
	if (!memchr(h->backing, 0, sizeof(h->backing)) || !memchr(h->backing_format, 0, sizeof(h->backing_format)))
		return vh_host_ptr->err(e, -EINVAL, "the backing image's name has no end");
	return 0;
}

static int toy_probe(const void *buf, uint64_t len, uint64_t bytes)
{
	return len >= sizeof(toy_magic) && !memcmp(buf, toy_magic, sizeof(toy_magic)) ? 100 : 0;
}

static int toy_inspect(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e)
{
	const struct vh_meta_ops *m = toy_meta(e);
	struct toy_header h;
	int r = m ? header_read(m, volume0, &h, e) : -EOPNOTSUPP;

	if (r < 0)
		return r;
	if (!h.backing[0])
		return 0;
	if (cap) {
		refs[0].role = VH_REF_BACKING;
		memcpy(refs[0].name, h.backing, sizeof(refs[0].name));
		memcpy(refs[0].format, h.backing_format, sizeof(refs[0].format));
	}
	return 1;
}

/* Room for n clusters of the file. */
static int used_reserve(struct toy *t, uint64_t n)
{
	uint64_t cap = t->cap ? t->cap : 1024;
	uint8_t *used;

	if (n <= t->cap)
		return 0;
	while (cap < n)
		cap *= 2;
	used = realloc(t->used, cap);
	if (!used)
		return -ENOMEM;
	memset(used + t->cap, 0, cap - t->cap);
	t->used = used;
	t->cap = cap;
	return 0;
}

static int list_reserve(struct list *l, uint64_t more)
{
	uint64_t cap = l->cap ? l->cap : 64, *v;

	if (l->n + more <= l->cap)
		return 0;
	while (cap < l->n + more)
		cap *= 2;
	v = realloc(l->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	l->v = v;
	l->cap = cap;
	return 0;
}

static int entry_ok(const struct toy *t, uint64_t x)
{
	return x <= ZEROS || (!(x & (CLUSTER - 1)) && x >> BITS >= data_start(&t->h) && x < UINT64_C(1) << 60);
}

/* Works out which clusters are used; the pages are read again when they are needed. */
static int toy_scan(struct toy *t, struct vh_err *e)
{
	uint64_t buf[PAGE], limit = data_start(&t->h) + 2 * t->h.entries; /* it never grows past that */
	int r;

	t->end = data_start(&t->h);
	for (uint64_t p = 0; p < t->npages; p++) {
		r = t->ops->read(t->volume, buf, sizeof(buf), page_off(p));
		if (r < 0)
			return vh_host_ptr->err(e, r, "cannot read the table");
		for (uint32_t k = 0; k < PAGE; k++) {
			uint64_t c = buf[k] >> BITS;

			if (buf[k] <= ZEROS)
				continue;
			if (!entry_ok(t, buf[k]) || c >= limit)
				return vh_host_ptr->err(e, -EIO, "table entry %llu is damaged", (unsigned long long)(p * PAGE + k));
			if (used_reserve(t, c + 1) < 0)
				return vh_host_ptr->err(e, -ENOMEM, "no memory for the allocation map");
			if (t->used[c])
				return vh_host_ptr->err(e, -EIO, "two table entries point at byte %llu", (unsigned long long)buf[k]);
			t->used[c] = 1;
			if (c >= t->end)
				t->end = c + 1;
		}
	}
	t->hint = data_start(&t->h);
	r = used_reserve(t, t->end);
	return r < 0 ? vh_host_ptr->err(e, r, "no memory for the allocation map") : 0;
}

static void toy_close(void *img)
{
	struct toy *t = img;

	for (uint64_t p = 0; t->page && t->copy && p < t->npages; p++) {
		free(t->page[p]);
		free(t->copy[p]);
	}
	free(t->page);
	free(t->copy);
	free(t->dirty);
	free(t->used);
	free(t->freed.v);
	free(t->unlinked.v);
	free(t);
}

static int toy_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	const struct vh_meta_ops *m = toy_meta(e);
	struct toy *t = m && o->n >= 1 ? calloc(1, sizeof(*t)) : NULL;
	int r = -ENOMEM;

	if (!t)
		return vh_host_ptr->err(e, m && o->n ? -ENOMEM : -EOPNOTSUPP, "cannot begin");
	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR)) {
		r = vh_host_ptr->err(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
		goto error;
	}
	t->ops = m;
	t->volume = o->volumes[0];
	t->read_only = !!(o->flags & VH_OPEN_RO);
	r = header_read(m, t->volume, &t->h, e);
	if (r < 0)
		goto error;
	t->npages = t->h.entries / PAGE;
	t->page = calloc(t->npages + 1, sizeof(*t->page));
	t->copy = calloc(t->npages + 1, sizeof(*t->copy));
	t->dirty = calloc(t->npages + 1, 1);
	if (!t->page || !t->copy || !t->dirty) {
		r = vh_host_ptr->err(e, -ENOMEM, "no memory for the table");
		goto error;
	}
	r = toy_scan(t, e);
	if (r < 0)
		goto error;
	*img = t;
	return 0;
error:
	toy_close(t);
	return r;
}

static int toy_info(void *img, struct vh_image_info *i)
{
	struct toy *t = img;

	i->volumes = 1;
	i->caps = VH_FMT_DISCARD | VH_FMT_ZERO | (t->h.backing[0] ? VH_FMT_BACKING : 0);
	i->bytes = t->h.bytes;
	i->unit = i->subunit = CLUSTER;
	i->backing_bytes = t->h.backing[0] ? t->h.backing_bytes : 0;
	return 0;
}

/* The entry of a cluster of the disk; reads its page if it may. */
static int entry(struct toy *t, uint64_t c, int nowait, uint64_t *out)
{
	uint64_t p = c / PAGE, *buf;
	int r;

	if (!t->page[p]) {
		if (nowait)
			return -EAGAIN;
		buf = malloc(PAGE * 8);
		if (!buf)
			return -ENOMEM;
		r = t->ops->read(t->volume, buf, PAGE * 8, page_off(p));
		for (uint32_t k = 0; r >= 0 && k < PAGE; k++)
			if (!entry_ok(t, buf[k]))
				r = -EIO;
		if (r < 0) {
			free(buf);
			return r;
		}
		t->page[p] = buf;
	}
	*out = t->page[p][c % PAGE];
	return 0;
}

/* Only pages that map() has seen are set. */
static void entry_set(struct toy *t, uint64_t c, uint64_t x)
{
	t->page[c / PAGE][c % PAGE] = x;
	t->dirty[c / PAGE] = 1;
}

/* A cluster of the file that nobody uses: the first free one, else one more at the end. */
static int cluster_take(struct toy *t, uint64_t *out)
{
	while (t->hint < t->end && t->used[t->hint])
		t->hint++;
	if (t->hint == t->end) {
		if (used_reserve(t, t->end + 1) < 0)
			return -ENOMEM;
		t->end++;
	}
	t->used[t->hint] = 1;
	*out = t->hint++;
	return 0;
}

static void cluster_give(struct toy *t, uint64_t c)
{
	t->used[c] = 0;
	if (c < t->hint)
		t->hint = c;
}

/* What one entry says of [pos, end) within its cluster, for READ and REPORT. */
static void say(const struct toy *t, uint64_t x, uint64_t pos, uint64_t end, uint32_t op, struct vh_extent *ext)
{
	ext->type = x > ZEROS ? VH_EXT_DATA : VH_EXT_ZERO;
	ext->addr = x > ZEROS ? x + (pos & (CLUSTER - 1)) : 0;
	ext->flags = VH_EXT_CACHE;
	if (op == VH_MAP_REPORT && x)
		ext->flags |= VH_EXT_ALLOCATED;
	ext->len = end - pos;
	if (x || !t->h.backing[0] || pos >= t->h.backing_bytes)
		return;
	ext->type = VH_EXT_BACKING;
	if (end > t->h.backing_bytes)
		ext->len = t->h.backing_bytes - pos;
}

/* A new cluster for [pos, end), with the rest of it filled from where it would be read now. */
static int allocate(struct toy *t, uint64_t x, uint64_t pos, uint64_t end, struct vh_extent *ext)
{
	uint64_t base = pos & ~(CLUSTER - 1), c;
	uint8_t fill = x == 0 && t->h.backing[0] && base < t->h.backing_bytes ? VH_FILL_BACKING : VH_FILL_ZERO;
	int r = cluster_take(t, &c);

	if (r < 0)
		return r;
	ext->type = VH_EXT_DATA;
	ext->flags = VH_EXT_COMMIT;
	ext->addr = (c << BITS) + (pos - base);
	ext->len = end - pos;
	ext->head = (uint32_t)(pos - base);
	ext->tail = (uint32_t)(base + CLUSTER - end);
	ext->fill_head = ext->head ? fill : VH_FILL_NONE;
	ext->fill_tail = ext->tail ? fill : VH_FILL_NONE;
	return 0;
}

/* ZERO and DISCARD. */
static int erase(struct toy *t, const struct vh_map *m, uint64_t x, uint64_t pos, uint64_t end, struct vh_extent *ext)
{
	uint64_t base = pos & ~(CLUSTER - 1);
	int all = pos == base && (end == base + CLUSTER || end == t->h.bytes);
	int shows_backing = !x && t->h.backing[0] && pos < t->h.backing_bytes;

	ext->len = end - pos;
	ext->type = VH_EXT_TRIM;
	ext->flags = VH_EXT_PURE;
	if (x > ZEROS && all && (m->op == VH_MAP_DISCARD || (m->flags & VH_MAP_MAY_UNMAP))) {
		if (list_reserve(&t->freed, t->promised + 1) < 0)
			return -ENOMEM;
		t->promised++;
		ext->flags = VH_EXT_COMMIT; /* punched by the host, then freed in commit() */
		ext->addr = x;
		ext->bytes = CLUSTER;
	} else if (x > ZEROS && m->op == VH_MAP_DISCARD) {
		ext->addr = x + (pos - base);
		ext->bytes = ext->len;
	} else if (x > ZEROS) {
		ext->type = VH_EXT_DATA;
		ext->addr = x + (pos - base);
	} else if (m->op == VH_MAP_ZERO && shows_backing) {
		if (!all)
			return allocate(t, x, pos, end, ext);
		ext->flags = VH_EXT_COMMIT; /* nothing to punch, but the entry changes */
	}
	return 0;
}

/* late: data may still land in the clusters, so they stay taken until the image is closed. */
static void take_back(struct toy *t, const struct vh_map *m, int late)
{
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *ext = &m->ext[k];

		if (!(ext->flags & VH_EXT_COMMIT))
			continue;
		if (ext->type == VH_EXT_TRIM)
			t->promised -= !!ext->bytes;
		else if (!late)
			cluster_give(t, ext->addr >> BITS);
	}
}

/* One extent per cluster; neighbours are joined where they are plain reads or overwrites of adjacent clusters. */
static int toy_map(void *img, struct vh_map *m)
{
	struct toy *t = img;
	uint64_t pos = m->pos, stop = m->pos + m->len, x;
	int r;

	m->n = 0;
	while (pos < stop && m->n < m->cap) {
		uint64_t base = pos & ~(CLUSTER - 1), end = base + CLUSTER < stop ? base + CLUSTER : stop;
		struct vh_extent *ext = &m->ext[m->n], *last = m->n ? ext - 1 : NULL;

		r = entry(t, pos >> BITS, m->flags & VH_MAP_NOWAIT, &x);
		if (r == -EAGAIN && m->n)
			return 0; /* the host comes again for the rest */
		if (r < 0)
			goto error;
		memset(ext, 0, sizeof(*ext));
		ext->pos = pos;
		if (m->op == VH_MAP_READ || m->op == VH_MAP_REPORT) {
			say(t, x, pos, end, m->op, ext);
		} else if (m->op == VH_MAP_WRITE && x > ZEROS) {
			ext->type = VH_EXT_DATA;
			ext->flags = VH_EXT_PURE | VH_EXT_CACHE;
			ext->addr = x + (pos - base);
			ext->len = end - pos;
		} else if (m->op == VH_MAP_WRITE) {
			if (m->flags & VH_MAP_OVERWRITE_ONLY)
				return 0;
			r = allocate(t, x, pos, end, ext);
		} else {
			r = erase(t, m, x, pos, end, ext);
		}
		if (r < 0)
			goto error;
		pos += ext->len;
		if (last && last->type == ext->type && last->flags == ext->flags && !(ext->flags & VH_EXT_COMMIT) &&
		    ext->type != VH_EXT_TRIM && (ext->type != VH_EXT_DATA || last->addr + last->len == ext->addr))
			last->len += ext->len;
		else
			m->n++;
	}
	return 0;
error:
	take_back(t, m, 0);
	m->n = 0;
	return r;
}

static int toy_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	struct toy *t = img;

	if (status < 0) {
		take_back(t, m, status == -ETIMEDOUT);
		return 0;
	}
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *ext = &m->ext[k];
		uint64_t c = ext->pos >> BITS;

		if (!(ext->flags & VH_EXT_COMMIT))
			continue;
		if (ext->type == VH_EXT_DATA) {
			entry_set(t, c, ext->addr & ~(CLUSTER - 1));
			continue;
		}
		if (ext->bytes) {
			t->freed.v[t->freed.n++] = ext->addr >> BITS; /* room was made by map() */
			t->promised--;
		}
		entry_set(t, c, m->op == VH_MAP_ZERO || t->h.backing[0] ? ZEROS : 0);
	}
	return 0;
}

static int flush_copy(struct toy *t)
{
	int any = 0;
	struct list l;

	for (uint64_t k = 0; t->unlink_written && k < t->unlinked.n; k++)
		cluster_give(t, t->unlinked.v[k]); /* that flush has ended: the unlink is durable */
	if (t->unlink_written)
		t->unlinked.n = 0;
	t->unlink_written = 0;
	if (list_reserve(&t->unlinked, t->freed.n) < 0)
		return -ENOMEM;
	for (uint64_t p = 0; p < t->npages; p++) {
		if (!t->dirty[p] && !t->copy[p])
			continue;
		if (!t->copy[p])
			t->copy[p] = malloc(PAGE * 8);
		if (!t->copy[p])
			return -ENOMEM;
		memcpy(t->copy[p], t->page[p], PAGE * 8);
		t->dirty[p] = 0;
		any = 1;
	}
	l = t->freed;
	for (uint64_t k = 0; k < l.n; k++)
		t->unlinked.v[t->unlinked.n++] = l.v[k];
	t->freed.n = 0;
	return any;
}

/* A copy that could not be written stays, and the next flush takes it up again. */
static int toy_flush(void *img, uint32_t phase)
{
	struct toy *t = img;
	int r;

	if (phase == 0)
		return flush_copy(t);
	for (uint64_t p = 0; p < t->npages; p++) {
		if (!t->copy[p])
			continue;
		r = t->ops->write(t->volume, t->copy[p], PAGE * 8, page_off(p));
		if (r < 0)
			return r;
		free(t->copy[p]);
		t->copy[p] = NULL;
	}
	t->unlink_written = 1;
	return 0;
}

static int toy_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	const struct vh_meta_ops *m = toy_meta(e);
	uint64_t room = (uint64_t)vh_opt_num(c->opts, "max-size", 0), table;
	struct toy_header h = {.version = 1, .bits = BITS, .bytes = c->bytes};
	int r;

	if (!m || c->n < 1)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "cannot begin");
	if (room < c->bytes)
		room = c->bytes;
	if (room > MAX_BYTES)
		return vh_host_ptr->err(e, -EFBIG, "at most %llu bytes are possible", (unsigned long long)MAX_BYTES);
	if (c->backing && (strlen(c->backing) >= sizeof(h.backing) || !c->backing_format ||
			   strlen(c->backing_format) >= sizeof(h.backing_format)))
		return vh_host_ptr->err(e, -EINVAL, "the backing image needs a format, and a name below %zu bytes", sizeof(h.backing));
	memcpy(h.magic, toy_magic, sizeof(h.magic));
	h.entries = (((room + CLUSTER - 1) >> BITS) + PAGE - 1) / PAGE * PAGE;
	if (c->backing) {
		strcpy(h.backing, c->backing);
		strcpy(h.backing_format, c->backing_format);
		h.backing_bytes = c->backing_bytes < c->bytes ? c->backing_bytes : c->bytes;
	}
	table = h.entries * 8;
	r = m->bytes(c->volumes[0]) < CLUSTER + table ? m->resize(c->volumes[0], data_start(&h) << BITS) : 0;
	if (r >= 0)
		r = m->zero(c->volumes[0], CLUSTER + table, 0);
	if (r >= 0)
		r = m->flush(c->volumes[0]); /* an old table must not appear under the new header */
	if (r >= 0)
		r = m->write(c->volumes[0], &h, sizeof(h), 0);
	if (r >= 0)
		r = m->flush(c->volumes[0]);
	return r < 0 ? vh_host_ptr->err(e, r, "cannot write the header and the table") : 0;
}

static int toy_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct toy *t = img;
	struct toy_header h = t->h;
	int r;

	if (bytes < h.bytes)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "a toy image cannot shrink");
	if (bytes > h.entries << BITS) {
		vh_host_ptr->remedy(e, "create it with a larger max-size");
		return vh_host_ptr->err(e, -EFBIG, "the table has room for %llu bytes", (unsigned long long)(h.entries << BITS));
	}
	h.bytes = bytes; /* backing_bytes stays: what is new reads as zeros whatever lies below */
	r = t->ops->write(t->volume, &h, sizeof(h), 0);
	if (r >= 0)
		r = t->ops->flush(t->volume);
	if (r < 0)
		return vh_host_ptr->err(e, r, "cannot write the header");
	t->h = h;
	return 0;
}

/* Entries that point nowhere or twice at one cluster; clusters taken that no entry and no pending unlink accounts for. */
static int toy_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct toy *t = img;
	uint8_t *seen = calloc(1, t->end + 1);
	uint64_t x;
	int r = 0;

	if (!seen)
		return vh_host_ptr->err(e, -ENOMEM, "no memory for the check");
	for (uint64_t c = 0; c < t->h.entries && r >= 0; c++) {
		r = entry(t, c, 0, &x);
		if (r < 0 || x <= ZEROS)
			continue;
		if (x >> BITS >= t->end)
			fn(ctx, VH_CHECK_CORRUPT, x, "a table entry points past the end of the file");
		else if (seen[x >> BITS]++)
			fn(ctx, VH_CHECK_CORRUPT, x, "two table entries point at one cluster");
		else if (!t->used[x >> BITS])
			fn(ctx, VH_CHECK_CORRUPT, x, "a cluster is in the table and free");
	}
	for (uint64_t k = 0; k < t->freed.n; k++)
		seen[t->freed.v[k]]++;
	for (uint64_t k = 0; k < t->unlinked.n; k++)
		seen[t->unlinked.v[k]]++;
	for (uint64_t c = data_start(&t->h); c < t->end && r >= 0; c++)
		if (t->used[c] && !seen[c])
			fn(ctx, VH_CHECK_LEAK, c << BITS, "a cluster is taken and nothing refers to it");
	free(seen);
	return r < 0 ? vh_host_ptr->err(e, r, "cannot read the table") : 0;
}

static int toy_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	struct toy_header h = {.entries = (((c->bytes + CLUSTER - 1) >> BITS) + PAGE - 1) / PAGE * PAGE};
	uint64_t meta = data_start(&h) << BITS;

	*required = meta + ((used + CLUSTER - 1) & ~(CLUSTER - 1));
	*full = meta + ((c->bytes + CLUSTER - 1) & ~(CLUSTER - 1));
	return 0;
}

static int toy_describe(void *img, vh_describe_fn *fn, void *ctx)
{
	struct toy *t = img;
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)(t->h.entries << BITS));
	fn(ctx, "max-size", VH_DESC_NUMBER, text);
	return 0;
}

/* The name spans sectors: a power cut just now may leave a mixture of both, which is then named anew in the same way. */
static int toy_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume,
			   struct vh_err *e)
{
	struct toy *t = img;
	struct toy_header h = t->h;
	int r;

	if (name && strlen(name) >= sizeof(h.backing))
		return vh_host_ptr->err(e, -ENAMETOOLONG, "the backing image's name has more than %zu bytes", sizeof(h.backing) - 1);
	if (name && (!format || strlen(format) >= sizeof(h.backing_format)))
		return vh_host_ptr->err(e, -EINVAL, "the backing image needs a format");
	memset(h.backing, 0, sizeof(h.backing));
	memset(h.backing_format, 0, sizeof(h.backing_format));
	h.backing_bytes = 0;
	if (name) {
		strcpy(h.backing, name);
		strcpy(h.backing_format, format);
		h.backing_bytes = bytes < h.bytes ? bytes : h.bytes;
	}
	r = t->ops->write(t->volume, &h, sizeof(h), 0);
	if (r >= 0)
		r = t->ops->flush(t->volume);
	if (r < 0)
		return vh_host_ptr->err(e, r, "cannot write the header");
	t->h = h;
	return 0;
}

/* Entry by entry, as a discard of the whole disk would do it: the host's flush writes the table. */
static int toy_empty(void *img, struct vh_job *j, struct vh_err *e)
{
	struct toy *t = img;
	uint64_t x;
	int r;

	for (uint64_t c = 0; c < t->h.entries; c++) {
		r = entry(t, c, 0, &x);
		if (r >= 0 && x > ZEROS)
			r = list_reserve(&t->freed, t->promised + 1);
		if (r < 0)
			return vh_host_ptr->err(e, r, "cannot forget all of it");
		if (x > ZEROS)
			t->freed.v[t->freed.n++] = x >> BITS;
		if (x)
			entry_set(t, c, 0);
	}
	return 0;
}

static const struct vh_opt toy_opt_max = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "max-size", "Largest size that the disk may grow to later", "0", NULL, 0,
	(int64_t)MAX_BYTES};
static const struct vh_opt *const toy_create_options[] = {&toy_opt_max, NULL};

static const struct vh_format_ops toy_ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_BACKING,
	.name = "toy-format",
	.create_options = toy_create_options,
	.probe = toy_probe,
	.inspect = toy_inspect,
	.open = toy_open,
	.close = toy_close,
	.info = toy_info,
	.map = toy_map,
	.commit = toy_commit,
	.flush = toy_flush,
	.create = toy_create,
	.resize = toy_resize,
	.check = toy_check,
	.measure = toy_measure,
	.describe = toy_describe,
	.set_backing = toy_set_backing,
	.empty = toy_empty,
};

VH_PLUGIN_DEFINE("toy-format", VH_KIND_FORMAT, VH_IID_FORMAT, &toy_ops, "1.0",
		 "A format as small as one can be that allocates and survives crashes", "BSD-2-Clause", 0);
