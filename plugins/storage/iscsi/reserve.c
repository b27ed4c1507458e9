/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Persistent reservations: the only way in which a target itself keeps writers of two hosts apart. A host has one key; each of its
 * sessions registers it, and one of them reserves the LUN with "exclusive access, registrants only". Nobody without the key can
 * then read or write it, whoever that is.
 *
 * What is ours and was taken away stays taken away: whoever broke it may have written. Only a target that has lost its
 * reservations altogether (its generation went back: it was started anew) lets us in again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "iscsi.h"

#define PR_TYPE 6 /* exclusive access, registrants only */
#define DATA 2048

/* One PERSISTENT RESERVE IN: copies what came; its bytes, or an error. */
static int pr_in(struct session *s, const struct lun *l, uint8_t action, uint8_t out[DATA], struct why *w)
{
	const uint8_t cdb[10] = {SCSI_OPCODE_PERSISTENT_RESERVE_IN, action, [7] = DATA >> 8, [8] = DATA & 0xff};
	struct cmd c;
	const uint8_t *d;
	size_t n;
	int ret = cmd_run(s, &c, l->raw, cdb, sizeof(cdb), SCSI_XFER_READ, DATA, NULL, "reading reservations", w);

	if (ret)
		return ret;
	n = cmd_data(&c, &d);
	n = n < DATA ? n : DATA;
	if (n)
		memcpy(out, d, n);
	cmd_end(&c);
	return n < 8 ? why_set(w, -EPROTO, "the target's answer about reservations is too short") : (int)n;
}

static int pr_out(struct session *s, const struct lun *l, uint8_t action, uint64_t key, uint64_t action_key, int keep, struct why *w)
{
	const uint8_t cdb[10] = {SCSI_OPCODE_PERSISTENT_RESERVE_OUT, action, PR_TYPE, [8] = 24};
	uint8_t p[24] = {0};
	struct cmd c;
	int ret;

	is_put(p, key, 8);
	is_put(p + 8, action_key, 8);
	p[20] = keep ? 1 : 0;
	ret = cmd_run(s, &c, l->raw, cdb, sizeof(cdb), SCSI_XFER_WRITE, sizeof(p), p, "reserving the LUN", w);
	if (!ret)
		cmd_end(&c);
	return ret;
}

/* Whether our key is registered, by anyone; *gen. */
static int read_keys(struct session *s, const struct lun *l, uint32_t *gen, struct why *w)
{
	uint8_t d[DATA];
	int n = pr_in(s, l, SCSI_PERSISTENT_RESERVE_READ_KEYS, d, w);
	uint64_t told;

	if (n < 0)
		return n;
	*gen = (uint32_t)is_be(d, 4);
	told = is_be(d + 4, 4);
	for (uint64_t i = 8; i + 8 <= (uint64_t)n && i < told + 8; i += 8)
		if (is_be(d + i, 8) == s->cfg->key)
			return 1;
	return 0;
}

static int read_reservation(struct session *s, const struct lun *l, struct reservation *r, struct why *w)
{
	uint8_t d[DATA];
	int n = pr_in(s, l, SCSI_PERSISTENT_RESERVE_READ_RESERVATION, d, w);

	memset(r, 0, sizeof(*r));
	if (n < 0)
		return n;
	if (n < 24 || is_be(d + 4, 4) < 16)
		return 0;
	r->held = 1;
	r->key = is_be(d + 8, 8);
	r->type = d[21] & 0xf;
	return 0;
}

/* The name of the host that registered `key`, where the target tells. */
static void owner(struct session *s, const struct lun *l, uint64_t key, char *out, size_t cap)
{
	uint8_t d[DATA];
	struct why none = {0};
	int n = pr_in(s, l, SCSI_PERSISTENT_RESERVE_READ_FULL_STATUS, d, &none);
	char name[224] = "";

	for (int i = 8; n > 0 && i + 24 <= n;) {
		uint64_t more = is_be(d + i + 20, 4);
		const uint8_t *id = d + i + 24;

		if (more > (uint64_t)(n - i - 24))
			break;
		if (is_be(d + i, 8) == key && more > 4 && (*id & 0xf) == 5)
			is_text(name, sizeof(name), id + 4, strnlen((const char *)id + 4, (size_t)more - 4));
		i += 24 + (int)more;
	}
	snprintf(out, cap, "%s%s%skey %#018llx%s", name[0] ? "initiator " : "", name, name[0] ? ", " : "", (unsigned long long)key,
		 key >> 48 == 0x5648 ? ", a vhost" : "");
}

