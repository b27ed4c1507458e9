/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include "map-host.h"

/* ---- the metadata service ---- */

static int enter(struct vh_meta *m, int write)
{
	m->calls++;
	m->writes += (uint64_t)write;
	if (m->no_calls || (write && m->no_writes))
		m->broken = 1;
	return 0;
}

static void grow(struct vh_meta *m, uint64_t bytes)
{
	if (bytes > m->cap) {
		uint64_t cap = MAX(bytes, 2 * m->cap);

		m->data = g_realloc(m->data, cap);
		memset(m->data + m->cap, 0, cap - m->cap);
		m->cap = cap;
	}
	m->bytes = MAX(m->bytes, bytes);
}

static int vol_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	uint64_t have = off < m->bytes ? MIN(len, m->bytes - off) : 0;

	memcpy(buf, m->data + (have ? off : 0), have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

#define TOO_FAR (UINT64_C(1) << 32)

static int vol_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	if (off > TOO_FAR || len > TOO_FAR)
		return -ENOSPC;
	grow(m, off + len);
	if (buf)
		memcpy(m->data + off, buf, len);
	else
		memset(m->data + off, 0, len);
	return 0;
}

static int svc_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off) { return enter(m, 0), vol_read(m, buf, len, off); }
static int svc_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	return enter(m, 1), vol_write(m, buf, len, off);
}
static int svc_zero(struct vh_meta *m, uint64_t len, uint64_t off) { return enter(m, 1), vol_write(m, NULL, len, off); }
static int svc_flush(struct vh_meta *m) { return enter(m, 0); }
static uint64_t svc_bytes(struct vh_meta *m) { return m->bytes; } /* never waits */

static int svc_resize(struct vh_meta *m, uint64_t bytes)
{
	enter(m, 1);
	if (bytes > TOO_FAR)
		return -ENOSPC;
	if (bytes < m->bytes)
		memset(m->data + bytes, 0, m->bytes - bytes);
	grow(m, bytes);
	m->bytes = bytes;
	return 0;
}

static int svc_discard(struct vh_meta *m, uint64_t len, uint64_t off)
{
	enter(m, 1);
	if (off < m->bytes)
		memset(m->data + off, 0, MIN(len, m->bytes - off));
	return 0;
}

static const struct vh_meta_ops service = {.size = sizeof(service), .read = svc_read, .write = svc_write, .zero = svc_zero,
	.flush = svc_flush, .bytes = svc_bytes, .resize = svc_resize, .discard = svc_discard};

/* ---- images ---- */

void map_host_open(struct map_host *h)
{
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = h->vols, .opts = check_opts(h->c, h->ops->open_options, ""),
			    .host_caps = h->ops->caps};
	struct vh_err e = {0};
	int r = h->ops->open(&o, &h->img, &e);

	CHECK(h->c, r == 0 && h->img, "open of what it has created itself: %s", e.cause ? e.cause : g_strerror(-r));
	h->info = (struct vh_image_info){.size = sizeof(h->info)};
	r = h->ops->info(h->img, &h->info);
	CHECK(h->c, r == 0, "info: %s", g_strerror(-r));
	if (!h->info.unit)
		h->info.unit = 512;
	CHECK(h->c, !(h->info.unit & (h->info.unit - 1)), "the allocation unit of %u bytes is no power of two", h->info.unit);
	h->rules = (struct fmt_rules){.bytes = h->info.bytes, .caps = h->info.caps & ~VH_FMT_BACKING,
				      .unit = h->info.unit, .volumes = 1, .max_map = h->info.max_map,
				      .has_commit = h->ops->commit != NULL, .has_decode = h->ops->decode != NULL};
	if (!(h->info.caps & VH_FMT_CRYPT))
		return;
	/* What it maps is what counts here: the data itself stays as it is, since it is the host that encrypts it. */
	CHECK(h->c, h->info.cipher, "an encrypted image, and no cipher");
	h->rules.crypt_sector = h->info.cipher->sector;
	h->rules.crypt_base = h->info.cipher->iv_from == VH_IV_FROM_ADDRESS ? h->info.cipher->iv_base : 0;
}

struct map_host *map_host_new(struct check_ctx *c, uint64_t bytes)
{
	const struct vh_format_ops *ops;
	struct map_host *h = g_new0(struct map_host, 1);
	struct vh_create cr = {.size = sizeof(cr), .bytes = bytes, .volumes = h->vols, .n = 1};
	struct vh_err e = {0};
	int r = plug_service_replace(VH_SVC_META, &service); /* in this check's own process */

