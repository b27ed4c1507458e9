/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The addresses and routes of an interface, as the kernel's own messages, so that nothing of them is lost: flags, lifetimes,
 * scopes, labels, metrics, protocols, tables. They can be put on another interface, and written as text.
 */
#ifndef NET_COMMON_RTSET_H
#define NET_COMMON_RTSET_H

#include <stdio.h>

#include "nl.h"
#include "step.h"

struct rtset {
	struct nlmsghdr **msg; /* addresses, then routes, each in the kernel's order */
	unsigned n, cap, addrs;
	int bad;               /* -errno while it was filled */
};

/* Addresses, and every unicast route through it, of any table but `local`. */
int rtset_get(struct nl *nl, int ifindex, struct rtset *s);
void rtset_free(struct rtset *s);
/* Each may also be there, or gone, already: 0, or the first other failure. The names are for labels. refused (may be NULL, then it is
 * a failure): counts batches with routes that the kernel does not take for what they are. */
int rtset_add(struct nl *nl, const struct rtset *s, int from, int to, const char *from_name, const char *to_name, unsigned *refused);
int rtset_remove(struct nl *nl, const struct rtset *s, int ifindex);
/* Removes the routes that the kernel made by itself for addresses that are there now, and that are in neither set (b may be NULL). */
int rtset_trim(struct nl *nl, const struct rtset *a, const struct rtset *b, int from, int to);
/* Leaves out what the kernel made for the interface by itself: link-local addresses, and routes of networks, but those that `keep`
 * has and those of addresses that it does not have. */
void rtset_drop_own(struct rtset *s, const struct rtset *keep);
void rtset_age(struct rtset *s, uint32_t seconds); /* lifetimes become shorter; what is over goes */
/* A route that cannot be moved, for it is made of a nexthop object, which others may use too; NULL: none. */
const struct nlmsghdr *rtset_unmovable(const struct rtset *s);
int rtset_has_other(const struct rtset *s, const struct rtset *known); /* an address, not link-local, that `known` does not have */
/* For people: "route 192.0.2.0/24 via 10.0.0.1". */
void rtset_text(const struct nlmsghdr *h, char *out, size_t cap);
void rtset_write(const struct rtset *s, FILE *f);  /* a line each: "nl HEX" */
int rtset_read_line(struct rtset *s, const char *line); /* 1: it was one, 0: another, -errno */

#endif
