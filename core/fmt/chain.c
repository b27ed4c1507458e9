/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Opening and closing the images of a chain: what files an image has, its format's plugin, what both say of themselves. */
#include <stdlib.h>
#include <string.h>
#include <vhost/sugar.h>
#include "fmt/impl.h"
#include "fmt/options.h"
#include "plug/object.h"
#include "plug/plug.h"

#define HOST_CAPS                                                                                                      \
	(VH_FMT_COMPRESSED | VH_FMT_OPAQUE | VH_FMT_CRYPT | VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF | VH_FMT_DIRTY | VH_FMT_BACKING)

static int meta_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	return blk_read(m->vol, buf, len, off, NULL);
}

static int meta_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	if (off < m->clean_hi && off + len > m->clean_lo) { /* the larger side stays known */
		uint64_t before = off > m->clean_lo ? off - m->clean_lo : 0;
		uint64_t behind = off + len < m->clean_hi ? m->clean_hi - off - len : 0;

		if (before > behind)
			m->clean_hi = off;
		else
			m->clean_lo = m->clean_hi - behind;
	}
	return m->read_only ? -EROFS : blk_write(m->vol, buf, len, off, NULL);
}

static int meta_zero(struct vh_meta *m, uint64_t len, uint64_t off)
{
	if (off >= m->clean_lo && off < m->clean_hi && len <= m->clean_hi - off)
		return m->read_only ? -EROFS : 0;
	return m->read_only ? -EROFS : blk_zero(m->vol, len, off, NULL);
}

static int meta_flush(struct vh_meta *m)
{
	return m->read_only ? 0 : blk_flush(m->vol, NULL);
}

static uint64_t meta_bytes(struct vh_meta *m)
{
	return blk_vol_bytes(m->vol);
}

static int meta_resize(struct vh_meta *m, uint64_t bytes)
{
	return m->read_only ? -EROFS : blk_vol_bytes(m->vol) == bytes ? 0 : blk_vol_resize(m->vol, bytes, NULL);
}

static int meta_discard(struct vh_meta *m, uint64_t len, uint64_t off)
{
	return m->read_only ? -EROFS : blk_discard(m->vol, len, off, NULL);
}

const struct vh_meta_ops fmt_meta_service = {
	.size = sizeof(fmt_meta_service),
	.read = meta_read,
	.write = meta_write,
	.zero = meta_zero,
	.flush = meta_flush,
	.bytes = meta_bytes,
	.resize = meta_resize,
	.discard = meta_discard,
};

/* Plugins may ask for it as soon as they are loaded, before any image is opened. */
__attribute__((constructor)) static void register_service(void)
{
	plug_service_register(VH_SVC_META, &fmt_meta_service);
}

struct vh_meta *fmt_meta_new(struct blk_vol *vol, int read_only)
{
	struct vh_meta *m = calloc(1, sizeof(*m));

	if (m)
		*m = (struct vh_meta){vol, read_only};
	return m;
}

void fmt_meta_clean(struct vh_meta *m)
{
	m->clean_lo = 0;
	m->clean_hi = blk_vol_bytes(m->vol);
}

void fmt_meta_free(struct vh_meta *m)
{
	free(m);
}

void layer_fault(struct fmt_layer *l, const char *why)
{
	if (__atomic_exchange_n(&l->faulted, 1, __ATOMIC_ACQ_REL))
		return;
	log_error("fmt", "image %s: the plugin of format %s broke its contract: %s; the image is faulted, every further request "
		  "fails with EIO", l->image->label, l->ops->name, why);
}

static int is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

/* The cipher that the image's CRYPT extents need; it cannot change while the image is open. */
static int layer_cipher(struct fmt_layer *l, const struct vh_image_info *n, struct vh_err *e)
{
	uint32_t s;
	int r;

	if (!(n->caps & VH_FMT_CRYPT))
		return l->crypt ? err_set(e, -EIO, "format %s has lost the image's cipher", l->ops->name) : 0;
	if (!n->cipher)
		return err_set(e, -EIO, "format %s encrypts and does not say how", l->ops->name);
	if (l->crypt && !crypt_same(l->crypt, n->cipher))
		return err_set(e, -EIO, "format %s changes the cipher of an open image", l->ops->name);
	r = l->crypt ? 0 : crypt_new(n->cipher, &l->crypt, e);
	if (r < 0)
		return r;
	s = crypt_sector(l->crypt);
	if (n->bytes % s || n->unit % s || n->subunit % s || n->cipher->iv_base > INT64_MAX)
		return err_set(e, -EOPNOTSUPP, "a disk of %llu bytes with units of %u and %u bytes does not consist of encrypted sectors "
			       "of %u bytes", (unsigned long long)n->bytes, n->unit, n->subunit, s);
	return 0;
}

