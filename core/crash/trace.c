/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The record of what happened to an image's volumes, and what a crash may leave of it. */
#include "crash/crash-i.h"

const char *const crash_style_names[STYLES] = {"prefix", "nothing", "some", "reversed", "one", "only", "small", "large", "torn",
					       "torn-one"};

uint64_t crash_rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

struct trace *trace_new(unsigned volumes)
{
	struct trace *t = g_new0(struct trace, 1);

	pthread_mutex_init(&t->lock, NULL);
	t->volumes = volumes;
	t->events = g_array_new(FALSE, TRUE, sizeof(struct trace_event));
	return t;
}

void trace_free(struct trace *t)
{
	if (!t)
		return;
	for (uint32_t k = 0; k < t->events->len; k++)
		g_free(trace_at(t, k)->data);
	g_array_free(t->events, TRUE);
	for (unsigned v = 0; v < t->volumes; v++) {
		image_fini(&t->base[v]); /* shares with start */
		image_fini(&t->start[v]);
	}
	g_free(t->order);
	pthread_mutex_destroy(&t->lock);
	g_free(t);
}

uint32_t trace_now(struct trace *t)
{
	uint32_t now;

	pthread_mutex_lock(&t->lock);
	now = ++t->time;
	pthread_mutex_unlock(&t->lock);
	return now;
}

static int by_applied(gconstpointer a, gconstpointer b, gpointer user)
{
	const struct trace *t = user;
	uint32_t x = trace_at(t, *(const uint32_t *)a)->applied, y = trace_at(t, *(const uint32_t *)b)->applied;

	return x < y ? -1 : x > y;
}

void trace_end(struct trace *t)
{
	t->recording = 0;
	g_free(t->order);
	t->order = g_new(uint32_t, t->events->len + 1);
	t->n_order = 0;
	for (uint32_t k = 0; k < t->events->len; k++)
		if (trace_at(t, k)->op != VH_FLUSH && trace_at(t, k)->applied)
			t->order[t->n_order++] = k;
	g_qsort_with_data(t->order, (gint)t->n_order, sizeof(*t->order), by_applied, t);
	for (unsigned v = 0; v < t->volumes; v++) {
		image_fini(&t->base[v]);
		image_share(&t->base[v], &t->start[v]);
	}
	t->n_base = t->base_time = 0;
}

uint64_t trace_fingerprint(const struct trace *t)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (uint32_t k = 0; k < t->events->len; k++) {
		const struct trace_event *x = trace_at(t, k);
		uint64_t v[] = {x->op, x->vol, x->off, x->len, x->begun, x->applied, x->ended};

		for (unsigned i = 0; i < G_N_ELEMENTS(v); i++)
			h = (h ^ v[i]) * 0x100000001b3u;
	}
	return h;
}

/* When the last flush of a volume that had ended by `time` began: what had ended before that is durable. */
static uint32_t floor_of(const struct trace *t, unsigned vol, uint32_t time)
{
	uint32_t floor = 0;

	for (uint32_t k = 0; k < t->events->len; k++) {
		const struct trace_event *x = trace_at(t, k);

		if (x->begun > time)
			break;
		if (x->op == VH_FLUSH && x->vol == vol && x->ended && x->ended <= time && x->begun > floor)
			floor = x->begun;
	}
	return floor;
}

static int is_durable(const struct trace_event *x, uint32_t floor, uint32_t time)
{
	return x->ended && (x->ended < floor || (x->durable && x->ended <= time));
}

/* torn: so many of a hundred sectors are kept; 0: all. */
static void apply(struct mem *m, const struct trace_event *x, uint64_t *rs, unsigned torn)
{
	uint64_t n;

	if (x->op == TRACE_RESIZE) {
		image_resize(m, x->len);
		return;
	}
	if (x->op != VH_DISCARD && x->off + x->len > m->bytes)
		image_resize(m, x->off + x->len);
	for (uint64_t o = 0; o < x->len; o += n) {
		n = torn ? MIN(CRASH_SECTOR - (x->off + o) % CRASH_SECTOR, x->len - o) : x->len;
		if (torn && crash_rnd(rs) % 100 >= torn)
			continue;
		if (x->op == VH_WRITE)
			image_write(m, x->off + o, x->data + o, n);
		else
			image_zero(m, x->off + o, n);
	}
}

/* Which of the n open events happen: out gets indices below n, ascending; how many is returned. */
static uint32_t choose(const struct trace *t, const uint32_t *open, uint32_t n, enum crash_style style, uint64_t *rs, uint32_t *out)
{
	uint32_t k, m = 0, one = (uint32_t)crash_below(rs, n), percent = 10 + (uint32_t)crash_below(rs, 80);

	for (k = 0; k < n; k++) {
		const struct trace_event *x = trace_at(t, open[k]);
		int large = x->op == VH_WRITE && x->len > 4096, keep = 1;

		switch (style) {
		case STYLE_NOTHING:
			keep = 0;
			break;
		case STYLE_SOME:
		case STYLE_TORN:
			keep = crash_rnd(rs) % 100 < percent;
			break;
		case STYLE_ONE:
			keep = k != one;
			break;
		case STYLE_ONLY:
			keep = k == one;
			break;
		case STYLE_REVERSED:
			keep = k >= one;
			break;
		case STYLE_SMALL:
			keep = !large;
			break;
		case STYLE_LARGE:
			keep = large;
			break;
		default:
			break;
		}
		if (keep)
			out[m++] = k;
	}
	return m;
}

uint32_t trace_state(struct trace *t, uint32_t time, enum crash_style style, uint64_t seed, struct mem *out)
{
	uint64_t rs = (seed ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u | 1;
	uint32_t floors[CRASH_VOLUMES], k, n = 0, chosen, at = 0;
	g_autofree uint32_t *open = NULL, *pick = NULL;
	uint32_t one;

	for (unsigned v = 0; v < t->volumes; v++)
		floors[v] = floor_of(t, v, time);
	if (time < t->base_time)
		trace_end(t); /* back in time: from the beginning */
	t->base_time = time;
	for (; t->n_base < t->n_order; t->n_base++) {
		const struct trace_event *x = trace_at(t, t->order[t->n_base]);

		if (x->applied > time || !is_durable(x, floors[x->vol], time))
			break;
		apply(&t->base[x->vol], x, &rs, 0);
	}
	for (unsigned v = 0; v < t->volumes; v++)
		image_share(&out[v], &t->base[v]);
	open = g_new(uint32_t, t->n_order - t->n_base + 1);
	pick = g_new(uint32_t, t->n_order - t->n_base + 1);
	for (k = t->n_base; k < t->n_order && trace_at(t, t->order[k])->applied <= time; k++)
		if (!is_durable(trace_at(t, t->order[k]), floors[trace_at(t, t->order[k])->vol], time))
			open[n++] = t->order[k];
	chosen = choose(t, open, n, style, &rs, pick);
	one = (uint32_t)crash_below(&rs, chosen);
	for (k = t->n_base; k < t->n_order && trace_at(t, t->order[k])->applied <= time; k++) {
		const struct trace_event *x = trace_at(t, t->order[k]);
		unsigned torn = 0;

		if (!is_durable(x, floors[x->vol], time)) {
			if (at == chosen || open[pick[at]] != t->order[k])
				continue;
			if (style == STYLE_TORN || (style == STYLE_TORN_ONE && at == one))
				torn = 60;
			at++;
		}
		apply(&out[x->vol], x, &rs, torn);
	}
	return n;
}
