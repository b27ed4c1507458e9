/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Values beside a volume: tags in lvm's metadata. One change of metadata replaces a value, so that it is there or not. */
#include "lvm.h"

static int check_key(const char *key, struct vh_err *e)
{
	static const char *const own[] = {LVM_CREATING, LVM_REMOVING, LVM_SNAPSHOT, LVM_CLONE, LVM_FRESH, LVM_ROLLBACK};
	size_t n = key ? strspn(key, "abcdefghijklmnopqrstuvwxyz.-") : 0;

	for (unsigned i = 0; n && i < G_N_ELEMENTS(own); i++)
		if (!strcmp(key, own[i]))
			n = 0;
	if (!n || key[n] || n > 64)
		return lvm_fail(e, -EINVAL, "\"%s\" is no name of a value: up to 64 of a-z . -", key ? key : "");
	return 0;
}

int64_t lvm_meta_get(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	const struct lvm_lv *lv = p->current && !strcmp(p->current->name, name) ? p->current : NULL;
	struct lvm_lv *own = NULL;
	g_autofree char *value = NULL;
	int ret = check_key(key, e);

	if (!ret && !lv) {
		ret = lvm_lv_get(p, name, LVM_RECENT, &own, e);
		lv = own;
	}
	if (ret)
		return ret;
	value = lvm_tag_get(lv->tags, key);
	lvm_lv_free(own);
	if (!value)
		return -ENODATA;
	if (g_strlcpy(buf, value, cap) >= cap)
		return lvm_fail(e, -ENOSPC, "the value of %s is too long", key);
	return (int64_t)strlen(buf);
}

int lvm_meta_set(void *pool, const char *name, const char *key, const char *value, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	g_autofree char *full = NULL, *old = NULL, *fresh = NULL;
	const char *args[8] = {"lvchange"};
	struct lvm_lv *lv;
	int n = 1, ret = check_key(key, e);

	if (ret)
		return ret;
	if (value && (strlen(value) > 255 || strchr(value, '\n')))
		return lvm_fail(e, -EINVAL, "a value is one line of at most 255 bytes");
	ret = lvm_lv_get(p, name, 0, &lv, e);
	if (ret)
		return ret;
	old = lvm_tag_find(lv->tags, key);
	fresh = value ? lvm_tag(key, value) : NULL;
	lvm_lv_free(lv);
	if (!g_strcmp0(old, fresh))
		return 0;
	if (old) {
		args[n++] = "--deltag";
		args[n++] = old;
	}
	if (fresh) {
		args[n++] = "--addtag";
		args[n++] = fresh;
	}
	full = g_strdup_printf("%s/%s", p->vg, name);
	args[n++] = full;
	return lvm_runv(p, NULL, NULL, NULL, e, args);
}
