/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The guard over frames of any bytes: it reads no byte it was not given, and what it lets pass is the guest's own. */
#include <stdlib.h>
#include <string.h>
#include "net/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int cond)
{
	if (!cond)
		abort();
}

/* The judgement on a copy of exactly the bytes it may read. */
static enum guard_verdict judge(const struct guard *g, const uint8_t *hdr, const uint8_t *frame, size_t have, size_t len)
{
	uint8_t *copy = malloc(have ? have : 1);
	enum guard_verdict v;

	must(copy != NULL);
	memcpy(copy, frame, have);
	v = guard_check(g, hdr, copy, have, len);
	free(copy);
	return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guard g;
	const uint8_t *f, *p;
	enum guard_verdict v, whole;
	size_t n, most, at = 12;

	if (!g.n_addrs)
		must(!guard_add(&g, "192.0.2.5", NULL) && !guard_add(&g, "2001:db8::5", NULL));
	if (size < 1 + 12 + 14)
		return 0;
	memcpy(g.mac, "\2\0\0\0\0\1", 6);
	g.mode = data[0] & 1 ? GUARD_MAC : GUARD_FULL;
	g.tags = data[0] >> 1 & 1;
	f = data + 13;
	n = size - 13;
	most = n < GUARD_MOST ? n : GUARD_MOST;
	whole = judge(&g, data + 1, f, most, n);
	must(whole != GUARD_MORE && whole < GUARD_VERDICTS);
	v = judge(&g, data + 1, f, n < GUARD_FIRST ? n : GUARD_FIRST, n);
	must(v == GUARD_MORE || v == whole);
	if (whole != GUARD_PASS)
		return 0;
	must(!memcmp(f + 6, g.mac, 6));
	for (; f[at] == 0x81 && f[at + 1] == 0; at += 4)
		must(g.tags);
	/* The host's checksum leaves the addresses alone. */
	if (data[1] & 1)
		must((size_t)(data[7] | data[8] << 8) + (size_t)(data[9] | data[10] << 8) >= 14);
	if (g.mode == GUARD_MAC)
		return 0;
	p = f + at + 2;
	if (f[at] == 8 && f[at + 1] == 0)
		must(!memcmp(p + 12, "\xc0\0\2\5", 4) || !memcmp(p + 12, "\0\0\0\0", 4));
	if (f[at] == 8 && f[at + 1] == 6)
		must(!memcmp(p + 8, g.mac, 6) && (!memcmp(p + 14, "\xc0\0\2\5", 4) || !memcmp(p + 14, "\0\0\0\0", 4)));
	if (f[at] == 0x86 && f[at + 1] == 0xdd && p[6] == 58) /* without extensions it is easy to tell */
		must(p[40] != 134 && p[40] != 137);
	return 0;
}
