/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A network's table of nftables, made and replaced in one transaction. A base chain can forbid what other tables allow, but
 * not allow what they forbid: what is dropped here stays dropped, and table_obstacles() tells what others drop.
 */
#include "nat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/sugar.h>

#include "fault.h"

/* *out (may be NULL) is the output, to be freed; text gets the first line of the complaint. */
static int run(const char *cmd, int stateless, char **out, char *text, size_t cap)
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	const char *said;
	int r;

	if (text)
		snprintf(text, cap, "no memory");
	if (!nft)
		return -ENOMEM;
	nft_ctx_buffer_error(nft);
	nft_ctx_buffer_output(nft);
	if (stateless)
		nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_STATELESS | NFT_CTX_OUTPUT_TERSE);
	errno = 0;
	r = nft_run_cmd_from_buffer(nft, cmd);
	if (r) {
		r = errno == EPERM || errno == EACCES || errno == ENOENT || errno == EOPNOTSUPP ? -errno : -EIO;
		said = nft_ctx_get_error_buffer(nft);
		if (text && said && *said)
			snprintf(text, cap, "%.*s", (int)strcspn(said, "\n"), said);
	} else if (out) {
		said = nft_ctx_get_output_buffer(nft);
		*out = strdup(said ? said : "");
		r = *out ? 0 : -ENOMEM;
	}
	nft_ctx_free(nft);
	return r;
}

/* In and out by the network's own addresses only, out to anywhere but other guests, in only as an answer or by forward=. */
static void forward_chain(FILE *f, const struct nat_want *w, const char *net4, const char *net6)
{
	const char *b = w->bridge;

	fprintf(f, "chain forward {\ntype filter hook forward priority filter; policy accept;\n");
	/* Bridged frames come here as well, where br_netfilter is on. */
	fprintf(f, "iifname \"%s\" oifname \"%s\" accept\n", b, b);
	if (w->nat) {
		fprintf(f, "oifname \"%s\" ct state established,related accept\n", b);
		fprintf(f, "oifname \"%s\" ct status dnat accept\n", b);
		fprintf(f, "oifname \"%s\" drop\n", b);
		fprintf(f, "iifname \"%s\" ip saddr != %s drop\n", b, net4);
		/* It would leave under its own address: what belongs to no connection is not masqueraded. */
		fprintf(f, "iifname \"%s\" ct state invalid drop\n", b);
		if (w->a6.family)
			fprintf(f, "iifname \"%s\" ip6 saddr != %s drop\n", b, net6);
		else
			fprintf(f, "iifname \"%s\" meta nfproto ipv6 drop\n", b);
	} else {
		fprintf(f, "iifname \"%s\" drop\noifname \"%s\" drop\n", b, b);
	}
	fprintf(f, "}\n");
}

/* Of the host an isolated guest sees the address in its own network, and no other. */
static void input_chain(FILE *f, const struct nat_want *w, const char *broadcast)
{
	char own[INET6_ADDRSTRLEN];

	fprintf(f, "chain input {\ntype filter hook input priority filter; policy accept;\n");
	if (w->a4.family) {
		snprintf(own, sizeof(own), "%.*s", (int)strcspn(w->text4, "/"), w->text4);
		fprintf(f, "iifname \"%s\" ip daddr != { %s, %s, 255.255.255.255, 224.0.0.0/4 } drop\n", w->bridge, own, broadcast);
	} else {
		fprintf(f, "iifname \"%s\" meta nfproto ipv4 drop\n", w->bridge);
	}
	if (w->a6.family) {
		snprintf(own, sizeof(own), "%.*s", (int)strcspn(w->text6, "/"), w->text6);
		fprintf(f, "iifname \"%s\" ip6 daddr != { %s, fe80::/10, ff00::/8 } drop\n", w->bridge, own);
	} else {
		fprintf(f, "iifname \"%s\" meta nfproto ipv6 drop\n", w->bridge);
	}
	fprintf(f, "}\n");
}

static void forwards(FILE *f, const struct nat_want *w, const char *match)
{
	for (uint32_t i = 0; i < w->opts->n; i++) {
		const struct vh_val *v = w->opts->val[i];
		struct nat_forward t;

		if (strcmp(v->name, "forward") || want_forward(v->str, &t) < 0)
			continue;
		fprintf(f, "%s meta nfproto %s fib daddr type local %s dport %u dnat %s to %s%s%s:%u\n", match,
			t.family == AF_INET ? "ipv4" : "ipv6", t.proto, t.port, t.family == AF_INET ? "ip" : "ip6",
			t.family == AF_INET ? "" : "[", t.addr, t.family == AF_INET ? "" : "]", t.to_port);
	}
}

static void nat_chains(FILE *f, const struct nat_want *w, const char *net4, const char *net6)
{
	char match[64];

	fprintf(f, "chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n");
	fprintf(f, "ip saddr %s oifname != \"%s\" masquerade\n", net4, w->bridge);
	if (w->a6.family)
		fprintf(f, "ip6 saddr %s oifname != \"%s\" masquerade\n", net6, w->bridge);
	fprintf(f, "}\n");
	if (!vh_opt_get(w->opts, "forward"))
		return;
	snprintf(match, sizeof(match), "iifname != \"%s\"", w->bridge);
	fprintf(f, "chain prerouting {\ntype nat hook prerouting priority dstnat; policy accept;\n");
	forwards(f, w, match);
	/* The host itself, by any address of its own but the loopback's, whose packets cannot leave. */
	fprintf(f, "}\nchain output {\ntype nat hook output priority -100; policy accept;\n");
	fprintf(f, "ip daddr 127.0.0.0/8 accept\nip6 daddr ::1 accept\n");
	forwards(f, w, "");
	fprintf(f, "}\n");
}

