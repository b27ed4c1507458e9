/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A network's parts as a picture: lines for a terminal, Graphviz, SVG with a layout of our own. */
#include <string.h>
#include "cmd/net.h"

/* The next part below the same one, or -1. */
static int sibling(const struct network_parts *p, unsigned i)
{
	for (unsigned k = i + 1; k < p->n; k++)
		if (p->v[k].parent == p->v[i].parent)
			return (int)k;
	return -1;
}

static int first_child(const struct network_parts *p, int parent)
{
	for (unsigned k = 0; k < p->n; k++)
		if (p->v[k].parent == parent)
			return (int)k;
	return -1;
}

/* The next part in the order of drawing, from the top down: first what hangs below it, then what is beside it, or -1. */
static int next_part(const struct network_parts *p, int i)
{
	int k = first_child(p, i);

	for (; k < 0 && i >= 0; i = p->v[i].parent)
		k = sibling(p, (unsigned)i);
	return k;
}

void net_draw_text(FILE *f, const struct network_parts *p)
{
	g_autoptr(GString) stems = g_string_new(NULL); /* one per level: '|' while more comes there */

	for (int i = p->n ? first_child(p, -1) : -1; i >= 0; i = next_part(p, i)) {
		const struct network_part *v = &p->v[i];
		g_autofree char *text = net_part_text(v);
		int more = sibling(p, (unsigned)i) >= 0;

		g_string_truncate(stems, v->depth);
		for (unsigned k = 1; k < v->depth; k++)
			fputs(stems->str[k] == '|' ? "│  " : "   ", f);
		if (v->depth)
			fputs(more ? "├─ " : "└─ ", f);
		fprintf(f, "%s  (%s)\n", v->name, text);
		g_string_append_c(stems, more ? '|' : ' ');
	}
}

static void dot_quoted(FILE *f, const char *s)
{
	putc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putc('\\', f);
		putc(*s, f);
	}
	putc('"', f);
}

void net_draw_dot(FILE *f, const char *title, const struct network_parts *p)
{
	fputs("graph network {\n\tlabel=", f);
	dot_quoted(f, title);
	fputs(";\n\tnode [shape=box, fontname=\"sans-serif\"];\n", f);
	for (unsigned i = 0; i < p->n; i++) {
		g_autofree char *text = net_part_text(&p->v[i]);

		fprintf(f, "\tn%u [label=", i);
		dot_quoted(f, p->v[i].name);
		fputs(", tooltip=", f);
		dot_quoted(f, text);
		fprintf(f, ", xlabel=");
		dot_quoted(f, text);
		fprintf(f, "%s];\n", p->v[i].ifindex && !p->v[i].up ? ", style=dashed" : "");
		if (p->v[i].parent >= 0)
			fprintf(f, "\tn%d -- n%u;\n", p->v[i].parent, i);
	}
	fputs("}\n", f);
}

/* ---- SVG: a level a row; a part stands above the middle of what hangs below it ---- */

#define BOX_W 200
#define BOX_H 54
#define GAP_X 24
#define GAP_Y 46
#define TOP 56
#define SIDE 20
#define CHARS 30 /* of the small text in a box */

static void xml(FILE *f, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '&': fputs("&amp;", f); break;
		case '<': fputs("&lt;", f); break;
		case '>': fputs("&gt;", f); break;
		case '"': fputs("&quot;", f); break;
		default: putc(*s, f);
		}
}

static char *shortened(const char *s)
{
	if (g_utf8_strlen(s, -1) <= CHARS)
		return g_strdup(s);
	g_autofree char *head = g_utf8_substring(s, 0, CHARS - 1);

	return g_strconcat(head, "…", NULL);
}

/* Columns: the leaves from left to right, in the order of drawing. Parts come before what hangs below them, so the others are
 * known from the end on. */
static unsigned layout(const struct network_parts *p, double *column)
{
	g_autofree double *sum = g_new0(double, p->n + 1);
	g_autofree unsigned *n = g_new0(unsigned, p->n + 1);
	unsigned leaves = 0;

	for (int i = p->n ? first_child(p, -1) : -1; i >= 0; i = next_part(p, i))
		if (first_child(p, i) < 0)
			column[i] = leaves++;
	for (unsigned i = p->n; i-- > 0;) {
		if (n[i])
			column[i] = sum[i] / n[i];
		if (p->v[i].parent >= 0) {
			sum[p->v[i].parent] += column[i];
			n[p->v[i].parent]++;
		}
	}
	return leaves;
}

static const char *colour(const struct network_part *p)
{
	static const struct { const char *kind, *fill; } all[] = {{"uplink", "#dbe9f6"}, {"bridge", "#e3f1dc"}, {"vlan", "#f7edd0"},
		{"port", "#ffffff"}, {"macvtap", "#ffffff"}, {"service", "#efe3f3"}};

	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
		if (!strcmp(p->kind, all[i].kind))
			return all[i].fill;
	return "#f2f2f2";
}

static int left(double column)
{
	return SIDE + (int)(column * (BOX_W + GAP_X));
}

static int top(const struct network_part *p)
{
	return TOP + (int)p->depth * (BOX_H + GAP_Y);
}

static void svg_part(FILE *f, const struct network_parts *p, unsigned i, const double *column)
{
	const struct network_part *v = &p->v[i];
	g_autofree char *text = net_part_text(v), *cut = shortened(text), *name = shortened(v->name);
	int x = left(column[i]), y = top(v);

	if (v->parent >= 0) {
		int px = left(column[v->parent]) + BOX_W / 2, py = top(&p->v[v->parent]) + BOX_H;

		fprintf(f, "<path d=\"M%d %dV%dH%dV%d\" fill=\"none\" stroke=\"#555\"/>\n", px, py, y - GAP_Y / 2, x + BOX_W / 2, y);
	}
	fprintf(f, "<g><title>");
	xml(f, text);
	fprintf(f, "</title><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"5\" fill=\"%s\" stroke=\"#555\"%s/>\n", x, y, BOX_W, BOX_H,
		colour(v), v->ifindex && !v->up ? " stroke-dasharray=\"5 4\"" : "");
	fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" font-weight=\"bold\">", x + BOX_W / 2, y + 22);
	xml(f, name);
	fprintf(f, "</text>\n<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" font-size=\"11\">", x + BOX_W / 2, y + 41);
	xml(f, cut);
	fputs("</text></g>\n", f);
}

void net_draw_svg(FILE *f, const char *title, const struct network_parts *p)
{
	g_autofree double *column = g_new0(double, p->n + 1);
	unsigned leaves = layout(p, column), depth = 0, w;

	for (unsigned i = 0; i < p->n; i++)
		depth = MAX(depth, p->v[i].depth + 1);
	w = 2 * SIDE + MAX(leaves, 2) * (BOX_W + GAP_X) - GAP_X;
	fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" font-family=\"sans-serif\" font-size=\"14\">\n"
		   "<title>", w, TOP + depth * (BOX_H + GAP_Y));
	xml(f, title);
	fprintf(f, "</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"32\" font-size=\"18\">", SIDE);
	xml(f, title);
	fputs("</text>\n", f);
	for (unsigned i = 0; i < p->n; i++)
		svg_part(f, p, i, column);
	fputs("</svg>\n", f);
}
