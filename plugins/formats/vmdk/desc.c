/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The descriptor: lines `key = value`, and extent lines `RW 4192256 SPARSE "disk-s001.vmdk"`. Written by many programs, so
 * spaces, quotes, line ends and the order of lines vary; edits change one line and leave everything else as it was.
 */
#include <ctype.h>
#include <stdio.h>
#include <strings.h>
#include "vmdk.h"

int desc_is_text(const void *buf, uint64_t len)
{
	static const char mark[] = "# Disk DescriptorFile";
	const char *p = buf, *end = p + len;

	if (len >= 3 && !memcmp(p, "\xef\xbb\xbf", 3))
		p += 3;
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	if ((uint64_t)(end - p) >= sizeof(mark) - 1 && !strncasecmp(p, mark, sizeof(mark) - 1))
		return 100;
	/* Others begin with comments of their own, then the version. */
	for (unsigned lines = 0; p < end && lines < 32; lines++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));

		while (p < end && (*p == ' ' || *p == '\t'))
			p++;
		if (end - p >= 8 && !strncasecmp(p, "version=", 8) && p[8 < end - p ? 8 : 7] >= '1' && p[8 < end - p ? 8 : 7] <= '3')
			return 60;
		if (p < end && *p != '#' && *p != '\r' && *p != '\n')
			return 0;
		if (!nl)
			return 0;
		p = nl + 1;
	}
	return 0;
}

int desc_name_ok(const char *name)
{
	if (!*name || strlen(name) >= sizeof(((struct vh_ref *)0)->name))
		return 0;
	for (const unsigned char *p = (const unsigned char *)name; *p; p++)
		if (*p == '"' || *p < 32 || *p == 127)
			return 0;
	return 1;
}

void desc_free(struct desc *d)
{
	for (uint32_t k = 0; k < d->n; k++)
		free(d->ext[k].name);
	free(d->ext);
	free(d->text);
	memset(d, 0, sizeof(*d));
}

static char *trim(char *p)
{
	char *end;

	while (*p == ' ' || *p == '\t')
		p++;
	end = p + strlen(p);
	while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		*--end = 0;
	return p;
}

static int hex32(const char *s, uint32_t *out)
{
	size_t n = strspn(s, "0123456789abcdefABCDEF");

	if (!n || n > 8 || s[n])
		return 0;
	*out = (uint32_t)strtoul(s, NULL, 16);
	return 1;
}

static int number(const char **p, uint64_t *out)
{
	uint64_t v = 0;

	if (!isdigit((unsigned char)**p))
		return 0;
	for (; isdigit((unsigned char)**p); (*p)++) {
		v = v * 10 + (uint64_t)(**p - '0');
		if (v > MAX_SECTORS)
			return 0;
	}
	*out = v;
	return 1;
}

static const char *word(const char **p, char *buf, size_t cap)
{
	size_t n = 0;

	while (**p == ' ' || **p == '\t')
		(*p)++;
	for (; **p && **p != ' ' && **p != '\t'; (*p)++)
		if (n + 1 < cap)
			buf[n++] = **p;
	buf[n] = 0;
	return buf;
}

static const struct { const char *name; enum ext_kind kind; } kinds[] = {
	{"SPARSE", KIND_SPARSE}, {"FLAT", KIND_FLAT}, {"VMFS", KIND_FLAT}, {"VMFSSPARSE", KIND_COWD},
	{"SESPARSE", KIND_SESPARSE}, {"ZERO", KIND_ZERO},
};

