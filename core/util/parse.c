/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "util/parse.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

/*
 * "12" or "1.5" times `unit`, exact integer arithmetic, fractions of one rounded down. *end is behind the digits, the
 * caller knows the unit only from there, so the number is kept in parts.
 */
struct decimal { uint64_t whole, frac, scale; int overflow; };

static const char *decimal_scan(const char *s, struct decimal *d)
{
	const char *p = s;

	*d = (struct decimal){ .scale = 1 };
	for (; g_ascii_isdigit(*p); p++)
		if (__builtin_mul_overflow(d->whole, 10, &d->whole) || __builtin_add_overflow(d->whole, (uint64_t)(*p - '0'), &d->whole))
			d->overflow = 1;
	if (p == s)
		return NULL;
	if (*p == '.' && g_ascii_isdigit(p[1])) {
		for (p++; g_ascii_isdigit(*p); p++) {
			if (d->scale >= UINT64_C(1000000000))
				continue; /* beyond a billionth nothing counts */
			d->frac = d->frac * 10 + (*p - '0');
			d->scale *= 10;
		}
	}
	return p;
}

static int decimal_times(const struct decimal *d, uint64_t unit, uint64_t *out)
{
	unsigned __int128 v = (unsigned __int128)d->whole * unit + (unsigned __int128)d->frac * unit / d->scale;

	if (d->overflow || v > UINT64_MAX)
		return -ERANGE;
	*out = (uint64_t)v;
	return 0;
}

int parse_size(const char *s, uint64_t *out, struct vh_err *e)
{
	static const char units[] = "KMGTPE";
	struct decimal d;
	const char *p = decimal_scan(s, &d), *u;
	int shift = 0;

	if (!p)
		goto bad;
	if (*p && (u = strchr(units, g_ascii_toupper(*p)))) {
		shift = 10 * (int)(u - units + 1);
		p++;
		if (!strcmp(p, "iB"))
			p += 2;
	}
	if (*p || (!shift && d.scale > 1))
		goto bad;
	if (decimal_times(&d, UINT64_C(1) << shift, out))
		return err_set(e, -ERANGE, "size '%s' is too large", s);
	return 0;
bad:
	return err_set(e, -EINVAL, "'%s' is not a size; write bytes, or a number with K, M, G or T", s);
}

int parse_int(const char *s, int64_t *out, struct vh_err *e)
{
	const char *p = s;
	int neg = *p == '-', base = 10, digit;
	uint64_t v = 0, limit;

	if (neg)
		p++;
	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	if (!*p)
		goto bad;
	limit = neg ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
	for (; *p; p++) {
		digit = g_ascii_xdigit_value(*p);
		if (digit < 0 || digit >= base)
			goto bad;
		if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit, &v) || v > limit)
			return err_set(e, -ERANGE, "number '%s' is too large", s);
	}
	*out = neg ? (int64_t)(0 - v) : (int64_t)v;
	return 0;
bad:
	return err_set(e, -EINVAL, "'%s' is not a whole number", s);
}

int parse_bool(const char *s, int *out, struct vh_err *e)
{
	static const char *const words[] = { "off", "on", "no", "yes", "false", "true", "0", "1" };
	unsigned i;

	for (i = 0; i < G_N_ELEMENTS(words); i++) {
		if (!g_ascii_strcasecmp(s, words[i])) {
			*out = i & 1;
			return 0;
		}
	}
	return err_set(e, -EINVAL, "'%s' is neither on nor off", s);
}

int parse_duration(const char *s, uint64_t *ns, struct vh_err *e)
{
	static const struct { const char *name; uint64_t ns; } units[] = {
		{ "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", UINT64_C(1000000000) },
		{ "min", UINT64_C(60000000000) }, { "h", UINT64_C(3600000000000) },
	};
	struct decimal d;
	const char *p = decimal_scan(s, &d);
	unsigned i;

	if (p && !*p && !d.whole && !d.frac) {
		*ns = 0;
		return 0;
	}
	for (i = 0; p && i < G_N_ELEMENTS(units); i++) {
		if (strcmp(p, units[i].name))
			continue;
		if (decimal_times(&d, units[i].ns, ns))
			return err_set(e, -ERANGE, "time '%s' is too long", s);
		return 0;
	}
	return err_set(e, -EINVAL, "'%s' is not a time; write a number with ms, s or min", s);
}

int parse_mac(const char *s, uint8_t mac[6], struct vh_err *e)
{
	uint8_t m[6];
	int i, hi, lo, any = 0;

	for (i = 0; i < 6; i++) {
		hi = g_ascii_xdigit_value(s[3 * i]);
		lo = hi < 0 ? -1 : g_ascii_xdigit_value(s[3 * i + 1]);
		if (lo < 0 || s[3 * i + 2] != (i < 5 ? ':' : '\0'))
			return err_set(e, -EINVAL, "'%s' is not a MAC address; write six bytes as 52:54:00:12:34:56", s);
		m[i] = (uint8_t)(hi << 4 | lo);
		any |= m[i];
	}
	if (m[0] & 1)
		return err_set(e, -EINVAL, "MAC address '%s' is a multicast one; the first byte must be even", s);
	if (!any)
		return err_set(e, -EINVAL, "MAC address '%s' is nobody's", s);
	memcpy(mac, m, 6);
	return 0;
}

