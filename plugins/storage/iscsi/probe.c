/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What a LUN is. Every length, count and size that a target tells is checked against what it really sent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "iscsi.h"

#define LUNS_MAX 16384u
#define VPD_MAX 1024
#define AT_ONCE 24u

int lun_name(char *out, size_t cap, const struct lun *l)
{
	return snprintf(out, cap, "lun%u", l->number);
}

int lun_parse(const char *name, unsigned *number)
{
	unsigned long n = 0;

	if (strncmp(name, "lun", 3) || name[3] < '0' || name[3] > '9' || (name[3] == '0' && name[4]))
		return -1;
	for (name += 3; *name >= '0' && *name <= '9' && n < 100000; name++)
		n = n * 10 + (unsigned)(*name - '0');
	*number = (unsigned)n;
	return *name || n > 16383 ? -1 : 0;
}

/* ---- which LUNs there are ---- */

/* One entry of REPORT LUNS: peripheral (bus 0) and flat addresses, of one level. 0: something else. */
static int lun_decode(const uint8_t *p, struct lun *l)
{
	for (int i = 2; i < 8; i++)
		if (p[i])
			return 0;
	if (*p == 0)
		l->number = p[1];
	else if ((*p & 0xc0) == 0x40)
		l->number = (unsigned)(*p & 0x3f) << 8 | p[1];
	else
		return 0;
	l->raw = *p << 8 | p[1];
	return 1;
}

int luns_read(struct session *s, struct lun **out, unsigned *n, struct why *w)
{
	uint32_t len = 8 + 64 * 8;
	const uint8_t *d;
	struct cmd c;
	int ret;

	*out = NULL;
	*n = 0;
	for (int again = 0; again < 2; again++) {
		const uint8_t cdb[12] = {SCSI_OPCODE_REPORTLUNS, 0, 0, 0, 0, 0, (uint8_t)(len >> 24), (uint8_t)(len >> 16),
					 (uint8_t)(len >> 8), (uint8_t)len};
		uint64_t size, told;

		ret = cmd_run(s, &c, 0, cdb, sizeof(cdb), SCSI_XFER_READ, (int)len, NULL, "listing LUNs", w);
		if (ret)
			return ret;
		size = cmd_data(&c, &d);
		told = size >= 8 ? is_be(d, 4) : UINT64_MAX;
		if (told > LUNS_MAX * 8 || told % 8) {
			cmd_end(&c);
			return why_set(w, -EPROTO, "the target's list of LUNs makes no sense");
		}
		if (told + 8 > len && !again) { /* longer than was asked for */
			len = (uint32_t)told + 8;
			cmd_end(&c);
			continue;
		}
		if (told > size - 8)
			told = (size - 8) & ~UINT64_C(7);
		*out = calloc(told / 8 + 1, sizeof(**out));
		for (uint64_t i = 0; *out && i < told / 8; i++)
			*n += (unsigned)lun_decode(d + 8 + i * 8, &(*out)[*n]);
		cmd_end(&c);
		break;
	}
	return *out ? 0 : why_set(w, -ENOMEM, "no memory");
}

/* ---- what they are ---- */

static void hex(char *out, size_t cap, const char *prefix, const uint8_t *p, size_t n)
{
	size_t k = (size_t)snprintf(out, cap, "%s", prefix);

	for (size_t i = 0; i < n && k + 3 <= cap; i++)
		k += (size_t)snprintf(out + k, cap - k, "%02x", p[i]);
}

/* A page of vital product data: its payload, or 0. */
static size_t vpd(const struct cmd *c, uint8_t page, const uint8_t **p)
{
	const uint8_t *d;
	size_t n, told;

	if (cmd_result(c, "", NULL) || (n = cmd_data(c, &d)) < 4 || d[1] != page)
		return 0;
	told = (size_t)is_be(d + 2, 2);
	*p = d + 4;
	return told < n - 4 ? told : n - 4;
}

/* NAA formats 2, 5 and 6 hold their maker's IEEE number; programs that have none of their own leave it 0. */
static int naa_unique(const uint8_t *id, size_t len)
{
	int naa = *id >> 4;
	uint64_t oui = naa == 2 ? is_be(id + 2, 3) : (is_be(id, 4) >> 4) & 0xffffff;

	return ((len == 8 && (naa == 2 || naa == 5)) || (len == 16 && naa == 6)) && oui;
}

/* The best designator of the unit itself. One that is the same all over the world stands alone, so that the LUN is the same by
 * whatever target, portal and name it is reached; another one is as good as the target's name beside it. */
