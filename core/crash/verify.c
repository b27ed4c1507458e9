/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Looks at one state: opens it as after a crash, reads all of it, checks, repairs, and goes on working with it. */
#include "crash/crash-i.h"
#include <errno.h>

#define STEP (1u << 20)

struct found {
	unsigned leaks, corrupt;
	int absent;  /* no such check, or no such repair */
	char *text; /* the first corruption */
};

static void found_one(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct found *f = ctx;

	if (what == VH_CHECK_LEAK)
		f->leaks++;
	if (what != VH_CHECK_CORRUPT || f->corrupt++)
		return;
	f->text = g_strdup_printf("%s (at byte %llu)", text, (unsigned long long)off);
}

/* Everything that can be read, against the oracle. NULL, or what is wrong. */
static char *compare(struct round *r, struct fmt_image *i, const char *when)
{
	struct fmt_info info;
	g_autofree uint8_t *buf = g_malloc(STEP);
	uint64_t sectors;
	ERR_AUTO(e);

	fmt_get_info(i, &info);
	sectors = info.bytes / CRASH_SECTOR;
	if (info.bytes % CRASH_SECTOR || !oracle_size_ok(r->oracle, sectors))
		return g_strdup_printf("%s: the disk has %llu bytes, which it never had or has no longer", when,
				       (unsigned long long)info.bytes);
	for (uint64_t c = 0; c < sectors; c += STEP / CRASH_SECTOR) {
		uint64_t n = MIN(STEP / CRASH_SECTOR, sectors - c);

		if (fmt_pread(i, buf, n * CRASH_SECTOR, c * CRASH_SECTOR, &e) < 0)
			return g_strdup_printf("%s: %s", when, e.cause);
		for (uint64_t k = 0; k < n; k++) {
			char *wrong = oracle_wrong(r->oracle, c + k, buf + k * CRASH_SECTOR, r->encrypted), *text;

			if (!wrong)
				continue;
			text = g_strdup_printf("%s: %s", when, wrong);
			g_free(wrong);
			return text;
		}
	}
	return NULL;
}

/* Leaks are allowed unless `clean`. */
static char *check(struct fmt_image *i, int repair, int clean, struct found *f, const char *when)
{
	ERR_AUTO(e);
	int ret;

	memset(f, 0, sizeof(*f));
	ret = fmt_check(i, repair, found_one, f, NULL, &e);
	f->absent = ret == -EOPNOTSUPP;
	if (f->absent)
		return NULL;
	if (ret < 0) {
		g_free(f->text);
		return g_strdup_printf("%s: the check fails: %s", when, e.cause ? e.cause : strerror(-ret));
	}
	if (f->corrupt) {
		char *text = g_strdup_printf("%s: the check finds %u corruption%s, the first: %s", when, f->corrupt,
					     f->corrupt == 1 ? "" : "s", f->text);

		g_free(f->text);
		return text;
	}
	return clean && f->leaks ? g_strdup_printf("%s: %u leaks are there still", when, f->leaks) : NULL;
}

static char *opened(struct round *r, struct fmt_image **i, const char *when)
{
	ERR_AUTO(e);

	if (round_open(r, 0, i, &e) < 0)
		return g_strdup_printf("%s: it cannot be opened: %s", when, e.cause);
	return NULL;
}

/*
 * Life goes on: what was lost or leaked must not be taken for free and given away twice. Writes over some of it, flushes, and
 * what the rest reads must be what it read before.
 */
static char *go_on(struct round *r, struct fmt_image *i, uint64_t seed, uint8_t **disk, uint64_t *bytes)
{
	uint64_t rs = seed * 0x9e3779b97f4a7c15u | 1, sectors;
	struct fmt_info info;
	ERR_AUTO(e);

	fmt_get_info(i, &info);
	sectors = info.bytes / CRASH_SECTOR;
	*bytes = info.bytes;
	*disk = g_malloc(info.bytes + 1);
	if (fmt_pread(i, *disk, info.bytes, 0, &e) < 0)
		return g_strdup_printf("before going on: %s", e.cause);
	for (unsigned k = 0; k < 6; k++) {
		uint64_t n = 1 + crash_below(&rs, MIN(r->unit * 2, sectors)), c = crash_below(&rs, sectors - n + 1);

		oracle_fill(*disk + c * CRASH_SECTOR, 0xffff00 + k, c, n);
		if (fmt_pwrite(i, *disk + c * CRASH_SECTOR, n * CRASH_SECTOR, c * CRASH_SECTOR, &e) < 0 ||
		    (k % 3 == 2 && fmt_flush(i, &e) < 0))
			return g_strdup_printf("going on: %s", e.cause);
	}
	return NULL;
}

