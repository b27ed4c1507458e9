/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Extent cache of one queue, for one layer and one purpose (reading, or pure writes). Two levels of sorted arrays, all
 * memory taken at once: finding is two binary searches, putting moves at most one leaf. When the leaves are used up, one
 * is dropped, round robin: forgetting is always right.
 */
#include <stdlib.h>
#include "fmt/impl.h"

#define LEAF 64u

struct cache_leaf {
	uint32_t n;
	struct cache_leaf *next;
	struct cache_ext x[LEAF];
};

void cache_clear(struct cache *c)
{
	c->n = c->hand = c->fresh = 0;
	c->free = NULL;
}

int cache_init(struct cache *c, uint32_t leaves)
{
	memset(c, 0, sizeof(*c));
	c->dir = calloc(leaves, sizeof(struct cache_leaf *));
	c->key = calloc(leaves, sizeof(*c->key));
	c->leaves = calloc(leaves, sizeof(*c->leaves));
	if (!c->dir || !c->key || !c->leaves) {
		cache_fini(c);
		return -ENOMEM;
	}
	c->cap = leaves;
	cache_clear(c);
	return 0;
}

void cache_fini(struct cache *c)
{
	free(c->dir);
	free(c->key);
	free(c->leaves);
	memset(c, 0, sizeof(*c));
}

/* Both searches halve without a branch that depends on pos: such a branch is guessed wrong every second time. */

/* The last leaf that begins at or before pos; 0 also when there is none. */
static uint32_t leaf_of(const struct cache *c, uint64_t pos)
{
	const uint64_t *k = c->key;

	for (uint32_t n = c->n, half; n > 1; n -= half) {
		half = n / 2;
		k += k[half] <= pos ? half : 0;
	}
	return (uint32_t)(k - c->key);
}

/* The first extent of the leaf that ends after pos. */
static uint32_t slot_of(const struct cache_leaf *l, uint64_t pos)
{
	const struct cache_ext *x = l->x;

	for (uint32_t n = l->n, half; n > 1; n -= half) {
		half = n / 2;
		x += x[half].pos <= pos ? half : 0;
	}
	return (uint32_t)(x - l->x) + (l->n && x->pos + x->len <= pos);
}

int cache_find(const struct cache *c, uint64_t pos, struct cache_ext *out)
{
	const struct cache_leaf *l;
	uint32_t i;

	if (!c->n)
		return 0;
	l = c->dir[leaf_of(c, pos)];
	i = slot_of(l, pos);
	if (i == l->n || l->x[i].pos > pos)
		return 0;
	*out = l->x[i];
	return 1;
}

static void leaf_remove(struct cache *c, uint32_t d)
{
	struct cache_leaf *l = c->dir[d];

	memmove(&c->dir[d], &c->dir[d + 1], (--c->n - d) * sizeof(struct cache_leaf *));
	memmove(&c->key[d], &c->key[d + 1], (c->n - d) * sizeof(*c->key));
	l->n = 0;
	l->next = c->free;
	c->free = l;
}

static void slot_remove(struct cache *c, uint32_t d, uint32_t i)
{
	struct cache_leaf *l = c->dir[d];

	memmove(&l->x[i], &l->x[i + 1], (--l->n - i) * sizeof(l->x[0]));
	if (!l->n)
		leaf_remove(c, d);
	else
		c->key[d] = l->x[0].pos;
}

static struct cache_leaf *leaf_new(struct cache *c, uint32_t keep)
{
	struct cache_leaf *l;

	if (!c->free && c->fresh < c->cap) {
		l = &c->leaves[c->fresh++];
		l->n = 0;
		return l;
	}
	if (!c->free) {
		uint32_t victim = c->hand++ % c->n;

		if (victim == keep) /* that is the one being split */
			victim = (victim + 1) % c->n;
		leaf_remove(c, victim);
	}
	l = c->free;
	c->free = l->next;
	return l;
}

static void dir_insert(struct cache *c, uint32_t d, struct cache_leaf *l)
{
	memmove(&c->key[d + 1], &c->key[d], (c->n - d) * sizeof(*c->key));
	memmove(&c->dir[d + 1], &c->dir[d], (c->n++ - d) * sizeof(struct cache_leaf *));
	c->dir[d] = l;
	c->key[d] = l->x[0].pos;
}

/* Puts x, which overlaps nothing, where it belongs. */
static void insert(struct cache *c, const struct cache_ext *x)
{
	struct cache_leaf *l;
	uint32_t d, i;

	if (!c->n) {
		l = leaf_new(c, 0);
		l->n = 1;
		l->x[0] = *x;
		dir_insert(c, 0, l);
		return;
	}
	d = leaf_of(c, x->pos);
	l = c->dir[d];
	if (l->n == LEAF) {
		struct cache_leaf *right = leaf_new(c, d), *left = l;

		right->n = LEAF / 2;
		memcpy(right->x, &left->x[LEAF - right->n], right->n * sizeof(right->x[0]));
		left->n -= right->n;
		for (d = 0; c->dir[d] != left; d++) /* a victim may have moved it */
			;
		dir_insert(c, d + 1, right);
		if (x->pos > right->x[0].pos) {
			l = right;
			d++;
		}
	}
	i = slot_of(l, x->pos);
	memmove(&l->x[i + 1], &l->x[i], (l->n++ - i) * sizeof(l->x[0]));
	l->x[i] = *x;
	c->key[d] = l->x[0].pos;
}

void cache_drop(struct cache *c, uint64_t lo, uint64_t hi)
{
	while (c->n) {
		uint32_t d = leaf_of(c, lo), i = slot_of(c->dir[d], lo);
		struct cache_ext *x, right;

		if (i == c->dir[d]->n) {
			if (++d == c->n)
				return;
			i = 0;
		}
		x = &c->dir[d]->x[i];
		if (x->pos >= hi)
			return;
		right = *x;
		if (x->pos + x->len > hi) { /* what is left on the right */
			right.pos = hi;
			right.len = x->pos + x->len - hi;
			right.addr += hi - x->pos;
		} else {
			right.len = 0;
		}
		if (x->pos < lo) { /* and on the left */
			x->len = lo - x->pos;
			if (right.len) {
				insert(c, &right);
				return;
			}
		} else if (right.len) {
			*x = right;
			c->key[d] = c->dir[d]->x[0].pos;
			return;
		} else {
			slot_remove(c, d, i);
		}
	}
}

static int joins(const struct cache_ext *a, const struct cache_ext *b)
{
	return a->pos + a->len == b->pos && a->type == b->type && a->flags == b->flags &&
	       (a->type != VH_EXT_DATA || (a->vol == b->vol && a->addr + a->len == b->addr));
}

void cache_put(struct cache *c, const struct cache_ext *x)
{
	struct cache_ext y = *x, near;

	if (!c->cap || !x->len)
		return;
	if (y.type != VH_EXT_DATA)
		y.addr = y.vol = 0;
	cache_drop(c, y.pos, y.pos + y.len);
	if (y.pos && cache_find(c, y.pos - 1, &near) && joins(&near, &y)) {
		cache_drop(c, near.pos, near.pos + near.len);
		near.len += y.len;
		y = near;
	}
	if (cache_find(c, y.pos + y.len, &near) && joins(&y, &near)) {
		cache_drop(c, near.pos, near.pos + near.len);
		y.len += near.len;
	}
	insert(c, &y);
}
