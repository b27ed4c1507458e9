/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The volume group and its volumes as they are now: one report each. */
#include <stdlib.h>
#include "lvm.h"

/* What is in lvm's metadata alone: the kernel is not asked for each of 10,000 volumes. */
#define FIELDS "lv_uuid,lv_name,lv_size,lv_layout,lv_role,lv_tags,lv_time,pool_lv,origin,lv_merging"
#define FIELDS_LIVE FIELDS ",lv_permissions,lv_health_status,data_percent,metadata_percent,lv_when_full,zero"

static void copy(char *out, size_t cap, const char *s)
{
	g_strlcpy(out, s, cap);
}

static int is_recent(uint64_t at)
{
	return at && (uint64_t)g_get_monotonic_time() * 1000 - at < LVM_RECENT_NS;
}

int lvm_vg_get(const struct lvm_pool *p, struct lvm_vg *out, struct vh_err *e)
{
	g_autofree char *select = g_strdup_printf("vg_name=\"%s\"", p->vg);
	struct lvm_answer a;
	JsonObject *r;
	int ret;

	if (p->recent && is_recent(p->recent->vg_at)) {
		*out = p->recent->vg;
		return 0;
	}
	ret = lvm_run(p, NULL, "vg", &a, e, "vgs", "-o",
			  "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_missing_pv_count,vg_exported,vg_permissions", "-S", select, NULL);

	memset(out, 0, sizeof(*out));
	if (ret)
		return ret;
	if (!a.rows->len) {
		lvm_answer_clear(&a);
		lvm_hint(e, "see whether its devices are there: lvm vgs");
		return lvm_fail(e, -ENOENT, "there is no volume group %s", p->vg);
	}
	if (a.rows->len > 1) {
		lvm_answer_clear(&a);
		lvm_hint(e, "rename one: vgrename UUID NEW");
		return lvm_fail(e, -EEXIST, "there are several volume groups %s", p->vg);
	}
	r = a.rows->pdata[0];
	copy(out->name, sizeof(out->name), lvm_text(r, "vg_name"));
	copy(out->uuid, sizeof(out->uuid), lvm_text(r, "vg_uuid"));
	out->exported = !strcmp(lvm_text(r, "vg_exported"), "exported");
	out->ro = !strcmp(lvm_text(r, "vg_permissions"), "read-only");
	ret = lvm_number(r, "vg_size", &out->size, e);
	if (!ret)
		ret = lvm_number(r, "vg_free", &out->free, e);
	if (!ret)
		ret = lvm_number(r, "vg_extent_size", &out->extent, e);
	if (!ret)
		ret = lvm_number(r, "vg_missing_pv_count", &out->missing, e);
	if (!ret && (strcmp(out->name, p->vg) || !out->uuid[0] || !out->extent))
		ret = lvm_fail(e, -EPROTO, "lvm's answer about the volume group %s makes no sense", p->vg);
	lvm_answer_clear(&a);
	if (!ret && p->recent) {
		p->recent->vg = *out;
		p->recent->vg_at = (uint64_t)g_get_monotonic_time() * 1000;
	}
	return ret;
}

void lvm_lv_free(struct lvm_lv *lv)
{
	if (!lv)
		return;
	g_free(lv->name);
	g_free(lv->uuid);
	g_free(lv->layout);
	g_free(lv->role);
	g_free(lv->tags);
	g_free(lv->thin);
	g_free(lv->origin);
	g_free(lv->health);
	g_free(lv->when_full);
	g_free(lv);
}

struct lvm_lv *lvm_lv_copy(const struct lvm_lv *lv)
{
	struct lvm_lv *c = g_memdup2(lv, sizeof(*lv));

	c->name = g_strdup(lv->name);
	c->uuid = g_strdup(lv->uuid);
	c->layout = g_strdup(lv->layout);
	c->role = g_strdup(lv->role);
	c->tags = g_strdup(lv->tags);
	c->thin = g_strdup(lv->thin);
	c->origin = g_strdup(lv->origin);
	c->health = g_strdup(lv->health);
	c->when_full = g_strdup(lv->when_full);
	return c;
}

void lvm_forget(const struct lvm_pool *p)
{
	if (!p->recent)
		return;
	g_clear_pointer(&p->recent->lv, lvm_lv_free);
	p->recent->vg_at = 0;
}