	CHECK(c, r == 0, "no room for %s", VH_SVC_META);
	ops = check_load(c, VH_KIND_FORMAT);
	h->c = c;
	h->ops = ops;
	h->vols[0] = &h->vol;
	grow(&h->vol, 4096);
	h->vol.bytes = 0;
	if (!ops->create)
		check_skip(c, "the format cannot create images");
	cr.opts = check_opts(c, ops->create_options, "create.");
	r = ops->create(&cr, NULL, &e);
	CHECK(c, r == 0, "create: %s", e.cause ? e.cause : g_strerror(-r));
	map_host_open(h);
	CHECK(c, h->info.bytes == bytes, "created with %" G_GUINT64_FORMAT " bytes, it has %" G_GUINT64_FORMAT, bytes, h->info.bytes);
	h->model = g_malloc0(bytes);
	h->maybe = g_malloc0(bytes);
	return h;
}

struct map_host *map_host_copy(struct map_host *from)
{
	struct map_host *h = g_new0(struct map_host, 1);

	h->c = from->c;
	h->ops = from->ops;
	h->vols[0] = &h->vol;
	grow(&h->vol, from->vol.bytes);
	memcpy(h->vol.data, from->vol.data, from->vol.bytes);
	map_host_open(h);
	return h;
}

void map_host_close(struct map_host *h, int flush)
{
	if (flush)
		map_flush(h, NULL, NULL);
	h->ops->close(h->img);
	h->img = NULL;
}

void map_host_free(struct map_host *h)
{
	if (h->img)
		map_host_close(h, 0);
	g_free(h->vol.data);
	g_free(h->model);
	g_free(h->maybe);
	g_free(h);
}

/* ---- requests ---- */

int map_owes(const struct vh_map *m)
{
	for (uint32_t k = 0; k < m->n; k++)
		if (m->ext[k].flags & VH_EXT_COMMIT)
			return 1;
	return 0;
}

static int quiet(struct map_host *h, struct vh_map *m, int *commit_status)
{
	int r;

	h->vol.no_calls++;
	r = commit_status ? h->ops->commit(h->img, m, *commit_status, 1) : h->ops->map(h->img, m);
	h->vol.no_calls--;
	CHECK(h->c, !h->vol.broken, "%s that must not wait used the blocking metadata service", commit_status ? "commit" : "map");
	return r;
}

int map_call(struct map_host *h, struct vh_map *m, uint32_t op, uint32_t flags, uint64_t pos, uint64_t len)
{
	int asks = op == VH_MAP_READ || op == VH_MAP_REPORT || (flags & VH_MAP_OVERWRITE_ONLY), r = -EAGAIN;
	uint64_t writes = h->vol.writes;
	const char *why;

	*m = (struct vh_map){.size = sizeof(*m), .op = op, .flags = flags | VH_MAP_NOWAIT, .cap = 16, .pos = pos, .len = len,
			     .ext = h->ext};
	memset(h->ext, 0xA5, sizeof(h->ext));
	r = quiet(h, m, NULL);
	if (r == -EAGAIN) {
		m->flags = flags;
		m->n = 0;
		m->ctx = NULL;
		r = h->ops->map(h->img, m);
		CHECK(h->c, r != -EAGAIN, "map returns -EAGAIN although it may wait");
	}
	CHECK(h->c, r <= 0, "map returns %d", r);
	CHECK(h->c, !asks || h->vol.writes == writes, "map writes metadata although the question changes nothing (op %u)", op);
	if (r < 0)
		return r;
	why = fmt_validate(&h->rules, m);
	CHECK(h->c, !why, "map (op %u, flags %u, %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT "): %s", op, flags, pos, len, why);
	return 0;
}

int map_commit(struct map_host *h, struct vh_map *m, int status)
{
	int r = quiet(h, m, &status);

	if (r == -EAGAIN) {
		r = h->ops->commit(h->img, m, status, 0);
		CHECK(h->c, r != -EAGAIN, "commit returns -EAGAIN although it may wait");
	}
	CHECK(h->c, r == 0 || status == 0, "an abort fails: %s", g_strerror(-r));
	return r;
}

