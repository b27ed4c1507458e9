/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Commit changes tables in memory only. flush() takes copies (phase 0; then the host flushes the volumes, and so the data),
 * writes them, the redundant table first (phase 1), and where a table is new, after another flush, the directories that name
 * it (phase 2). So no entry and no table in the file ever names what is not there; the first directory is what counts, and
 * the redundant one is brought in step after a crash.
 */
#include "vmdk.h"

static uint64_t grains_of(const struct extent *x, const struct vh_extent *ext)
{
	return DIV_UP(ext->len + ext->head + ext->tail, x->grain * SECTOR);
}

static struct table *table_of(struct extent *x, uint64_t grain)
{
	return table_find(x, (uint32_t)(grain / x->gtes));
}

static uint64_t grain_at(const struct extent *x, uint64_t pos)
{
	return (pos / SECTOR - x->first) / x->grain;
}

/* late: data may still land in the grains, so that they stay taken until the image is closed. */
void take_back(struct image *im, const struct vh_map *m, int late)
{
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *ext = &m->ext[k];
		struct extent *x = extent_at(im, ext->pos);
		uint64_t g, n;

		if (!(ext->flags & VH_EXT_COMMIT))
			continue;
		g = grain_at(x, ext->pos);
		n = grains_of(x, ext);
		for (uint64_t j = 0; j < n; j++) {
			uint64_t s = (ext->addr - ext->head) / SECTOR + j * x->grain;

			table_put(table_of(x, g + j));
			if (ext->type == VH_EXT_TRIM)
				x->promised -= !!ext->bytes;
			else if (!late)
				space_give(x, s);
			else if (list_reserve(&x->held, 1) >= 0)
				x->held.v[x->held.n++] = s;
		}
	}
}

int vmdk_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	struct image *im = img;

	pthread_mutex_lock(&im->lock);
	if (status < 0) {
		take_back(im, m, status == -ETIMEDOUT);
		pthread_mutex_unlock(&im->lock);
		return 0;
	}
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *ext = &m->ext[k];
		struct extent *x = extent_at(im, ext->pos);
		uint64_t g, n;

		if (!(ext->flags & VH_EXT_COMMIT))
			continue;
		g = grain_at(x, ext->pos);
		n = grains_of(x, ext);
		for (uint64_t j = 0; j < n; j++) {
			struct table *t = table_of(x, g + j); /* map() has pinned it */
			uint32_t *e = &t->e[(g + j) % x->gtes];

			if (ext->type == VH_EXT_TRIM) {
				if (ext->bytes) {
					x->freed.v[x->freed.n++] = *e; /* room was made by map() */
					x->promised--;
				}
				*e = x->zero_gte ? GTE_ZERO : GTE_NONE;
			} else {
				*e = (uint32_t)((ext->addr - ext->head) / SECTOR + j * x->grain);
			}
			t->dirty = 1;
			table_put(t);
		}
	}
	pthread_mutex_unlock(&im->lock);
	return 0;
}

static int copies(struct image *im, int *any)
{
	int r = 0;

	for (struct table *t = im->lru_first; t && r >= 0; t = t->next) {
		struct extent *x = t->x;

		t->publishing = 0;
		if (!t->dirty && !t->copy && !t->fresh)
			continue;
		if (!t->copy)
			t->copy = malloc(x->gt_sectors * SECTOR);
		if (!t->copy)
			return -ENOMEM;
		memset(t->copy, 0, x->gt_sectors * SECTOR);
		for (uint32_t k = 0; k < x->gtes; k++)
			put32(&t->copy[k], t->e[k]);
		t->dirty = 0;
		t->publishing = t->fresh;
		*any = 1;
	}
	return r;
}

static int begin(struct image *im)
{
	int any = 0, r = copies(im, &any);

	for (uint32_t k = 0; k < im->nx && r >= 0; k++) {
		struct extent *x = &im->x[k];

		r = list_reserve(&x->unlinked, x->freed.n);
		if (r < 0)
			break;
		for (uint64_t j = 0; j < x->freed.n; j++)
			x->unlinked.v[x->unlinked.n++] = x->freed.v[j];
		x->freed.n = 0;
		any |= x->unlinked.n || x->written.n;
	}
	return r < 0 ? r : any;
}