static void identify(struct lun *l, const struct config *c, const uint8_t *p, size_t n)
{
	char name[64];
	int best = 0;

	for (size_t i = 0; i + 4 <= n; i += 4 + (size_t)p[i + 3]) {
		const uint8_t *id = p + i + 4;
		size_t len = p[i + 3];
		int rank = 0, type = p[i + 1] & 0xf;
		char text[sizeof(l->id)];

		if (len > n - i - 4)
			break;
		if ((p[i + 1] & 0x30) || !len)
			continue;
		if (type == 3 && (len == 8 || len == 16) && naa_unique(id, len)) {
			rank = 6;
			hex(text, sizeof(text), "naa.", id, len);
		} else if (type == 2 && (len == 8 || len == 12 || len == 16)) {
			rank = 5;
			hex(text, sizeof(text), "eui.", id, len);
		} else if (type == 3 && (len == 8 || len == 16)) { /* locally assigned, or as good as that */
			rank = 3;
			hex(text, sizeof(text), "naa.", id, len);
		} else if (type == 1) {
			rank = 2;
			snprintf(text, sizeof(text), "t10.");
			is_text(text + 4, sizeof(text) - 4, id, len);
		}
		/* Of nothing but zeros: not set. */
		for (size_t k = type == 3; k < len && rank; k++)
			if (id[k])
				break;
			else if (k == len - 1)
				rank = 0;
		if (rank > best) {
			best = rank;
			memcpy(l->id, text, sizeof(l->id));
		}
	}
	if (best >= 5) {
		snprintf(l->identity, sizeof(l->identity), "wwid:%s", l->id);
		return;
	}
	/* A very long name of a target: its hash makes up for what is cut. */
	snprintf(name, sizeof(name), "%.60s", c->target);
	if (strlen(c->target) > 60)
		snprintf(name, sizeof(name), "%.40s~%016llx", c->target, (unsigned long long)is_hash(3, c->target));
	if (!best)
		snprintf(l->id, sizeof(l->id), "lun%u", l->number);
	snprintf(l->identity, sizeof(l->identity), "iscsi:%s/%.48s%s%.40s", name, l->id, l->serial[0] ? "/" : "", l->serial);
	if (!best)
		l->id[0] = 0;
}

int lun_size(const uint8_t *d, size_t n, uint32_t block, uint64_t *bytes)
{
	uint64_t last;

	if (!d || n < 12 || is_be(d + 8, 4) != block)
		return 0;
	last = is_be(d, 8);
	if (last >= (uint64_t)INT64_MAX / block)
		return 0;
	*bytes = (last + 1) * block;
	return 1;
}

static void capacity(struct lun *l, const struct cmd *c)
{
	const uint8_t *d;
	uint64_t block;
	size_t n;

	if (cmd_result(c, "", NULL) || (n = cmd_data(c, &d)) < 12)
		return;
	block = is_be(d + 8, 4);
	if (block < 512 || block > 65536 || block & (block - 1) || !lun_size(d, n, (uint32_t)block, &l->bytes))
		return;
	l->block = l->physical = (uint32_t)block;
	if (n >= 16) {
		unsigned shift = d[13] & 0xf;

		if (shift < 8 && block << shift <= 65536)
			l->physical = (uint32_t)block << shift;
		l->thin = d[14] >> 7;
		l->zeroes_unmapped = d[14] >> 6 & 1;
	}
}

static const uint8_t inquiry[6] = {SCSI_OPCODE_INQUIRY, 0, 0, 0, 96};
static const uint8_t page_id[6] = {SCSI_OPCODE_INQUIRY, 1, 0x83, VPD_MAX >> 8, VPD_MAX & 0xff};
static const uint8_t page_serial[6] = {SCSI_OPCODE_INQUIRY, 1, 0x80, 0, 252};
static const uint8_t read_capacity[16] = {SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_READCAPACITY16, [13] = 32};
static const struct { const uint8_t *cdb; int n, len; } asked[4] = {
	{inquiry, 6, 96}, {page_id, 6, VPD_MAX}, {page_serial, 6, 252}, {read_capacity, 16, 32}};

static int probe_some(struct session *s, struct lun *l, unsigned n, struct why *w)
{
	struct cmd c[AT_ONCE * 4] = {0};
	int ret = 0, again = 1;

	/* A new session's first command of each LUN, and later ones, may meet a unit attention: those are sent again. */
	for (int round = 0; round < 16 && again && !ret; round++) {
		again = 0;
		for (unsigned i = 0; i < n * 4 && !ret; i++) {
			if (c[i].task && cmd_result(&c[i], "", NULL) != -EAGAIN)
				continue;
			cmd_end(&c[i]);
			again = 1;
			ret = cmd_start(s, &c[i], l[i / 4].raw, asked[i % 4].cdb, asked[i % 4].n, SCSI_XFER_READ, asked[i % 4].len, NULL,
					w);
		}
		if (round > 4)
			poll(NULL, 0, 20);
		ret = cmd_wait(s, c, n * 4, ret ? NULL : w) ? -ECONNRESET : ret;
		/* Not answered is not the same as answered with an error. */
		for (unsigned i = 0; i < n * 4 && !ret; i++)
			if (cmd_lost(&c[i]))
				ret = why_set(w, -ECONNRESET, "the session with %s was lost", s->cfg->target);
	}
	for (unsigned i = 0; i < n && !ret; i++) {
		const uint8_t *p = NULL;
		size_t k;

		l[i].type = 0x1f;
		l[i].bytes = 0;
		if (!cmd_result(&c[i * 4], "", NULL) && cmd_data(&c[i * 4], &p) >= 5) {
			l[i].type = *p & 0x1f;
			l[i].listed = *p >> 5 == 0;
			if (*p >> 5)
				l[i].type = 0x1f;
		}
		k = vpd(&c[i * 4 + 2], 0x80, &p);
		if (k)
			is_text(l[i].serial, sizeof(l[i].serial), p, k);
		k = vpd(&c[i * 4 + 1], 0x83, &p);
		identify(&l[i], s->cfg, p, k);
		if (l[i].type == 0)
			capacity(&l[i], &c[i * 4 + 3]);
	}
	for (unsigned i = 0; i < n * 4; i++)
		cmd_end(&c[i]);
	return ret;
}

