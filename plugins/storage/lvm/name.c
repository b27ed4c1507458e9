/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Names of volumes and snapshots, and what is written beside a volume: lvm's tags, which no guest can reach. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "../common/name.h"
#include "lvm.h"

#define NAME_MAX_LVM 127
#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define NAME_CHARS ALNUM "+_.-"
#define PREFIX "vhost."

static int name_ok(const char *what, const char *name, struct vh_err *e)
{
	char shown[64];

	if (!name || !*name)
		return lvm_fail(e, -EINVAL, "a %s's name is missing", what);
	if (strnlen(name, NAME_MAX_LVM + 1) > NAME_MAX_LVM)
		return lvm_fail(e, -EINVAL, "the name \"%s\" is longer than %d bytes", name_printable(name, shown), NAME_MAX_LVM);
	if (name[0] == '-' || name[strspn(name, NAME_CHARS)] || !strcmp(name, ".") || !strcmp(name, ".."))
		return lvm_fail(e, -EINVAL, "\"%s\" is no name of a %s: letters, digits, '+', '_', '.' and '-', which does not "
			       "come first", name_printable(name, shown), what);
	return 0;
}

int lvm_vg_name_ok(const char *name, struct vh_err *e)
{
	return name_ok("volume group", name, e);
}

int lvm_name_ok(const char *name, struct vh_err *e)
{
	return name_ok("volume", name, e);
}

int lvm_name_new_ok(const char *name, struct vh_err *e)
{
	/* lvm's own, of which it makes hidden volumes. */
	static const char *const first[] = {"snapshot", "pvmove"};
	static const char *const within[] = {"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_mimage", "_mlog", "_rimage",
					     "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_imeta", "_iorig", "_pmspare",
					     "lvol"};
	int ret = lvm_name_ok(name, e);
	char shown[64];

	if (ret)
		return ret;
	if (strlen(name) > 63 || !strchr(ALNUM, name[0]) || strchr(name, '+'))
		return lvm_fail(e, -EINVAL, "\"%s\" is no volume name: up to 63 letters, digits, '.', '_' and '-', the first a letter "
				"or digit", name_printable(name, shown));
	for (unsigned i = 0; i < G_N_ELEMENTS(first); i++)
		if (g_str_has_prefix(name, first[i]))
			return lvm_fail(e, -EINVAL, "a volume of lvm may not be called \"%s...\"", first[i]);
	for (unsigned i = 0; i < G_N_ELEMENTS(within); i++)
		if (strstr(name, within[i]))
			return lvm_fail(e, -EINVAL, "a volume of lvm may not have \"%s\" in its name", within[i]);
	return 0;
}

char *lvm_snap_name(const char *volume, const char *snap, struct vh_err *e)
{
	char shown[64];
	char *full;

	if (!snap || !*snap || strlen(snap) > 63 || snap[strspn(snap, ALNUM "_.-")] || !strchr(ALNUM, snap[0])) {
		lvm_fail(e, -EINVAL, "\"%s\" is no name of a snapshot: up to 63 letters, digits, '.', '_' and '-', the first a letter "
			"or digit", snap ? name_printable(snap, shown) : "");
		return NULL;
	}
	full = g_strdup_printf("%s+%s", volume, snap); /* '+' is in no name of a volume that vhost makes */
	if (name_ok("snapshot", full, e))
		g_clear_pointer(&full, g_free);
	return full;
}

const char *lvm_snap_of(const struct lvm_lv *lv, const char *volume)
{
	g_autofree char *snap = lvm_tag_get(lv->tags, LVM_SNAPSHOT);
	size_t n = strlen(volume);

	return snap && !strncmp(lv->name, volume, n) && lv->name[n] == '+' && !strcmp(lv->name + n + 1, snap) ? lv->name + n + 1 : NULL;
}

char *lvm_tag(const char *key, const char *value)
{
	GString *s = g_string_new(PREFIX);

	g_string_append_printf(s, "%s=", key);
	for (const unsigned char *c = (const unsigned char *)value; *c; c++)
		if (strchr(ALNUM "_.-/:", *c))
			g_string_append_c(s, (char)*c);
		else
			g_string_append_printf(s, "&%02X", *c);
	return g_string_free(s, FALSE);
}

/* Tags come as "a,b,c". */
static const char *find(const char *tags, const char *key, size_t *len)
{
	size_t k = strlen(key);

	for (const char *t = tags; t && *t; t += strcspn(t, ","), t += *t == ',')
		if (!strncmp(t, PREFIX, strlen(PREFIX)) && !strncmp(t + strlen(PREFIX), key, k) && t[strlen(PREFIX) + k] == '=') {
			*len = strcspn(t, ",");
			return t;
		}
	return NULL;
}

char *lvm_tag_find(const char *tags, const char *key)
{
	size_t n;
	const char *t = find(tags, key, &n);

	return t ? g_strndup(t, n) : NULL;
}

char *lvm_tag_get(const char *tags, const char *key)
{
	size_t n, skip = strlen(PREFIX) + strlen(key) + 1;
	const char *t = find(tags, key, &n);
	GString *s;

	if (!t)
		return NULL;
	s = g_string_new(NULL);
	for (size_t i = skip; i < n; i++) {
		int hi = t[i] == '&' && i + 2 < n ? g_ascii_xdigit_value(t[i + 1]) : -1;
		int lo = hi >= 0 ? g_ascii_xdigit_value(t[i + 2]) : -1;

		if (lo >= 0 && (hi || lo)) {
			g_string_append_c(s, (char)(hi << 4 | lo));
			i += 2;
		} else {
			g_string_append_c(s, t[i]);
		}
	}
	return g_string_free(s, FALSE);
}

/* When a process began, in ticks since the host did; 0: there is none. */
static unsigned long long began(long pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%ld/stat", pid), *text = NULL;
	unsigned long long t = 0;
	char *p;

	if (!g_file_get_contents(path, &text, NULL, NULL) || !(p = strrchr(text, ')')))
		return 0;
	/* The state is field 3, the time 22. */
	for (int i = 0; p && i < 20; i++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, "%llu", &t) == 1 ? t : 0;
}

static char *boot_id(void)
{
	char *text = NULL;

	if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL, NULL))
		return g_strdup("0");
	return g_strstrip(text);
}

char *lvm_maker(void)
{
	g_autofree char *boot = boot_id();
	struct utsname u = {0};

	uname(&u);
	return g_strdup_printf("%d %llu %s %.64s", (int)getpid(), began(getpid()), boot, u.nodename[0] ? u.nodename : "-");
}

/* Another host's is not judged. */
int lvm_maker_gone(const char *maker)
{
	g_autofree char *mine = boot_id();
	char boot[64], node[65];
	unsigned long long start;
	struct utsname u = {0};
	long pid;

	if (sscanf(maker, "%ld %llu %63s %64s", &pid, &start, boot, node) != 4 || pid <= 0)
		return 1;
	uname(&u);
	if (strcmp(node, u.nodename[0] ? u.nodename : "-"))
		return 0;
	return strcmp(boot, mine) || began(pid) != start;
}