int layer_refresh(struct fmt_layer *l, struct vh_err *e)
{
	struct vh_image_info n = {.size = sizeof(n)};
	int r = l->ops->info(l->img, &n);

	if (r)
		return err_set(e, r < 0 ? r : -EIO, "format %s says nothing of the image", l->ops->name);
	if (!n.unit)
		n.unit = 512;
	if (!n.subunit)
		n.subunit = n.unit;
	if (!is_power_of_two(n.unit) || n.unit < 512 || n.unit > FMT_MAX_UNIT || !is_power_of_two(n.subunit) || n.subunit > n.unit)
		return err_set(e, -EOPNOTSUPP, "allocation unit of %u bytes; a power of two from 512 to %u is possible", n.unit,
			       FMT_MAX_UNIT);
	if (n.bytes > INT64_MAX - 2 * (uint64_t)FMT_MAX_UNIT)
		return err_set(e, -EFBIG, "the disk is %llu bytes large", (unsigned long long)n.bytes);
	r = layer_cipher(l, &n, e);
	if (r < 0)
		return r;
	l->info = n;
	if (!l->depth)
		store_relaxed(&l->image->bytes, n.bytes);
	l->lock_core = !(n.caps & VH_FMT_LOCK_SELF);
	l->rules = (struct fmt_rules){
		.bytes = n.bytes, .backing_bytes = n.backing_bytes, .caps = n.caps & HOST_CAPS & ~VH_FMT_BACKING, .unit = n.unit,
		.crypt_sector = l->crypt ? crypt_sector(l->crypt) : 0,
		.crypt_base = l->crypt && n.cipher->iv_from == VH_IV_FROM_ADDRESS ? n.cipher->iv_base : 0,
		.volumes = l->nvols, .max_map = n.max_map, .read_only = l->read_only, .has_commit = l->ops->commit != NULL,
		.has_decode = l->ops->decode != NULL};
	if (l->depth + 1 < l->image->nlayers)
		l->rules.caps |= VH_FMT_BACKING;
	if (!l->ops->read || (!l->read_only && !l->ops->write))
		l->rules.caps &= ~VH_FMT_OPAQUE;
	for (uint32_t v = 0; v < l->nvols && v < 64; v++)
		if (!l->vols[v])
			l->rules.missing |= UINT64_C(1) << v;
	return 0;
}

static void layer_free(struct fmt_layer *l)
{
	if (!l)
		return;
	crypt_free(l->crypt);
	if (l->img)
		l->ops->close(l->img);
	if (l->object)
		plug_object_free(l->object);
	for (uint32_t v = 0; v < l->nvols; v++)
		if (l->vols[v])
			blk_vol_put(l->vols[v]);
	free(l->vols);
	free(l->metas);
	free(l->meta_ptrs);
	pthread_rwlock_destroy(&l->lock);
	meta_fini(&l->sched);
	free(l);
}

/* Where the chain goes on. */
struct next {
	struct blk_vol *vol;
	char format[32];
	int found;
};

static int volumes_alloc(struct fmt_layer *l, uint32_t n, struct vh_err *e)
{
	l->vols = calloc(n, sizeof(struct blk_vol *));
	l->metas = calloc(n, sizeof(*l->metas));
	l->meta_ptrs = calloc(n, sizeof(struct vh_meta *));
	return l->vols && l->metas && l->meta_ptrs ? 0 : err_set(e, -ENOMEM, "no memory for an image of %u files", n);
}

/* A format may know that there is a backing image, but not its name: of the top image the option `backing` says it, else
 * whoever resolves knows what is recorded. */
static const struct vh_ref *named(struct fmt_layer *l, const struct fmt_spec *s, const struct vh_ref *ref, struct vh_ref *own)
{
	const char *name = l->depth ? NULL : vh_opt_str(s->opts, "backing", NULL);

	if (ref->name[0] || ref->role != VH_REF_BACKING || !name || strlen(name) >= sizeof(own->name))
		return ref;
	*own = *ref;
	strcpy(own->name, name);
	return own;
}