static int lv_from(JsonObject *r, struct lvm_lv **out, struct vh_err *e)
{
	struct lvm_lv *lv = g_new0(struct lvm_lv, 1);
	int ret = lvm_number(r, "lv_size", &lv->bytes, e);

	lv->name = g_strdup(lvm_text(r, "lv_name"));
	lv->uuid = g_strdup(lvm_text(r, "lv_uuid"));
	lv->layout = g_strdup(lvm_text(r, "lv_layout"));
	lv->role = g_strdup(lvm_text(r, "lv_role"));
	lv->tags = g_strdup(lvm_text(r, "lv_tags"));
	lv->thin = g_strdup(lvm_text(r, "pool_lv"));
	lv->origin = g_strdup(lvm_text(r, "origin"));
	lv->health = g_strdup(lvm_text(r, "lv_health_status"));
	lv->when_full = g_strdup(lvm_text(r, "lv_when_full"));
	lv->time = MAX(0, (int64_t)strtoll(lvm_text(r, "lv_time"), NULL, 10));
	lv->time = lv->time < INT64_MAX / 1000000000 ? lv->time * 1000000000 : 0;
	lv->data = lvm_percent(r, "data_percent");
	lv->meta = lvm_percent(r, "metadata_percent");
	lv->ro = g_str_has_prefix(lvm_text(r, "lv_permissions"), "read-only");
	lv->zero = !strcmp(lvm_text(r, "zero"), "zero");
	lv->merging = lvm_text(r, "lv_merging")[0] != 0;
	if (!ret && (!lv->uuid[0] || strlen(lv->uuid) > 63 || lvm_name_ok(lv->name, NULL) || lv->bytes > INT64_MAX))
		ret = lvm_fail(e, -EPROTO, "lvm's answer about a logical volume makes no sense");
	if (ret)
		lvm_lv_free(lv);
	else
		*out = lv;
	return ret;
}

int lvm_lvs(const struct lvm_pool *p, const char *select, int live, GPtrArray **out, struct vh_err *e)
{
	GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)lvm_lv_free);
	const char *args[] = {"lvs", "-o", live ? FIELDS_LIVE : FIELDS, select ? "-S" : p->vg, select, select ? p->vg : NULL, NULL};
	struct lvm_answer a;
	int ret = lvm_runv(p, NULL, "lv", &a, e, args);

	for (guint i = 0; !ret && i < a.rows->len; i++) {
		struct lvm_lv *lv = NULL;

		ret = lv_from(a.rows->pdata[i], &lv, e);
		if (!ret)
			g_ptr_array_add(list, lv);
	}
	lvm_answer_clear(&a);
	if (ret) {
		g_ptr_array_unref(list);
		list = NULL;
	}
	*out = list;
	return ret;
}

int lvm_lv_get(const struct lvm_pool *p, const char *name, int live, struct lvm_lv **out, struct vh_err *e)
{
	g_autofree char *select = NULL;
	GPtrArray *list;
	int ret = lvm_name_ok(name, e);

	*out = NULL;
	if (ret)
		return ret;
	if (live == LVM_RECENT && p->recent && p->recent->lv && !strcmp(p->recent->lv->name, name) &&
	    is_recent(p->recent->at)) {
		*out = lvm_lv_copy(p->recent->lv);
		return 0;
	}
	select = g_strdup_printf("lv_name=\"%s\"", name);
	ret = lvm_lvs(p, select, live, &list, e);
	if (ret)
		return ret;
	if (list->len)
		*out = g_ptr_array_steal_index(list, 0);
	g_ptr_array_unref(list);
	if (*out && live && p->recent) {
		g_clear_pointer(&p->recent->lv, lvm_lv_free);
		p->recent->lv = lvm_lv_copy(*out);
		p->recent->at = (uint64_t)g_get_monotonic_time() * 1000;
	}
	return *out ? 0 : lvm_fail(e, -ENOENT, "there is no such volume in the volume group %s", p->vg);
}

static int has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *w = list; *w; w += strcspn(w, ","), w += *w == ',')
		if (!strncmp(w, word, n) && (w[n] == ',' || !w[n]))
			return 1;
	return 0;
}

int lvm_is_thin(const struct lvm_lv *lv)
{
	return has_word(lv->layout, "thin") && !has_word(lv->layout, "pool");
}

int lvm_is_thin_pool(const struct lvm_lv *lv)
{
	return has_word(lv->layout, "thin") && has_word(lv->layout, "pool");
}

int lvm_is_volume(const struct lvm_lv *lv)
{
	g_autofree char *creating = lvm_tag_find(lv->tags, LVM_CREATING), *snapshot = lvm_tag_find(lv->tags, LVM_SNAPSHOT);

	return !has_word(lv->layout, "pool") && !creating && !snapshot;
}