static void fill(struct map_host *h, uint32_t how, uint64_t pos, uint64_t len, uint64_t addr)
{
	g_autofree uint8_t *b = g_malloc0(len ? len : 1);

	if (how == VH_FILL_COPY && pos < h->info.bytes) {
		struct vh_extent keep[16]; /* asking for the old content must not disturb the answer that is being carried out */

		memcpy(keep, h->ext, sizeof(keep));
		map_read(h, b, pos, MIN(len, h->info.bytes - pos));
		memcpy(h->ext, keep, sizeof(keep));
	}
	vol_write(&h->vol, b, len, addr);
}

void map_data(struct map_host *h, const struct vh_map *m, const uint8_t *buf)
{
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *x = &m->ext[k];
		uint64_t len = MIN(x->len, m->pos + m->len - x->pos);

		if (x->pos >= m->pos + m->len)
			break;
		if (x->type == VH_EXT_TRIM) {
			if (x->bytes && x->addr < h->vol.bytes)
				memset(h->vol.data + x->addr, 0, MIN(x->bytes, h->vol.bytes - x->addr));
		} else if (x->type == VH_EXT_OPAQUE) {
			g_autofree uint8_t *zeros = g_malloc0(len);
			struct iovec iov = {buf ? (void *)(uintptr_t)(buf + (x->pos - m->pos)) : zeros, len};
			struct vh_req req = {.size = sizeof(req), .op = VH_WRITE, .off = x->pos, .len = len, .iov = &iov, .niov = 1};
			int r = h->ops->write(h->img, &req);

			CHECK(h->c, r == 0, "write of an OPAQUE range: %s", g_strerror(-r));
		} else {
			fill(h, x->fill_head, x->pos - x->head, x->head, x->addr - x->head);
			vol_write(&h->vol, buf ? buf + (x->pos - m->pos) : NULL, len, x->addr);
			fill(h, x->fill_tail, x->pos + x->len, x->tail, x->addr + x->len);
		}
	}
}

static uint64_t rounds(struct map_host *h, struct vh_map *m, uint64_t end)
{
	uint64_t next = m->ext[m->n - 1].pos + m->ext[m->n - 1].len;

	if (map_owes(m)) {
		int r = map_commit(h, m, 0);

		CHECK(h->c, r == 0, "commit: %s", g_strerror(-r));
	}
	return MIN(next, end);
}

static uint64_t step(struct map_host *h, uint64_t pos, uint64_t end)
{
	return h->info.max_map ? MIN(end - pos, h->info.max_map) : end - pos;
}

int map_write(struct map_host *h, const uint8_t *buf, uint64_t pos, uint64_t len)
{
	uint64_t end = pos + len, at = pos;
	struct vh_map m;
	int r;

	while (at < end) {
		r = map_call(h, &m, VH_MAP_WRITE, VH_MAP_OVERWRITE_ONLY, at, end - at);
		if (r == 0 && !m.n)
			r = map_call(h, &m, VH_MAP_WRITE, 0, at, step(h, at, end));
		if (r < 0)
			return r;
		map_data(h, &m, buf + (at - pos));
		at = rounds(h, &m, end);
	}
	if (h->model) {
		memcpy(h->model + pos, buf, len);
		memset(h->maybe + pos, 0, len);
	}
	return 0;
}

int map_erase(struct map_host *h, uint32_t op, uint32_t flags, uint64_t pos, uint64_t len)
{
	uint64_t end = pos + len, at = pos;
	struct vh_map m;
	int r;

	if (!(h->info.caps & (op == VH_MAP_ZERO ? VH_FMT_ZERO : VH_FMT_DISCARD)))
		return -EOPNOTSUPP;
	while (at < end) {
		r = map_call(h, &m, op, flags, at, step(h, at, end));
		if (r < 0)
			return r;
		map_data(h, &m, NULL);
		at = rounds(h, &m, end);
	}
	if (h->model && op == VH_MAP_ZERO) {
		memset(h->model + pos, 0, len);
		memset(h->maybe + pos, 0, len);
	} else if (h->model) {
		memset(h->maybe + pos, 1, len);
	}
	return 0;
}

static void decode(struct map_host *h, const struct vh_extent *x, uint8_t *buf, uint64_t off, uint64_t len)
{
	g_autofree uint8_t *in = g_malloc0(x->aux), *out = g_malloc0(x->bytes);
	int r;

	vol_read(&h->vol, in, x->aux, x->addr);
	r = h->ops->decode(h->img, x, in, x->aux, out, x->bytes);
	CHECK(h->c, r == 0, "decode of what it has written itself: %s", g_strerror(-r));
	memcpy(buf, out + x->head + off, len);
}