static char *ruleset(const struct nat_want *w, const char *owner)
{
	char net4[NAT_ADDR_TEXT] = "", net6[NAT_ADDR_TEXT] = "", broadcast[INET_ADDRSTRLEN] = "", *text = NULL;
	struct in_addr a;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	if (w->a4.family) {
		want_net4(w, net4);
		memcpy(&a, w->a4.addr, sizeof(a));
		a.s_addr |= htonl(UINT32_MAX >> w->a4.prefix);
		inet_ntop(AF_INET, &a, broadcast, sizeof(broadcast));
	}
	if (w->a6.family)
		want_net6(w, net6);
	/* The first line only so that there is one to delete. */
	fprintf(f, "table inet vhost_%s { comment \"%s\"; }\ndelete table inet vhost_%s\n", w->bridge, owner, w->bridge);
	fprintf(f, "table inet vhost_%s {\ncomment \"%s\"\n", w->bridge, owner);
	forward_chain(f, w, net4, net6);
	if (w->nat)
		nat_chains(f, w, net4, net6);
	else
		input_chain(f, w, broadcast);
	fprintf(f, "}\n");
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

#define OWNER_LATER "\001" /* no tag has it */

char *table_text(const struct nat_want *w)
{
	return ruleset(w, OWNER_LATER);
}

/* The same rules with the tag in its places. NULL: no memory. */
static char *with_owner(const char *rules, const char *owner)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (; *rules; rules++)
		if (*rules == OWNER_LATER[0])
			fputs(owner, f);
		else
			fputc(*rules, f);
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}

int table_again(const char *bridge, const char *rules, const char *owner, struct vh_err *e)
{
	char why[256] = "", *text;
	int r;

	/* The tag becomes part of a text: nothing that could end the string that it is in. Nor more than a comment holds. */
	if (strspn(owner, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@._:-") != strlen(owner) || strlen(owner) > 127)
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", owner);
	text = rules ? with_owner(rules, owner) : NULL;
	if (!text)
		return net_host->err(e, -ENOMEM, "no memory for the rules of bridge %s", bridge);
	r = NET_FAULT("nft");
	if (!r)
		r = run(text, 0, NULL, why, sizeof(why));
	if (!r)
		r = NET_FAULT("nft answer");
	free(text);
	if (!r)
		return 0;
	if (r == -EPERM || r == -EACCES)
		net_host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
	else
		net_host->remedy(e, "load the modules with 'modprobe -a nft_masq nft_nat nft_fib_inet', or see whether 'nft list ruleset' works");
	return net_host->err(e, r, "cannot install the table vhost_%s: %s", bridge, why[0] ? why : strerror(-r));
}

int table_put(const struct nat_want *w, const char *owner, struct vh_err *e)
{
	char *rules = table_text(w);
	int r = table_again(w->bridge, rules, owner, e);

	free(rules);
	return r;
}

int table_exists(const char *bridge)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "list table inet vhost_%s", bridge);
	return !run(cmd, 1, NULL, NULL, 0);
}

int table_remove(const char *bridge)
{
	char cmd[64];
	int r;

	snprintf(cmd, sizeof(cmd), "delete table inet vhost_%s", bridge);
	r = NET_FAULT("nft");
	if (!r)
		r = run(cmd, 0, NULL, NULL, 0);
	if (!r)
		r = NET_FAULT("nft answer");
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

struct chain {
	char family[16], table[64], name[64];
};

static void tell(const struct chain *c, const char *hook, const struct nat_want *w, void (*fn)(void *ctx, const char *text),
		 void *ctx)
{
	char text[224];

	if (!strcmp(hook, "input"))
		snprintf(text, sizeof(text), "%.30s %.30s drops by default what comes in: allow 'iifname %s udp dport { 53, 67, 547 }' there",
			 c->table, c->name, w->bridge);
	else if (!strcmp(c->table, "firewalld"))
		snprintf(text, sizeof(text), "firewalld may reject what is forwarded: 'firewall-cmd --zone=trusted --add-interface=%s'", w->bridge);
	else
		snprintf(text, sizeof(text), "%.30s %.30s drops by default what is forwarded (Docker does that): "
			 "'iptables -I FORWARD -i %s -j ACCEPT', and the same with -o", c->table, c->name, w->bridge);
	fn(ctx, text);
}

int table_obstacles(const struct nat_want *w, void (*fn)(void *ctx, const char *text), void *ctx)
{
	char *out = NULL, *save = NULL, hook[32], policy[16];
	struct chain c = { 0 };
	int n = 0, r = run("list chains", 1, &out, NULL, 0);

	for (char *line = r ? NULL : strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "table %15s %63s {", c.family, c.table) == 2 || sscanf(line, " chain %63s {", c.name) == 1)
			continue;
		if (sscanf(line, " type filter hook %31s priority %*[^;]; policy %15[a-z];", hook, policy) != 2 ||
		    !strncmp(c.table, "vhost_", 6) || !strcmp(c.family, "bridge") || !strcmp(c.family, "arp") || !strcmp(c.family, "netdev"))
			continue;
		if (strcmp(policy, "drop") && strcmp(c.table, "firewalld"))
			continue;
		if ((!strcmp(hook, "forward") && w->nat) || (!strcmp(hook, "input") && (w->dhcp || w->dns) && !strcmp(policy, "drop"))) {
			tell(&c, hook, w, fn, ctx);
			n++;
		}
	}
	free(out);
	return r < 0 ? r : n;
}