/* The volumes were flushed since the last flush wrote its tables: what those unlinked is free. */
static void give_back(struct image *im)
{
	for (uint32_t k = 0; k < im->nx; k++) {
		struct extent *x = &im->x[k];

		for (uint64_t j = 0; j < x->written.n; j++)
			space_give(x, x->written.v[j]);
		x->written.n = 0;
	}
}

/* The lock is dropped for each table; nobody else takes or removes copies, and pins keep the tables. */
static int write_tables(struct image *im, int *fresh)
{
	struct table **all = malloc((im->ntables + 1) * sizeof(struct table *));
	uint64_t n = 0;
	int r = all ? 0 : -ENOMEM;

	for (struct table *t = im->lru_first; t && all; t = t->next) {
		if (!t->copy)
			continue;
		t->pins++;
		all[n++] = t;
	}
	for (uint64_t k = 0; k < n; k++) {
		struct table *t = all[k];
		struct extent *x = t->x;
		uint64_t bytes = x->gt_sectors * SECTOR, gt = x->gd[t->index], rgt = x->rgd ? x->rgd[t->index] : 0;

		if (r >= 0) {
			*fresh |= t->publishing;
			pthread_mutex_unlock(&im->lock);
			if (rgt)
				r = im->ops->write(x->v, t->copy, bytes, rgt * SECTOR);
			if (r >= 0)
				r = im->ops->write(x->v, t->copy, bytes, gt * SECTOR);
			pthread_mutex_lock(&im->lock);
		}
		if (r >= 0) {
			free(t->copy);
			t->copy = NULL;
		}
		t->pins--;
	}
	free(all);
	tables_trim(im);
	return r < 0 ? r : 0;
}

static int write_directory(struct extent *x, const uint32_t *dir, uint64_t at, uint32_t first)
{
	uint32_t n = MIN(SECTOR / 4, x->ngd - first);
	uint8_t s[SECTOR] = {0};

	/* Tables that came after the copies were taken are not there yet. */
	for (uint32_t k = 0; k < n; k++) {
		const struct table *t = table_find(x, first + k);

		put32(s + (size_t)k * 4, t && t->fresh && !t->publishing ? 0 : dir[first + k]);
	}
	pthread_mutex_unlock(&x->img->lock);
	n = (uint32_t)x->img->ops->write(x->v, s, (uint64_t)n * 4, at * SECTOR + (uint64_t)first * 4);
	pthread_mutex_lock(&x->img->lock);
	return (int)n;
}

static struct table *publishable(struct image *im)
{
	struct table *t = im->lru_first;

	while (t && !t->publishing)
		t = t->next;
	return t;
}

static int publish(struct image *im)
{
	struct table *t;
	int r = 0;

	while (r >= 0 && (t = publishable(im))) {
		struct extent *x = t->x;
		uint32_t first = t->index / (SECTOR / 4) * (SECTOR / 4);

		if (x->rgd_at)
			r = write_directory(x, x->rgd, x->rgd_at, first);
		if (r >= 0)
			r = write_directory(x, x->gd, x->gd_at, first);
		for (uint32_t k = first; r >= 0 && k < x->ngd && k < first + SECTOR / 4; k++) {
			t = table_find(x, k);
			if (t && t->publishing)
				t->publishing = t->fresh = 0;
		}
	}
	return r;
}

int vmdk_flush(void *img, uint32_t phase)
{
	struct image *im = img;
	int fresh = 0, r;

	if (im->stream_format)
		return phase ? 0 : stream_flush(im);
	pthread_mutex_lock(&im->lock);
	if (phase == 0) {
		r = begin(im);
	} else if (phase == 1) {
		give_back(im);
		r = write_tables(im, &fresh);
		for (uint32_t k = 0; k < im->nx && r >= 0; k++) {
			struct extent *x = &im->x[k];

			r = list_reserve(&x->written, x->unlinked.n);
			for (uint64_t j = 0; j < x->unlinked.n && r >= 0; j++)
				x->written.v[x->written.n++] = x->unlinked.v[j];
			if (r >= 0)
				x->unlinked.n = 0;
		}
		r = r < 0 ? r : fresh;
	} else {
		r = publish(im);
		tables_trim(im);
	}
	pthread_mutex_unlock(&im->lock);
	return r;
}
