/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Any bytes as a VMDK image: byte 0 says how it is opened, 1 and 2 how many of the rest are the file itself, the rest is what
 * every further file of it holds. It is opened, mapped all over, written, checked, mended, described, closed; and no answer may
 * break the contract. What the file says of its size may be a lie of up to 2 TiB.
 */
#include <time.h>
#include "fuzz-vmdk.h"
#include "fmt/validate.h"

#define FILES 8u

static void must(int ok)
{
	if (!ok)
		abort();
}

/* Whether a file is good must be known soon, whatever it says; ten times that for sanitizers. */
static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void told(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	must(what >= VH_CHECK_LEAK && what <= VH_CHECK_FIXED && strlen(text) < 200);
	(void)ctx;
	(void)off;
}

static void described(void *ctx, const char *key, uint32_t type, const char *value)
{
	must(*key && value && type >= VH_DESC_TEXT && type <= VH_DESC_BOOL);
	(void)ctx;
}

static int names(const struct vh_format_ops *ops, struct vh_meta *v0)
{
	struct vh_ref refs[FILES];
	int n;

	for (unsigned k = 0; k < FILES; k++)
		refs[k] = (struct vh_ref){.size = sizeof(refs[0])};
	n = ops->inspect(v0, refs, FILES, NULL);
	must(n <= 4096);
	for (int k = 0; k < n && k < (int)FILES; k++)
		must(memchr(refs[k].name, 0, sizeof(refs[k].name)) && refs[k].name[0] && (refs[k].role == VH_REF_BACKING || refs[k].role == VH_REF_DATA));
	return n;
}

static void ask(const struct vh_format_ops *ops, void *img, const struct fmt_rules *rules, uint32_t op, uint32_t flags, uint64_t pos, uint64_t len, int commit)
{
	struct vh_extent ext[16];
	struct vh_map m = {.size = sizeof(m), .op = op, .flags = flags, .cap = 16, .pos = pos, .len = len, .ext = ext};
	int r = ops->map(img, &m), owes = 0;

	must(r <= 0);
	if (r < 0 || !m.n)
		return;
	must(!fmt_validate(rules, &m));
	for (uint32_t k = 0; k < m.n; k++)
		owes |= ext[k].flags & VH_EXT_COMMIT;
	if (owes)
		must(ops->commit(img, &m, commit ? 0 : -5, 0) == 0);
}

static void sync_image(const struct vh_format_ops *ops, void *img)
{
	int r = 1;

	for (uint32_t phase = 0; r == 1; phase++) {
		must(phase < 16);
		r = ops->flush(img, phase);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vh_format_ops *ops = fuzz_vmdk();
	struct vh_meta vols[FILES], *ptr[FILES];
	struct vh_open o = {.size = sizeof(o), .volumes = ptr, .host_caps = ~UINT64_C(0)};
	struct vh_image_info info = {.size = sizeof(info)};
	size_t first;
	void *img = NULL;
	double begun;
	int n, opened;

	if (size < 3)
		return 0;
	first = (size_t)(data[1] | data[2] << 8) % (size - 2);
	o.flags = (data[0] & 1 ? VH_OPEN_RO : 0) | (data[0] & 2 ? VH_OPEN_REPAIR : 0);
	for (unsigned k = 0; k < FILES; k++) {
		vols[k] = k ? fuzz_volume(data + 3 + first, size - 3 - first) : fuzz_volume(data + 3, first);
		ptr[k] = &vols[k];
		if (data[0] & 4)
			vols[k].size = UINT64_C(1) << 41;
	}
	begun = cpu_s();
	ops->probe(data + 3, first, first);
	n = names(ops, ptr[0]);
	o.n = n < 0 ? 1 : (uint32_t)(n + 1 < (int)FILES ? n + 1 : (int)FILES);
	o.backing_bytes = data[0] & 8 ? 1 << 20 : 0;
	opened = ops->open(&o, &img, NULL) == 0;
	must(cpu_s() - begun < 10);
	if (opened) {
		struct fmt_rules rules;
		uint64_t step;

		must(img && ops->info(img, &info) == 0);
		must(info.unit && !(info.unit & (info.unit - 1)) && info.unit <= 16u << 20);
		rules = (struct fmt_rules){.bytes = info.bytes, .backing_bytes = info.backing_bytes, .caps = info.caps, .unit = info.unit,
					   .volumes = o.n, .read_only = data[0] & 1, .has_commit = 1, .has_decode = 1};
		step = info.bytes / 13 + 1;
		for (uint64_t pos = 0; pos < info.bytes; pos += step) {
			ask(ops, img, &rules, VH_MAP_READ, VH_MAP_NOWAIT, pos, 1, 0);
			ask(ops, img, &rules, VH_MAP_READ, 0, pos, info.bytes - pos, 0);
			ask(ops, img, &rules, VH_MAP_REPORT, 0, pos, info.bytes - pos, 0);
		}
		for (unsigned k = 0; k < 12 && !(data[0] & 1) && info.bytes; k++) {
			static const uint32_t op[] = {VH_MAP_WRITE, VH_MAP_DISCARD, VH_MAP_ZERO};
			uint64_t pos = (k * step) % info.bytes & ~UINT64_C(511), len = info.bytes - pos < 9000 ? info.bytes - pos : 9000;

			ask(ops, img, &rules, op[k % 3], k % 3 == 2 ? VH_MAP_MAY_UNMAP : 0, pos, len, k % 4);
			if (k % 5 == 4)
				sync_image(ops, img);
		}
		ops->describe(img, described, NULL);
		if (!(data[0] & 4)) {
			ops->check(img, data[0] & 1 ? 0 : data[0] >> 4 & 3, told, NULL, NULL, NULL);
			if (data[0] & 64 && !(data[0] & 1) && info.bytes < UINT64_C(1) << 40)
				ops->resize(img, info.bytes + (data[0] & 128 ? 70000 : 0) - (data[0] & 128 ? 0 : info.bytes / 2), NULL, NULL);
		}
		if (!(data[0] & 1))
			sync_image(ops, img);
		ops->close(img);
	}
	for (unsigned k = 0; k < FILES; k++)
		free(vols[k].data);
	return 0;
}
