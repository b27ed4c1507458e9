/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* All mappings forgotten at once: a new, empty L1 table takes the place of the old one. */
#include "snapshot.h"

int q2_empty(void *img, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	uint64_t *l1;
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (q->read_only)
		return q2_fail(e, -EROFS, "the image is open for reading only");
	if (__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
		return q2_fail(e, -EIO, "writing to the image has failed before");
	r = q2_writing_begin(q, e);
	if (r < 0)
		return r;
	r = q2_sync(q);
	if (r >= 0 && q->has_data) { /* what is read raw must be zeros too */
		r = q->data_raw ? q2_io->zero(q->data, q2_min(q2_io->bytes(q->data), q->h.bytes), 0) : 0;
		if (r >= 0 && q->data_raw)
			r = q2_io->flush(q->data);
	}
	if (r < 0)
		return q2_fail(e, r, "cannot write the metadata");
	l1 = calloc((uint64_t)q->h.l1_size + 1, 8);
	if (!l1)
		return q2_fail(e, -ENOMEM, "no memory for an L1 table");
	r = q2_l1_replace(q, l1, q->h.l1_size, q->h.bytes, e);
	free(l1);
	return r;
}
