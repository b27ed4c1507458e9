/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Rounds of load and crash states, until there were enough of them, or one is wrong. */
#include "crash/crash-i.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ROUNDS_AT_LEAST 6u /* also when few states are wanted */

struct state {
	uint32_t time;
	unsigned style;
	uint64_t seed;
};

static void round_free(struct round *r)
{
	for (unsigned v = 0; v < CRASH_VOLUMES; v++) {
		blk_vol_put(r->vols[v]);
		g_free(r->names[v]);
	}
	blk_vol_put(r->base);
	trace_free(r->trace);
	oracle_free(r->oracle);
	optset_free(r->create_opts);
	optset_free(r->open_opts);
	memset(r, 0, sizeof(*r));
}

static int base_create(struct round *r, const struct vh_format_ops *ops, uint64_t bytes, struct vh_err *e)
{
	struct vh_meta *m = fmt_meta_new(r->base, 0);
	struct optset *set = NULL;
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .volumes = &m, .n = 1, .name = r->base_name};
	int ret = optset_parse(ops->create_options, NULL, r->base_format, &set, e);

	c.opts = optset_get(set);
	if (!ret)
		ret = ops->create ? ops->create(&c, NULL, e) : blk_vol_resize(r->base, bytes, e);
	fmt_meta_free(m);
	optset_free(set);
	return ret;
}

/* A backing image of three quarters of the disk, full of marks. */
static int base_make(struct round *r, const char *format, struct vh_err *e)
{
	uint64_t n = r->bytes / CRASH_SECTOR * 3 / 4 + 1, step = (1u << 20) / CRASH_SECTOR;
	g_autofree uint8_t *buf = g_malloc(1u << 20);
	const struct vh_format_ops *ops;
	struct fmt_spec s = {.label = r->base_name};
	struct fmt_image *i;
	int ret = plug_format(format, &ops, e);

	if (ret)
		return err_context(e, "the backing image"), ret;
	r->base_format = format;
	r->base_bytes = n * CRASH_SECTOR;
	g_snprintf(r->base_name, sizeof(r->base_name), "base.%.32s", format);
	r->base = memory_volume(r->base_name, &r->base_fd, e);
	ret = r->base ? base_create(r, ops, r->base_bytes, e) : -ENOMEM;
	if (ret)
		return ret;
	s.vol = blk_vol_ref(r->base);
	s.ops = ops;
	ret = fmt_open(&s, &i, e);
	if (ret)
		return ret;
	for (uint64_t c = 0; c < n && !ret; c += step) {
		uint64_t k = MIN(step, n - c);

		oracle_fill(buf, VALUE_BASE, c, k);
		ret = fmt_pwrite(i, buf, k * CRASH_SECTOR, c * CRASH_SECTOR, e);
	}
	if (!ret)
		ret = fmt_flush(i, e);
	fmt_close(i);
	return ret;
}

/* The disk's size when none is given: some units, so that they are allocated, freed and used again. */
static uint64_t default_bytes(const struct round *r)
{
	struct vh_create c = {.size = sizeof(c), .bytes = 1u << 20, .opts = optset_get(r->create_opts), .name = "x"};
	uint64_t one = 0, none = 0, full;

	/* What one more byte takes is the unit. */
	if (!r->ops->measure || r->ops->measure(&c, 1, &one, &full, NULL) < 0 || r->ops->measure(&c, 0, &none, &full, NULL) < 0 ||
	    one < none)
		return 1u << 20;
	return CLAMP((one - none) * 10, 1u << 20, 20u << 20);
}

static int options(const struct crash_spec *s, struct round *r, struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("format %s", s->format);
	int ret = optset_parse(r->ops->create_options, s->options, what, &r->create_opts, e);

	return ret ? ret : optset_parse(r->ops->open_options, s->open_options, what, &r->open_opts, e);
}

/* Volumes that states are put into, instead of those that recorded. */
static int state_volumes(struct round *r, struct vh_err *e)
{
	for (unsigned v = 0; v < r->volumes; v++) {
		blk_vol_put(r->vols[v]);
		r->vols[v] = memory_volume(r->names[v], &r->fds[v], e);
		if (!r->vols[v])
			return -ENOMEM;
	}
	return 0;
}

static int round_try(struct round *r, const struct crash_spec *s, unsigned number, int backing, const char *base, struct vh_err *e)
{
	int ret;

	*r = (struct round){.spec = s, .number = number, .seed = s->seed * 1000003u + number};
	ret = plug_format(s->format, &r->ops, e);
	if (!ret)
		ret = options(s, r, e);
	if (ret)
		return ret;
	r->names[0] = g_strdup_printf("disk.%s", s->format);
	r->bytes = s->bytes ? s->bytes : default_bytes(r);
	r->backing = backing < 0 ? number % 2 && (r->ops->caps & VH_FMT_BACKING) : backing;
	if (r->backing)
		ret = base_make(r, base, e);
	if (!ret)
		ret = s->trace ? trace_load(r, s->trace, e) : round_load(r, e);
	if (!ret)
		ret = state_volumes(r, e);
	return ret;
}