/* 1: not an extent line. `at`: where the line begins in the text. */
static int extent_line(struct desc *d, const char *line, uint64_t at, const char **why)
{
	static const char *const access[] = {"RW", "RDONLY", "NOACCESS"};
	const char *p = line, *q;
	struct desc_extent x = {0}, *grown;
	char buf[32];
	unsigned k;

	word(&p, buf, sizeof(buf));
	for (k = 0; k < 3 && strcasecmp(buf, access[k]); k++)
		;
	while (*p == ' ' || *p == '\t')
		p++;
	if (k == 3 || *p == '=' || !*p)
		return 1;
	x.access = (enum ext_access)k;
	q = p;
	*why = "an extent's size is no possible number";
	if (!number(&p, &x.sectors) || !x.sectors)
		return -EINVAL;
	x.num_at = (uint32_t)(at + (uint64_t)(q - line));
	x.num_len = (uint32_t)(p - q);
	word(&p, buf, sizeof(buf));
	for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]) && strcasecmp(buf, kinds[k].name); k++)
		;
	*why = "an extent is of a type that is not known (devices of the host are none of them)";
	if (k == sizeof(kinds) / sizeof(kinds[0]))
		return -EOPNOTSUPP;
	x.kind = kinds[k].kind;
	while (*p == ' ' || *p == '\t')
		p++;
	*why = "an extent's file name is missing, empty, too long or has control characters";
	if (*p == '"') {
		q = strchr(++p, '"');
		if (!q)
			return -EINVAL;
		x.name = strndup(p, (size_t)(q - p));
		if (!x.name)
			return -ENOMEM;
		p = q + 1;
	}
	while (*p == ' ' || *p == '\t')
		p++;
	if (x.kind == KIND_ZERO ? x.name != NULL : !x.name || !desc_name_ok(x.name)) {
		free(x.name);
		return -EINVAL;
	}
	if (x.kind == KIND_FLAT && *p && !number(&p, &x.offset)) {
		*why = "an extent's offset is no possible number";
		free(x.name);
		return -EINVAL;
	}
	*why = "too many extents";
	grown = d->n < MAX_EXTENTS ? realloc(d->ext, (d->n + 1) * sizeof(*d->ext)) : NULL;
	if (!grown) {
		free(x.name);
		return d->n < MAX_EXTENTS ? -ENOMEM : -EFBIG;
	}
	d->ext = grown;
	d->ext[d->n++] = x;
	return 0;
}

static void copy(char *to, size_t cap, const char *from)
{
	snprintf(to, cap, "%s", from);
}

/* The first line of a key counts. */
static int key_line(struct desc *d, char *line, const char **why)
{
	char *eq = strchr(line, '='), *key, *value;
	size_t n;

	if (!eq)
		return 0;
	*eq = 0;
	key = trim(line);
	value = trim(eq + 1);
	n = strlen(value);
	if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
		value[n - 1] = 0;
		value++;
	}
	if (!strcasecmp(key, "version")) {
		*why = "a descriptor of another version than 1, 2 or 3";
		return strcmp(value, "1") && strcmp(value, "2") && strcmp(value, "3") ? -EOPNOTSUPP : 0;
	}
	*why = "a content id is no number of 32 bits";
	if (!strcasecmp(key, "CID") && !d->has_cid) {
		d->has_cid = 1;
		return hex32(value, &d->cid) ? 0 : -EINVAL;
	}
	if (!strcasecmp(key, "parentCID") && d->parent_cid == CID_NONE)
		return hex32(value, &d->parent_cid) ? 0 : -EINVAL;
	if (!strcasecmp(key, "createType") && !d->create_type[0])
		copy(d->create_type, sizeof(d->create_type), value);
	if (!strcasecmp(key, "ddb.adapterType") && !d->adapter[0])
		copy(d->adapter, sizeof(d->adapter), value);
	if (!strcasecmp(key, "ddb.virtualHWVersion") && !d->hwversion[0])
		copy(d->hwversion, sizeof(d->hwversion), value);
	if (!strcasecmp(key, "ddb.toolsVersion") && !d->tools[0])
		copy(d->tools, sizeof(d->tools), value);
	if (!strcasecmp(key, "parentFileNameHint") && !d->parent[0]) {
		*why = "the parent's name is empty, too long or has control characters";
		if (!desc_name_ok(value))
			return -EINVAL;
		copy(d->parent, sizeof(d->parent), value);
	}
	return 0;
}

