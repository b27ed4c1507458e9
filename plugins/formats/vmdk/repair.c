/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What check() writes when it may: tables and directories made anew from what is left, a grain of its own for each entry. New
 * things go behind the end of the file, so that nothing else can be meant by them. */
#include "vmdk.h"

uint64_t repair_take(struct extent *x, uint64_t sectors)
{
	uint64_t phase = x->overhead % x->grain, at = MAX(x->end, MAX(x->overhead, 1));

	at = ROUND_UP(at - phase, x->grain) + phase;
	if (at + sectors > FILE_SECTORS)
		return 0;
	x->end = at + sectors;
	return at;
}

int repair_copy(struct checker *c, uint64_t from, uint64_t *to)
{
	struct extent *x = c->x;
	uint64_t n = x->grain * SECTOR;
	uint8_t *buf = malloc(n);
	int r = buf ? c->im->ops->read(x->v, buf, n, from * SECTOR) : -ENOMEM;

	*to = r < 0 ? 0 : repair_take(x, x->grain);
	if (r >= 0 && !*to)
		r = -ENOSPC;
	if (r >= 0)
		r = c->im->ops->write(x->v, buf, n, *to * SECTOR);
	free(buf);
	return r;
}

/* Table k, whose entries are in c->gt, into both copies; a copy that is of no use gets another place. */
int repair_table(struct checker *c, uint32_t k, int good, int rgood)
{
	struct extent *x = c->x;
	uint64_t n = x->gt_sectors * SECTOR, at;
	int r = c->im->ops->flush(x->v); /* grains that were copied, before they are named */

	for (int copy = 0; copy < 2 && r >= 0; copy++) {
		uint32_t *dir = copy ? x->gd : x->rgd;

		if (!dir)
			continue;
		if (copy ? !good : !rgood) {
			at = repair_take(x, x->gt_sectors);
			if (!at)
				return -ENOSPC;
			dir[k] = (uint32_t)at;
			c->damaged_dir = 1;
		}
		r = c->im->ops->write(x->v, c->gt, n, (uint64_t)dir[k] * SECTOR);
	}
	return r;
}

static int directory_write(struct checker *c, const uint32_t *dir, uint64_t *at)
{
	struct extent *x = c->x;
	uint64_t n = ROUND_UP((uint64_t)x->ngd * 4, SECTOR);
	uint8_t *raw;
	int r;

	if (!*at)
		*at = repair_take(x, n / SECTOR);
	if (!*at)
		return -ENOSPC;
	raw = calloc(1, n);
	if (!raw)
		return -ENOMEM;
	for (uint32_t k = 0; k < x->ngd; k++)
		put32(raw + (size_t)k * 4, dir[k]);
	r = c->im->ops->write(x->v, raw, n, *at * SECTOR);
	free(raw);
	return r;
}

int repair_directories(struct checker *c)
{
	struct extent *x = c->x;
	int r = c->im->ops->flush(x->v);

	if (r >= 0 && c->damaged_dir && (c->repair || (x->gd_at && (!x->rgd || x->rgd_at)))) {
		if (x->rgd)
			r = directory_write(c, x->rgd, &x->rgd_at);
		if (r >= 0)
			r = directory_write(c, x->gd, &x->gd_at);
		if (r >= 0)
			r = c->im->ops->flush(x->v);
		put64(x->header + HDR_GD, x->gd_at);
		if (x->rgd)
			put64(x->header + HDR_RGD, x->rgd_at);
	}
	if (r < 0 || (!c->damaged_dir && !x->unclean && !x->marked))
		return r;
	/* The next change marks it again. */
	x->header[HDR_UNCLEAN] = 0;
	x->unclean = x->marked = 0;
	return header_write(x);
}
