/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the pool's options say. Secrets live in locked memory from here on, and are asked for once: a pipe is read once. */
#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "iscsi.h"

#define OPT(NAME, TYPE, DOC, ...)                                                                                      \
	&(const struct vh_opt){.size = sizeof(struct vh_opt), .name = NAME, .type = TYPE, .doc = DOC, ##__VA_ARGS__}

const struct vh_opt *const is_pool_options[] = {
	OPT("portal", VH_OPT_HOSTPORT, "Address of the target's portal; the usual port is 3260", .flags = VH_OPT_REQUIRED),
	OPT("target", VH_OPT_STR, "The target's name (IQN); without it the portal's targets are shown", .min = 1, .max = 223),
	OPT("user", VH_OPT_STR, "Name for CHAP", .min = 1, .max = 255),
	OPT("secret", VH_OPT_SECRET, "Where the secret for CHAP is"),
	OPT("target-user", VH_OPT_STR, "Name that the target must prove to have (mutual CHAP)", .min = 1, .max = 255),
	OPT("target-secret", VH_OPT_SECRET, "Where the target's secret is"),
	OPT("initiator", VH_OPT_STR, "This host's name (IQN); if not given that of /etc/iscsi/initiatorname.iscsi, else one made "
	    "of the host's machine id", .min = 1, .max = 223),
	OPT("timeout", VH_OPT_DURATION, "After this time without an answer requests fail; 0: they wait for ever", .defval = "0s",
	    .min = 0, .max = INT64_C(86400000000000)),
	OPT("login-timeout", VH_OPT_DURATION, "Time for connecting and logging in", .defval = "10s", .min = 100000000,
	    .max = INT64_C(300000000000)),
	OPT("sessions", VH_OPT_INT, "Most sessions of one volume, one for each queue", .defval = "16", .min = 1, .max = 64),
	OPT("reservation", VH_OPT_BOOL, "Reserve a volume at the target while it is written, so that no other host can use it",
	    .defval = "off"),
	NULL};

uint64_t is_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

int why_set(struct why *w, int code, const char *fmt, ...)
{
	va_list ap;

	if (!w || w->text[0])
		return code;
	va_start(ap, fmt);
	vsnprintf(w->text, sizeof(w->text), fmt, ap);
	va_end(ap);
	return code;
}

void why_remedy(struct why *w, const char *fmt, ...)
{
	va_list ap;

	if (!w)
		return;
	va_start(ap, fmt);
	vsnprintf(w->remedy, sizeof(w->remedy), fmt, ap);
	va_end(ap);
}

int is_fail(struct vh_err *e, int code, const struct why *w)
{
	if (w->remedy[0])
		is_host->remedy(e, "%s", w->remedy);
	return is_host->err(e, code, "%s", w->text[0] ? w->text : strerror(-code));
}

uint64_t is_hash(uint64_t h, const char *text)
{
	h ^= UINT64_C(0xcbf29ce484222325);
	while (*text)
		h = (h ^ (unsigned char)*text++) * UINT64_C(0x100000001b3);
	h ^= h >> 29;
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	return h ^ h >> 32;
}

size_t is_text(char *out, size_t cap, const uint8_t *in, size_t n)
{
	size_t k = 0;

	while (n && (in[n - 1] <= 0x20 || in[n - 1] >= 0x7f))
		n--;
	while (n && (*in <= 0x20 || *in >= 0x7f))
		in++, n--;
	while (k < n && k + 1 < cap) {
		out[k] = in[k] < 0x20 || in[k] >= 0x7f ? '?' : (char)in[k];
		k++;
	}
	out[k] = 0;
	return k;
}

/* The first line of a file that begins with `key`; the rest of it. */
static int file_line(const char *path, const char *key, char *out, size_t cap)
{
	FILE *f = fopen(path, "re");
	char line[512];
	int found = 0;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *p = line;

		while (isspace((unsigned char)*p))
			p++;
		if (strncmp(p, key, strlen(key)))
			continue;
		p += strlen(key);
		p[strcspn(p, " \t\r\n")] = 0;
		if (!*p || strlen(p) >= cap)
			continue;
		strcpy(out, p);
		found = 1;
	}
	if (f)
		fclose(f);
	return found;
}

static uint64_t host_id(void)
{
	struct utsname u;
	char id[64];

	if (file_line("/etc/machine-id", "", id, sizeof(id)) || file_line("/var/lib/dbus/machine-id", "", id, sizeof(id)))
		return is_hash(1, id);
	return is_hash(2, uname(&u) ? "" : u.nodename);
}

static int name_ok(const char *n)
{
	if (strncmp(n, "iqn.", 4) && strncmp(n, "eui.", 4) && strncmp(n, "naa.", 4))
		return 0;
	for (; *n; n++)
		if (*n <= 0x20 || *n >= 0x7f || *n == ',' || *n == '/')
			return 0;
	return 1;
}