char *format_size(uint64_t bytes)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned i = 0;
	uint64_t unit = 1, tenths;

	while (i + 1 < G_N_ELEMENTS(names) && bytes / unit >= 1024) {
		unit <<= 10;
		i++;
	}
	tenths = bytes / unit * 10 + (uint64_t)((unsigned __int128)(bytes % unit) * 10 / unit);
	if (tenths % 10 == 0 || tenths >= 1000)
		return g_strdup_printf("%" G_GUINT64_FORMAT " %s", tenths / 10, names[i]);
	return g_strdup_printf("%" G_GUINT64_FORMAT ".%u %s", tenths / 10, (unsigned)(tenths % 10), names[i]);
}

/* Insertions, deletions, substitutions and swaps of neighbours; `limit` + 1 when there are more than `limit`. */
static unsigned distance(const char *a, unsigned na, const char *b, unsigned nb, unsigned limit)
{
	unsigned row[3][66], i, j, v;

	if (na > 64 || nb > 64 || (na > nb ? na - nb : nb - na) > limit)
		return limit + 1;
	for (j = 0; j <= nb; j++)
		row[0][j] = j;
	for (i = 1; i <= na; i++) {
		unsigned *cur = row[i % 3], *up = row[(i - 1) % 3], *upper = row[(i + 1) % 3];

		cur[0] = i;
		for (j = 1; j <= nb; j++) {
			v = MIN(up[j] + 1, cur[j - 1] + 1);
			v = MIN(v, up[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				v = MIN(v, upper[j - 2] + 1);
			cur[j] = v;
		}
	}
	return row[na % 3][nb];
}

const char *nearest(const char *word, const char *const *list)
{
	unsigned len = strlen(word), best = MAX(1, len / 3) + 1, d;
	const char *found = NULL;

	for (; len && list && *list; list++) {
		d = distance(word, len, *list, strlen(*list), best - 1);
		if (d < best && d < strlen(*list)) { /* a word of which nothing is left is not near */
			best = d;
			found = *list;
			if (!d)
				break;
		}
	}
	return found;
}

static int key_ok(const char *s, size_t len)
{
	size_t i;

	if (!len || !g_ascii_isalpha(s[0]))
		return 0;
	for (i = 1; i < len; i++)
		if (!g_ascii_isalnum(s[i]) && !strchr("._-", s[i]))
			return 0;
	return 1;
}

static int kvs_add(GArray *all, const char *part, const char *whole, struct vh_err *e)
{
	const char *eq = strchr(part, '=');
	struct kv kv = {0};

	if (!*part)
		return err_set(e, -EINVAL, "'%s' has an empty part (a comma inside a value is written twice)", whole);
	if (eq && key_ok(part, eq - part)) {
		kv.key = g_strndup(part, eq - part);
		kv.value = g_strdup(eq + 1);
	} else if (!all->len) { /* the main key's value; it may hold '=' where what stands before is no key */
		kv.value = g_strdup(part);
	} else {
		return err_set(e, -EINVAL, "'%s' in '%s' is not KEY=VALUE", part, whole);
	}
	g_array_append_val(all, kv);
	return 0;
}

int kvs_parse(const char *s, struct kvs *out, struct vh_err *e)
{
	g_autoptr(GString) part = g_string_new(NULL);
	GArray *all = g_array_new(FALSE, FALSE, sizeof(struct kv));
	const char *p;
	int r = 0;

	for (p = s; *s; p++) {
		if (p[0] == ',' && p[1] == ',') {
			g_string_append_c(part, ',');
			p++;
		} else if (*p && *p != ',') {
			g_string_append_c(part, *p);
		} else {
			r = kvs_add(all, part->str, s, e);
			g_string_truncate(part, 0);
			if (r || !*p)
				break;
		}
	}
	out->n = all->len;
	out->v = (struct kv *)(void *)g_array_free(all, FALSE);
	if (r)
		kvs_clear(out);
	return r;
}

const char *kvs_get(const struct kvs *k, const char *key)
{
	unsigned i;

	for (i = 0; i < k->n; i++)
		if (!g_strcmp0(k->v[i].key, key))
			return k->v[i].value;
	return NULL;
}

void kvs_clear(struct kvs *k)
{
	unsigned i;

	for (i = 0; i < k->n; i++) {
		g_free(k->v[i].key);
		g_free(k->v[i].value);
	}
	g_free(k->v);
	*k = (struct kvs){0};
}