static int round_begin(struct round *r, const struct crash_spec *s, unsigned number, struct vh_err *e)
{
	ERR_AUTO(first);
	int ret = round_try(r, s, number, s->backing, "raw", &first);

	/* Some formats lie on images of their own kind only. */
	if (ret < 0 && !r->made && r->backing) {
		err_clear(&first);
		round_free(r);
		ret = round_try(r, s, number, s->backing, s->format, &first);
	}
	if (ret < 0 && !r->made && r->backing && s->backing < 0) {
		err_clear(&first);
		round_free(r);
		ret = round_try(r, s, number, 0, NULL, &first);
	}
	err_move(e, &first);
	return ret;
}

static int by_time(gconstpointer a, gconstpointer b)
{
	const struct state *x = a, *y = b;

	return x->time != y->time ? (x->time < y->time ? -1 : 1) : x->style < y->style ? -1 : x->style > y->style;
}

/* At most n states: every prefix and twice as many samples, or an even part of them. */
static GArray *states_of(struct round *r, uint64_t n)
{
	GArray *a = g_array_new(FALSE, FALSE, sizeof(struct state));
	struct trace *t = r->trace;
	uint64_t rs = (r->seed ^ 0x1234567) * 0x9e3779b97f4a7c15u | 1, all = (uint64_t)t->n_order + 1, prefixes = MIN(all, (n + 2) / 3);

	for (uint64_t k = 0; k < prefixes; k++) {
		uint64_t at = prefixes == all ? k : k * all / prefixes + crash_below(&rs, MAX(all / prefixes, 1));
		uint32_t from, to;

		/* Some time between two events: what had been promised by then differs, what is in the volumes does not. */
		at = MIN(at, all - 1);
		from = at ? trace_at(t, t->order[at - 1])->applied : 0;
		to = at < t->n_order ? trace_at(t, t->order[at])->applied : t->time + 1;
		struct state x = {.time = k + 1 == prefixes ? t->time : to - 1 - (uint32_t)crash_below(&rs, (to - from) / 2 + 1),
				  .style = STYLE_PREFIX, .seed = crash_rnd(&rs) % 1000000};
		if (x.time < from)
			x.time = from;
		g_array_append_val(a, x);
	}
	while (a->len < MIN(n, 3 * all)) {
		struct state x = {.time = 1 + (uint32_t)crash_below(&rs, t->time),
				  .style = 1 + (unsigned)crash_below(&rs, STYLES - 1), .seed = crash_rnd(&rs) % 1000000};

		g_array_append_val(a, x);
	}
	g_array_sort(a, by_time);
	return a;
}

static int fill(struct round *r, const struct state *x, uint32_t *open, struct vh_err *e)
{
	struct mem m[CRASH_VOLUMES];
	int ret = 0;

	for (unsigned v = 0; v < r->volumes; v++)
		image_init(&m[v]);
	*open = trace_state(r->trace, x->time, x->style, x->seed, m);
	for (unsigned v = 0; v < r->volumes; v++) {
		if (!ret)
			ret = memory_volume_set(r->vols[v], r->fds[v], &m[v], e);
		image_fini(&m[v]);
	}
	oracle_at(r->oracle, x->time);
	return ret;
}

static void about(struct round *r, const struct state *x, uint32_t open, struct crash_result *res, char *text)
{
	const struct oracle_op *last = NULL;
	g_autoptr(GString) flying = g_string_new(NULL);
	uint32_t k, busy = 0;

	for (k = 0; k < r->oracle->ops->len && oracle_op(r->oracle, k)->begun <= x->time; k++) {
		last = oracle_op(r->oracle, k);
		if (last->ended && last->ended <= x->time)
			continue;
		busy++;
		g_string_append_printf(flying, "%s%u %s %u+%u", busy > 1 ? ", " : "", k, oracle_op_name(last), last->c, last->n);
	}
	g_snprintf(res->state, sizeof(res->state), "%u:%u:%s:%llu", r->number, x->time, crash_style_names[x->style],
		   (unsigned long long)x->seed);
	res->fingerprint = trace_fingerprint(r->trace);
	res->text = g_strdup_printf("%s (crash after %u operations began, %u of them in flight: %s; %u events no flush had covered: %s%s)",
				    text, k, busy, busy ? flying->str : "none", open, crash_style_names[x->style], r->backing ? "; on a backing image" : "");
	g_free(text);
}

static int ask_if_qemu_can(struct round *r, struct crash_result *res, struct vh_err *e)
{
	struct state first = {.style = STYLE_PREFIX};
	g_autofree char *why = NULL;
	uint32_t open;
	int ret;

	if (!r->spec->qemu_every || res->qemu_why_not)
		return 0;
	ret = fill(r, &first, &open, e);
	if (!ret)
		ret = qemu_opens(r, &why, e);
	r->no_qemu = why != NULL;
	if (!r->backing)
		res->qemu_why_not = g_steal_pointer(&why);
	return ret;
}

