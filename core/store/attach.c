/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Volumes: attaching them to an engine, and their recorded format. */
#include <string.h>
#include "store/store-i.h"

/* Every error about a volume names it. */
int vol_about(struct store_pool *p, const char *volume, int ret, struct vh_err *e)
{
	if (ret < 0)
		err_object(e, "volume %s/%s", p->label, volume);
	return ret;
}

static int leases_itself(const struct store_pool *p)
{
	return !!(p->ops->caps & VH_POOL_LEASE);
}

int store_lease(struct store_pool *p, const char *volume, uint32_t mode, const char *who, struct lease **out, struct vh_err *e)
{
	struct vh_vol_stat st;
	int ret;

	*out = NULL;
	if (leases_itself(p) || mode == VH_ATTACH_PEEK)
		return 0;
	ret = store_vol_stat(p, volume, &st, e);
	return ret ? ret : vol_about(p, volume, lease_take(st.identity, mode, who, out, e), e);
}

/* The lease of a volume that is yet to be attached. One that is not there may be made by attaching it. */
static int lease_before(struct store_pool *p, const struct store_attach *a, char identity[160], struct lease **out, struct vh_err *e)
{
	struct vh_vol_stat st;
	ERR_AUTO(why);
	int ret;

	*out = NULL;
	identity[0] = 0;
	if (leases_itself(p) || a->mode == VH_ATTACH_PEEK)
		return 0;
	ret = store_vol_stat(p, a->name, &st, &why);
	if (ret == -ENOENT)
		return 0;
	if (ret) {
		err_move(e, &why);
		return ret;
	}
	memcpy(identity, st.identity, sizeof(st.identity));
	return lease_take(identity, a->mode, a->holder, out, e);
}

/* What was attached is what is leased, and not another volume that took its name in between. */
static int lease_after(struct store_pool *p, const struct store_attach *a, const char identity[160], struct lease **lease,
		       struct vh_err *e)
{
	struct vh_vol_stat st;
	int ret;

	if (leases_itself(p) || a->mode == VH_ATTACH_PEEK)
		return 0;
	ret = store_vol_stat(p, a->name, &st, e);
	if (!ret && !*lease)
		ret = lease_take(st.identity, a->mode, a->holder, lease, e);
	else if (!ret && strcmp(identity, st.identity))
		ret = err_set(e, -EBUSY, "it was replaced while it was attached");
	return ret;
}

static void lease_close(void *lease)
{
	lease_drop(lease);
}

int store_attach(struct store_pool *p, const struct store_attach *a, struct blk_vol **out, struct vh_err *e)
{
	struct vh_attach va = {.size = sizeof(va), .mode = a->mode, .name = a->name, .holder = a->holder, .flags = a->flags};
	g_autofree char *label = g_strdup_printf("%s/%s", p->label, a->name);
	struct blk_config c = a->blk;
	const struct vh_volume_ops *theirs, *ops;
	struct lease *lease;
	char identity[160];
	void *vol;
	int ret;

	if (!c.label)
		c.label = label;
	c.read_only |= a->mode == VH_ATTACH_RO || a->mode == VH_ATTACH_PEEK;
	ret = lease_before(p, a, identity, &lease, e);
	if (ret)
		return vol_about(p, a->name, ret, e);
	va.object = blk_object_new();
	ret = p->ops->attach(p->pool, &va, &vol, &theirs, e);
	if (ret) {
		blk_object_free(va.object);
		lease_drop(lease);
		return vol_about(p, a->name, ret, e);
	}
	ops = plug_volume_ops(theirs);
	if (!ops) {
		/* Without a close the volume cannot even be given back, nor its lease. */
		blk_object_free(va.object);
		err_status(e, EXIT_REFUSED);
		return vol_about(p, a->name, err_set(e, -ELIBBAD, "the plugin's volume has no info or no close"), e);
	}
	ret = lease_after(p, a, identity, &lease, e);
	if (!ret)
		ret = blk_vol_new(vol, ops, &c, out, e);
	if (ret) {
		ops->close(vol);
		blk_object_free(va.object);
		lease_drop(lease);
		return vol_about(p, a->name, ret, e);
	}
	if (lease)
		blk_vol_on_close(*out, lease_close, lease);
	blk_object_bind(va.object, *out);
	return 0;
}

int vol_meta_read(struct store_pool *p, const char *volume, const char *key, char *buf, size_t cap, struct vh_err *e)
{
	int64_t n = p->ops->meta_get ? p->ops->meta_get(p->pool, volume, key, buf, cap, e) :
				       hostmeta_get(p, volume, key, buf, cap, e);

	buf[n < 0 ? 0 : MIN((uint64_t)n, cap - 1)] = 0;
	return n == -ENODATA ? 0 : vol_about(p, volume, n < 0 ? (int)n : 0, e);
}

int vol_meta_get(struct store_pool *p, const char *volume, const char *key, char value[32], struct vh_err *e)
{
	return vol_meta_read(p, volume, key, value, 32, e);
}

int vol_meta_set(struct store_pool *p, const char *volume, const char *key, const char *value, struct vh_err *e)
{
	return vol_about(p, volume, p->ops->meta_set ? p->ops->meta_set(p->pool, volume, key, value, e) :
						   hostmeta_set(p, volume, key, value, e), e);
}

int store_format_get(struct store_pool *p, const char *volume, char format[32], struct vh_err *e)
{
	return vol_meta_get(p, volume, "format", format, e);
}

int store_format_set(struct store_pool *p, const char *volume, const char *format, struct vh_err *e)
{
	if (!format || !*format || strlen(format) >= 32)
		return vol_about(p, volume, err_usage(e, "'%s' is no name of a format", format ? format : ""), e);
	return vol_meta_set(p, volume, "format", format, e);
}

int store_format_pick(struct store_pool *p, const char *volume, const char *given, char format[32], struct vh_err *e)
{
	int ret = store_format_get(p, volume, format, e);

	if (ret)
		return ret;
	if (!format[0] && !given) {
		if (p->name)
			err_remedy(e, "add format=raw or what it is, or record it: vhost vol set %s/%s --format ...", p->name,
				   volume);
		else
			err_remedy(e, "add format=raw, or what it is");
		err_status(e, EXIT_USAGE);
		return vol_about(p, volume, err_set(e, -EINVAL, "its format is not recorded, and is never guessed: format= must "
							    "be given"), e);
	}
	if (format[0] && given && strcmp(format, given)) {
		err_remedy(e, "leave the format away, or correct the record: vhost vol set POOL/VOLUME --format %s", given);
		err_status(e, EXIT_USAGE);
		return vol_about(p, volume, err_set(e, -EINVAL, "it is recorded as %s, not %s", format, given), e);
	}
	if (given && g_strlcpy(format, given, 32) >= 32)
		return vol_about(p, volume, err_usage(e, "'%s' is no name of a format", given), e);
	return 0;
}

int store_vol_stat(struct store_pool *p, const char *volume, struct vh_vol_stat *st, struct vh_err *e)
{
	int ret;

	memset(st, 0, sizeof(*st));
	st->size = sizeof(*st);
	ret = p->ops->stat(p->pool, volume, st, e);
	st->identity[sizeof(st->identity) - 1] = 0;
	if (!ret && !st->identity[0])
		ret = err_set(e, -EPROTO, "its plugin does not say which volume it is");
	if (!ret && !leases_itself(p) && lease_look(st->identity, NULL))
		st->flags |= VH_STAT_IN_USE;
	return vol_about(p, volume, ret, e);
}