static char *same(struct fmt_image *i, const uint8_t *disk, uint64_t bytes)
{
	g_autofree uint8_t *now = g_malloc(bytes + 1);
	ERR_AUTO(e);

	if (fmt_pread(i, now, bytes, 0, &e) < 0)
		return g_strdup_printf("after going on: %s", e.cause);
	for (uint64_t c = 0; c * CRASH_SECTOR < bytes; c++)
		if (memcmp(now + c * CRASH_SECTOR, disk + c * CRASH_SECTOR, MIN(CRASH_SECTOR, bytes - c * CRASH_SECTOR)))
			return g_strdup_printf("after going on, and opening it again: sector %llu changed", (unsigned long long)c);
	return NULL;
}

/* 1: it says that it was not closed cleanly, so that others may find what an open here would have mended. */
static int is_dirty(struct round *r)
{
	struct fmt_layer_info info;
	struct fmt_image *i;

	if (round_open(r, 1, &i, NULL) < 0)
		return 1;
	fmt_layer_get(i, 0, &info);
	fmt_close(i);
	return !!(info.caps & VH_FMT_DIRTY);
}

static char *ask_qemu(struct round *r, int check, int leaks_ok, int *leaks, struct crash_result *res, int *ret, struct vh_err *e)
{
	char *text = NULL;

	*ret = 0;
	if (check && qemu_checks(r->spec->format)) {
		*ret = qemu_check(r, leaks_ok, leaks, &text, e);
		res->qemu_checks++;
	}
	if (!*ret) {
		*ret = qemu_read(r, &text, e);
		res->qemu_reads++;
	}
	return text;
}

int verify_state(struct round *r, uint64_t seed, int qemu, struct crash_result *res, char **text, struct vh_err *e)
{
	struct fmt_image *i = NULL;
	struct found f = {0};
	uint8_t *disk = NULL;
	uint64_t bytes = 0;
	char *wrong = NULL;
	int ret = 0, mended = 0, qemu_leaks = 0;

	if (qemu && !is_dirty(r))
		wrong = ask_qemu(r, !qemu_hates_leaks(r->spec->format), 1, &qemu_leaks, res, &ret, e);
	if (ret < 0)
		return ret;
	if (!wrong)
		wrong = opened(r, &i, "after the crash");
	if (!wrong)
		wrong = compare(r, i, "after the crash");
	if (!wrong)
		wrong = check(i, 0, 0, &f, "after the crash");
	res->leaks += f.leaks > 0;
	res->checked += !wrong && !f.absent;
	if (!wrong && qemu_leaks && !f.leaks && !f.absent)
		wrong = g_strdup("after the crash: qemu-img finds leaks, and the check of the format finds none");
	if (!wrong && (f.leaks || seed % 8 == 0 || qemu)) {
		wrong = check(i, VH_CHECK_LEAK | VH_CHECK_CORRUPT, 0, &f, "repairing");
		res->repaired++;
		mended = !f.absent;
		if (!wrong)
			wrong = check(i, 0, mended, &f, "after the repair");
		if (!wrong)
			wrong = compare(r, i, "after the repair");
	}
	if (!wrong && seed % 4 == 0) {
		res->continued++;
		wrong = go_on(r, i, seed, &disk, &bytes);
		fmt_close(i);
		i = NULL;
		if (!wrong)
			wrong = opened(r, &i, "after going on");
		if (!wrong)
			wrong = same(i, disk, bytes);
		if (!wrong)
			wrong = check(i, 0, 0, &f, "after going on");
		g_free(disk);
	}
	fmt_close(i);
	if (!wrong && qemu && !disk)
		wrong = ask_qemu(r, 1, !mended, &qemu_leaks, res, &ret, e);
	*text = wrong;
	return ret < 0 ? ret : wrong != NULL;
}
