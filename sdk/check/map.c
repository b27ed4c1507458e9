/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* MAP: the mapping contract of vhost/format.h and docs/design/mapping.md. */
#include <glib.h>
#include <string.h>
#include "map-host.h"

#define BYTES (UINT64_C(4) << 20)

static void valid_answers(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);

	for (int k = 0; k < 600; k++) {
		map_random(h, 1);
		if (k % 50 == 0)
			map_compare(h, "under load");
	}
	map_compare(h, "after the load");
	map_clean(h, "after the load");
	map_host_close(h, 1);
	map_host_open(h);
	map_compare(h, "opened again");
	map_clean(h, "opened again");
	map_host_free(h);
}

/* One byte of an answer, as the guest would find it. */
struct spot { uint32_t type, vol; uint64_t addr; };
static void spots(struct map_host *h, uint32_t op, struct spot *out)
{
	uint64_t at = 0;

	while (at < h->info.bytes) {
		struct vh_map m;
		int r = map_call(h, &m, op, 0, at, h->info.bytes - at);

		CHECK(h->c, r == 0, "map(%s): %s", op == VH_MAP_READ ? "READ" : "REPORT", g_strerror(-r));
		for (uint32_t k = 0; k < m.n; k++) {
			const struct vh_extent *x = &m.ext[k];

			for (uint64_t s = (x->pos + 511) / 512; s * 512 < x->pos + x->len; s++) {
				uint64_t off = s * 512 - x->pos;

				out[s] = (struct spot){x->type, x->type == VH_EXT_DATA ? x->vol : 0,
						       x->type == VH_EXT_DATA ? x->addr + off : x->type == VH_EXT_COMPRESSED ? x->addr : 0};
			}
			at = x->pos + x->len;
		}
	}
}

static void report_is_read(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);
	struct spot *a = g_new0(struct spot, BYTES / 512), *b = g_new0(struct spot, BYTES / 512);

	for (int k = 0; k < 100; k++) {
		map_random(h, 1);
		spots(h, VH_MAP_READ, a);
		spots(h, VH_MAP_REPORT, b);
		for (uint64_t s = 0; s < BYTES / 512; s++)
			CHECK(c, !memcmp(&a[s], &b[s], sizeof(*a)), "sector %" G_GUINT64_FORMAT ": READ says type %u at %" G_GUINT64_FORMAT
			      ", REPORT type %u at %" G_GUINT64_FORMAT, s, a[s].type, a[s].addr, b[s].type, b[s].addr);
	}
	map_host_free(h);
	g_free(a);
	g_free(b);
}

/* Overwriting in place changes the bytes of the answer in the volume and nothing else, and is all that is needed. */
static void pure_is_pure(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES), *copy;
	g_autofree uint8_t *b = g_malloc(h->info.unit);
	uint64_t writes;

	for (int k = 0; k < 60; k++)
		map_random(h, 1);
	map_flush(h, NULL, NULL);
	writes = h->vol.writes;
	for (int k = 0; k < 200; k++) {
		uint64_t len = 1 + check_below(c, h->info.unit), pos = check_below(c, BYTES - len);
		struct vh_map m;
		int r = map_call(h, &m, VH_MAP_WRITE, VH_MAP_OVERWRITE_ONLY, pos, len);

		CHECK(c, r == 0, "map(WRITE, OVERWRITE_ONLY): %s", g_strerror(-r));
		if (!m.n)
			continue;
		len = MIN(len, m.ext[0].pos + m.ext[0].len - pos);
		m.n = 1;
		m.len = len;
		memset(b, k + 1, len);
		map_data(h, &m, b);
		memcpy(h->model + pos, b, len);
		memset(h->maybe + pos, 0, len);
	}
	CHECK(c, h->vol.writes == writes, "metadata was written for overwrites in place");
	copy = map_host_copy(h); /* as after a crash: nothing more was told to the plugin */
	copy->model = g_memdup2(h->model, BYTES);
	copy->maybe = g_memdup2(h->maybe, BYTES);
	map_compare(copy, "overwritten in place, then opened without a flush");
	map_host_free(copy);
	map_host_free(h);
}

static void nowait_never_waits(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);

	/* map_call() and map_commit() watch; opened anew each time, so that nothing is in memory yet. */
	for (int k = 0; k < 30; k++) {
		for (int j = 0; j < 10; j++)
			map_random(h, 0);
		map_host_close(h, 1);
		map_host_open(h);
	}
	map_compare(h, "after many openings");
	map_host_free(h);
}

static int allocating(struct map_host *h, struct vh_map *m, uint64_t pos, uint64_t len)
{
	int r = map_call(h, m, VH_MAP_WRITE, 0, pos, h->info.max_map ? MIN(len, h->info.max_map) : len);

	CHECK(h->c, r == 0, "map(WRITE): %s", g_strerror(-r));
	return map_owes(m);
}

