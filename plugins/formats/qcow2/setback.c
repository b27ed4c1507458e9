/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Another backing image in the header; no mapping changes. */
#include "qcow2.h"

static int named(struct q2_header *h, const char *name, const char *format, struct vh_err *e)
{
	memset(h->backing, 0, sizeof(h->backing));
	memset(h->backing_format, 0, sizeof(h->backing_format));
	if (!name)
		return 0;
	if (!*name || strlen(name) > Q2_MAX_NAME)
		return q2_fail(e, -ENAMETOOLONG, "the backing image's name must have 1 to %u bytes", Q2_MAX_NAME);
	if (!format || !*format || strlen(format) >= sizeof(h->backing_format))
		return q2_fail(e, -EINVAL, "the backing image's format must be known");
	strcpy(h->backing, name);
	strcpy(h->backing_format, format);
	return 0;
}

int q2_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume, struct vh_err *e)
{
	struct q2 *q = img;
	struct q2_header h;
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (q->read_only)
		return q2_fail(e, -EROFS, "the image is open for reading only");
	if (name && q->data_raw) {
		q2_hint(e, "amend the image to data-file-raw=off first");
		return q2_fail(e, -EINVAL, "the data file is a raw image by itself, which a backing image contradicts");
	}
	h = q->h;
	r = named(&h, name, format, e);
	if (r < 0)
		return r;
	r = q2_writing_begin(q, e);
	if (r >= 0) {
		r = q2_sync(q);
		if (r < 0)
			q2_fail(e, r, "cannot write the metadata");
	}
	if (r < 0)
		return r;
	h.incompat = q->h.incompat;
	h.autoclear = q->h.autoclear;
	h.rt_off = q->h.rt_off;
	h.rt_clusters = q->h.rt_clusters;
	r = q2_header_write(q->vol, &h, e);
	if (r == -ENOSPC)
		return -ENAMETOOLONG; /* with the text */
	if (r >= 0) {
		r = q2_io->flush(q->vol);
		if (r < 0)
			q2_fail(e, r, "cannot flush the header");
	}
	if (r < 0)
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
	else
		q->h = h;
	return r;
}
