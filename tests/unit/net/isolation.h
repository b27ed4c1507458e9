/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The isolation proof's model and traffic: ends of one switch (taps, and the wire of the uplink), what each is allowed, frames of every
 * kind from each to each, and whether what arrived is exactly what may. The model is written from IEEE 802.1Q, not from the plugin.
 */
#ifndef TEST_ISOLATION_H
#define TEST_ISOLATION_H

#include <stdint.h>

#define ENDS_MAX 48u
#define TAGS_MAX 4u

struct tag {
	uint16_t proto, id;
};

struct end {
	int fd;
	int wire;     /* a packet socket on the far end of the uplink, not a tap */
	int side;     /* which host's switch: the wire is a side of its own */
	int device;   /* that side is built of VLAN devices */
	uint16_t pvid;
	uint8_t member[4096]; /* 0: not, 1: untagged, 2: tagged */
	uint16_t home; /* the VLAN it speaks by itself */
	uint8_t mac[6];
};

struct proof {
	struct end end[ENDS_MAX];
	unsigned n;
	uint16_t proto; /* of the switch's tags */
	int quiet;      /* mistakes are planted: do not tell each */
	int plain_only; /* no forged addresses: two switches do not learn them at the same moment */
	unsigned frames, deliveries, wrong;
};

/* What the ends know of each other's addresses first; then every kind of frame from each to each (every step-th pair). Returns how
 * many arrivals were wrong: missing, forbidden, twice, or with other tags. */
unsigned proof_run(struct proof *p, unsigned step);
void proof_mac(unsigned i, uint8_t mac[6]);

#endif
