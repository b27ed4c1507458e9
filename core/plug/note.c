/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The identity note of a plugin file: who it says it is, read without running any of it. The file may be hostile. */
#include <elf.h>
#include <glib.h>
#include <string.h>
#include "plug/impl.h"

#define NOTE_SEGMENT_MAX 65536u
#define VH_DESC_SIZE (sizeof(struct vh_note) - offsetof(struct vh_note, major))

int note_id_valid(const char *id, size_t cap)
{
	size_t n = strnlen(id, cap);

	if (!n || n == cap || id[0] == '-')
		return 0;
	for (size_t i = 0; i < n; i++)
		if (!g_ascii_islower(id[i]) && !g_ascii_isdigit(id[i]) && id[i] != '-')
			return 0;
	return 1;
}

/* One VHOST descriptor. */
static int take_vhost(const uint8_t *desc, uint32_t len, struct plug_ident *out, struct vh_err *e)
{
	struct plug_ident n;

	if (len < VH_DESC_SIZE)
		return err_set(e, -ENOEXEC, "its identity note is cut short (%u bytes of %zu)", len, VH_DESC_SIZE);
	memset(&n, 0, sizeof(n));
	memcpy(&n.major, desc, 4);
	memcpy(&n.minor, desc + 4, 4);
	memcpy(&n.draft, desc + 8, 4);
	memcpy(&n.kinds, desc + 12, 4);
	memcpy(n.id, desc + 16, VH_ID_MAX);
	if (!note_id_valid(n.id, VH_ID_MAX))
		return err_set(e, -ENOEXEC, "its identity note has no valid id ([a-z0-9][a-z0-9-]*, at most %d bytes)",
			       VH_ID_MAX - 1);
	if (out->majors && n.major == VH_ABI_MAJOR && out->major == VH_ABI_MAJOR)
		return err_set(e, -ENOEXEC, "it has two identity notes for ABI %u", VH_ABI_MAJOR);
	/* Of several majors, ours is the one that counts. */
	if (!out->majors || n.major == VH_ABI_MAJOR) {
		out->major = n.major;
		out->minor = n.minor;
		out->draft = n.draft;
		out->kinds = n.kinds;
		memcpy(out->id, n.id, VH_ID_MAX);
	}
	out->majors++;
	return 0;
}

static int walk_segment(const uint8_t *buf, uint64_t len, uint64_t align, struct plug_ident *out, struct vh_err *e)
{
	uint64_t at = 0;

	align = align == 8 ? 8 : 4;
	while (at < len && len - at >= 12) {
		uint32_t h[3];
		uint64_t desc, end;

		memcpy(h, buf + at, 12);
		/* Sums of 32-bit sizes and offsets below 64 KiB do not overflow 64 bits. */
		desc = (at + 12 + h[0] + align - 1) & ~(align - 1);
		end = desc + h[1];
		if (desc > len || end > len)
			return 0; /* a damaged tail: what came before it stands */
		if (h[0] == sizeof(VH_NOTE_OWNER) && h[2] == VH_NOTE_TYPE &&
		    !memcmp(buf + at + 12, VH_NOTE_OWNER, sizeof(VH_NOTE_OWNER))) {
			int r = take_vhost(buf + desc, h[1], out, e);

			if (r < 0)
				return r;
		} else if (h[0] == 4 && h[2] == NT_GNU_BUILD_ID && !memcmp(buf + at + 12, "GNU", 4)) {
			out->build_id_len = (uint32_t)MIN(h[1], sizeof(out->build_id));
			memcpy(out->build_id, buf + desc, out->build_id_len);
		}
		at = (end + align - 1) & ~(align - 1);
	}
	return 0;
}

int note_read(struct elf_src *s, struct plug_ident *out, struct vh_err *e)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < s->n_ph; i++) {
		g_autofree uint8_t *buf = NULL;
		uint64_t len = s->ph[i].filesz;
		int r;

		if (s->ph[i].type != PT_NOTE || !len)
			continue;
		len = MIN(len, NOTE_SEGMENT_MAX);
		buf = g_malloc(len);
		if (!elf_read(s, s->ph[i].off, buf, len))
			return err_set(e, -ENOEXEC, "not a vhost plugin: a note segment lies outside the file");
		r = walk_segment(buf, len, s->ph[i].align, out, e);
		if (r < 0)
			return r;
	}
	if (!out->majors) {
		err_set(e, -ENOEXEC, "not a vhost plugin: it has no identity note");
		err_remedy(e, "a plugin defines one with VH_PLUGIN_DEFINE or VH_PLUGIN_NOTE");
		return -ENOEXEC;
	}
	return 0;
}

int note_check(const struct plug_ident *n, struct vh_err *e)
{
	if (n->major != VH_ABI_MAJOR) {
		err_set(e, -EPROTONOSUPPORT, "plugin %s needs vhost ABI %u, this is %u", n->id, n->major, VH_ABI_MAJOR);
		err_remedy(e, "install the plugin's build for ABI %u", VH_ABI_MAJOR);
		return -EPROTONOSUPPORT;
	}
	if (n->draft != VH_ABI_DRAFT) {
		if (n->draft && VH_ABI_DRAFT)
			err_set(e, -EPROTONOSUPPORT, "plugin %s needs draft %u of vhost ABI %u, this is draft %u", n->id,
				n->draft, n->major, VH_ABI_DRAFT);
		else
			err_set(e, -EPROTONOSUPPORT, "plugin %s was built for %s of vhost ABI %u, this is %s", n->id,
				n->draft ? "a draft" : "the release", n->major, VH_ABI_DRAFT ? "a draft" : "the release");
		err_remedy(e, "build the plugin again with the headers of this vhost");
		return -EPROTONOSUPPORT;
	}
	return 0;
}
