/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Making a volume's old contents unreadable, in place, under the lease of a sole user. */
#include <sys/random.h>
#include <unistd.h>
#include "store/convert.h"
#include "store/store-i.h"

#define STEP (UINT64_C(64) << 20)
#define BUF (UINT64_C(1) << 20)

static int fill(struct blk_vol *v, char *buf, uint64_t off, uint64_t end, int random, struct vh_err *e)
{
	int ret = 0;

	for (uint64_t n; off < end && !ret; off += n) {
		n = MIN(end - off, BUF);
		for (uint64_t got = 0; random && got < n;) {
			ssize_t r = getrandom(buf + got, n - got, 0);

			if (r < 0 && errno != EINTR)
				return err_set(e, -errno, "no random numbers: %s", g_strerror(errno));
			got += r > 0 ? (uint64_t)r : 0;
		}
		ret = blk_write(v, buf, n, off, e);
	}
	return ret;
}

/* What was discarded need not read as zeros; then they are written. */
static int discard(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e)
{
	int ret = blk_vol_info(v)->caps & VH_VOL_DISCARD ? blk_discard(v, len, off, NULL) : -EOPNOTSUPP;

	if (!ret && blk_vol_info(v)->caps & VH_VOL_DISCARD_ZEROES)
		return 0;
	return blk_zero(v, len, off, e);
}

/* It says zeros: it is asked. */
static int look(struct blk_vol *v, struct vh_job *j, struct vh_err *e)
{
	uint64_t at;
	int ret = zero_volume(v, j, &at, e);

	return ret ? MIN(ret, 0) : err_set(e, -EIO, "it still has old data near byte %llu", (unsigned long long)at);
}

int store_vol_wipe(struct store_pool *p, const char *volume, enum store_wipe how, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol wipe", (int)getpid()), *buf = g_malloc0(BUF);
	struct store_attach a = {.name = volume, .holder = holder, .mode = VH_ATTACH_RW_EXCL, .flags = VH_ATTACH_BUFFERED};
	struct blk_vol *v;
	uint64_t bytes;
	int ret = store_one_file(p, volume, e);

	if (!ret)
		ret = store_attach(p, &a, &v, e);
	if (ret)
		return ret;
	bytes = blk_vol_bytes(v);
	for (uint64_t off = 0, n; off < bytes && !ret; off += n) {
		n = MIN(bytes - off, STEP);
		ret = job_cancelled(j) ? err_set(e, -ECANCELED, "cancelled; what is behind byte %llu is as it was", (unsigned long long)off) :
		      how == STORE_WIPE_ZERO ? blk_zero(v, n, off, e) :
		      how == STORE_WIPE_DISCARD ? discard(v, n, off, e) : fill(v, buf, off, off + n, how == STORE_WIPE_RANDOM, e);
		job_progress(j, off + n, bytes);
	}
	if (!ret)
		ret = blk_flush(v, e);
	if (!ret && how != STORE_WIPE_RANDOM)
		ret = look(v, j, e);
	blk_vol_put(v);
	/* It is an empty raw disk now, whatever it was. */
	if (!ret)
		ret = vol_meta_set(p, volume, BACKING, NULL, e);
	if (!ret)
		ret = store_format_set(p, volume, "raw", e);
	return vol_about(p, volume, ret, e);
}