static int look(struct round *r, const struct state *x, struct crash_result *res, struct vh_err *e)
{
	const struct crash_spec *s = r->spec;
	int qemu = s->qemu_every && !res->qemu_why_not && !r->no_qemu && res->states % s->qemu_every == 0, ret;
	uint32_t open;
	char *text = NULL;

	ret = fill(r, x, &open, e);
	if (ret < 0)
		return ret;
	ret = verify_state(r, x->seed, qemu, res, &text, e);
	res->states++;
	res->prefixes += x->style == STYLE_PREFIX;
	res->torn += x->style >= STYLE_TORN;
	res->lost += x->style != STYLE_PREFIX && x->style < STYLE_TORN;
	if (ret <= 0)
		return ret;
	about(r, x, open, res, text);
	if (s->keep && fill(r, x, &open, e) >= 0 && state_keep(r, s->keep, res, e) < 0)
		return err_set(e, -EIO, "state %s is wrong (%s), and cannot be kept", res->state, res->text);
	return 1;
}

static void count(const struct round *r, struct crash_result *res)
{
	res->rounds++;
	res->operations += r->operations;
	for (uint32_t k = 0; k < r->trace->events->len; k++)
		*(trace_at(r->trace, k)->op == VH_FLUSH ? &res->flushes : &res->writes) += 1;
}

static int parse_only(const char *only, unsigned *number, struct state *x, struct vh_err *e)
{
	g_auto(GStrv) part = g_strsplit(only, ":", 5);

	if (g_strv_length(part) == 4)
		for (x->style = 0; x->style < STYLES; x->style++)
			if (!strcmp(part[2], crash_style_names[x->style])) {
				*number = (unsigned)strtoul(part[0], NULL, 10);
				x->time = (uint32_t)strtoul(part[1], NULL, 10);
				x->seed = strtoull(part[3], NULL, 10);
				return 0;
			}
	return err_usage(e, "\"%s\" is no state: it has the form ROUND:TIME:KIND:SEED, as a failure prints it", only);
}

/* A load that fails is the format's failure too; one that could not be made is ours. */
static int load_failed(struct round *r, struct crash_result *res, int ret, struct vh_err *e)
{
	if (!r->broken || !e)
		return err_context(e, "round %u of seed %llu", r->number, (unsigned long long)r->spec->seed), ret;
	g_snprintf(res->state, sizeof(res->state), "%u:0:prefix:0", r->number);
	res->text = g_strdup_printf("before any crash: %s", e->cause);
	res->fingerprint = r->trace ? trace_fingerprint(r->trace) : 0;
	err_clear(e);
	return 1;
}

static int run_only(const struct crash_spec *s, struct crash_result *res, struct vh_err *e)
{
	struct round r = {0};
	struct state x = {0};
	unsigned number = 0;
	int ret = parse_only(s->only, &number, &x, e);

	if (!ret) {
		ret = round_begin(&r, s, number, e);
		if (ret < 0)
			ret = load_failed(&r, res, ret, e);
	}
	if (!ret && x.time > r.trace->time)
		ret = err_set(e, -ERANGE, "state %s: the record of this round ends at %u", s->only, r.trace->time);
	if (!ret) {
		count(&r, res);
		ret = look(&r, &x, res, e);
		res->fingerprint = trace_fingerprint(r.trace);
	}
	round_free(&r);
	return ret;
}

int crash_run(const struct crash_spec *s, struct crash_result *res, struct vh_job *j, struct vh_err *e)
{
	uint64_t each = MAX(s->states / ROUNDS_AT_LEAST, 60);
	int ret = 0;

	memset(res, 0, sizeof(*res));
	if (s->bytes % CRASH_SECTOR || s->bytes > UINT64_C(1) << 32)
		return err_set(e, -EINVAL, "the disk's size must be a multiple of 512, and at most 4G");
	if (s->qemu_every)
		res->qemu_why_not = qemu_why_not(s->format);
	if (s->only)
		return run_only(s, res, e);
	for (unsigned number = 0; res->states < s->states && !ret; number++) {
		struct round r = {0};
		GArray *a = NULL;

		ret = round_begin(&r, s, number, e);
		if (ret < 0)
			ret = load_failed(&r, res, ret, e);
		if (!ret) {
			count(&r, res);
			ret = ask_if_qemu_can(&r, res, e);
		}
		if (!ret) {
			a = states_of(&r, MIN(s->states - res->states, each));
		}
		for (guint k = 0; a && k < a->len && !ret; k++) {
			ret = look(&r, &g_array_index(a, struct state, k), res, e);
			job_progress(j, res->states, s->states);
			if (!ret && job_cancelled(j))
				ret = err_set(e, -ECANCELED, "cancelled after %llu states, which were good", (unsigned long long)res->states);
		}
		if (a)
			g_array_free(a, TRUE);
		round_free(&r);
		if (s->trace)
			break;
	}
	return ret;
}