static int secret_read(const char *where, const char *what, struct secret **out, struct vh_err *e)
{
	struct secret *s;
	int64_t n;

	if (!is_secret)
		return is_host->err(e, -EOPNOTSUPP, "this host has no service for secrets");
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return -ENOMEM;
	*out = s;
	mlock(s, sizeof(*s));
	madvise(s, sizeof(*s), MADV_DONTDUMP);
	n = is_secret->get(where, s->text, sizeof(s->text) - 1, e);
	if (n == -ENOSPC)
		return is_host->err(e, -EINVAL, "the %s is longer than 255 bytes", what);
	if (n < 0)
		return (int)n;
	if (!n || memchr(s->text, 0, (size_t)n))
		return is_host->err(e, -EINVAL, "the %s is %s", what, n ? "no text: it has a NUL in it" : "empty");
	s->text[n] = 0;
	return 0;
}

static void secret_free(struct secret **s)
{
	if (!*s)
		return;
	explicit_bzero(*s, sizeof(**s));
	munmap(*s, sizeof(**s));
	*s = NULL;
}

void config_clear(struct config *c)
{
	secret_free(&c->secret);
	secret_free(&c->target_secret);
}

static int portal_split(struct config *c, const char *portal)
{
	const char *colon = strrchr(portal, ':'), *end = colon;

	if (!colon)
		return -1;
	if (*portal == '[') {
		if (end == portal || end[-1] != ']')
			return -1;
		portal++;
		end--;
	}
	if (end <= portal || (size_t)(end - portal) >= sizeof(c->host))
		return -1;
	memcpy(c->host, portal, (size_t)(end - portal));
	c->port = (unsigned)strtoul(colon + 1, NULL, 10);
	return c->port && c->port < 65536 ? 0 : -1;
}

int config_read(struct config *c, const struct vh_opts *o, struct vh_err *e)
{
	const char *portal = vh_opt_str(o, "portal", ""), *secret = vh_opt_str(o, "secret", NULL);
	const char *target_secret = vh_opt_str(o, "target-secret", NULL), *initiator = vh_opt_str(o, "initiator", NULL);
	uint64_t id = host_id();
	int ret = 0;

	memset(c, 0, sizeof(*c));
	if (portal_split(c, portal))
		return is_host->err(e, -EINVAL, "'%s' is no portal: HOST:PORT", portal);
	snprintf(c->target, sizeof(c->target), "%s", vh_opt_str(o, "target", ""));
	snprintf(c->user, sizeof(c->user), "%s", vh_opt_str(o, "user", ""));
	snprintf(c->target_user, sizeof(c->target_user), "%s", vh_opt_str(o, "target-user", ""));
	c->timeout = (uint64_t)vh_opt_num(o, "timeout", 0);
	c->login_timeout = (uint64_t)vh_opt_num(o, "login-timeout", 10 * SECOND);
	c->sessions = (unsigned)vh_opt_num(o, "sessions", 16);
	c->reserve = (int)vh_opt_num(o, "reservation", 0);
	if (c->target[0] && !name_ok(c->target)) {
		is_host->remedy(e, "names look like iqn.2024-01.com.example:disks");
		return is_host->err(e, -EINVAL, "'%s' is no name of a target", c->target);
	}
	if (!c->user[0] != !secret)
		return is_host->err(e, -EINVAL, "user and secret go together");
	if (!c->target_user[0] != !target_secret)
		return is_host->err(e, -EINVAL, "target-user and target-secret go together");
	if (c->target_user[0] && !c->user[0])
		return is_host->err(e, -EINVAL, "the target proves itself (target-user) only to one who does so too: user and secret "
						"are missing");
	if (initiator && !name_ok(initiator))
		return is_host->err(e, -EINVAL, "'%s' is no name of an initiator", initiator);
	if (initiator)
		snprintf(c->initiator, sizeof(c->initiator), "%s", initiator);
	else if (!file_line("/etc/iscsi/initiatorname.iscsi", "InitiatorName=", c->initiator, sizeof(c->initiator)) ||
		 !name_ok(c->initiator))
		snprintf(c->initiator, sizeof(c->initiator), "iqn.2024-01.org.vhost:%016llx", (unsigned long long)id);
	c->key = UINT64_C(0x5648) << 48 | (is_hash(id, c->initiator) & UINT64_C(0xffffffffffff));
	if (secret)
		ret = secret_read(secret, "secret", &c->secret, e);
	if (!ret && target_secret)
		ret = secret_read(target_secret, "target's secret", &c->target_secret, e);
	if (!ret && secret && target_secret && !strcmp(c->secret->text, c->target_secret->text)) {
		is_host->remedy(e, "give the target a secret of its own");
		ret = is_host->err(e, -EINVAL, "secret and target-secret are the same: whoever is asked for one could send it back");
	}
	if (ret)
		config_clear(c);
	return ret;
}