int luns_probe(struct session *s, struct lun *l, unsigned n, struct why *w)
{
	int ret = 0;

	for (unsigned i = 0; i < n && !ret; i += AT_ONCE)
		ret = probe_some(s, l + i, n - i < AT_ONCE ? n - i : AT_ONCE, w);
	return ret;
}

int lun_find(struct session *s, unsigned number, struct lun *out, struct why *w)
{
	struct lun *all;
	unsigned n;
	int ret = luns_read(s, &all, &n, w), found = 0;

	for (unsigned i = 0; !ret && i < n && !found; i++)
		if (all[i].number == number) {
			*out = all[i];
			found = 1;
		}
	free(all);
	if (ret)
		return ret;
	if (!found)
		return why_set(w, -ENOENT, "the target %s has no LUN %u", s->cfg->target, number);
	ret = luns_probe(s, out, 1, w);
	if (!ret && out->type)
		ret = why_set(w, -ENOENT, "LUN %u of %s is no disk (device type %#x)", number, s->cfg->target, out->type);
	if (!ret && !out->bytes)
		ret = why_set(w, -EIO, "LUN %u of %s does not tell a size that makes sense", number, s->cfg->target);
	return ret;
}

/* ---- what it can do ---- */

static void caching(struct lun *l, const uint8_t *d, size_t n)
{
	size_t i;

	if (n < 4)
		return;
	l->write_protected = d[2] >> 7;
	l->fua = d[2] >> 4 & 1;
	for (i = 4 + (size_t)d[3]; i + 3 <= n; i += 2 + (size_t)d[i + 1])
		if ((d[i] & 0x3f) == 8 && d[i + 1] >= 1) {
			l->write_cache = d[i + 2] >> 2 & 1;
			break;
		}
}

int lun_probe_more(struct session *s, struct lun *l, struct why *w)
{
	static const uint8_t limits[6] = {SCSI_OPCODE_INQUIRY, 1, 0xb0, 0, 64};
	static const uint8_t thin[6] = {SCSI_OPCODE_INQUIRY, 1, 0xb2, 0, 64};
	static const uint8_t sense[6] = {SCSI_OPCODE_MODESENSE6, 0, 8, 0, 192};
	struct why ignored = {0};
	const uint8_t *p;
	struct cmd c;
	size_t n;

	l->write_cache = 1; /* unless it says otherwise */
	l->write_same = 1;
	if (!cmd_run(s, &c, l->raw, sense, 6, SCSI_XFER_READ, 192, NULL, "", &ignored)) {
		n = cmd_data(&c, &p);
		caching(l, p, n);
		cmd_end(&c);
	}
	if (!cmd_run(s, &c, l->raw, limits, 6, SCSI_XFER_READ, 64, NULL, "", &ignored)) {
		n = vpd(&c, 0xb0, &p);
		if (n >= 12) {
			l->max_blocks = (uint32_t)is_be(p + 4, 4);
			l->opt_blocks = (uint32_t)is_be(p + 8, 4);
		}
		if (n >= 32) {
			l->max_unmap = (uint32_t)is_be(p + 16, 4);
			if (!is_be(p + 20, 4)) /* no descriptor at all */
				l->max_unmap = 0;
			l->unmap_gran = (uint32_t)is_be(p + 24, 4);
			if (p[28] & 0x80)
				l->unmap_align = (uint32_t)is_be(p + 28, 4) & 0x7fffffff;
		}
		if (n >= 40)
			l->max_same = is_be(p + 32, 8);
		cmd_end(&c);
	}
	if (l->thin && !cmd_run(s, &c, l->raw, thin, 6, SCSI_XFER_READ, 64, NULL, "", &ignored)) {
		n = vpd(&c, 0xb2, &p);
		if (n >= 2) {
			l->unmap = p[1] >> 7 && l->max_unmap;
			l->write_same_unmap = p[1] >> 6 & 1;
		}
		cmd_end(&c);
	}
	return s->ctx ? 0 : why_set(w, -ECONNRESET, "the session with %s is lost", s->cfg->target);
}
