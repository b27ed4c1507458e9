/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Any bytes as a qcow2 image: inspected, opened, mapped, its snapshots used, checked. What repair calls mended must be found
 * clean by the next check, and again after another opening; no call may do much more work than the file is worth.
 */
#include "fuzz-qcow2.h"

#define WORK (UINT64_C(512) << 20)

struct found { uint64_t leaks, bad, fixed; char first[256], name[256]; };

#define LOOKED_AT (UINT64_C(4) << 20)

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct found *f = ctx;

	if (what == VH_CHECK_LEAK && off >= LOOKED_AT) /* counts past the file's end were not looked at while it was shorter */
		return;
	if (what != VH_CHECK_FIXED && !f->first[0])
		snprintf(f->first, sizeof(f->first), "%s", text);
	*(what == VH_CHECK_LEAK ? &f->leaks : what == VH_CHECK_CORRUPT ? &f->bad : &f->fixed) += 1;
}

static int snap(void *ctx, const struct vh_snapshot *s)
{
	struct found *f = ctx;

	snprintf(f->name, sizeof(f->name), "%s", s->name);
	return 0;
}

static void described(void *ctx, const char *key, uint32_t type, const char *value)
{
	if (strlen(key) > 4096 || strlen(value) > 65536)
		abort();
}

static void *image(const struct vh_format_ops *ops, struct vh_meta **m, uint64_t flags)
{
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = m, .flags = flags, .host_caps = ~UINT64_C(0), .backing_bytes = 4096};
	void *img = NULL;

	return ops->open(&o, &img, NULL) < 0 ? NULL : img;
}

static void fail(const char *what, const struct found *f)
{
	fprintf(stderr, "%s: %llu leaks, %llu damaged: %s\n", what, (unsigned long long)f->leaks, (unsigned long long)f->bad, f->first);
	abort();
}

/* What stays damaged may mean something else in a longer file. */
static int mended(const struct found *f)
{
	return f->leaks + f->bad == f->fixed;
}

static void report(const struct vh_format_ops *ops, void *img)
{
	struct vh_image_info i = {.size = sizeof(i)};
	struct vh_extent ext[8];
	uint64_t pos = 0;

	if (ops->info(img, &i))
		abort();
	for (unsigned k = 0; k < 300 && pos < i.bytes; k++) {
		struct vh_map m = {.size = sizeof(m), .op = k % 2 ? VH_MAP_READ : VH_MAP_REPORT, .cap = 8, .pos = pos, .len = i.bytes - pos, .ext = ext};

		if (ops->map(img, &m) < 0) {
			pos = (pos / i.unit + 1) * i.unit;
			continue;
		}
		if (!m.n)
			abort();
		for (uint32_t x = 0; x < m.n; x++) {
			if (ext[x].pos != pos || !ext[x].len || ext[x].len > i.bytes - pos)
				abort();
			pos += ext[x].len;
		}
	}
}

static void check(const struct vh_format_ops *ops, struct vh_meta **m)
{
	void *img = image(ops, m, VH_OPEN_REPAIR);
	struct found f = {0}, again = {0};

	if (!img)
		return;
	if (ops->check(img, VH_CHECK_LEAK | VH_CHECK_CORRUPT, found, &f, NULL, NULL) >= 0) {
		if (ops->check(img, 0, found, &again, NULL, NULL) >= 0 && mended(&f) && (again.leaks || again.bad))
			fail("after repair", &again);
		ops->close(img);
		img = image(ops, m, VH_OPEN_RO | VH_OPEN_REPAIR);
		memset(&again, 0, sizeof(again));
		if (img && ops->check(img, 0, found, &again, NULL, NULL) >= 0 && mended(&f) && (again.leaks || again.bad))
			fail("after repair and opening", &again);
	}
	if (img)
		ops->close(img);
}