int desc_parse(struct desc *d, const char *text, uint64_t len, const char **why)
{
	uint64_t at = 0, lines = 0, room = d->room, where = d->at;
	char *line = NULL;
	int r = -ENOMEM;

	memset(d, 0, sizeof(*d));
	d->room = room;
	d->at = where;
	d->parent_cid = CID_NONE;
	*why = "no memory";
	len = strnlen(text, len);
	d->text = malloc(len + 1);
	line = malloc(len + 1);
	if (!d->text || !line)
		goto out;
	memcpy(d->text, text, len);
	d->text[len] = 0;
	d->len = len;
	while (at < len) {
		const char *nl = memchr(d->text + at, '\n', len - at);
		uint64_t n = nl ? (uint64_t)(nl - (d->text + at)) : len - at, lead;

		memcpy(line, d->text + at, n);
		line[n] = 0;
		lead = strspn(line, " \t");
		trim(line);
		r = 0;
		if (line[lead] && line[lead] != '#')
			r = extent_line(d, line + lead, at + lead, why);
		if (r == 1)
			r = key_line(d, line + lead, why);
		if (r < 0)
			goto out;
		at += n + 1;
		lines++;
	}
	r = 0;
out:
	free(line);
	if (r < 0)
		desc_free(d);
	return r;
}

/* Where the line of a key begins, and its length with the line's end; 0: there is none. */
static uint64_t find(const struct desc *d, const char *key, uint64_t *at)
{
	size_t klen = strlen(key);

	for (uint64_t p = 0; p < d->len;) {
		const char *nl = memchr(d->text + p, '\n', d->len - p);
		uint64_t n = nl ? (uint64_t)(nl - (d->text + p)) + 1 : d->len - p;
		const char *s = d->text + p;

		s += strspn(s, " \t");
		if (!strncasecmp(s, key, klen) && s[klen + strspn(s + klen, " \t")] == '=') {
			*at = p;
			return n;
		}
		p += n;
	}
	return 0;
}

static int splice(struct desc *d, uint64_t at, uint64_t n, const char *with)
{
	uint64_t w = strlen(with);
	char *text = malloc(d->len - n + w + 1);
	const char *why;
	struct desc fresh = {.at = d->at, .room = d->room};
	int r;

	if (!text)
		return -ENOMEM;
	memcpy(text, d->text, at);
	memcpy(text + at, with, w);
	memcpy(text + at + w, d->text + at + n, d->len - at - n);
	r = desc_parse(&fresh, text, d->len - n + w, &why);
	free(text);
	if (r < 0)
		return r;
	desc_free(d);
	*d = fresh;
	return 0;
}

int desc_set(struct desc *d, const char *key, const char *value, int quote, const char *after)
{
	char line[1200] = "";
	uint64_t at = 0, n = find(d, key, &at), behind;
	const char *lead = "";

	if (!n && !value)
		return 0;
	if (!n) {
		behind = find(d, after, &at);
		if (behind)
			at += behind;
		else
			at = d->len;
		if (at && d->text[at - 1] != '\n')
			lead = "\n";
	}
	if (value && snprintf(line, sizeof(line), quote ? "%s%s=\"%s\"\n" : "%s%s=%s\n", lead, key, value) >= (int)sizeof(line))
		return -ENAMETOOLONG;
	return splice(d, at, n, line);
}

int desc_set_sectors(struct desc *d, uint32_t k, uint64_t sectors)
{
	char s[24];

	snprintf(s, sizeof(s), "%llu", ULL(sectors));
	return splice(d, d->ext[k].num_at, d->ext[k].num_len, s);
}

void desc_geometry(uint64_t sectors, int ide, uint64_t *cylinders, uint32_t *heads, uint32_t *spt)
{
	*heads = ide ? 16 : 255;
	*spt = 63;
	*cylinders = sectors / (*heads * (uint64_t)*spt);
	if (ide && *cylinders > 16383)
		*cylinders = 16383;
	if (!*cylinders)
		*cylinders = 1;
}

int desc_set_geometry(struct desc *d, uint64_t sectors)
{
	uint64_t cylinders, at;
	uint32_t heads, spt;
	char s[24];

	if (!find(d, "ddb.geometry.cylinders", &at))
		return 0;
	desc_geometry(sectors, !strcasecmp(d->adapter, "ide") || !d->adapter[0], &cylinders, &heads, &spt);
	snprintf(s, sizeof(s), "%llu", ULL(cylinders));
	return desc_set(d, "ddb.geometry.cylinders", s, 1, "");
}
