/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What may be read after a crash. Each operation marks what it writes with its number and the sector's. A flush that ended
 * covers what had ended before it began; of that, the last write of a sector stands, unless something later is there.
 */
#include "crash/crash-i.h"

#define MAGIC 0x5eedu

struct oracle *oracle_new(uint64_t start, uint64_t most, uint64_t backing)
{
	struct oracle *o = g_new0(struct oracle, 1);

	o->ops = g_array_new(FALSE, TRUE, sizeof(struct oracle_op));
	o->sizes = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	o->start = start;
	o->most = most;
	o->backing = backing;
	o->at = UINT32_MAX;
	o->first = g_new0(uint32_t, most);
	o->zero = g_new0(uint32_t, most);
	o->apply = g_new0(uint32_t, most);
	return o;
}

void oracle_free(struct oracle *o)
{
	if (!o)
		return;
	for (uint32_t k = 0; k < o->ops->len; k++)
		g_free(oracle_op(o, k)->values);
	g_array_free(o->ops, TRUE);
	g_array_free(o->sizes, TRUE);
	g_free(o->first);
	g_free(o->zero);
	g_free(o->apply);
	g_free(o);
}

uint32_t oracle_begin(struct oracle *o, const struct oracle_op *op)
{
	g_array_append_val(o->ops, *op);
	return o->ops->len - 1;
}

static uint64_t mark(uint32_t value, uint64_t sector)
{
	return (uint64_t)MAGIC << 48 | (uint64_t)(value & 0xffffff) << 24 | (sector & 0xffffff);
}

void oracle_fill(uint8_t *buf, uint32_t value, uint64_t sector, uint64_t n)
{
	for (; n; n--, sector++, buf += CRASH_SECTOR) {
		uint64_t m = mark(value, sector);

		for (unsigned k = 0; k < CRASH_SECTOR; k += 8)
			memcpy(buf + k, &m, 8);
	}
}

uint32_t oracle_value(const uint8_t *data, uint64_t sector, int *shifted)
{
	uint64_t m;

	*shifted = 0;
	memcpy(&m, data, 8);
	if (memcmp(data, data + 8, CRASH_SECTOR - 8))
		return VALUE_BAD;
	if (!m)
		return VALUE_ZERO;
	if (m >> 48 != MAGIC)
		return VALUE_BAD;
	*shifted = (m & 0xffffff) != (sector & 0xffffff);
	return (uint32_t)(m >> 24 & 0xffffff);
}

/* Durable: what it did cannot be gone. */
static int durable(const struct oracle_op *x, uint32_t floor, uint32_t time)
{
	return x->ended && x->op != VH_DISCARD && (x->ended < floor || (x->fua && x->ended <= time));
}

void oracle_at(struct oracle *o, uint32_t time)
{
	uint32_t floor = 0;
	uint64_t size = o->start;

	if (time == o->at)
		return;
	o->at = time;
	for (uint32_t k = 0; k < o->ops->len; k++) {
		const struct oracle_op *x = oracle_op(o, k);

		if (x->op == VH_FLUSH && x->ended && x->ended <= time && x->begun > floor)
			floor = x->begun;
	}
	memset(o->first, 0, o->most * sizeof(*o->first));
	memset(o->zero, 0, o->most * sizeof(*o->zero));
	memset(o->apply, 0, o->most * sizeof(*o->apply));
	g_array_set_size(o->sizes, 0);
	g_array_append_val(o->sizes, size);
	for (uint32_t k = 0; k < o->ops->len; k++) {
		const struct oracle_op *x = oracle_op(o, k);
		int sure = durable(x, floor, time);

		if (x->op == VH_FLUSH || x->begun > time)
			continue;
		if (x->op == ORACLE_RESIZE) {
			if (sure)
				g_array_set_size(o->sizes, 0);
			g_array_append_val(o->sizes, x->size);
		}
		for (uint32_t c = x->c; c < x->c + x->n; c++) {
			if (sure) {
				o->first[c] = k + 1;
				o->zero[c] = o->apply[c] = 0;
			}
			if (x->op == ORACLE_APPLY)
				o->apply[c] = k + 1;
			else if (x->op != VH_WRITE)
				o->zero[c] = k + 1;
		}
	}
}

