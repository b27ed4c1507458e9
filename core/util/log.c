/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "util/log.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RULES_MAX 32
#define TOPIC_MAX 32
#define BURST 20       /* lines that a topic may write at once */
#define PER_SECOND 5   /* and what it gains with time */
#define BUCKETS 64

static const char *const level_names[] = { "error", "warning", "info", "debug", "trace" };

struct rule {
	char topic[TOPIC_MAX]; /* "blk" is for "blk" and "blk.engine" */
	int level;
};

/*
 * Read without a lock by every log_enabled(): each word is an atomic, a rule is filled in before the count that shows it,
 * and a topic's text never changes once it is there.
 */
static struct rule rules[RULES_MAX];
static int n_rules;
static int level_default = VH_LOG_WARN;
static int level_max = -1; /* the most talkative of all; -1: VHOST_LOG was not read yet */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct bucket {
	char topic[TOPIC_MAX];
	double tokens;
	uint64_t last_ns;
	unsigned dropped;
} buckets[BUCKETS];

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int level_parse(const char *s, size_t len)
{
	static const struct { const char *name; int level; } names[] = {
		{ "error", VH_LOG_ERROR }, { "warn", VH_LOG_WARN }, { "warning", VH_LOG_WARN }, { "info", VH_LOG_INFO },
		{ "debug", VH_LOG_DEBUG }, { "trace", VH_LOG_TRACE },
	};
	unsigned i;

	for (i = 0; i < G_N_ELEMENTS(names); i++)
		if (strlen(names[i].name) == len && !memcmp(names[i].name, s, len))
			return names[i].level;
	return -1;
}

static int rule_set(const char *topic, size_t len, int level)
{
	int i;

	if (!len || len >= TOPIC_MAX)
		return -EINVAL;
	for (i = 0; i < n_rules; i++)
		if (strlen(rules[i].topic) == len && !memcmp(rules[i].topic, topic, len))
			break;
	if (i == RULES_MAX)
		return -ENOSPC;
	if (i == n_rules)
		memcpy(rules[i].topic, topic, len); /* static memory: the final NUL is there */
	__atomic_store_n(&rules[i].level, level, __ATOMIC_RELAXED);
	if (i == n_rules)
		__atomic_store_n(&n_rules, i + 1, __ATOMIC_RELEASE);
	return 0;
}

static int configure_locked(const char *spec)
{
	const char *p = spec, *end, *eq;
	int r = 0, i, max, level;

	for (; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ',');
		eq = memchr(p, '=', end - p);
		level = eq ? level_parse(eq + 1, end - eq - 1) : level_parse(p, end - p);
		if (level < 0)
			r = -EINVAL;
		else if (!eq)
			__atomic_store_n(&level_default, level, __ATOMIC_RELAXED);
		else if (rule_set(p, eq - p, level))
			r = -EINVAL;
	}
	max = level_default;
	for (i = 0; i < n_rules; i++)
		max = MAX(max, rules[i].level);
	__atomic_store_n(&level_max, max, __ATOMIC_RELEASE);
	return r;
}

static void configure_from_env(void)
{
	const char *spec = getenv("VHOST_LOG");
	int bad = 0;

	pthread_mutex_lock(&lock);
	if (level_max < 0)
		bad = configure_locked(spec ? spec : "");
	pthread_mutex_unlock(&lock);
	if (bad)
		log_warn("log", "VHOST_LOG=%s: levels are error, warn, info, debug, trace; write LEVEL or TOPIC=LEVEL,...", spec);
}

int log_configure(const char *spec)
{
	int r;

	if (__atomic_load_n(&level_max, __ATOMIC_ACQUIRE) < 0)
		configure_from_env();
	pthread_mutex_lock(&lock);
	r = configure_locked(spec);
	pthread_mutex_unlock(&lock);
	return r;
}

int log_enabled(uint32_t level, const char *topic)
{
	int max = __atomic_load_n(&level_max, __ATOMIC_ACQUIRE), want, i, n;
	size_t len, best = 0;

	if (max < 0) {
		configure_from_env();
		max = __atomic_load_n(&level_max, __ATOMIC_ACQUIRE);
	}
	if (level > (uint32_t)max)
		return 0;
	n = __atomic_load_n(&n_rules, __ATOMIC_ACQUIRE);
	want = __atomic_load_n(&level_default, __ATOMIC_RELAXED);
	for (i = 0; i < n && topic; i++) {
		len = strlen(rules[i].topic);
		if (len > best && !strncmp(topic, rules[i].topic, len) && (!topic[len] || topic[len] == '.')) {
			want = __atomic_load_n(&rules[i].level, __ATOMIC_RELAXED);
			best = len;
		}
	}
	return level <= (uint32_t)want;
}

/* Whether the topic may write a line now; what was left out before is handed to the line that comes through. */
static int allowed(const char *topic, unsigned *dropped)
{
	struct bucket *b = &buckets[g_str_hash(topic) % BUCKETS];
	uint64_t now = now_ns();
	int ok;

	pthread_mutex_lock(&lock);
	if (strncmp(b->topic, topic, TOPIC_MAX - 1)) { /* a new topic, or one that shares the place: starts afresh */
		g_strlcpy(b->topic, topic, TOPIC_MAX);
		b->tokens = BURST;
		b->dropped = 0;
	} else {
		b->tokens = MIN(BURST, b->tokens + (double)(now - b->last_ns) / 1e9 * PER_SECOND);
	}
	b->last_ns = now;
	ok = b->tokens >= 1;
	if (ok) {
		b->tokens -= 1;
		*dropped = b->dropped;
		b->dropped = 0;
	} else {
		b->dropped++;
	}
	pthread_mutex_unlock(&lock);
	return ok;
}

void log_vline(uint32_t level, const char *topic, const char *fmt, va_list ap)
{
	char buf[1024], note[64] = "";
	unsigned dropped = 0;
	int saved = errno, n, head, i;
	size_t len;

	if (!topic)
		topic = "vhost";
	if (level > VH_LOG_TRACE)
		level = VH_LOG_TRACE;
	if (!log_enabled(level, topic))
		return;
	/* Debug and trace were asked for, so they come whole; the rest may be provoked by a guest without end. */
	if (level <= VH_LOG_INFO && !allowed(topic, &dropped)) {
		errno = saved;
		return;
	}
	if (dropped)
		snprintf(note, sizeof(note), " [%u lines left out]", dropped);
	head = snprintf(buf, sizeof(buf), "vhost: %s: %.40s: ", level_names[level], topic);
	n = vsnprintf(buf + head, sizeof(buf) - head - sizeof(note), fmt, ap);
	len = head + (n < 0 ? 0 : MIN((size_t)n, sizeof(buf) - head - sizeof(note) - 1));
	for (i = 0; i < (int)len; i++)
		if ((unsigned char)buf[i] < 0x20 || buf[i] == 0x7f)
			buf[i] = ' ';
	len += snprintf(buf + len, sizeof(buf) - len, "%s\n", note);
	/* One write, so that lines of several threads never mix. Nobody can be told when it fails. */
	if (write(STDERR_FILENO, buf, len) < 0)
		errno = 0;
	errno = saved;
}

void log_line(uint32_t level, const char *topic, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vline(level, topic, fmt, ap);
	va_end(ap);
}