/* Units whose next write allocates. */
static unsigned unallocated(struct map_host *h)
{
	unsigned n = 0;

	for (uint64_t pos = 0; pos < BYTES; pos += h->info.unit) {
		struct vh_map m;

		n += map_call(h, &m, VH_MAP_WRITE, VH_MAP_OVERWRITE_ONLY, pos, 512) == 0 && !m.n;
	}
	return n;
}

static void abort_leaks_nothing(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);
	uint64_t bytes;
	int n = 0;

	if (!h->ops->commit)
		check_skip(c, "the format allocates nothing");
	for (int k = 0; k < 40 && unallocated(h) > 4; k++) /* a random write touches four at most */
		map_random(h, 1);
	map_flush(h, NULL, NULL);
	bytes = h->vol.bytes;
	for (int k = 0; k < 400; k++) {
		uint64_t len = 1 + check_below(c, 3 * h->info.unit), pos = check_below(c, BYTES - len);
		struct vh_map m;

		if (!allocating(h, &m, pos, len))
			continue;
		map_commit(h, &m, check_below(c, 2) ? -EIO : -ENOSPC);
		n++;
	}
	CHECK(c, n, "no write of 400 allocated");
	map_clean(h, "after many aborts");
	map_compare(h, "after many aborts");
	map_flush(h, NULL, NULL);
	map_clean(h, "after many aborts and a flush");
	CHECK(c, h->vol.bytes <= bytes + 4 * h->info.unit, "%d aborts made the volume %" G_GUINT64_FORMAT " bytes larger", n,
	      h->vol.bytes - bytes);
	map_host_close(h, 1);
	map_host_open(h);
	map_clean(h, "opened again after many aborts");
	map_compare(h, "opened again after many aborts");
	map_host_free(h);
}

/* A crash now: what the file says must not lead to data whose flush has not ended. */
struct unflushed { uint64_t lo, hi; struct vh_extent x[16]; uint32_t n; };
static void nothing_published(struct map_host *h, void *ctx)
{
	struct unflushed *u = ctx;
	struct map_host *after = map_host_copy(h);

	for (uint64_t at = u->lo; at < u->hi;) {
		struct vh_map m;
		int r = map_call(after, &m, VH_MAP_READ, 0, at, u->hi - at);

		CHECK(h->c, r == 0, "map(READ) after a crash: %s", g_strerror(-r));
		for (uint32_t k = 0; k < m.n; k++)
			for (uint32_t j = 0; j < u->n && m.ext[k].type == VH_EXT_DATA; j++)
				CHECK(h->c, m.ext[k].vol != u->x[j].vol || m.ext[k].addr >= u->x[j].addr + u->x[j].len ||
				      u->x[j].addr >= m.ext[k].addr + m.ext[k].len,
				      "a crash before the volume's flush finds the mapping of byte %" G_GUINT64_FORMAT
				      " in the file, but its data may be lost", at);
		at = m.ext[m.n - 1].pos + m.ext[m.n - 1].len;
	}
	map_host_free(after);
}

static void first_phase(struct map_host *h, void *ctx)
{
	struct unflushed *u = ctx;

	if (u->n)
		nothing_published(h, u);
	u->n = 0; /* the host's flush, right after this, makes the data durable */
}

static void publish_after_flush(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);
	g_autofree uint8_t *b = g_malloc0(BYTES);
	int n = 0;

	if (!h->ops->commit)
		check_skip(c, "the format allocates nothing");
	for (int k = 0; k < 120; k++) {
		struct unflushed u = {0};
		uint64_t len = 1 + check_below(c, 3 * h->info.unit), pos = check_below(c, BYTES - len);
		struct vh_map m;

		if (allocating(h, &m, pos, len)) {
			u.lo = m.pos;
			for (uint32_t j = 0; j < m.n; j++)
				if (m.ext[j].type == VH_EXT_DATA && (m.ext[j].flags & VH_EXT_COMMIT)) {
					u.x[u.n++] = m.ext[j];
					u.hi = m.ext[j].pos + m.ext[j].len;
				}
			map_data(h, &m, b);
			CHECK(c, map_commit(h, &m, 0) == 0, "commit fails");
			nothing_published(h, &u);
			/* Other questions must not push it out of a cache either. */
			for (int j = 0; j < 20; j++) {
				uint64_t at = check_below(c, BYTES - 512);

				map_call(h, &m, VH_MAP_READ, 0, at, 512);
			}
			nothing_published(h, &u);
			n++;
		} else {
			map_erase(h, VH_MAP_DISCARD, 0, pos, len);
		}
		map_flush(h, first_phase, &u);
		CHECK(c, !u.n || !h->ops->flush, "flush has nothing to write after an allocation was committed");
	}
	CHECK(c, n, "no write allocated");
	map_host_free(h);
}

static int hits(const struct vh_map *m, uint32_t vol, uint64_t lo, uint64_t hi)
{
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *x = &m->ext[k];

		if (x->type == VH_EXT_DATA && (x->flags & VH_EXT_COMMIT) && x->vol == vol && x->addr - x->head < hi &&
		    lo < x->addr + x->len + x->tail)
			return 1;
	}
	return 0;
}