int oracle_size_ok(const struct oracle *o, uint64_t sectors)
{
	for (guint k = 0; k < o->sizes->len; k++)
		if (g_array_index(o->sizes, uint64_t, k) == sectors)
			return 1;
	return 0;
}

static int covers(const struct oracle_op *x, uint64_t sector)
{
	return sector >= x->c && sector < (uint64_t)x->c + x->n;
}

/* A snapshot that came back since the durable state may have brought this value. */
static int applied(const struct oracle *o, uint64_t sector, uint32_t value)
{
	if (!o->apply[sector])
		return 0;
	for (uint32_t k = o->first[sector] ? o->first[sector] - 1 : 0; k < o->ops->len; k++) {
		const struct oracle_op *x = oracle_op(o, k);

		if (x->op == ORACLE_APPLY && x->begun <= o->at && covers(x, sector) && x->values[sector] == value)
			return 1;
	}
	return 0;
}

const char *oracle_op_name(const struct oracle_op *x)
{
	static const char *const names[] = {"nothing", "read", "write", "flush", "discard", "zero"};

	return x->op < G_N_ELEMENTS(names) ? names[x->op] : x->op == ORACLE_RESIZE ? "resize" : "snapshot apply";
}

static char *what_was_sure(const struct oracle *o, uint64_t sector)
{
	if (o->first[sector])
		return g_strdup_printf("operation %u (%s) is durable there", o->first[sector] - 1,
				       oracle_op_name(oracle_op(o, o->first[sector] - 1)));
	return g_strdup(sector < o->backing ? "the backing image shows there" : "nothing durable is there");
}

/* A discard that nothing durable followed covers it. */
static int discarding(const struct oracle *o, uint64_t sector)
{
	for (uint32_t k = o->first[sector]; k < o->ops->len; k++) {
		const struct oracle_op *x = oracle_op(o, k);

		if (x->op == VH_DISCARD && x->begun <= o->at && covers(x, sector))
			return 1;
	}
	return 0;
}

char *oracle_wrong(const struct oracle *o, uint64_t sector, const uint8_t *data, int encrypted)
{
	int shifted;
	uint32_t v = oracle_value(data, sector, &shifted);
	g_autofree char *sure = NULL;

	if (v != VALUE_BAD && !shifted) {
		const struct oracle_op *x;

		if (v == VALUE_ZERO && (o->zero[sector] || (!o->first[sector] && sector >= o->backing)))
			return NULL;
		/* A durable zero or resize leaves zeros too, and is in `zero`. */
		if (v == VALUE_BASE && !o->first[sector] && sector < o->backing)
			return NULL;
		if (v >= VALUE_OP && v - VALUE_OP < o->ops->len) {
			x = oracle_op(o, v - VALUE_OP);
			if (x->op == VH_WRITE && covers(x, sector) && v - VALUE_OP + 1 >= o->first[sector] && x->begun <= o->at)
				return NULL;
		}
		if (applied(o, sector, v))
			return NULL;
	}
	if (v == VALUE_BAD && encrypted && discarding(o, sector))
		return NULL;
	sure = what_was_sure(o, sector);
	if (v == VALUE_BAD)
		return g_strdup_printf("sector %llu holds no operation's data, %s", (unsigned long long)sector, sure);
	if (shifted)
		return g_strdup_printf("sector %llu holds another sector's data, of operation %d; %s", (unsigned long long)sector,
				       (int)v - (int)VALUE_OP, sure);
	if (v == VALUE_ZERO)
		return g_strdup_printf("sector %llu reads as zeros, %s", (unsigned long long)sector, sure);
	if (v == VALUE_BASE)
		return g_strdup_printf("sector %llu shows the backing image, %s", (unsigned long long)sector, sure);
	return g_strdup_printf("sector %llu holds the data of operation %u, %s", (unsigned long long)sector, v - VALUE_OP, sure);
}