/* A compressed cluster at the beginning and at the end of the disk. */
static int store(const struct vh_format_ops *ops, void *img)
{
	struct vh_image_info i = {.size = sizeof(i)};
	static uint8_t plain[2 << 20], out[2 << 20];
	int r = 0;

	if (ops->info(img, &i) || !(i.caps & VH_FMT_ENCODE) || !i.bytes)
		return -1;
	for (unsigned k = 0; r >= 0 && k < 2; k++) {
		uint64_t pos = k ? (i.bytes - 1) / i.unit * i.unit : 0, len = i.bytes - pos < i.unit ? i.bytes - pos : i.unit;
		int64_t n = ops->encode(img, plain, len, out, len);

		if (k && !pos)
			break;
		if (n <= 0 && len > 64)
			abort(); /* zeros get smaller */
		r = n > 0 ? ops->put(img, pos, len, out, (uint64_t)n, NULL) : -1;
	}
	return r;
}

static int amend(const struct vh_format_ops *ops, void *img, unsigned order)
{
	struct vh_val v3 = {sizeof(v3), VH_OPT_ENUM, "compat", "v3", 1}, bits = {sizeof(bits), VH_OPT_INT, "refcount-bits", "", INT64_C(1) << order};
	const struct vh_val *val[] = {&v3, &bits};
	struct vh_opts o = {.size = sizeof(o), .n = 2, .val = val};

	return ops->amend(img, &o, NULL, NULL);
}

/* What is clean before is clean after each of these; where they fail, but for leaks. */
static void change(const struct vh_format_ops *ops, struct vh_meta **m)
{
	void *img = image(ops, m, 0);
	struct found f = {0};
	int r = -1;

	if (!img)
		return;
	if (ops->check(img, 0, found, &f, NULL, NULL) < 0 || f.leaks || f.bad) {
		ops->close(img);
		return;
	}
	ops->snapshot_list(img, snap, &f, NULL);
	if (f.name[0])
		r = ops->snapshot_apply(img, f.name, NULL, NULL);
	if (!f.name[0] || r >= 0)
		r = ops->snapshot_create(img, "fuzz", NULL);
	if (r >= 0 && f.name[0])
		r = ops->snapshot_remove(img, f.name, NULL, NULL);
	if (r >= 0) {
		memset(&f, 0, sizeof(f));
		if (ops->check(img, 0, found, &f, NULL, NULL) >= 0 && (f.leaks || f.bad))
			fail("after snapshots", &f);
		r = ops->empty(img, NULL, NULL);
	}
	if (r >= 0 && ops->check(img, 0, found, &f, NULL, NULL) >= 0 && (f.leaks || f.bad))
		fail("after all was forgotten", &f);
	if (r >= 0)
		r = store(ops, img);
	if (r >= 0 && ops->check(img, 0, found, &f, NULL, NULL) >= 0 && (f.leaks || f.bad))
		fail("after a compressed cluster", &f);
	if (r >= 0)
		r = amend(ops, img, m[0]->bytes % 7);
	if (r >= 0 && ops->check(img, 0, found, &f, NULL, NULL) >= 0 && (f.leaks || f.bad))
		fail("after another width", &f);
	ops->close(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vh_meta volume;
	struct vh_meta *m = &volume;
	const struct vh_format_ops *ops = fuzz_qcow2();
	struct vh_ref refs[4];
	struct found f = {0};
	void *img;

	if (size > ROOM)
		return 0;
	mem_set(m, data, size);
	ops->probe(data, size, size);
	memset(refs, 0, sizeof(refs));
	for (unsigned k = 0; k < 4; k++)
		refs[k].size = sizeof(refs[k]);
	if (ops->inspect(m, refs, 4, NULL) > 1) /* with a data file there would be two volumes */
		return 0;
	img = image(ops, &m, VH_OPEN_RO);
	if (img) {
		report(ops, img);
		ops->snapshot_list(img, snap, &f, NULL);
		ops->describe(img, described, NULL);
		ops->check(img, 0, found, &f, NULL, NULL);
		ops->close(img);
		if (m->bytes != size || memcmp(m->d, data, size))
			abort(); /* not one byte may change */
	}
	if (mem_resize(m, size > LOOKED_AT ? size : LOOKED_AT) < 0)
		abort();
	change(ops, &m);
	mem_set(m, data, size);
	check(ops, &m);
	if (m->work > WORK) {
		fprintf(stderr, "%llu bytes of work for a file of %zu\n", (unsigned long long)m->work, size);
		abort();
	}
	return 0;
}
