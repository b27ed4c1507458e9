/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The toy format with one rule of crash safety broken, so that the explorer is seen to find it. BROKEN says which one:
 *
 *	publish_early   mappings are written without a flush between them and their data
 *	publish_newer   flush() writes the table as it is now, not the copy that the data flush covered
 *	reuse_early     a freed cluster is given away again before the flush that unlinks it
 *	forget_zeros    flush() writes "nothing here" where the table says zeros: the backing image shows again
 *	forget_dirty    every fourth flush() forgets what changed
 *	double_take     the allocator forgets now and then that it gave a cluster away
 *	wrong_fill      a new cluster's rest is zeros where the backing image shows
 *	size_late       a new size is written in two steps, with one between them that nobody asked for
 */
#include <vhost/sugar.h>
#undef VH_PLUGIN_DEFINE
#define VH_PLUGIN_DEFINE(...) typedef int toy_ends_here
#include "../../../sdk/examples/toy-format.c"

#define CRASH_STEP 512u
#define IS(NAME) (!strcmp(BROKEN, NAME))

static int broken_flush(void *img, uint32_t phase)
{
	struct toy *t = img;
	int r;

	if (IS("publish_early") && phase == 0) {
		r = toy_flush(img, 0);
		return r > 0 ? toy_flush(img, 1) : r;
	}
	if (IS("publish_newer") && phase == 1) {
		for (uint64_t p = 0; p < t->npages; p++)
			if (t->copy[p])
				memcpy(t->copy[p], t->page[p], PAGE * 8);
	}
	if (IS("forget_zeros") && phase == 1) {
		for (uint64_t p = 0; p < t->npages; p++)
			for (uint64_t k = 0; t->copy[p] && k < PAGE; k++)
				if (t->copy[p][k] == ZEROS)
					t->copy[p][k] = 0;
	}
	if (IS("forget_dirty") && phase == 1) {
		static unsigned turn;

		if (turn++ % 4 == 3) /* the copies go, and are not written */
			for (uint64_t p = 0; p < t->npages; p++) {
				free(t->copy[p]);
				t->copy[p] = NULL;
			}
	}
	return toy_flush(img, phase);
}

static int broken_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	struct toy *t = img;
	int r = toy_commit(img, m, status, nowait);

	if (IS("reuse_early") && status == 0) {
		while (t->freed.n)
			cluster_give(t, t->freed.v[--t->freed.n]);
	}
	return r;
}

static int broken_map(void *img, struct vh_map *m)
{
	struct toy *t = img;
	int r = toy_map(img, m);

	for (uint32_t k = 0; !r && k < m->n; k++) {
		struct vh_extent *x = &m->ext[k];

		if (x->type != VH_EXT_DATA || !(x->flags & VH_EXT_COMMIT))
			continue;
		if (IS("double_take") && (x->addr >> BITS) % 5 == 4) {
			t->used[x->addr >> BITS] = 0;
			t->hint = data_start(&t->h);
		}
		if (IS("wrong_fill") && x->fill_tail == VH_FILL_BACKING)
			x->fill_tail = VH_FILL_ZERO;
	}
	return r;
}

static int broken_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct toy *t = img;
	uint64_t half;
	int r;

	if (!IS("size_late"))
		return toy_resize(img, bytes, j, e);
	if (bytes > t->h.entries << BITS || bytes < t->h.bytes)
		return toy_resize(img, bytes, j, e);
	half = bytes + CLUSTER <= t->h.entries << BITS ? bytes + CLUSTER : bytes - CRASH_STEP;
	t->h.bytes = half;
	r = t->ops->write(t->volume, &t->h, sizeof(t->h), 0);
	t->h.bytes = bytes;
	if (r >= 0)
		r = t->ops->write(t->volume, &t->h, sizeof(t->h), 0);
	return r;
}

static const struct vh_format_ops broken_ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_BACKING,
	.name = "toy-broken",
	.create_options = toy_create_options,
	.inspect = toy_inspect,
	.open = toy_open,
	.close = toy_close,
	.info = toy_info,
	.map = broken_map,
	.commit = broken_commit,
	.flush = broken_flush,
	.create = toy_create,
	.resize = broken_resize,
	.check = toy_check,
	.measure = toy_measure,
};

VH_PLUGIN_NOTE("toy-broken", VH_KIND_FORMAT);
static const char *const iids[] = {VH_IID_FORMAT, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_FORMAT) ? NULL : &broken_ops;
}

static const struct vh_plugin plugin = {sizeof(struct vh_plugin), VH_ABI_MINOR, "toy-broken", "1.0", "The toy format, broken", "LGPL",
					0, iids, get, NULL};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out);
VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	vh_host_ptr = host;
	*out = &plugin;
	return 0;
}
