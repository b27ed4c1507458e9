/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Values as people type them. All return 0 or -EINVAL/-ERANGE with a text that quotes the value. */
#ifndef UTIL_PARSE_H
#define UTIL_PARSE_H

#include "util/err.h"

int parse_size(const char *s, uint64_t *out, struct vh_err *e);     /* 512, 4K, 10G, 1.5T */
int parse_int(const char *s, int64_t *out, struct vh_err *e);       /* decimal or 0x */
int parse_bool(const char *s, int *out, struct vh_err *e);          /* on off yes no true false 1 0 */
int parse_duration(const char *s, uint64_t *ns, struct vh_err *e);  /* 10ms 5s 2min */
int parse_mac(const char *s, uint8_t mac[6], struct vh_err *e);     /* unicast only */
char *format_size(uint64_t bytes);                                  /* "1.5 GiB"; g_free */
/* The nearest of a NULL-terminated list within a third of its length (edit distance), or NULL: for "did you mean". */
const char *nearest(const char *word, const char *const *list);

/* "main,key=value,key=value": parts split at commas, doubled commas are literal. */
struct kv { char *key, *value; }; /* key NULL: a first part without '=' */
struct kvs { struct kv *v; unsigned n; };
int kvs_parse(const char *s, struct kvs *out, struct vh_err *e);
const char *kvs_get(const struct kvs *k, const char *key); /* first one, or NULL */
void kvs_clear(struct kvs *k);

#endif