static int resolve(struct fmt_layer *l, const struct fmt_spec *s, const struct vh_ref *ref, struct next *next, struct vh_err *e)
{
	struct vh_ref own;
	char format[32] = "";
	struct blk_vol *vol = NULL;
	int r, backing = ref->role == VH_REF_BACKING;

	if (ref->role != VH_REF_BACKING && ref->role != VH_REF_DATA)
		return err_set(e, -EIO, "format %s names a file of unknown role %u", l->ops->name, ref->role);
	if (backing && next->found)
		return err_set(e, -EIO, "format %s names two backing images", l->ops->name);
	if (!s->resolve)
		return err_set(e, -EACCES, "the image refers to another file, %s, and nothing here may open it", ref->name);
	ref = named(l, s, ref, &own);
	r = s->resolve(s->resolve_ctx, ref, backing || l->read_only, &vol, format, e);
	if (r < 0 && ref->optional && r == -ENOENT && !backing) {
		if (e)
			err_clear(e);
		l->nvols++;
		return 0;
	}
	if (r < 0)
		return err_context(e, "%s %s", backing ? "backing image" : "data file", ref->name), r;
	if (backing) {
		next->vol = vol;
		next->found = 1;
		memcpy(next->format, format, sizeof(next->format));
		next->format[sizeof(next->format) - 1] = 0;
		return 0;
	}
	l->vols[l->nvols] = vol;
	l->metas[l->nvols] = (struct vh_meta){vol, l->read_only};
	l->meta_ptrs[l->nvols] = &l->metas[l->nvols];
	l->nvols++;
	return 0;
}

int fmt_refs(struct blk_vol *vol, const struct vh_format_ops *ops, struct vh_ref **out, struct vh_err *e)
{
	struct vh_meta meta = {vol, 1};
	struct vh_ref *refs = NULL;
	uint32_t cap = 0;
	int n = 0;

	*out = NULL;
	while (ops->inspect) {
		for (uint32_t k = 0; k < cap; k++)
			refs[k].size = sizeof(*refs);
		n = ops->inspect(&meta, refs, cap, e);
		if (n < 0) {
			free(refs);
			return err_set(e, n, "cannot inspect the image");
		}
		if ((uint32_t)n > FMT_MAX_REFS) {
			free(refs);
			return err_set(e, -EFBIG, "the image consists of %d files", n);
		}
		if ((uint32_t)n <= cap)
			break;
		free(refs);
		cap = (uint32_t)n;
		refs = calloc(cap, sizeof(*refs));
		if (!refs)
			return err_set(e, -ENOMEM, "no memory for an image of %d files", n);
	}
	for (int k = 0; k < n; k++) {
		if (memchr(refs[k].name, 0, sizeof(refs[k].name)) && memchr(refs[k].format, 0, sizeof(refs[k].format)))
			continue;
		free(refs);
		return err_set(e, -EIO, "format %s names a file without an end", ops->name);
	}
	*out = refs;
	return n;
}

/* Asks for the further files of the image, and has them opened. */
static int files_open(struct fmt_layer *l, const struct fmt_spec *s, struct blk_vol *vol, struct next *next, struct vh_err *e)
{
	struct vh_ref *refs;
	int n = fmt_refs(vol, l->ops, &refs, e), r;

	if (n < 0)
		return n;
	r = volumes_alloc(l, (uint32_t)n + 1, e);
	if (r < 0)
		goto out;
	l->vols[0] = vol;
	l->metas[0] = (struct vh_meta){vol, l->read_only};
	l->meta_ptrs[0] = &l->metas[0];
	l->nvols = 1;
	if (s->resolve_layer)
		s->resolve_layer(s->resolve_ctx, l->depth);
	for (int k = 0; k < n && r >= 0; k++)
		if (!s->no_backing || refs[k].role != VH_REF_BACKING)
			r = resolve(l, s, &refs[k], next, e);
out:
	free(refs);
	return r < 0 ? r : 0;
}

/* Takes the reference of vol, also on failure. */
static int layer_new(struct fmt_image *i, const struct fmt_spec *s, const struct vh_format_ops *ops, struct blk_vol *vol,
		     struct next *next, struct vh_err *e)
{
	struct fmt_layer *l = calloc(1, sizeof(*l)), **grown;
	int r;

	grown = l ? realloc(i->layers, (i->nlayers + 1) * sizeof(struct fmt_layer *)) : NULL;
	if (!grown) {
		free(l);
		blk_vol_put(vol);
		return err_set(e, -ENOMEM, "no memory for an image");
	}
	i->layers = grown;
	i->layers[i->nlayers] = l;
	l->image = i;
	l->depth = i->nlayers++;
	l->ops = ops;
	l->read_only = i->read_only || l->depth > 0;
	pthread_rwlock_init(&l->lock, NULL);
	meta_init(&l->sched, i->meta_pool, ops->caps & VH_FMT_LOCK_SELF ? 4 : 1);
	r = files_open(l, s, vol, next, e);
	if (r < 0 && !l->nvols)
		blk_vol_put(vol);
	return r;
}

/* A layer's own options; what is meant for an image below the last one is a mistake. */
static int layer_options(struct fmt_layer *l, const struct fmt_spec *s, struct fmt_options *own, struct vh_err *e)
{
	int r = l->depth && s->below ? fmt_options_at(l->ops, s->below, l->depth, own, e) : 0;
	const struct kvs *rest = l->depth ? &own->below : s->below;

	if (r < 0 || s->no_backing || l->depth + 1 < l->image->nlayers || !rest || !rest->n)
		return r;
	return err_set(e, -EINVAL, "option %s%s is for the backing image, and there is none", OPT_BELOW, rest->v[0].key);
}