/* Many allocations, all given back; whether one of them lies in [lo, hi). */
static int reused(struct map_host *h, uint32_t vol, uint64_t lo, uint64_t hi, uint64_t not_lo, uint64_t not_hi)
{
	struct vh_extent ext[64][16];
	struct vh_map m[64];
	int n = 0, bad = 0;

	for (uint64_t pos = 0; pos < BYTES && n < 64; pos += h->info.unit) {
		if (pos < not_hi && not_lo < pos + h->info.unit)
			continue;
		if (!allocating(h, &m[n], pos, MIN(h->info.unit, BYTES - pos)))
			continue;
		bad |= hits(&m[n], vol, lo, hi);
		memcpy(ext[n], h->ext, sizeof(ext[n]));
		m[n].ext = ext[n];
		n++;
	}
	while (n-- > 0)
		map_commit(h, &m[n], -EIO);
	return bad;
}

static void trim_is_freed_late(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);
	g_autofree uint8_t *b = g_malloc0(BYTES);
	int n = 0;

	if (!(h->info.caps & VH_FMT_DISCARD) || !h->ops->commit)
		check_skip(c, "the format frees nothing");
	for (uint64_t pos = 0; pos + h->info.unit <= BYTES / 2; pos += h->info.unit) {
		uint64_t lo, hi;
		struct vh_map d;
		struct vh_extent ext[16];
		uint32_t vol;

		memset(b, 1, h->info.unit);
		CHECK(c, map_write(h, b, pos, h->info.unit) == 0, "a write fails");
		map_flush(h, NULL, NULL);
		CHECK(c, map_call(h, &d, VH_MAP_DISCARD, 0, pos, h->info.unit) == 0, "map(DISCARD) fails");
		if (!map_owes(&d) || !d.ext[0].bytes)
			continue;
		memcpy(ext, h->ext, sizeof(ext));
		d.ext = ext;
		vol = ext[0].vol;
		lo = ext[0].addr;
		hi = lo + ext[0].bytes;
		CHECK(c, !reused(h, vol, lo, hi, pos, pos + h->info.unit),
		      "a unit is given to another write before the TRIM of it was committed: the punch would wipe that");
		map_data(h, &d, NULL);
		CHECK(c, map_commit(h, &d, 0) == 0, "commit of a TRIM fails");
		CHECK(c, !reused(h, vol, lo, hi, pos, pos + h->info.unit),
		      "a freed unit is used again before the unlink of it is durable: a crash would show another's data");
		map_flush(h, NULL, NULL);
		n++;
	}
	CHECK(c, n, "no discard of a whole unit freed it");
	map_clean(h, "after many discards");
	map_host_free(h);
}

static void timed_out_stays(struct check_ctx *c)
{
	struct map_host *h = map_host_new(c, BYTES);
	struct vh_map m;
	uint64_t lo, hi;
	uint32_t vol;

	if (!h->ops->commit)
		check_skip(c, "the format allocates nothing");
	CHECK(c, allocating(h, &m, 0, h->info.unit), "the first write does not allocate");
	vol = m.ext[0].vol;
	lo = m.ext[0].addr - m.ext[0].head;
	hi = m.ext[0].addr + m.ext[0].len + m.ext[0].tail;
	map_commit(h, &m, -ETIMEDOUT);
	CHECK(c, !reused(h, vol, lo, hi, 0, 0), "a unit is used again although the data of a write that timed out may still land there");
	map_flush(h, NULL, NULL);
	CHECK(c, !reused(h, vol, lo, hi, 0, 0), "a flush gives a unit back although data may still land there");
	map_compare(h, "after a time-out");
	map_host_free(h);
}

static const struct check checks[] = {
	{"map-valid", "every answer obeys the contract, and what was written is read", "docs/design/mapping.md#answers", valid_answers,
	 VH_KIND_FORMAT, 60},
	{"map-report", "REPORT says what READ says", "docs/design/mapping.md#answers", report_is_read, VH_KIND_FORMAT, 60},
	{"map-pure", "a PURE write changes no metadata and needs none", "docs/design/mapping.md#answers", pure_is_pure, VH_KIND_FORMAT, 60},
	{"map-nowait", "NOWAIT makes no blocking call", "docs/design/mapping.md#nowait", nowait_never_waits, VH_KIND_FORMAT, 60},
	{"map-abort", "an abort leaves nothing behind", "docs/design/mapping.md#commit", abort_leaks_nothing, VH_KIND_FORMAT, 60},
	{"map-timeout", "what timed out is not used again before close", "docs/design/mapping.md#commit", timed_out_stays, VH_KIND_FORMAT, 60},
	{"map-publish", "no mapping reaches the volume before the flush of its data", "docs/design/mapping.md#durability",
	 publish_after_flush, VH_KIND_FORMAT, 60},
	{"map-trim", "a unit is freed in commit, and used again when its unlink is durable", "docs/design/mapping.md#durability",
	 trim_is_freed_late, VH_KIND_FORMAT, 60},
	{0},
};
const struct check_group group_map = {"MAP", "the mapping contract of disk formats", checks};