void map_read(struct map_host *h, uint8_t *buf, uint64_t pos, uint64_t len)
{
	uint64_t at = pos, end = pos + len;

	while (at < end) {
		struct vh_map m;
		int r = map_call(h, &m, VH_MAP_READ, 0, at, end - at);

		CHECK(h->c, r == 0, "map(READ): %s", g_strerror(-r));
		for (uint32_t k = 0; k < m.n && at < end; k++) {
			const struct vh_extent x = m.ext[k];
			uint64_t n = MIN(x.pos + x.len, end) - at, off = at - x.pos;
			uint8_t *to = buf + (at - pos);

			if (x.type == VH_EXT_DATA) {
				vol_read(&h->vol, to, n, x.addr + off);
			} else if (x.type == VH_EXT_COMPRESSED) {
				decode(h, &x, to, off, n);
			} else if (x.type == VH_EXT_OPAQUE) {
				struct iovec iov = {to, n};
				struct vh_req req = {.size = sizeof(req), .op = VH_READ, .off = at, .len = n, .iov = &iov, .niov = 1};

				r = h->ops->read(h->img, &req);
				CHECK(h->c, r == 0, "read of an OPAQUE range: %s", g_strerror(-r));
			} else {
				memset(to, 0, n);
			}
			at += n;
		}
	}
}

void map_flush(struct map_host *h, void (*between)(struct map_host *h, void *ctx), void *ctx)
{
	for (uint32_t phase = 0; h->ops->flush; phase++) {
		int r = h->ops->flush(h->img, phase);

		CHECK(h->c, r >= 0 && r <= 1, "flush phase %u returns %d", phase, r);
		if (!r)
			break;
		CHECK(h->c, phase < 16, "flush never ends");
		if (between)
			between(h, ctx);
	}
}

void map_compare(struct map_host *h, const char *when)
{
	g_autofree uint8_t *b = g_malloc(h->info.bytes);

	map_read(h, b, 0, h->info.bytes);
	for (uint64_t k = 0; k < h->info.bytes; k++)
		CHECK(h->c, b[k] == h->model[k] || (h->maybe[k] && !b[k]), "%s: byte %" G_GUINT64_FORMAT " reads %u, was written as %u",
		      when, k, b[k], h->model[k]);
}

struct findings { int n; char first[160]; };
static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct findings *f = ctx;

	if (!f->n++)
		g_snprintf(f->first, sizeof(f->first), "%s at %" G_GUINT64_FORMAT ": %s", what == VH_CHECK_LEAK ? "leak" : "corruption",
			   off, text);
}

void map_clean(struct map_host *h, const char *when)
{
	struct findings f = {0};
	struct vh_err e = {0};
	int r;

	if (!h->ops->check)
		return;
	r = h->ops->check(h->img, 0, found, &f, NULL, &e);
	CHECK(h->c, r == 0, "%s: check: %s", when, e.cause ? e.cause : g_strerror(-r));
	CHECK(h->c, !f.n, "%s: check finds %d fault%s, the first: %s", when, f.n, f.n > 1 ? "s" : "", f.first);
}

void map_random(struct map_host *h, int flushes)
{
	uint64_t most = check_below(h->c, 4) ? 20000 : 200000, len = 1 + check_below(h->c, most), pos, kind = check_below(h->c, 100);
	g_autofree uint8_t *b = NULL;
	int r = 0;

	if (check_below(h->c, 4) == 0)
		len = (1 + check_below(h->c, 3)) * h->info.unit;
	len = MIN(len, h->info.bytes);
	pos = check_below(h->c, h->info.bytes - len + 1);
	if (check_below(h->c, 3) == 0)
		pos &= ~(uint64_t)(h->info.unit - 1);
	if (kind < 55) {
		b = g_malloc(len);
		memset(b, (int)(1 + check_below(h->c, 255)), len);
		r = map_write(h, b, pos, len);
	} else if (kind < 70) {
		r = map_erase(h, VH_MAP_ZERO, check_below(h->c, 2) ? VH_MAP_MAY_UNMAP : 0, pos, len);
	} else if (kind < 85) {
		r = map_erase(h, VH_MAP_DISCARD, 0, pos, len);
	} else if (flushes) {
		map_flush(h, NULL, NULL);
	}
	CHECK(h->c, r == 0 || r == -EOPNOTSUPP, "a request fails: %s", g_strerror(-r));
}