static int layer_open(struct fmt_layer *l, const struct fmt_spec *s, struct vh_err *e)
{
	struct fmt_image *i = l->image;
	struct fmt_options own = {0};
	struct vh_open o = {.size = sizeof(o), .n = l->nvols, .volumes = l->meta_ptrs, .flags = (l->read_only ? VH_OPEN_RO : 0) | ((s->repair || s->no_backing) && !l->depth ? VH_OPEN_REPAIR : 0),
			    .host_caps = HOST_CAPS, .opts = s->opts};
	int r = layer_options(l, s, &own, e);

	if (r < 0) {
		fmt_options_clear(&own);
		return r;
	}
	if (l->depth)
		o.opts = optset_get(own.set);

	if (l->depth + 1 < i->nlayers) {
		o.backing_bytes = i->layers[l->depth + 1]->info.bytes;
		o.backing = i->layers[l->depth + 1]->meta_ptrs[0];
	}
	l->object = plug_object_new();
	if (l->object)
		plug_object_bind(l->object, l->depth ? blk_vol_label(l->vols[0]) : i->label, NULL, NULL);
	o.object = l->object;
	r = l->ops->open(&o, &l->img, e);
	fmt_options_clear(&own);
	if (r < 0 || !l->img) {
		l->img = NULL;
		return err_set(e, r < 0 ? r : -EIO, "cannot open it as %s", l->ops->name);
	}
	r = layer_refresh(l, e);
	if (r < 0)
		return r;
	/* A plugin may lock itself or not from image to image. */
	if (l->lock_core && l->sched.idle && l->sched.idle->next)
		l->sched.idle->next = NULL;
	if ((l->info.caps & VH_FMT_COMPRESSED) && l->info.unit > i->decode_unit)
		i->decode_unit = l->info.unit;
	return 0;
}

int chain_open(struct fmt_image *i, const struct fmt_spec *s, struct vh_err *e)
{
	struct next next = {0};
	const struct vh_format_ops *ops = s->ops;
	struct blk_vol *vol = s->vol;
	int r;

	for (;;) {
		next.found = 0;
		r = layer_new(i, s, ops, vol, &next, e);
		if (r >= 0 && next.found && i->nlayers == FMT_MAX_DEPTH)
			r = err_set(e, -ELOOP, "the chain of backing images is longer than %u", FMT_MAX_DEPTH);
		if (r >= 0 && next.found)
			r = plug_format(next.format, &ops, e);
		if (r < 0 && next.found)
			blk_vol_put(next.vol);
		if (r < 0)
			return r;
		if (!next.found)
			break;
		vol = next.vol;
	}
	/* From below, so that each knows the size of its backing image. */
	for (uint32_t k = i->nlayers; k-- > 0;) {
		r = layer_open(i->layers[k], s, e);
		if (r < 0)
			return k ? (err_context(e, "backing image %s", blk_vol_label(i->layers[k]->vols[0])), r) : r;
	}
	for (uint32_t k = 0; k < i->nlayers; k++) {
		i->layers[k]->vq_base = i->nvqs;
		i->nvqs += i->layers[k]->nvols;
	}
	return 0;
}

void chain_close(struct fmt_image *i)
{
	for (uint32_t k = 0; k < i->nlayers; k++)
		layer_free(i->layers[k]);
	free(i->layers);
	i->layers = NULL;
	i->nlayers = 0;
}

static int flush_volumes(struct fmt_layer *l, struct vh_err *e)
{
	int r = 0;

	for (uint32_t v = 0; v < l->nvols && r >= 0; v++)
		if (l->vols[v])
			r = blk_flush(l->vols[v], e);
	return r;
}

int chain_flush(struct fmt_image *i, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];

	if (i->read_only)
		return 0;
	if (l->faulted)
		return err_set(e, -EIO, "image %s is faulted: the plugin of format %s broke its contract", i->label, l->ops->name);
	for (uint32_t phase = 0; l->ops->flush; phase++) {
		int r = l->ops->flush(l->img, phase);

		if (r < 0)
			return err_set(e, r, "format %s cannot write its metadata", l->ops->name);
		if (r == 0)
			break;
		if (r > 1 || phase >= FMT_PHASES) {
			layer_fault(l, "flush() never ends");
			return err_set(e, -EIO, "the plugin of format %s is faulty", l->ops->name);
		}
		r = flush_volumes(l, e);
		if (r < 0)
			return r;
	}
	return flush_volumes(l, e);
}