static int conflict(struct session *s, const struct lun *l, const char *name, uint64_t key, struct why *w)
{
	char who[400];

	owner(s, l, key, who, sizeof(who));
	why_remedy(w, "stop what uses it there; if that host is gone for good: vhost vol unlock");
	return why_set(w, -EBUSY, "%s is reserved by another host (%s)", name, who);
}

static int enlist(struct session *s, const struct lun *l, struct why *w)
{
	struct why maybe = {0};
	int ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, s->cfg->key, 1, &maybe);

	if (ret == -EOPNOTSUPP) /* it cannot keep them over a loss of power */
		ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, s->cfg->key, 0, w);
	else if (ret && w)
		*w = maybe;
	if (ret == -EOPNOTSUPP)
		why_remedy(w, "set reservation=off for this pool");
	return ret;
}

int reserve_join(struct session *s, const struct lun *l, const char *name, uint32_t *gen, struct why *w)
{
	struct reservation r;
	uint32_t now;
	int ret = read_keys(s, l, &now, w), ours;

	if (ret < 0) {
		if (ret == -EOPNOTSUPP)
			why_remedy(w, "set reservation=off for this pool");
		return ret;
	}
	ours = ret;
	if (*gen && !ours && now >= *gen)
		return why_set(w, -ESTALE, "the reservation of %s was taken away by another host", name);
	ret = read_reservation(s, l, &r, w);
	if (!ret && r.held && r.key != s->cfg->key)
		return conflict(s, l, name, r.key, w);
	if (!ret && *gen && ours && !r.held)
		return why_set(w, -ESTALE, "the reservation of %s was taken away by another host", name);
	if (!ret)
		ret = enlist(s, l, w);
	for (int i = 0; !ret && i < 3; i++) {
		struct why maybe = {0};

		ret = read_reservation(s, l, &r, w);
		if (ret || (r.held && r.key == s->cfg->key))
			break;
		if (r.held) {
			ret = conflict(s, l, name, r.key, w);
			pr_out(s, l, SCSI_PERSISTENT_RESERVE_REGISTER, s->cfg->key, 0, 0, NULL);
			return ret;
		}
		ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_RESERVE, s->cfg->key, 0, 0, &maybe);
		if (ret == -EBUSY) /* somebody was quicker: who? */
			ret = 0;
		else if (ret && w)
			*w = maybe;
	}
	if (!ret && !(r.held && r.key == s->cfg->key))
		ret = read_reservation(s, l, &r, w);
	if (!ret && !(r.held && r.key == s->cfg->key))
		ret = why_set(w, -EBUSY, "%s could not be reserved", name);
	if (!ret && read_keys(s, l, &now, NULL) == 1)
		*gen = now;
	return ret;
}

int reserve_leave(struct session *s, const struct lun *l, struct why *w)
{
	struct reservation r;
	int ret = read_reservation(s, l, &r, w);

	if (ret || !r.held || r.key != s->cfg->key)
		return ret; /* nothing of ours is there any more */
	ret = enlist(s, l, w);
	if (!ret) /* away with the registrations of sessions that are gone, and the reservation is this one's */
		ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_PREEMPT, s->cfg->key, s->cfg->key, 0, w);
	if (!ret)
		ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_RELEASE, s->cfg->key, 0, 0, w);
	if (!ret)
		ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_REGISTER, s->cfg->key, 0, 0, w);
	return ret;
}

int reserve_break(struct session *s, const struct lun *l, struct why *w)
{
	struct reservation r;
	int ret = read_reservation(s, l, &r, w);

	if (ret || !r.held)
		return ret;
	ret = enlist(s, l, w);
	if (!ret && r.key != s->cfg->key) {
		struct why maybe = {0};

		/* The target ends what the other one has under way before it answers, and refuses it from then on; in one step, or, where
		 * it has none for that, in two. */
		ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, s->cfg->key, r.key, 0, &maybe);
		if (ret == -EOPNOTSUPP) {
			ret = pr_out(s, l, SCSI_PERSISTENT_RESERVE_PREEMPT, s->cfg->key, r.key, 0, w);
			if (!ret)
				ret = session_lun_reset(s, l->raw, w);
		} else if (ret && w) {
			*w = maybe;
		}
	}
	return ret ? ret : reserve_leave(s, l, w);
}

int reserve_held(struct session *s, const struct lun *l)
{
	struct why none = {0};
	struct reservation r;

	return !read_reservation(s, l, &r, &none) && r.held;
}
